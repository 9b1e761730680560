//! The root file system: mounted in the container's mount namespace only, and pivoted into.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use crate::plan::RootSource;

/// Cuts the new mount namespace off from the host's.
pub(super) fn isolate(slave: bool) -> io::Result<()> {
    let kind = if slave { MountPropagationFlags::DOWNSTREAM } else { MountPropagationFlags::PRIVATE };
    Ok(mount_change("/", kind | MountPropagationFlags::REC)?)
}

/// Mounts the root and returns its descriptor.
pub(super) fn mount_root(root: &RootSource) -> io::Result<OwnedFd> {
    match root {
        RootSource::Overlay { lower, upper, work } => {
            // Any directory will do as its place, since nobody else sees it.
            let place = upper.parent().unwrap_or(Path::new("/"));
            match overlay(lower, upper, work) {
                Ok(mounted) => {
                    attach(&mounted, place)?;
                    Ok(mounted)
                }
                // Kernels before 6.7 take all layers in one string.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    overlay_by_string(lower, upper, work, place)
                }
                Err(error) => Err(error),
            }
        }
        RootSource::Directory(path) => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_RECURSIVE;
            let clone = open_tree(CWD, path, flags)?;
            crate::sys::mount::mount_setattr(&clone, true, 0, 0, libc::MS_PRIVATE)?;
            attach(&clone, path)?;
            Ok(clone)
        }
    }
}

fn attach(mounted: &OwnedFd, place: &Path) -> io::Result<()> {
    Ok(move_mount(mounted, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    overlay_of(lower, Some((upper, work)), MountAttrFlags::empty())
}

/// What a container with these layers (topmost first, its writable one included) sees in its root,
/// without what is mounted there: a read-only mount that is in no namespace and ends with the
/// descriptor. Needs a kernel of 6.7 or newer for more than one layer.
pub fn read_only_view(layers: &[PathBuf]) -> io::Result<OwnedFd> {
    if let [only] = layers {
        return Ok(openat(CWD, only, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
    }
    let view = overlay_of(layers, None, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    Ok(openat(&view, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn overlay_of(
    lower: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    flags: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", "overlay")?;
    for layer in lower {
        fsconfig_set_string(&fs, "lowerdir+", layer)?;
    }
    if let Some((upper, work)) = writable {
        fsconfig_set_string(&fs, "upperdir", upper)?;
        fsconfig_set_string(&fs, "workdir", work)?;
    }
    // Layers are shared by containers and may have been copied; an index would tie them together.
    fsconfig_set_string(&fs, "index", "off")?;
    fsconfig_create(&fs)?;
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

/// The old way: descriptors instead of paths keep 500 layers within one page.
fn overlay_by_string(lower: &[PathBuf], upper: &Path, work: &Path, place: &Path) -> io::Result<OwnedFd> {
    let directory =
        |path: &Path| openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let place_fd = directory(place)?;
    let layers = lower.iter().map(|path| directory(path)).collect::<Result<Vec<_>, Errno>>()?;
    let (upper, work) = (directory(upper)?, directory(work)?);
    let numbers: Vec<String> = layers.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    chdir("/proc/self/fd")?;
    let data = format!(
        "lowerdir={},upperdir={},workdir={},index=off",
        numbers.join(":"),
        upper.as_raw_fd(),
        work.as_raw_fd()
    );
    let data = std::ffi::CString::new(data)?;
    mount("overlay", place_fd.as_raw_fd().to_string(), "overlay", MountFlags::empty(), data.as_c_str())?;
    Ok(openat(CWD, place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes the mounted root the process' root and takes the host's away.
pub(super) fn pivot(root: &OwnedFd) -> io::Result<()> {
    fchdir(root)?;
    // Both on one place: the old root ends up on top of the new one, from where it is unmounted.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    Ok(())
}
