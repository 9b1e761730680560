//! [`Plan::new`]: every field of the specification becomes an operation or is refused by name.

use oci_spec::runtime::{Linux, LinuxDeviceType, LinuxNamespaceType, Process, Spec};

use super::{
    Confinement, DeviceNode, Extras, MountStep, NamespacePlan, Plan, ProcessPlan, RootSource, UserChoice,
};
use crate::capabilities::{CapSet, CapSets, number};
use crate::cgroup::devices::NodeKind;
use crate::cgroup::hierarchies::Hierarchies;
use crate::cgroup::settings;
use crate::cgroup::setup::Setup;
use crate::seccomp::compile::compile;
use crate::seccomp::profile::from_oci;
use crate::spec::{RLIMITS, SpecError};

/// What the kernel's overlayfs takes.
const MAX_LAYERS: usize = 500;

fn invalid(text: impl Into<String>) -> SpecError {
    SpecError::Invalid(text.into())
}

fn refuse(present: bool, what: &str) -> Result<(), SpecError> {
    if present { Err(invalid(format!("{what} is not supported"))) } else { Ok(()) }
}

impl Plan {
    /// Decides everything. Pure apart from reading which cgroup version the host has.
    pub fn new(spec: &Spec, root: &RootSource, extras: &Extras) -> Result<Self, SpecError> {
        let linux = spec.linux().as_ref().ok_or_else(|| invalid("the specification has no linux section"))?;
        let process =
            spec.process().as_ref().ok_or_else(|| invalid("the specification has no process section"))?;
        refuse_unsupported(spec, linux, process)?;
        if let RootSource::Overlay { lower, .. } = root
            && (lower.is_empty() || lower.len() > MAX_LAYERS)
        {
            return Err(invalid(format!("{} layers: overlayfs takes 1 to {MAX_LAYERS}", lower.len())));
        }
        let namespaces = namespaces(linux)?;
        let own_uts = namespaces.new & libc::CLONE_NEWUTS as u64 != 0;
        let mut mounts = vec![];
        for mount in spec.mounts().iter().flatten() {
            refuse(mount.uid_mappings().is_some() || mount.gid_mappings().is_some(), "mounts.uidMappings")?;
            let destination = text(mount.destination())?;
            let fstype = mount.typ().as_deref().unwrap_or("bind");
            let source =
                mount.source().as_deref().map(text).transpose()?.unwrap_or_else(|| fstype.to_owned());
            let options = mount.options().as_deref().unwrap_or_default();
            mounts.push(MountStep::new(&destination, fstype, &source, options)?);
        }
        let propagation = linux.rootfs_propagation().as_deref().unwrap_or("");
        let sysctls = linux.sysctl().iter().flatten();
        let mut sysctls: Vec<_> = sysctls.map(|(name, value)| (sysctl_file(name), value.clone())).collect();
        sysctls.sort();
        Ok(Self {
            cgroup: cgroup(linux)?,
            hostname: spec.hostname().clone().filter(|_| own_uts),
            domainname: spec.domainname().clone().filter(|_| own_uts),
            namespaces,
            root: root.clone(),
            root_readonly: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
            root_slave: propagation.contains("slave") || propagation.contains("shared"),
            mounts,
            devices: devices(linux)?,
            masked_paths: linux.masked_paths().clone().unwrap_or_default(),
            readonly_paths: linux.readonly_paths().clone().unwrap_or_default(),
            sysctls,
            process: process_plan(process, extras)?,
            confinement: confinement(process, linux)?,
            init: extras.init,
        })
    }
}

fn text(path: &std::path::Path) -> Result<String, SpecError> {
    path.to_str().map(str::to_owned).ok_or_else(|| invalid(format!("{}: not UTF-8", path.display())))
}

fn refuse_unsupported(spec: &Spec, linux: &Linux, process: &Process) -> Result<(), SpecError> {
    let has_hooks = spec.hooks().as_ref().is_some_and(|h| *h != oci_spec::runtime::Hooks::default());
    refuse(has_hooks, "hooks")?;
    let namespaces = || linux.namespaces().iter().flatten().map(oci_spec::runtime::LinuxNamespace::typ);
    refuse(namespaces().any(|kind| kind == LinuxNamespaceType::User), "a user namespace")?;
    refuse(namespaces().any(|kind| kind == LinuxNamespaceType::Time), "a time namespace")?;
    refuse(linux.uid_mappings().as_ref().is_some_and(|m| !m.is_empty()), "linux.uidMappings")?;
    refuse(linux.gid_mappings().as_ref().is_some_and(|m| !m.is_empty()), "linux.gidMappings")?;
    refuse(linux.time_offsets().as_ref().is_some_and(|m| !m.is_empty()), "linux.timeOffsets")?;
    refuse(linux.net_devices().as_ref().is_some_and(|m| !m.is_empty()), "linux.netDevices")?;
    refuse(linux.intel_rdt().is_some(), "linux.intelRdt")?;
    refuse(linux.memory_policy().is_some(), "linux.memoryPolicy")?;
    refuse(linux.personality().is_some(), "linux.personality")?;
    refuse(linux.mount_label().as_ref().is_some_and(|l| !l.is_empty()), "linux.mountLabel")?;
    refuse(process.selinux_label().as_ref().is_some_and(|l| !l.is_empty()), "process.selinuxLabel")?;
    let apparmor = process.apparmor_profile().as_ref().is_some_and(|p| !p.is_empty() && p != "unconfined");
    refuse(apparmor, "process.apparmorProfile")?;
    refuse(process.io_priority().is_some(), "process.ioPriority")?;
    refuse(process.scheduler().is_some(), "process.scheduler")?;
    refuse(process.exec_cpu_affinity().is_some(), "process.execCPUAffinity")
}

fn namespaces(linux: &Linux) -> Result<NamespacePlan, SpecError> {
    let mut plan = NamespacePlan::default();
    for namespace in linux.namespaces().iter().flatten() {
        let flag = match namespace.typ() {
            LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
            LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
            LinuxNamespaceType::Network => libc::CLONE_NEWNET,
            LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
            LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
            LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
            other => return Err(invalid(format!("a {other} namespace is not supported"))),
        };
        match namespace.path() {
            Some(path) if flag == libc::CLONE_NEWNS => {
                return Err(invalid(format!(
                    "joining a mount namespace ({}) is not supported",
                    path.display()
                )));
            }
            Some(path) => plan.join.push((flag, path.clone())),
            None if flag == libc::CLONE_NEWCGROUP => plan.new_cgroup = true,
            None => plan.new |= flag as u64,
        }
    }
    if plan.new & libc::CLONE_NEWNS as u64 == 0 {
        return Err(invalid("a container needs a mount namespace of its own"));
    }
    Ok(plan)
}

fn cgroup(linux: &Linux) -> Result<Setup, SpecError> {
    let path = linux.cgroups_path().as_deref().map(text).transpose()?.unwrap_or_default();
    let good = path.starts_with('/')
        && path.len() > 1
        && path[1..].split('/').all(|p| !matches!(p, "" | "." | ".."));
    if !good {
        return Err(invalid(format!("invalid cgroup path: {path:?}")));
    }
    let (mut limits, mut devices) = (vec![], vec![]);
    if let Some(resources) = linux.resources() {
        if let Some(io) = resources.block_io() {
            refuse(io.leaf_weight().is_some(), "linux.resources.blockIO.leafWeight")?;
            refuse(
                io.weight_device().as_ref().is_some_and(|d| !d.is_empty()),
                "linux.resources.blockIO.weightDevice",
            )?;
        }
        if let Some(memory) = resources.memory() {
            refuse(memory.kernel().is_some(), "linux.resources.memory.kernel")?;
        }
        limits = settings::settings(resources, Hierarchies::host().is_v2())?;
        devices = settings::device_rules(resources.devices().as_deref().unwrap_or_default());
    }
    Ok(Setup { path, settings: limits, devices })
}

fn devices(linux: &Linux) -> Result<Vec<DeviceNode>, SpecError> {
    let mut nodes = vec![];
    for device in linux.devices().iter().flatten() {
        let number = |n: i64| u32::try_from(n).map_err(|_| invalid(format!("invalid device number {n}")));
        nodes.push(DeviceNode {
            path: text(device.path())?,
            kind: match device.typ() {
                LinuxDeviceType::B => NodeKind::Block,
                LinuxDeviceType::C | LinuxDeviceType::U => NodeKind::Character,
                other => return Err(invalid(format!("a device of type {other:?} is not supported"))),
            },
            major: number(device.major())?,
            minor: number(device.minor())?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        });
    }
    Ok(nodes)
}

/// `net.ipv4.ip_forward` and `net/ipv4/conf/eth0.1/forwarding` as files below `/proc/sys`.
fn sysctl_file(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { name.replace('.', "/") }
}

fn process_plan(process: &Process, extras: &Extras) -> Result<ProcessPlan, SpecError> {
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(|program| program.is_empty()) {
        return Err(invalid("no command specified"));
    }
    let user = match &extras.user {
        Some(user) => UserChoice::Named(user.clone()),
        None => UserChoice::Ids {
            uid: process.user().uid(),
            gid: process.user().gid(),
            groups: process.user().additional_gids().clone().unwrap_or_default(),
        },
    };
    Ok(ProcessPlan {
        args,
        env: process.env().clone().unwrap_or_default(),
        cwd: text(process.cwd())?,
        create_cwd: extras.create_cwd,
        user,
        group_add: extras.group_add.clone(),
        umask: process.user().umask().unwrap_or(0o022),
    })
}

fn confinement(process: &Process, linux: &Linux) -> Result<Confinement, SpecError> {
    let mut capabilities = CapSets::default();
    if let Some(sets) = process.capabilities() {
        let convert = |set: &Option<oci_spec::runtime::Capabilities>| {
            let numbers = set.iter().flatten().filter_map(|cap| number(&cap.to_string()));
            numbers.fold(CapSet(0), CapSet::with)
        };
        capabilities = CapSets {
            bounding: convert(sets.bounding()),
            effective: convert(sets.effective()),
            permitted: convert(sets.permitted()),
            inheritable: convert(sets.inheritable()),
            ambient: convert(sets.ambient()),
        };
    }
    let mut rlimits = vec![];
    for limit in process.rlimits().iter().flatten() {
        let name = limit.typ().to_string().to_ascii_lowercase();
        let name = name.strip_prefix("rlimit_").unwrap_or(&name);
        let (_, number) = RLIMITS
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| invalid(format!("invalid ulimit type: {name}")))?;
        rlimits.push((*number, limit.soft(), limit.hard()));
    }
    let seccomp = linux.seccomp().as_ref().map(|seccomp| compile(&from_oci(seccomp)?)).transpose()?;
    Ok(Confinement {
        capabilities,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        seccomp,
        rlimits,
        oom_score_adj: process.oom_score_adj().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{SpecInput, build};

    fn planned(change: impl FnOnce(&mut serde_json::Value)) -> Result<Plan, String> {
        let input = SpecInput {
            args: vec!["true".into()],
            cgroup_path: "/ctl/x".into(),
            hostname: Some("h".into()),
            ..Default::default()
        };
        let mut json = serde_json::to_value(build(&input).unwrap()).unwrap();
        change(&mut json);
        let spec: Spec = serde_json::from_value(json).unwrap();
        let root = RootSource::Directory("/root-of-it".into());
        Plan::new(&spec, &root, &Extras::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_plan_survives_its_journey() {
        let plan = planned(|_| {}).unwrap();
        let json = serde_json::to_string(&plan).unwrap();
        let again: Plan = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), json);
        assert_eq!(plan.hostname.as_deref(), Some("h"));
        assert!(plan.namespaces.new_cgroup && plan.confinement.seccomp.is_some());
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let refused = |path: &str, value: serde_json::Value| {
            planned(|json| *json.pointer_mut(path).expect("the parent is there") = value).unwrap_err()
        };
        let namespaces = serde_json::json!([{"type": "mount"}, {"type": "user"}]);
        assert_eq!(refused("/linux/namespaces", namespaces), "a user namespace is not supported");
        assert_eq!(
            refused("/linux/namespaces", serde_json::json!([])),
            "a container needs a mount namespace of its own"
        );
        assert_eq!(refused("/linux/cgroupsPath", "/../x".into()), "invalid cgroup path: \"/../x\"");
        let hooks = planned(|json| json["hooks"] = serde_json::json!({"prestart": [{"path": "/bin/true"}]}));
        assert_eq!(hooks.unwrap_err(), "hooks is not supported");
        let label = planned(|json| json["process"]["apparmorProfile"] = "strict".into());
        assert_eq!(label.unwrap_err(), "process.apparmorProfile is not supported");
    }
}
