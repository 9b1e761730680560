//! `docker diff`: a container's writable layer against the layers below it.
//!
//! A container controls the tree that is read here, so a directory is only ever opened beneath the
//! layer's root, without following links, and what it holds is looked at through that descriptor.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use proto_api::models::{ChangeType, FilesystemChange};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, openat2, statat};
use rustix::io::Errno;
use storage::{ImageId, RootMount};

use super::registry::View;
use super::{Error, Inner, mounts};

const ADDED: ChangeType = ChangeType::_1;
const CHANGED: ChangeType = ChangeType::_0;
const DELETED: ChangeType = ChangeType::_2;

/// Where the executor mounts something in every container; overlayfs shows the empty mount points.
const MOUNT_POINTS: [&str; 6] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/proc", "/sys"];

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn root(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, flags(), Mode::empty())
}

/// Opens a directory of a layer; `path` is relative and empty for the root.
fn beneath(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags(), Mode::empty(), resolve)
}

fn look(dir: &OwnedFd, name: &CStr) -> Result<Option<Stat>, Errno> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0; 1];
    matches!(fgetxattr(dir, c"trusted.overlay.opaque", &mut value[..]), Ok(1)) && value == *b"y"
}

fn names(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// A directory still to be compared, and the lower layers that show something there, topmost first.
struct Pending {
    path: PathBuf,
    lower: Vec<usize>,
}

struct Comparison {
    upper: OwnedFd,
    lower: Vec<OwnedFd>,
    changes: Vec<FilesystemChange>,
}

impl Comparison {
    fn run(&mut self) -> Result<(), Errno> {
        let mut pending = vec![Pending { path: PathBuf::new(), lower: (0..self.lower.len()).collect() }];
        while let Some(next) = pending.pop() {
            match self.directory(&next, &mut pending) {
                // A running container has moved it meanwhile, or it is nested beyond any path.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn directory(&mut self, next: &Pending, pending: &mut Vec<Pending>) -> Result<(), Errno> {
        let dir = beneath(&self.upper, &next.path)?;
        let mut below = Vec::with_capacity(next.lower.len());
        for &layer in &next.lower {
            below.push((layer, beneath(&self.lower[layer], &next.path)?));
        }
        let names_here = names(&dir)?;
        for name in &names_here {
            let Some(stat) = look(&dir, name)? else { continue };
            let path = next.path.join(os(name));
            let (shown, lower) = shown(&below, name)?;
            let kind = match (is_whiteout(&stat), &shown) {
                (true, Some(_)) => DELETED,
                (true, None) => continue,
                (false, Some(old)) if is_directory(&stat) && is_directory(old) && same(old, &stat) => {
                    pending.push(Pending { path, lower });
                    continue;
                }
                (false, Some(_)) => CHANGED,
                (false, None) => ADDED,
            };
            self.push(&path, kind);
            if is_directory(&stat) {
                pending.push(Pending { path, lower });
            }
        }
        if is_opaque(&dir) {
            self.hidden(next, &below, &names_here)?;
        }
        Ok(())
    }

    /// What an opaque directory hides of the layers below.
    fn hidden(&mut self, next: &Pending, below: &[(usize, OwnedFd)], here: &[CString]) -> Result<(), Errno> {
        let mut gone: Vec<CString> = Vec::new();
        for (_, dir) in below {
            for name in names(dir)? {
                if here.binary_search(&name).is_err() && shown(below, &name)?.0.is_some() {
                    gone.push(name);
                }
            }
        }
        gone.sort();
        gone.dedup();
        for name in gone {
            self.push(&next.path.join(os(&name)), DELETED);
        }
        Ok(())
    }

    fn push(&mut self, path: &Path, kind: ChangeType) {
        self.changes.push(FilesystemChange { path: format!("/{}", path.to_string_lossy()), kind });
    }
}

fn os(name: &CStr) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes())
}

/// What the lower layers show under a name, and which of them have a part in a directory there.
fn shown(below: &[(usize, OwnedFd)], name: &CStr) -> Result<(Option<Stat>, Vec<usize>), Errno> {
    let mut first = None;
    let mut layers = Vec::new();
    for (layer, dir) in below {
        let Some(stat) = look(dir, name)? else { continue };
        if is_whiteout(&stat) {
            break;
        }
        let directory = is_directory(&stat);
        first = first.or(Some(stat));
        if !directory {
            break;
        }
        layers.push(*layer);
        let child = rustix::fs::openat(dir, name, flags(), Mode::empty());
        if child.is_ok_and(|child| is_opaque(&child)) {
            break;
        }
    }
    Ok((first, layers))
}

/// A directory that is in the writable layer for the sake of what is in it.
fn same(old: &Stat, new: &Stat) -> bool {
    (old.st_mode, old.st_uid, old.st_gid) == (new.st_mode, new.st_uid, new.st_gid)
        && (old.st_mtime, old.st_mtime_nsec) == (new.st_mtime, new.st_mtime_nsec)
}

/// Compares; blocks. Paths are absolute in the container and sorted.
fn compare(mount: &RootMount) -> Result<Vec<FilesystemChange>, Errno> {
    let lower = mount.lower.iter().map(|path| root(path)).collect::<Result<_, _>>()?;
    let mut comparison = Comparison { upper: root(&mount.upper)?, lower, changes: vec![] };
    comparison.run()?;
    let mut changes: BTreeMap<String, ChangeType> =
        comparison.changes.into_iter().map(|change| (change.path, change.kind)).collect();
    // What holds a change is changed, as Docker has it.
    for path in changes.keys().cloned().collect::<Vec<_>>() {
        for parent in Path::new(&path).ancestors().skip(1).filter(|parent| *parent != Path::new("/")) {
            changes.entry(parent.to_string_lossy().into_owned()).or_insert(CHANGED);
        }
    }
    Ok(changes.into_iter().map(|(path, kind)| FilesystemChange { path, kind }).collect())
}

/// Takes away what only the mounts of the container have left, and directories changed by nothing else.
fn without_mount_points(changes: Vec<FilesystemChange>, points: &[String]) -> Vec<FilesystemChange> {
    let (left, rest): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|change| points.contains(&change.path));
    let parent_of_point = |path: &str| left.iter().any(|point| point.path.starts_with(&format!("{path}/")));
    let has_children = |path: &str| rest.iter().any(|other| other.path.starts_with(&format!("{path}/")));
    rest.iter()
        .filter(|change| !parent_of_point(&change.path) || has_children(&change.path))
        .cloned()
        .collect()
}

impl Inner {
    /// See [`super::Engine::changes`].
    pub(super) async fn changes(&self, view: &View) -> Result<Vec<FilesystemChange>, Error> {
        let image = ImageId::parse(&view.record.image_id)
            .ok_or_else(|| Error::Internal(format!("container {} has no image id", view.id)))?;
        let mount = self.store.root_mount(&view.id, &image)?;
        let mut points: Vec<String> = MOUNT_POINTS.map(str::to_owned).into();
        points.extend(mounts::collect(&view.record.host)?.into_iter().map(|mount| mount.destination));
        let work = move || compare(&mount).map(|changes| without_mount_points(changes, &points));
        let changes =
            tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(error.to_string()))?;
        changes.map_err(|error| Error::io("compare the container's files")(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_changed_deleted_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["top/etc", "base/etc", "base/old", "upper/etc", "upper/new/deep", "work"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        for name in
            ["base/etc/passwd", "base/old/file", "top/etc/motd", "upper/etc/passwd", "upper/new/deep/x"]
        {
            std::fs::write(path(name), name).unwrap();
        }
        let whiteout = |name: &str| {
            let mode = Mode::from_raw_mode(0);
            rustix::fs::mknodat(rustix::fs::CWD, path(name), FileType::CharacterDevice, mode, 0).unwrap();
        };
        whiteout("upper/etc/motd");
        whiteout("upper/old");
        whiteout("upper/never");
        std::os::unix::fs::symlink("/etc", path("upper/link")).unwrap();
        let lower = vec![path("top"), path("base")];
        let changes = compare(&RootMount { lower, upper: path("upper"), work: path("work") }).unwrap();
        let found: Vec<_> = changes.iter().map(|change| (change.path.as_str(), change.kind)).collect();
        assert_eq!(
            found,
            [
                ("/etc", CHANGED),
                ("/etc/motd", DELETED),
                ("/etc/passwd", CHANGED),
                ("/link", ADDED),
                ("/new", ADDED),
                ("/new/deep", ADDED),
                ("/new/deep/x", ADDED),
                ("/old", DELETED),
            ]
        );
    }

    #[test]
    fn mount_points_are_no_changes() {
        let change = |path: &str, kind| FilesystemChange { path: path.to_owned(), kind };
        let points = ["/etc/hosts".to_owned(), "/proc".to_owned()];
        let changes = vec![change("/etc", CHANGED), change("/etc/hosts", ADDED), change("/proc", ADDED)];
        assert!(without_mount_points(changes.clone(), &points).is_empty());
        let more = [changes, vec![change("/etc/x", ADDED)]].concat();
        let kept: Vec<_> =
            without_mount_points(more, &points).into_iter().map(|change| change.path).collect();
        assert_eq!(kept, ["/etc", "/etc/x"]);
    }
}
