//! [`build`]: Docker's defaults and the engine's wishes put together.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    BoxBuilder, Capabilities, Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDeviceType,
    LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
    UserBuilder,
};

use super::{
    MountInput, MountSource, Namespace, SeccompProfile, SpecError, SpecInput, defaults, resources, validate,
};
use crate::capabilities::CapSet;
use crate::seccomp::{default_profile, profile};

/// Docker's size of `/dev/shm`.
const SHM_SIZE_BYTES: i64 = 64 * 1024 * 1024;

fn broken(error: OciSpecError) -> SpecError {
    SpecError::Invalid(error.to_string())
}

/// Builds the specification and validates it. Looks at the host's devices (for `--device` and
/// `--privileged`) and kernel release; needs no privileges.
pub fn build(input: &SpecInput) -> Result<Spec, SpecError> {
    validate::input(input)?;
    let capabilities = CapSet::from_docker(&input.cap_add, &input.cap_drop, input.privileged)?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(input)?)
        .cgroups_path(PathBuf::from(&input.cgroup_path))
        .masked_paths(paths(&input.masked_paths, input.privileged, defaults::masked_paths))
        .readonly_paths(paths(&input.readonly_paths, input.privileged, || {
            defaults::READONLY_PATHS.map(str::to_owned).into()
        }));
    let mut devices = defaults::devices()?;
    let mut rules = defaults::device_rules(input.privileged)?;
    if input.privileged {
        devices.extend(defaults::host_devices(Path::new("/dev"), "/dev")?);
    }
    for (host, inside, permissions) in &input.devices {
        let inside = if inside.is_empty() { host } else { inside };
        if permissions.is_empty() || !permissions.chars().all(|c| "rwm".contains(c)) {
            return Err(SpecError::Invalid(format!("invalid device mode: {permissions}")));
        }
        for device in defaults::host_devices(Path::new(host), inside)? {
            if !input.privileged {
                let (major, minor) = (Some(device.major()), Some(device.minor()));
                rules.push(defaults::rule(true, device.typ(), major, minor, permissions)?);
            }
            devices.push(device);
        }
    }
    // The last device for a path counts.
    let mut by_path: HashMap<PathBuf, usize> = HashMap::new();
    for (index, device) in devices.iter().enumerate() {
        by_path.insert(device.path().clone(), index);
    }
    let mut index = 0;
    devices.retain(|device| {
        index += 1;
        by_path.get(device.path()) == Some(&(index - 1)) && device.typ() != LinuxDeviceType::P
    });
    linux = linux.devices(devices).resources(resources::to_oci(&input.resources, rules)?);
    if !input.sysctls.is_empty() {
        linux = linux.sysctl(input.sysctls.iter().cloned().collect::<HashMap<_, _>>());
    }
    if let Some(seccomp) = seccomp(input, capabilities)? {
        linux = linux.seccomp(profile::to_oci(&seccomp)?);
    }
    if let Some(propagation) = root_propagation(&input.mounts) {
        linux = linux.rootfs_propagation(propagation);
    }
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(RootBuilder::default().path("rootfs").readonly(input.read_only_root).build().map_err(broken)?)
        .process(process(input, capabilities)?)
        .mounts(mounts(input)?)
        .linux(linux.build().map_err(broken)?);
    if let Some(hostname) = &input.hostname {
        spec = spec.hostname(hostname.as_str());
    }
    if let Some(domainname) = &input.domainname {
        spec = spec.domainname(domainname.as_str());
    }
    if !input.annotations.is_empty() {
        spec = spec.annotations(input.annotations.iter().cloned().collect::<HashMap<_, _>>());
    }
    spec.build().map_err(broken)
}

fn paths(
    wanted: &Option<Vec<String>>,
    privileged: bool,
    default: impl FnOnce() -> Vec<String>,
) -> Vec<String> {
    match wanted {
        Some(paths) => paths.clone(),
        None if privileged => vec![],
        None => default(),
    }
}

fn seccomp(input: &SpecInput, capabilities: CapSet) -> Result<Option<profile::Profile>, SpecError> {
    match &input.seccomp {
        SeccompProfile::Unconfined => Ok(None),
        SeccompProfile::Default if input.privileged => Ok(None),
        SeccompProfile::Default => Ok(Some(default_profile::docker_default(capabilities))),
        SeccompProfile::Custom(json) => {
            let release = rustix::system::uname();
            profile::parse(json, capabilities, &release.release().to_string_lossy()).map(Some)
        }
    }
}

fn namespaces(input: &SpecInput) -> Result<Vec<LinuxNamespace>, SpecError> {
    let wanted = &input.namespaces;
    let mut list = vec![(LinuxNamespaceType::Mount, &Namespace::Private)];
    list.extend([
        (LinuxNamespaceType::Pid, &wanted.pid),
        (LinuxNamespaceType::Network, &wanted.net),
        (LinuxNamespaceType::Ipc, &wanted.ipc),
        (LinuxNamespaceType::Uts, &wanted.uts),
        (LinuxNamespaceType::Cgroup, &wanted.cgroup),
    ]);
    let mut out = vec![];
    for (kind, namespace) in list {
        let builder = LinuxNamespaceBuilder::default().typ(kind);
        match namespace {
            Namespace::Host => {}
            Namespace::Private => out.push(builder.build().map_err(broken)?),
            Namespace::Path(path) => out.push(builder.path(path.clone()).build().map_err(broken)?),
        }
    }
    Ok(out)
}

fn process(input: &SpecInput, capabilities: CapSet) -> Result<Process, SpecError> {
    let set: Capabilities = capabilities
        .names()
        .map(|name| {
            name.parse::<Capability>().map_err(|_| SpecError::Invalid(format!("unknown capability {name}")))
        })
        .collect::<Result<_, _>>()?;
    let none = Capabilities::default;
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(none())
        .ambient(none())
        .build()
        .map_err(broken)?;
    let mut user = UserBuilder::default().uid(0u32).gid(0u32);
    if let Some((uid, gid)) = numeric_user(&input.user) {
        user = user.uid(uid).gid(gid);
    }
    let cwd = if input.cwd.is_empty() { "/" } else { &input.cwd };
    let mut process = ProcessBuilder::default()
        .terminal(input.terminal)
        .user(user.build().map_err(broken)?)
        .args(input.args.clone())
        .env(input.env.clone())
        .cwd(cwd)
        .capabilities(sets)
        .no_new_privileges(input.no_new_privileges)
        .rlimits(rlimits(input)?);
    if let Some((rows, columns)) = input.console_size {
        process = process.console_size(
            BoxBuilder::default()
                .height(u64::from(rows))
                .width(u64::from(columns))
                .build()
                .map_err(broken)?,
        );
    }
    if let Some(adjustment) = input.oom_score_adj {
        process = process.oom_score_adj(adjustment);
    }
    process.build().map_err(broken)
}

/// The specification holds numbers only; names are resolved in the container's root later on.
fn numeric_user(user: &str) -> Option<(u32, u32)> {
    let (user, group) = user.split_once(':').unwrap_or((user, "0"));
    Some((user.parse().ok()?, group.parse().ok()?))
}

fn rlimits(input: &SpecInput) -> Result<Vec<PosixRlimit>, SpecError> {
    let build = |(name, soft, hard): &(String, u64, u64)| {
        let kind: PosixRlimitType =
            serde_json::from_value(format!("RLIMIT_{}", name.to_ascii_uppercase()).into())
                .map_err(|_| SpecError::Invalid(format!("invalid ulimit type: {name}")))?;
        PosixRlimitBuilder::default().typ(kind).soft(*soft).hard(*hard).build().map_err(broken)
    };
    input.rlimits.iter().map(build).collect()
}

fn mounts(input: &SpecInput) -> Result<Vec<Mount>, SpecError> {
    let replaced = |destination: &str| {
        input.mounts.iter().any(|mount| mount.destination.trim_end_matches('/') == destination)
    };
    let mut out = vec![];
    for (destination, kind, source, options) in defaults::MOUNTS {
        // A user's mount on one of these takes its place (never /proc; launch refuses that).
        if destination != "/proc" && replaced(destination) {
            continue;
        }
        let mut options: Vec<String> = options.iter().map(ToString::to_string).collect();
        if input.privileged && matches!(destination, "/sys" | "/sys/fs/cgroup") {
            options.retain(|option| option != "ro");
        }
        out.push(mount(destination, kind, source, options)?);
        if destination == "/dev/mqueue" && !replaced("/dev/shm") {
            let size = input.shm_size_bytes.filter(|size| *size > 0).unwrap_or(SHM_SIZE_BYTES);
            let options = ["nosuid", "noexec", "nodev", "mode=1777"].map(str::to_owned);
            out.push(mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                options.into_iter().chain([format!("size={size}")]).collect(),
            )?);
        }
    }
    for extra in &input.mounts {
        out.push(extra_mount(extra)?);
    }
    Ok(out)
}

fn extra_mount(extra: &MountInput) -> Result<Mount, SpecError> {
    let mut options = extra.options.clone();
    match &extra.source {
        MountSource::Bind(source) => {
            if !options.iter().any(|option| option == "bind" || option == "rbind") {
                options.insert(0, "rbind".into());
            }
            if extra.read_only {
                // With everything mounted below it, as Docker does since 25.0.
                options.push("rro".into());
            }
            let has_propagation = |option: &String| {
                matches!(option.as_str(), "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave")
            };
            if !options.iter().any(has_propagation) {
                options.push("rprivate".into());
            }
            let source = source.to_str().ok_or_else(|| {
                SpecError::Invalid(format!(
                    "invalid mount config: source path {} is not UTF-8",
                    source.display()
                ))
            })?;
            mount(&extra.destination, "bind", source, options)
        }
        MountSource::Tmpfs => {
            // Docker's defaults, which the user's words override.
            let mut all: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
            all.append(&mut options);
            if extra.read_only {
                all.push("ro".into());
            }
            mount(&extra.destination, "tmpfs", "tmpfs", all)
        }
    }
}

fn mount(destination: &str, kind: &str, source: &str, options: Vec<String>) -> Result<Mount, SpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options)
        .build()
        .map_err(broken)
}

/// The root's mount has to take part where a bind mount's propagation is more than private.
fn root_propagation(mounts: &[MountInput]) -> Option<&'static str> {
    let has = |names: [&str; 2]| mounts.iter().any(|m| m.options.iter().any(|o| names.contains(&o.as_str())));
    if has(["shared", "rshared"]) {
        Some("shared")
    } else if has(["slave", "rslave"]) {
        Some("rslave")
    } else {
        None
    }
}
