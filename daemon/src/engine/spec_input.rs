//! From a container's record to what the executor builds a specification from.

use std::path::{Path, PathBuf};

use executor::spec::{MountInput, MountSource, Namespace, Namespaces, Resources, SpecInput};
use proto_api::models::{HostConfig, HostConfigCgroupnsModeEnum as CgroupNs};

use super::record::Record;
use super::security::SecurityOptions;
use super::{Error, files, mounts};

/// What a mapping needs beside the record.
pub struct Surroundings<'a> {
    /// Full id.
    pub id: &'a str,
    /// The control group's path.
    pub cgroup_path: String,
    /// Where hosts, hostname and resolv.conf are.
    pub files_dir: PathBuf,
    /// Process 1 of the container with an id; an error where it does not run.
    pub init_of: &'a dyn Fn(&str) -> Result<i32, Error>,
}

/// Maps a record. Blocks briefly: missing sources of binds are made.
pub fn build(record: &Record, around: &Surroundings<'_>) -> Result<SpecInput, Error> {
    let (config, host) = (&record.config, &record.host);
    let security = SecurityOptions::parse(host.security_opt.as_deref().unwrap_or_default())?;
    let user_mounts = mounts::collect(host)?;
    let taken: Vec<String> = user_mounts.iter().map(|mount| mount.destination.clone()).collect();
    let mut all_mounts = files::mounts(&around.files_dir, &taken);
    if host.ipc_mode.as_deref() == Some("host") {
        all_mounts.push(MountInput {
            destination: "/dev/shm".into(),
            source: MountSource::Bind("/dev/shm".into()),
            read_only: false,
            options: vec!["rbind".into(), "rprivate".into()],
        });
    }
    for mount in &user_mounts {
        if let Some(source) = mount.source.as_deref().filter(|source| mount.create && !source.exists()) {
            std::fs::create_dir_all(source).map_err(Error::io(format!(
                "error while creating mount source path '{}'",
                source.display()
            )))?;
        }
        all_mounts.push(mount.input());
    }
    let namespaces = namespaces(host, around)?;
    let hostname = config.hostname.clone().unwrap_or_default();
    let console = host.console_size.as_deref().and_then(|size| match *size {
        [rows, columns] if rows > 0 && columns > 0 => {
            Some((u16::try_from(rows).ok()?, u16::try_from(columns).ok()?))
        }
        _ => None,
    });
    Ok(SpecInput {
        id: around.id.to_owned(),
        args: record.command_line(),
        env: record.environment(&hostname),
        cwd: config.working_dir.clone().filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".into()),
        user: config.user.clone().unwrap_or_default(),
        group_add: host.group_add.clone().unwrap_or_default(),
        hostname: (namespaces.uts == Namespace::Private).then_some(hostname),
        domainname: config.domainname.clone().filter(|name| !name.is_empty()),
        terminal: record.tty(),
        console_size: console,
        privileged: host.privileged == Some(true),
        cap_add: host.cap_add.clone().unwrap_or_default(),
        cap_drop: host.cap_drop.clone().unwrap_or_default(),
        read_only_root: host.readonly_rootfs == Some(true),
        no_new_privileges: security.no_new_privileges,
        init: host.init == Some(true),
        seccomp: security.seccomp,
        namespaces,
        mounts: all_mounts,
        shm_size_bytes: host.shm_size,
        resources: resources(host),
        cgroup_path: around.cgroup_path.clone(),
        sysctls: sorted(host.sysctls.iter().flatten()),
        rlimits: host.ulimits.iter().flatten().map(rlimit).collect(),
        oom_score_adj: host
            .oom_score_adj
            .and_then(|score| i32::try_from(score).ok())
            .filter(|score| *score != 0),
        devices: host.devices.iter().flatten().map(device).collect(),
        masked_paths: host.masked_paths.clone(),
        readonly_paths: host.readonly_paths.clone(),
        annotations: sorted(host.annotations.iter().flatten()),
    })
}

fn sorted<'a>(map: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<(String, String)> {
    let mut list: Vec<_> = map.map(|(key, value)| (key.clone(), value.clone())).collect();
    list.sort();
    list
}

fn rlimit(limit: &proto_api::models::ResourcesUlimits) -> (String, u64, u64) {
    let bound = |value: Option<i64>| u64::try_from(value.unwrap_or(0)).unwrap_or(u64::MAX);
    (limit.name.clone().unwrap_or_default(), bound(limit.soft), bound(limit.hard))
}

fn device(device: &proto_api::models::DeviceMapping) -> (String, String, String) {
    let host = device.path_on_host.clone().unwrap_or_default();
    let inside =
        device.path_in_container.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| host.clone());
    let access = device.cgroup_permissions.clone().filter(|access| !access.is_empty());
    (host, inside, access.unwrap_or_else(|| "rwm".into()))
}

fn namespaces(host: &HostConfig, around: &Surroundings<'_>) -> Result<Namespaces, Error> {
    let of = |mode: &Option<String>, kind: &str| -> Result<Namespace, Error> {
        match mode.as_deref() {
            Some("host") => Ok(Namespace::Host),
            Some(mode) => match mode.strip_prefix("container:") {
                Some(id) => {
                    let pid = (around.init_of)(id)?;
                    Ok(Namespace::Path(Path::new("/proc").join(pid.to_string()).join("ns").join(kind)))
                }
                None => Ok(Namespace::Private),
            },
            None => Ok(Namespace::Private),
        }
    };
    Ok(Namespaces {
        pid: of(&host.pid_mode, "pid")?,
        net: of(&host.network_mode, "net")?,
        ipc: of(&host.ipc_mode, "ipc")?,
        uts: of(&host.uts_mode, "uts")?,
        cgroup: match host.cgroupns_mode {
            Some(CgroupNs::HOST) => Namespace::Host,
            _ => Namespace::Private,
        },
    })
}

/// The limits; zero is none.
pub fn resources(host: &HostConfig) -> Resources {
    let number = |value: Option<i64>| value.filter(|value| *value != 0);
    let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    Resources {
        memory_bytes: number(host.memory),
        memory_swap_bytes: number(host.memory_swap),
        memory_reservation_bytes: number(host.memory_reservation),
        memory_swappiness: host.memory_swappiness.filter(|value| *value >= 0),
        oom_kill_disable: host.oom_kill_disable == Some(true),
        nano_cpus: number(host.nano_cpus),
        cpu_shares: number(host.cpu_shares),
        cpu_quota_us: number(host.cpu_quota),
        cpu_period_us: number(host.cpu_period),
        cpuset_cpus: text(&host.cpuset_cpus),
        cpuset_mems: text(&host.cpuset_mems),
        pids_limit: host.pids_limit.filter(|limit| *limit > 0),
        blkio_weight: host.blkio_weight.filter(|weight| *weight != 0),
    }
}
