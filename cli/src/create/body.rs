//! From the options to the body of `POST /containers/create`.
//!
//! What was not given is left out: the image's and the daemon's defaults are theirs to choose.

use std::collections::HashMap;

use proto_api::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, NetworkingConfig, PortMap,
};

use super::options::CreateOptions;
use super::parse::{self, Volume};
use super::{Attach, environment};
use crate::failure::{Failure, Outcome, fail};
use crate::terminal;

/// A list that is left out where it is empty.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn map(pairs: Vec<(String, String)>) -> Option<HashMap<String, String>> {
    (!pairs.is_empty()).then(|| pairs.into_iter().collect())
}

/// Parses each value; the first that fails is named with its option.
fn each<T>(option: &str, texts: &[String], parse: impl Fn(&str) -> Result<T, String>) -> Outcome<Vec<T>> {
    texts.iter().map(|text| parse(text).map_err(|reason| invalid(option, text, &reason))).collect()
}

fn invalid(option: &str, text: &str, reason: &str) -> Failure {
    Failure::option(format!("invalid argument \"{text}\" for \"{option}\" flag: {reason}"))
}

impl CreateOptions {
    /// The whole request.
    pub fn body(&self, auto_remove: bool, attach: Attach) -> Outcome<ContainerCreateBody> {
        let (mut volumes, mut binds) = (Vec::new(), Vec::new());
        for volume in each("-v, --volume", &self.volume, parse::volume)? {
            match volume {
                Volume::Anonymous(path) => volumes.push(path),
                Volume::Bind(bind) => binds.push(bind),
            }
        }
        let (ports, exposed) = self.ports()?;
        let mut labels = Vec::new();
        for file in &self.label_file {
            labels.extend(environment::read_file(file)?);
        }
        labels.extend(self.label.iter().cloned());
        let environment = environment::resolve(&self.env_file, &self.env)?;
        let stdin = self.interactive;
        Ok(ContainerCreateBody {
            hostname: self.hostname.clone(),
            domainname: self.domainname.clone(),
            user: self.user.clone(),
            attach_stdin: Some(attach.stdin),
            attach_stdout: Some(attach.stdout),
            attach_stderr: Some(attach.stderr),
            exposed_ports: some(exposed),
            tty: Some(self.tty),
            open_stdin: Some(stdin),
            stdin_once: Some(stdin && attach.stdin),
            env: some(environment),
            cmd: some(self.command().to_vec()),
            healthcheck: self.healthcheck()?,
            image: Some(self.image().to_owned()),
            volumes: some(volumes),
            working_dir: self.workdir.clone(),
            // An empty one takes the image's away.
            entrypoint: self.entrypoint.clone().map(|entrypoint| vec![entrypoint]),
            labels: map(parse::pairs(&labels)),
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            host_config: Some(self.host_config(auto_remove, binds, ports)?),
            networking_config: self.networking(),
            ..ContainerCreateBody::default()
        })
    }

    fn host_config(&self, auto_remove: bool, binds: Vec<String>, ports: PortMap) -> Outcome<HostConfig> {
        if auto_remove && self.restart.as_deref().is_some_and(|policy| !matches!(policy, "" | "no")) {
            return Err(fail("conflicting options: cannot specify both --restart and --rm").with_code(125));
        }
        let cgroupns = match self.cgroupns.as_deref() {
            None | Some("") => None,
            Some("host") => Some(HostConfigCgroupnsModeEnum::HOST),
            Some("private") => Some(HostConfigCgroupnsModeEnum::PRIVATE),
            Some(_) => return Err(fail("--cgroupns: invalid CGROUP mode").with_code(125)),
        };
        let restart =
            self.restart.as_deref().map(parse::restart).transpose().map_err(|e| fail(e).with_code(125))?;
        let log_options = map(parse::pairs(&self.log_opt));
        let log_config = (self.log_driver.is_some() || log_options.is_some())
            .then(|| HostConfigLogConfig { typ: self.log_driver.clone(), config: log_options });
        let tmpfs = self.tmpfs.iter().map(|text| text.split_once(':').unwrap_or((text, "")));
        let tmpfs = tmpfs.map(|(path, options)| (path.to_owned(), options.to_owned())).collect();
        let window = self.tty.then(terminal::size).flatten();
        let host_rules = some(self.device_cgroup_rule.clone());
        Ok(HostConfig {
            annotations: map(parse::pairs(&self.annotation)),
            auto_remove: Some(auto_remove),
            binds: some(binds),
            blkio_weight: self.blkio_weight,
            cap_add: some(self.cap_add.clone()),
            cap_drop: some(self.cap_drop.clone()),
            cgroup_parent: self.cgroup_parent.clone(),
            cgroupns_mode: cgroupns,
            console_size: window.map(|(rows, columns)| vec![rows.into(), columns.into()]),
            container_id_file: self.cidfile.as_ref().map(|path| path.display().to_string()),
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_realtime_period: self.cpu_rt_period,
            cpu_realtime_runtime: self.cpu_rt_runtime,
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            device_cgroup_rules: host_rules,
            devices: some(each("--device", &self.device, parse::device)?),
            dns: some(self.dns.clone()),
            dns_options: some(self.dns_option.clone()),
            dns_search: some(self.dns_search.clone()),
            extra_hosts: some(self.add_host.clone()),
            group_add: some(self.group_add.clone()),
            init: self.init.then_some(true),
            ipc_mode: self.ipc.clone(),
            links: some(self.link.clone()),
            log_config,
            memory: self.memory,
            memory_reservation: self.memory_reservation,
            memory_swap: self.memory_swap,
            memory_swappiness: self.memory_swappiness.filter(|value| *value != -1),
            mounts: some(each("--mount", &self.mount, parse::mount)?),
            nano_cpus: self.cpus,
            network_mode: Some(self.network.first().map_or("default", |name| network_name(name)).to_owned()),
            oom_kill_disable: self.oom_kill_disable.then_some(true),
            oom_score_adj: self.oom_score_adj,
            pid_mode: self.pid.clone(),
            pids_limit: self.pids_limit,
            port_bindings: (!ports.is_empty()).then_some(ports),
            privileged: self.privileged.then_some(true),
            publish_all_ports: self.publish_all.then_some(true),
            readonly_rootfs: self.read_only.then_some(true),
            restart_policy: restart,
            runtime: self.runtime.clone(),
            security_opt: some(self.security_options()?),
            shm_size: self.shm_size,
            storage_opt: map(parse::pairs(&self.storage_opt)),
            sysctls: map(parse::pairs(&self.sysctl)),
            tmpfs: map(tmpfs),
            ulimits: some(each("--ulimit", &self.ulimit, parse::ulimit)?),
            userns_mode: self.userns.clone(),
            uts_mode: self.uts.clone(),
            volume_driver: self.volume_driver.clone(),
            volumes_from: some(self.volumes_from.clone()),
            ..HostConfig::default()
        })
    }

    fn ports(&self) -> Outcome<(PortMap, Vec<String>)> {
        let mut ports = PortMap::new();
        let mut exposed = Vec::new();
        for (port, binding) in each("-p, --publish", &self.publish, parse::publish)?.into_iter().flatten() {
            exposed.push(port.clone());
            ports.entry(port).or_default().get_or_insert_default().push(binding);
        }
        exposed.extend(each("--expose", &self.expose, parse::expose)?.into_iter().flatten());
        exposed.sort_unstable();
        exposed.dedup();
        Ok((ports, exposed))
    }

    fn healthcheck(&self) -> Outcome<Option<HealthConfig>> {
        let has_times = self.health_interval.is_some()
            || self.health_timeout.is_some()
            || self.health_start_period.is_some()
            || self.health_start_interval.is_some()
            || self.health_retries.is_some();
        if self.no_healthcheck {
            if self.health_cmd.is_some() || has_times {
                return Err(fail("--no-healthcheck conflicts with --health-* options").with_code(125));
            }
            return Ok(Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }));
        }
        if self.health_cmd.is_none() && !has_times {
            return Ok(None);
        }
        let test = self.health_cmd.as_ref().map(|command| vec!["CMD-SHELL".to_owned(), command.clone()]);
        Ok(Some(HealthConfig {
            test,
            interval: self.health_interval,
            timeout: self.health_timeout,
            retries: self.health_retries,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
        }))
    }

    /// Seccomp profiles are read here: the daemon does not open our files.
    fn security_options(&self) -> Outcome<Vec<String>> {
        let read = |option: &String| {
            let (name, value) =
                option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
            if name != "seccomp" || matches!(value, "unconfined" | "builtin") {
                return Ok(option.clone());
            }
            let profile = std::fs::read(value).map_err(|error| {
                fail(format!("opening seccomp profile ({value}) failed: {error}")).with_code(125)
            })?;
            let profile: serde_json::Value = serde_json::from_slice(&profile).map_err(|error| {
                fail(format!("compacting json for seccomp profile ({value}) failed: {error}")).with_code(125)
            })?;
            Ok(format!("seccomp={profile}"))
        };
        self.security_opt.iter().map(read).collect()
    }

    /// Settings of the networks, where there is more to say than the name of one.
    fn networking(&self) -> Option<NetworkingConfig> {
        let with_settings = !self.network_alias.is_empty()
            || self.ip.is_some()
            || self.ip6.is_some()
            || self.mac_address.is_some()
            || self.network.len() > 1
            || self.network.iter().any(|network| network.contains('='));
        if !with_settings {
            return None;
        }
        let default = "default".to_owned();
        let networks = if self.network.is_empty() { std::slice::from_ref(&default) } else { &self.network };
        let endpoints = networks.iter().enumerate().map(|(at, network)| {
            let mut aliases: Vec<String> = part(network, "alias").map(str::to_owned).collect();
            let mut ipv4 = part(network, "ip").next().map(str::to_owned);
            let mut ipv6 = part(network, "ip6").next().map(str::to_owned);
            let mut mac = part(network, "mac-address").next().map(str::to_owned);
            if at == 0 {
                aliases.extend(self.network_alias.iter().cloned());
                ipv4 = self.ip.clone().or(ipv4);
                ipv6 = self.ip6.clone().or(ipv6);
                mac = self.mac_address.clone().or(mac);
            }
            let ipam = (ipv4.is_some() || ipv6.is_some()).then_some(EndpointIpamConfig {
                ipv4_address: ipv4,
                ipv6_address: ipv6,
                link_local_ips: None,
            });
            let settings = EndpointSettings {
                ipam_config: ipam,
                mac_address: mac,
                aliases: some(aliases),
                ..EndpointSettings::default()
            };
            (network_name(network).to_owned(), settings)
        });
        Some(NetworkingConfig { endpoints_config: Some(endpoints.collect()) })
    }
}

/// The name in `name` or `name=NAME,alias=…`.
fn network_name(network: &str) -> &str {
    part(network, "name").next().unwrap_or(network)
}

fn part<'a>(network: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    network.split(',').filter_map(move |field| field.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};
    use serde_json::{Value, json};

    use super::*;

    fn body(arguments: &[&str]) -> Result<Value, String> {
        let command = CreateOptions::augment_args(clap::Command::new("run").disable_help_flag(true));
        let matches =
            command.try_get_matches_from([&["run"], arguments].concat()).map_err(|e| e.to_string())?;
        let options = CreateOptions::from_arg_matches(&matches).map_err(|e| e.to_string())?;
        let body =
            options.body(options.remove, Attach::default()).map_err(|e| e.message.unwrap_or_default())?;
        Ok(serde_json::to_value(body).expect("a body is JSON"))
    }

    #[test]
    fn options_end_at_the_image() {
        let body = body(&["-it", "--name", "x", "busybox", "ls", "-l", "--name", "--", "y"]).unwrap();
        assert_eq!(body["Image"], "busybox");
        assert_eq!(body["Cmd"], json!(["ls", "-l", "--name", "--", "y"]));
        assert_eq!((&body["Tty"], &body["OpenStdin"]), (&json!(true), &json!(true)));
    }

    #[test]
    fn limits_are_numbers() {
        let body = body(&[
            "-m",
            "1.5g",
            "--cpus",
            "0.5",
            "--memory-swap",
            "-1",
            "--pids-limit=-1",
            "--shm-size=1m",
            "x",
        ]);
        let host = &body.unwrap()["HostConfig"];
        assert_eq!(host["Memory"], 3i64 << 29);
        assert_eq!(host["NanoCpus"], 500_000_000);
        assert_eq!((&host["MemorySwap"], &host["PidsLimit"]), (&json!(-1), &json!(-1)));
        assert_eq!(host["ShmSize"], 1 << 20);
        assert_eq!(host["NetworkMode"], "default");
    }

    #[test]
    fn what_was_not_given_is_left_out() {
        let body = body(&["x"]).unwrap();
        for absent in
            ["Cmd", "Entrypoint", "Env", "User", "WorkingDir", "Labels", "Healthcheck", "ExposedPorts"]
        {
            assert!(body.get(absent).is_none(), "{absent}");
        }
        assert!(body["HostConfig"].get("Memory").is_none() && body["HostConfig"].get("Init").is_none());
    }

    #[test]
    fn networks_ports_and_mounts() {
        let body = body(&[
            "--network",
            "none",
            "-p",
            "127.0.0.1:80:80",
            "--expose",
            "90/udp",
            "-v",
            "/a:/b",
            "-v",
            "/c",
            "--tmpfs",
            "/t:size=1m",
            "--entrypoint",
            "",
            "x",
        ])
        .unwrap();
        assert_eq!(body["HostConfig"]["NetworkMode"], "none");
        assert_eq!(
            body["HostConfig"]["PortBindings"]["80/tcp"][0],
            json!({"HostIp": "127.0.0.1", "HostPort": "80"})
        );
        assert!(body["ExposedPorts"]["90/udp"].is_object() && body["ExposedPorts"]["80/tcp"].is_object());
        assert_eq!(body["HostConfig"]["Binds"], json!(["/a:/b"]));
        assert!(body["Volumes"]["/c"].is_object());
        assert_eq!(body["HostConfig"]["Tmpfs"]["/t"], "size=1m");
        assert_eq!(body["Entrypoint"], json!([""]));
        assert!(body.get("NetworkingConfig").is_none());
    }

    #[test]
    fn mistakes_name_their_option() {
        let message = body(&["--ulimit", "x=1", "img"]).unwrap_err();
        assert_eq!(message, "invalid argument \"x=1\" for \"--ulimit\" flag: invalid ulimit type: x");
        assert!(
            body(&["--rm", "--restart", "always", "img"]).unwrap_err().starts_with("conflicting options")
        );
        assert!(body(&["-m", "1x", "img"]).is_err());
        assert!(body(&["--nope", "img"]).is_err());
        assert!(body(&[]).is_err());
    }
}
