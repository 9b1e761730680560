//! The container's mounts, devices, masked and read-only paths. Everything here works on
//! descriptors; a path is looked up once, inside the root.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::resolve::{self, Want};
use super::{LaunchError, engine};
use crate::cgroup::devices::NodeKind;
use crate::cgroup::hierarchies::Hierarchies;
use crate::plan::{DeviceNode, MountKind, MountStep, Plan};
use crate::sys::mount::mount_setattr;

/// `MOUNT_ATTR_RDONLY`, `NOSUID`, `NODEV`, `NOEXEC`.
const RDONLY: u64 = 1;
const LOCKED_DOWN: u64 = 0xe;

/// Mounts of the host, copied before its tree is left; by index into the plan's mounts.
pub(super) type Sources = Vec<Option<OwnedFd>>;

/// Copies what bind mounts show. To be called while the host's root is still in view and its
/// propagation untouched.
pub(super) fn open_sources(plan: &Plan) -> Result<Sources, LaunchError> {
    let open = |step: &MountStep| {
        let MountKind::Bind { source, recursive } = &step.kind else { return Ok(None) };
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if *recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        match open_tree(CWD, source, flags) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Err(LaunchError {
                exit_code: 125,
                message: format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {source}"
                ),
            }),
            Err(error) => Err(engine(format_args!("bind mount of {source}"))(error.into())),
        }
    };
    plan.mounts.iter().map(open).collect()
}

/// Mounts everything into `root`, in order.
pub(super) fn mount_all(root: &OwnedFd, plan: &Plan, mut sources: Sources) -> Result<(), LaunchError> {
    let mut fresh_dev = false;
    for (step, source) in plan.mounts.iter().zip(sources.iter_mut()) {
        mount_one(root, plan, step, source.take()).map_err(|error| {
            engine(format_args!("mounting \"{}\" at \"{}\"", source_name(step), step.destination))(error)
        })?;
        if step.destination.trim_end_matches('/') == "/dev" && matches!(step.kind, MountKind::Fs { .. }) {
            fresh_dev = true;
            let dev = resolve::ensure_plain_directory(root, "/dev").map_err(engine("opening /dev"))?;
            make_links(&dev).map_err(engine("making links in /dev"))?;
        }
        if fresh_dev && step.destination == "/dev" {
            make_devices(root, &plan.devices)?;
        }
    }
    if !fresh_dev {
        make_devices(root, &plan.devices)?;
    }
    Ok(())
}

fn source_name(step: &MountStep) -> &str {
    match &step.kind {
        MountKind::Bind { source, .. } => source,
        MountKind::Fs { fstype, .. } => fstype,
        MountKind::Cgroup => "cgroup",
    }
}

fn mount_one(root: &OwnedFd, plan: &Plan, step: &MountStep, source: Option<OwnedFd>) -> io::Result<()> {
    let destination = step.destination.trim_end_matches('/');
    inside_proc(root, step, destination)?;
    match &step.kind {
        MountKind::Bind { .. } => {
            let Some(source) = source else { return Err(Errno::BADF.into()) };
            let want = if resolve::is_directory(&source)? { Want::Directory } else { Want::File };
            let target = resolve::ensure(root, destination, want)?;
            if resolve::is_directory(&target)? != (want == Want::Directory) {
                return Err(io::Error::other(
                    "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? \
                     Check if the specified host path exists and is the expected type",
                ));
            }
            mount_setattr(&source, step.propagation_recursive, 0, 0, step.propagation)?;
            if step.recursive_set | step.recursive_clear != 0 {
                mount_setattr(&source, true, step.recursive_set, step.recursive_clear, 0)?;
            }
            if step.set | step.clear != 0 {
                mount_setattr(&source, false, step.set, step.clear, 0)?;
            }
            place(&source, &target)
        }
        MountKind::Fs { fstype, source, data } => {
            let mounted = new_fs(fstype, source, data)?;
            if step.set | step.clear != 0 {
                mount_setattr(&mounted, false, step.set, step.clear, 0)?;
            }
            place(&mounted, &target_directory(root, destination)?)
        }
        MountKind::Cgroup => cgroup(root, plan, step, destination),
    }
}

/// Files of procfs that may be covered, as container file systems such as lxcfs do.
const COVERABLE: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Nothing may imitate procfs or cover what the runtime and the kernel read there (CVE-2019-16884).
fn inside_proc(root: &OwnedFd, step: &MountStep, destination: &str) -> io::Result<()> {
    // Spelled as it ends up, so that `/proc/../proc` and the like gain nothing.
    let normal = format!("/{}", lexical(destination).join("/"));
    let procfs = matches!(&step.kind, MountKind::Fs { fstype, .. } if fstype == "proc");
    if (normal != "/proc" || procfs) && !normal.starts_with("/proc/") {
        // A link of the image may lead there all the same.
        let leads_there = resolve::find(root, destination)
            .and_then(|fd| Ok(rustix::fs::fstatfs(&fd)?.f_type == PROC_SUPER_MAGIC))
            .unwrap_or(false);
        if !leads_there || normal == "/proc" {
            return Ok(());
        }
    } else if COVERABLE.contains(&normal.as_str()) {
        let there = resolve::find(root, destination)?;
        if rustix::fs::fstatfs(&there)?.f_type == PROC_SUPER_MAGIC {
            return Ok(());
        }
    }
    Err(io::Error::other(format!("\"{destination}\" cannot be mounted because it is inside /proc")))
}

fn lexical(path: &str) -> Vec<&str> {
    let mut parts = vec![];
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts
}

const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;

/// Directories of the kernel's file systems are plain ones; elsewhere links inside the root are fine.
fn target_directory(root: &OwnedFd, destination: &str) -> io::Result<OwnedFd> {
    if ["/proc", "/sys", "/dev"].contains(&destination) || destination.starts_with("/dev/") {
        resolve::ensure_plain_directory(root, destination)
    } else {
        resolve::ensure(root, destination, Want::Directory)
    }
}

/// Puts a detached mount onto a descriptor.
pub(super) fn place(mounted: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mounted, "", target, "", flags)?)
}

fn new_fs(fstype: &str, source: &str, data: &[(String, Option<String>)]) -> io::Result<OwnedFd> {
    let fs = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", source)?;
    for (key, value) in data {
        match value {
            Some(value) => fsconfig_set_string(&fs, key, value)?,
            None => fsconfig_set_flag(&fs, key)?,
        }
    }
    fsconfig_create(&fs)?;
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// A copy of a mount (or of a part of one), detached.
pub(super) fn clone_of(fd: &OwnedFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(fd, "", flags)?)
}

/// The container's own groups: on v2 the tree, on v1 a tmpfs with one mount a hierarchy.
fn cgroup(root: &OwnedFd, plan: &Plan, step: &MountStep, destination: &str) -> io::Result<()> {
    let hierarchies = Hierarchies::host();
    let target = target_directory(root, destination)?;
    let own = plan.cgroup.path.trim_start_matches('/');
    if let Some(host) = &hierarchies.v2 {
        let mounted = if plan.namespaces.new_cgroup {
            new_fs("cgroup2", "cgroup", &[])?
        } else {
            open_tree(CWD, host.join(own), OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?
        };
        mount_setattr(&mounted, false, step.set, step.clear, libc::MS_PRIVATE)?;
        return place(&mounted, &target);
    }
    let tmpfs = new_fs("tmpfs", "tmpfs", &[("mode".into(), Some("755".into()))])?;
    place(&tmpfs, &target)?;
    for hierarchy in &hierarchies.v1 {
        let Some(name) = hierarchy.root.file_name().and_then(|name| name.to_str()) else { continue };
        mkdirat(&tmpfs, name, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place_fd = openat(&tmpfs, name, flags, Mode::empty())?;
        let mounted = if plan.namespaces.new_cgroup {
            let data: Vec<_> = hierarchy
                .controllers
                .iter()
                .map(|controller| match controller.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (controller.clone(), None),
                })
                .collect();
            let named = data.iter().any(|(key, _)| key == "name");
            let none = named.then(|| ("none".to_owned(), None));
            new_fs("cgroup", "cgroup", &none.into_iter().chain(data).collect::<Vec<_>>())?
        } else {
            let path = hierarchy.root.join(own);
            open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?
        };
        mount_setattr(&mounted, false, step.set, step.clear, libc::MS_PRIVATE)?;
        place(&mounted, &place_fd)?;
        if hierarchy.controllers.len() > 1 {
            for controller in &hierarchy.controllers {
                symlinkat(name, &tmpfs, controller.as_str())?;
            }
        }
    }
    mount_setattr(&tmpfs, false, step.set, step.clear, libc::MS_PRIVATE)
}

/// The links every `/dev` has.
fn make_links(dev: &OwnedFd) -> io::Result<()> {
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("/proc/kcore", "core"),
        ("pts/ptmx", "ptmx"),
    ];
    for (target, name) in links {
        symlinkat(target, dev, name)?;
    }
    Ok(())
}

fn make_devices(root: &OwnedFd, devices: &[DeviceNode]) -> Result<(), LaunchError> {
    for device in devices {
        make_device(root, device).map_err(engine(format_args!("making device node \"{}\"", device.path)))?;
    }
    Ok(())
}

fn make_device(root: &OwnedFd, device: &DeviceNode) -> io::Result<()> {
    let (parent, name) = resolve::split(&device.path).ok_or(Errno::INVAL)?;
    let parent = if parent == "/dev" || parent.starts_with("/dev/") {
        resolve::ensure_plain_directory(root, parent)?
    } else {
        resolve::ensure(root, parent, Want::Directory)?
    };
    let kind = if device.kind == NodeKind::Block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let number = makedev(device.major, device.minor);
    match mknodat(&parent, name, kind, Mode::from_raw_mode(device.mode), number) {
        Ok(()) => {
            if device.uid != 0 || device.gid != 0 {
                let (uid, gid) =
                    (rustix::fs::Uid::from_raw(device.uid), rustix::fs::Gid::from_raw(device.gid));
                rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Ok(())
        }
        // The user's own /dev may have it already, but nothing else in its place.
        Err(Errno::EXIST) => {
            let there =
                openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let stat = fstat(&there)?;
            if FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == number {
                Ok(())
            } else {
                Err(Errno::EXIST.into())
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Hides and write-protects parts of procfs and sysfs.
pub(super) fn protect(root: &OwnedFd, plan: &Plan) -> Result<(), LaunchError> {
    for path in &plan.readonly_paths {
        let Some(target) = existing(root, path)? else { continue };
        let protect = || -> io::Result<()> {
            let clone = clone_of(&target, true)?;
            mount_setattr(&clone, true, RDONLY, 0, libc::MS_PRIVATE)?;
            place(&clone, &target)
        };
        protect().map_err(engine(format_args!("making {path} read-only")))?;
    }
    if plan.masked_paths.is_empty() {
        return Ok(());
    }
    // The host's, which no image can have exchanged (CVE-2025-31133).
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null =
        openat(CWD, "/dev/null", flags, Mode::empty()).map_err(|e| engine("opening /dev/null")(e.into()))?;
    let stat = fstat(&null).map_err(|e| engine("opening /dev/null")(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != makedev(1, 3) {
        return Err(engine("masking paths")(io::Error::other("the host's /dev/null is not the null device")));
    }
    let mut empty: Option<OwnedFd> = None;
    for path in &plan.masked_paths {
        let Some(target) = existing(root, path)? else { continue };
        let mut mask = || -> io::Result<()> {
            if !resolve::is_directory(&target)? {
                return place(&clone_of(&null, false)?, &target);
            }
            match &empty {
                Some(first) => place(&clone_of(first, false)?, &target),
                None => {
                    let fs = new_fs("tmpfs", "tmpfs", &[])?;
                    mount_setattr(&fs, false, RDONLY | LOCKED_DOWN, 0, libc::MS_PRIVATE)?;
                    place(&fs, &target)?;
                    empty = Some(fs);
                    Ok(())
                }
            }
        };
        mask().map_err(engine(format_args!("masking {path}")))?;
    }
    Ok(())
}

fn existing(root: &OwnedFd, path: &str) -> Result<Option<OwnedFd>, LaunchError> {
    match resolve::find(root, path) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(engine(format_args!("looking up {path}"))(error)),
    }
}

/// Makes the root itself read-only (what is mounted below stays as it is).
pub(super) fn make_read_only(root: &OwnedFd) -> io::Result<()> {
    mount_setattr(root, false, RDONLY, 0, 0)
}

/// Writes sysctls through a procfs of our own, which nothing in the container can have covered (R2).
pub(super) fn write_sysctls(sysctls: &[(String, String)]) -> Result<(), LaunchError> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let proc = new_fs("proc", "proc", &[]).map_err(engine("mounting procfs"))?;
    for (file, value) in sysctls {
        let write = || -> io::Result<()> {
            let how = rustix::fs::ResolveFlags::BENEATH
                | rustix::fs::ResolveFlags::NO_XDEV
                | rustix::fs::ResolveFlags::NO_SYMLINKS;
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let fd = rustix::fs::openat2(&proc, format!("sys/{file}"), flags, Mode::empty(), how)?;
            rustix::io::write(&fd, value.as_bytes())?;
            Ok(())
        };
        write().map_err(engine(format_args!("open sysctl {} file", file.replace('/', "."))))?;
    }
    Ok(())
}
