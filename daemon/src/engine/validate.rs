//! Goes through every field of a create request: what is not supported is refused by name, what
//! has a default gets it. Structures are taken apart field by field, so that a new one is noticed.

use proto_api::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum as CgroupNs,
    HostConfigIsolationEnum as Isolation, HostConfigLogConfig, NetworkingConfig, RestartPolicy,
    RestartPolicyNameEnum as RestartName,
};

use super::security::SecurityOptions;
use super::{Error, mounts};

const MIB: i64 = 1 << 20;

/// Something that counts as given.
trait Given {
    fn given(&self) -> bool;
}

impl<T> Given for Option<Vec<T>> {
    fn given(&self) -> bool {
        self.as_ref().is_some_and(|list| !list.is_empty())
    }
}

impl Given for Option<String> {
    fn given(&self) -> bool {
        self.as_ref().is_some_and(|text| !text.is_empty())
    }
}

impl Given for Option<i64> {
    fn given(&self) -> bool {
        self.is_some_and(|number| number != 0)
    }
}

impl Given for Option<bool> {
    fn given(&self) -> bool {
        *self == Some(true)
    }
}

impl<K, V> Given for Option<std::collections::HashMap<K, V>> {
    fn given(&self) -> bool {
        self.as_ref().is_some_and(|map| !map.is_empty())
    }
}

fn refuse(given: bool, what: &str) -> Result<(), Error> {
    match given {
        true => Err(Error::Unsupported(what.to_owned())),
        false => Ok(()),
    }
}

fn invalid<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Invalid(text.into()))
}

/// Checks what the request says beside its [`HostConfig`].
pub fn check_body(body: &ContainerCreateBody) -> Result<(), Error> {
    refuse(body.volumes.given(), "an anonymous volume")?;
    refuse(body.network_disabled.given(), "NetworkDisabled")?;
    refuse(
        body.domainname.as_ref().is_some_and(|name| name.len() > 64),
        "a domain name of more than 64 bytes",
    )?;
    if let Some(test) = body.healthcheck.as_ref().and_then(|check| check.test.as_ref()) {
        refuse(!test.is_empty() && test[0] != "NONE", "a health check")?;
    }
    let mode = body.host_config.as_ref().and_then(|host| host.network_mode.clone()).unwrap_or_default();
    check_endpoints(body.networking_config.as_ref(), &mode)
}

fn check_endpoints(config: Option<&NetworkingConfig>, mode: &str) -> Result<(), Error> {
    let mode = if mode.is_empty() { "default" } else { mode };
    for (network, settings) in
        config.and_then(|config| config.endpoints_config.iter().next()).into_iter().flatten()
    {
        refuse(network != mode, &format!("network {network}"))?;
        let EndpointSettings {
            ipam_config,
            links,
            mac_address,
            aliases,
            driver_opts,
            gw_priority,
            network_id: _,
            endpoint_id: _,
            gateway: _,
            ip_address,
            ip_prefix_len: _,
            ipv6_gateway: _,
            global_ipv6_address: _,
            global_ipv6_prefix_len: _,
            dns_names: _,
        } = settings;
        refuse(ipam_config.as_ref().is_some_and(|config| *config != Default::default()), "a fixed address")?;
        refuse(links.given(), "a link")?;
        refuse(mac_address.given(), "a fixed MAC address")?;
        refuse(aliases.given(), "a network alias")?;
        refuse(driver_opts.given(), "a network driver option")?;
        refuse(gw_priority.given(), "a gateway priority")?;
        refuse(ip_address.given(), "a fixed address")?;
    }
    Ok(())
}

/// Checks a [`HostConfig`] and fills in its defaults. `container` gives the full id of a container
/// that `container:NAME` names.
pub fn adapt(
    host: HostConfig,
    container: impl Fn(&str) -> Result<String, Error>,
) -> Result<HostConfig, Error> {
    check_unsupported(&host)?;
    let mut host = host;
    check_resources(&mut host)?;
    check_restart(&mut host)?;
    check_log(&mut host)?;
    check_namespaces(&mut host, container)?;
    mounts::collect(&host)?;
    SecurityOptions::parse(host.security_opt.as_deref().unwrap_or_default())?;
    for extra in host.extra_hosts.iter().flatten() {
        super::files::extra_host(extra)?;
    }
    for ulimit in host.ulimits.iter().flatten() {
        let name = ulimit.name.as_deref().unwrap_or_default();
        let (soft, hard) = (ulimit.soft.unwrap_or(0), ulimit.hard.unwrap_or(0));
        if name.is_empty() {
            return invalid("invalid ulimit: the name must not be empty");
        }
        if hard >= 0 && (soft > hard || soft < 0) {
            return invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard} ({name})"
            ));
        }
    }
    if let Some(score) = host.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
        return invalid(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]"));
    }
    match host.shm_size {
        Some(size) if size < 0 => return invalid("SHM size can not be less than 0"),
        None | Some(0) => host.shm_size = Some(64 * MIB),
        Some(_) => {}
    }
    Ok(host)
}

fn check_unsupported(host: &HostConfig) -> Result<(), Error> {
    let HostConfig {
        cpu_shares: _,
        memory: _,
        cgroup_parent,
        blkio_weight: _,
        blkio_weight_device,
        blkio_device_read_bps,
        blkio_device_write_bps,
        blkio_device_read_iops,
        blkio_device_write_iops,
        cpu_period: _,
        cpu_quota: _,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus: _,
        cpuset_mems: _,
        devices: _,
        device_cgroup_rules,
        device_requests,
        memory_reservation: _,
        memory_swap: _,
        memory_swappiness: _,
        nano_cpus: _,
        oom_kill_disable: _,
        init: _,
        pids_limit: _,
        ulimits: _,
        cpu_count,
        cpu_percent,
        io_maximum_iops,
        io_maximum_bandwidth,
        binds: _,
        container_id_file: _,
        log_config: _,
        network_mode: _,
        port_bindings,
        restart_policy: _,
        auto_remove: _,
        volume_driver,
        volumes_from,
        mounts: _,
        console_size: _,
        annotations: _,
        cap_add: _,
        cap_drop: _,
        cgroupns_mode: _,
        dns: _,
        dns_options: _,
        dns_search: _,
        extra_hosts: _,
        group_add: _,
        ipc_mode: _,
        cgroup,
        links,
        oom_score_adj: _,
        pid_mode: _,
        privileged: _,
        publish_all_ports,
        readonly_rootfs: _,
        security_opt: _,
        storage_opt,
        tmpfs: _,
        uts_mode: _,
        userns_mode,
        shm_size: _,
        sysctls: _,
        runtime,
        isolation,
        masked_paths: _,
        readonly_paths: _,
    } = host;
    refuse(cgroup_parent.given(), "CgroupParent")?;
    refuse(blkio_weight_device.given(), "BlkioWeightDevice")?;
    refuse(blkio_device_read_bps.given(), "BlkioDeviceReadBps")?;
    refuse(blkio_device_write_bps.given(), "BlkioDeviceWriteBps")?;
    refuse(blkio_device_read_iops.given(), "BlkioDeviceReadIOps")?;
    refuse(blkio_device_write_iops.given(), "BlkioDeviceWriteIOps")?;
    refuse(cpu_realtime_period.given(), "CpuRealtimePeriod")?;
    refuse(cpu_realtime_runtime.given(), "CpuRealtimeRuntime")?;
    refuse(device_cgroup_rules.given(), "DeviceCgroupRules")?;
    refuse(device_requests.given(), "DeviceRequests (--gpus)")?;
    refuse(volume_driver.given(), "VolumeDriver")?;
    refuse(volumes_from.given(), "VolumesFrom")?;
    refuse(links.given(), "Links")?;
    refuse(publish_all_ports.given(), "PublishAllPorts")?;
    refuse(storage_opt.given(), "StorageOpt")?;
    refuse(cgroup.given(), "Cgroup")?;
    let ports = port_bindings.iter().flatten().map(|(port, _)| port.as_str()).next();
    refuse(ports.is_some(), &format!("publishing a port ({})", ports.unwrap_or_default()))?;
    for (given, name) in [
        (cpu_count, "CpuCount"),
        (cpu_percent, "CpuPercent"),
        (io_maximum_iops, "IOMaximumIOps"),
        (io_maximum_bandwidth, "IOMaximumBandwidth"),
    ] {
        if given.given() {
            return invalid(format!("{name} is for Windows containers only"));
        }
    }
    match userns_mode.as_deref() {
        None | Some("" | "host") => {}
        Some(other) => return invalid(format!("invalid user namespace mode: {other}")),
    }
    match runtime.as_deref() {
        None | Some("") => {}
        Some(other) => return invalid(format!("unknown or invalid runtime name: {other}")),
    }
    match isolation {
        None | Some(Isolation::EMPTY | Isolation::DEFAULT) => Ok(()),
        Some(other) => {
            invalid(format!("invalid isolation mode \"{other}\": only \"default\" is supported on Linux"))
        }
    }
}

/// Limits have Docker's bounds; zero is "not given" everywhere.
pub fn check_resources(host: &mut HostConfig) -> Result<(), Error> {
    let memory = host.memory.unwrap_or(0);
    let swap = host.memory_swap.unwrap_or(0);
    if memory < 0 || (memory != 0 && memory < 6 * MIB) {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if swap > 0 && memory == 0 {
        return invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if swap > 0 && swap < memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if swap < -1 {
        return invalid(format!("invalid memory and swap limit: {swap}"));
    }
    if memory > 0 && swap == 0 && swap_is_accounted() {
        host.memory_swap = Some(memory.saturating_mul(2));
    }
    match host.memory_swappiness {
        Some(-1) => host.memory_swappiness = None,
        Some(value) if !(0..=100).contains(&value) => {
            return invalid(format!("Invalid value: {value}, valid memory swappiness range is 0-100"));
        }
        _ => {}
    }
    if let Some(reservation) = host.memory_reservation.filter(|reservation| *reservation != 0) {
        if reservation < 6 * MIB {
            return invalid("Minimum memory reservation allowed is 6MB");
        }
        if memory > 0 && reservation > memory {
            return invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
        }
    }
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
    if let Some(nano) = host.nano_cpus.filter(|nano| *nano != 0) {
        if nano < 10_000_000 || nano > i64::try_from(cpus).unwrap_or(i64::MAX).saturating_mul(1_000_000_000) {
            return invalid(format!(
                "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            ));
        }
        if host.cpu_period.given() {
            return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
        }
        if host.cpu_quota.given() {
            return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
        }
    }
    if host.cpu_period.is_some_and(|period| period != 0 && !(1_000..=1_000_000).contains(&period)) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if host.cpu_quota.is_some_and(|quota| quota > 0 && quota < 1_000) {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if host.cpu_shares.is_some_and(|shares| shares < 0) {
        return invalid("CPU shares can not be negative");
    }
    if host.blkio_weight.is_some_and(|weight| weight != 0 && !(10..=1000).contains(&weight)) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    for (value, name) in [(&host.cpuset_cpus, "cpuset.cpus"), (&host.cpuset_mems, "cpuset.mems")] {
        let fine = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b',' || b == b'-');
        if let Some(text) = value.as_deref().filter(|text| !fine(text)) {
            return invalid(format!("Invalid value {text} for {name}"));
        }
    }
    Ok(())
}

fn swap_is_accounted() -> bool {
    let v1 = std::path::Path::new("/sys/fs/cgroup/memory");
    !v1.exists() || v1.join("memory.memsw.limit_in_bytes").exists()
}

fn check_restart(host: &mut HostConfig) -> Result<(), Error> {
    let policy = host.restart_policy.get_or_insert_with(RestartPolicy::default);
    let name = policy.name.filter(|name| *name != RestartName::EMPTY).unwrap_or(RestartName::NO);
    let most = policy.maximum_retry_count.unwrap_or(0);
    if most < 0 {
        return invalid("invalid restart policy: maximum retry count cannot be negative");
    }
    if most > 0 && name != RestartName::ON_FAILURE {
        return invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'");
    }
    policy.name = Some(name);
    policy.maximum_retry_count = Some(most);
    if host.auto_remove.given() && name != RestartName::NO {
        return invalid("can't create 'AutoRemove' container with restart policy");
    }
    Ok(())
}

fn check_log(host: &mut HostConfig) -> Result<(), Error> {
    let log = host.log_config.get_or_insert_with(HostConfigLogConfig::default);
    let driver = log.typ.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| "json-file".into());
    let options = log.config.get_or_insert_default();
    match driver.as_str() {
        "none" => {
            if let Some(name) = options.keys().next() {
                return invalid(format!("unknown log opt '{name}' for none log driver"));
            }
        }
        "json-file" => {
            super::log_target::parse(options)?;
        }
        "local" | "syslog" | "journald" | "gelf" | "fluentd" | "awslogs" | "splunk" | "gcplogs" => {
            return Err(Error::Unsupported(format!("the log driver {driver}")));
        }
        _ => return invalid(format!("logger: no log driver named '{driver}' is registered")),
    }
    log.typ = Some(driver);
    Ok(())
}

fn check_namespaces(
    host: &mut HostConfig,
    container: impl Fn(&str) -> Result<String, Error>,
) -> Result<(), Error> {
    let named = |mode: &str| -> Result<Option<String>, Error> {
        mode.strip_prefix("container:").map(|name| Ok(format!("container:{}", container(name)?))).transpose()
    };
    let network = host.network_mode.take().unwrap_or_default();
    host.network_mode = Some(match network.as_str() {
        // There is no bridge yet: the default is a network of its own with loopback alone.
        "" | "default" | "none" => "none".to_owned(),
        "host" => network,
        "bridge" => return Err(Error::Unsupported("network bridge".into())),
        other => match named(other)? {
            Some(mode) => mode,
            None => return Err(Error::Unsupported(format!("network {other}"))),
        },
    });
    let pid = host.pid_mode.take().unwrap_or_default();
    host.pid_mode = Some(match pid.as_str() {
        "" | "host" => pid,
        other => named(other)?.ok_or_else(|| Error::Invalid(format!("invalid PID mode: {other}")))?,
    });
    let ipc = host.ipc_mode.take().unwrap_or_default();
    host.ipc_mode = Some(match ipc.as_str() {
        "" | "private" | "shareable" => "private".to_owned(),
        "host" => ipc,
        "none" => return Err(Error::Unsupported("IPC mode none".into())),
        other if other.starts_with("container:") => {
            return Err(Error::Unsupported("IPC mode container".into()));
        }
        other => return invalid(format!("invalid IPC mode: {other}")),
    });
    match host.uts_mode.as_deref() {
        None | Some("" | "host") => {}
        Some(other) => return invalid(format!("invalid UTS mode: {other}")),
    }
    if matches!(host.cgroupns_mode, None | Some(CgroupNs::EMPTY)) {
        host.cgroupns_mode = Some(if host.privileged.given() { CgroupNs::HOST } else { CgroupNs::PRIVATE });
    }
    if host.network_mode.as_deref() == Some("host")
        && let Some((name, _)) = host.sysctls.iter().flatten().find(|(name, _)| name.starts_with("net."))
    {
        return invalid(format!("sysctl \"{name}\" not allowed in host network namespace"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ErrorKind;

    fn host(json: &str) -> Result<HostConfig, Error> {
        let host = serde_json::from_str(json).expect("a host configuration");
        adapt(host, |name| Err(Error::NoSuchContainer(name.to_owned())))
    }

    #[test]
    fn what_the_docker_client_sends_by_default_is_accepted() {
        let adapted = host(
            r#"{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"default",
            "PortBindings":{},"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":false,
            "VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[24,80],"CapAdd":null,"CapDrop":null,
            "CgroupnsMode":"","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,
            "IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,
            "PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"",
            "ShmSize":0,"Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,
            "BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,
            "CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,
            "DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,
            "OomKillDisable":false,"PidsLimit":0,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,
            "IOMaximumBandwidth":0,"MaskedPaths":null,"ReadonlyPaths":null}"#,
        )
        .unwrap();
        assert_eq!(adapted.network_mode.as_deref(), Some("none"));
        assert_eq!(adapted.shm_size, Some(64 << 20));
        assert_eq!(adapted.log_config.unwrap().typ.as_deref(), Some("json-file"));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (json, text) in [
            (r#"{"CgroupParent":"/x"}"#, "CgroupParent is not supported yet"),
            (r#"{"NetworkMode":"web"}"#, "network web is not supported yet"),
            (
                r#"{"PortBindings":{"80/tcp":[{"HostPort":"80"}]}}"#,
                "publishing a port (80/tcp) is not supported yet",
            ),
            (r#"{"VolumesFrom":["x"]}"#, "VolumesFrom is not supported yet"),
            (r#"{"LogConfig":{"Type":"local"}}"#, "the log driver local is not supported yet"),
            (r#"{"IpcMode":"none"}"#, "IPC mode none is not supported yet"),
        ] {
            let error = host(json).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.kind()), (text, ErrorKind::Unsupported), "{json}");
        }
    }

    #[test]
    fn what_cannot_be_is_a_bad_request_in_dockers_words() {
        for (json, text) in [
            (r#"{"Memory":1000}"#, "Minimum memory limit allowed is 6MB"),
            (
                r#"{"Memory":20000000,"MemorySwap":10000000}"#,
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ),
            (
                r#"{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}"#,
                "can't create 'AutoRemove' container with restart policy",
            ),
            (r#"{"PidMode":"x"}"#, "invalid PID mode: x"),
            (r#"{"LogConfig":{"Type":"x"}}"#, "logger: no log driver named 'x' is registered"),
            (
                r#"{"LogConfig":{"Type":"json-file","Config":{"x":"1"}}}"#,
                "unknown log opt 'x' for json-file log driver",
            ),
            (r#"{"Runtime":"x"}"#, "unknown or invalid runtime name: x"),
            (r#"{"SecurityOpt":["x"]}"#, "invalid --security-opt 1: \"x\""),
        ] {
            let error = host(json).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.kind()), (text, ErrorKind::BadRequest), "{json}");
        }
        let error = host(r#"{"NetworkMode":"container:gone"}"#).unwrap_err();
        assert_eq!(error.to_string(), "No such container: gone");
    }
}
