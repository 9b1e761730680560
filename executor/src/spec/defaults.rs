//! What Docker gives every container: mounts, devices, paths.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use super::SpecError;

/// Files and directories of the host's kernel that a container does not see.
pub const MASKED_PATHS: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/class/powercap",
    "/sys/devices/system/cpu/cpu*/thermal_throttle",
];

/// What a container may read but not write.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A default mount: destination, type, source, options.
pub type DefaultMount = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// The file systems every container has, in order; `/dev/shm` (whose size varies) is not among them.
pub const MOUNTS: [DefaultMount; 6] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
];

/// Device nodes in `/dev`: path, major, minor.
pub const DEVICES: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Expands the one masked path that depends on the machine.
pub fn masked_paths() -> Vec<String> {
    let mut paths = vec![];
    for path in MASKED_PATHS {
        let Some((before, after)) = path.split_once('*') else {
            paths.push(path.to_owned());
            continue;
        };
        let (directory, prefix) = before.rsplit_once('/').unwrap_or(("/", before));
        let mut found: Vec<String> = std::fs::read_dir(directory)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| {
                name.strip_prefix(prefix)
                    .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            })
            .map(|name| format!("{directory}/{name}{after}"))
            .filter(|path| Path::new(path).exists())
            .collect();
        found.sort();
        paths.extend(found);
    }
    paths
}

fn broken(error: oci_spec::OciSpecError) -> SpecError {
    SpecError::Invalid(error.to_string())
}

/// A device rule of the control group; `None` numbers stand for any.
pub fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup, SpecError> {
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
    if let Some(major) = major {
        rule = rule.major(major);
    }
    if let Some(minor) = minor {
        rule = rule.minor(minor);
    }
    rule.build().map_err(broken)
}

/// What a container may do with which device.
pub fn device_rules(privileged: bool) -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    if privileged {
        return Ok(vec![rule(true, LinuxDeviceType::A, None, None, "rwm")?]);
    }
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm")?,
        // Making nodes is harmless where opening them is not allowed.
        rule(true, LinuxDeviceType::C, None, None, "m")?,
        rule(true, LinuxDeviceType::B, None, None, "m")?,
    ];
    for (_, major, minor) in DEVICES {
        rules.push(rule(true, LinuxDeviceType::C, Some(major), Some(minor), "rwm")?);
    }
    rules.push(rule(true, LinuxDeviceType::C, Some(5), Some(1), "rwm")?); // /dev/console
    rules.push(rule(true, LinuxDeviceType::C, Some(5), Some(2), "rwm")?); // /dev/ptmx
    rules.push(rule(true, LinuxDeviceType::C, Some(136), None, "rwm")?); // /dev/pts
    Ok(rules)
}

/// The default device nodes.
pub fn devices() -> Result<Vec<LinuxDevice>, SpecError> {
    let node = |(path, major, minor): (&str, i64, i64)| {
        LinuxDeviceBuilder::default()
            .path(path)
            .typ(LinuxDeviceType::C)
            .major(major)
            .minor(minor)
            .file_mode(0o666u32)
            .uid(0u32)
            .gid(0u32)
            .build()
            .map_err(broken)
    };
    DEVICES.into_iter().map(node).collect()
}

/// A host's device (or every device below a host's directory) for a place in the container.
pub fn host_devices(host: &Path, inside: &str) -> Result<Vec<LinuxDevice>, SpecError> {
    let gather = |error: std::io::Error| {
        SpecError::Invalid(format!(
            "error gathering device information while adding custom device \"{}\": {}",
            host.display(),
            crate::errors::text(&error)
        ))
    };
    let metadata = std::fs::metadata(host).map_err(gather)?;
    if metadata.is_dir() {
        let mut devices = vec![];
        for entry in std::fs::read_dir(host).map_err(gather)? {
            let entry = entry.map_err(gather)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            // Not devices, or the container's own.
            if matches!(
                name,
                "pts" | "shm" | "fd" | "mqueue" | ".lxc" | ".lxd-mounts" | ".udev" | "console" | "ptmx"
            ) {
                continue;
            }
            let kind = entry.file_type().map_err(gather)?;
            if kind.is_dir() || kind.is_char_device() || kind.is_block_device() {
                devices.extend(host_devices(
                    &entry.path(),
                    &format!("{}/{name}", inside.trim_end_matches('/')),
                )?);
            }
        }
        return Ok(devices);
    }
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => {
            return Err(SpecError::Invalid(format!(
                "error gathering device information while adding custom device \"{}\": not a device node",
                host.display()
            )));
        }
    };
    let number = metadata.rdev();
    let device = LinuxDeviceBuilder::default()
        .path(inside)
        .typ(kind)
        .major(i64::from(rustix::fs::major(number)))
        .minor(i64::from(rustix::fs::minor(number)))
        .file_mode(metadata.mode() & 0o777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build()
        .map_err(broken)?;
    Ok(vec![device])
}
