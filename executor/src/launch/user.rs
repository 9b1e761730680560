//! Users and groups of the container: its own `/etc/passwd` and `/etc/group`, read as plain text
//! with bounds, never through the host's name services (R7).
//!
//! Stricter than Docker in two ways, so that nobody is root by accident: a number is only digits
//! without a leading zero and names a user id, never a user of that name; and a line whose ids are
//! not such numbers counts as absent instead of as root.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags, fstat};

use super::{LaunchError, engine, resolve};
use crate::plan::{ProcessPlan, UserChoice};

/// The largest file that is read.
const MAX_BYTES: u64 = 4 << 20;

/// Docker's largest id.
const MAX_ID: u64 = i32::MAX as u64;

/// Who a process is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Supplementary groups, the primary one among them (CVE-2022-36109).
    pub(super) groups: Vec<u32>,
    /// For HOME.
    pub(super) home: String,
}

/// Looks a process' user up inside `root`.
pub(super) fn identity(root: &OwnedFd, process: &ProcessPlan) -> Result<Identity, LaunchError> {
    let passwd = read(root, "/etc/passwd")?;
    match &process.user {
        UserChoice::Ids { uid, gid, groups } => {
            let home =
                entries(&passwd, 7).find(|f| number(f[2]) == Ok(u64::from(*uid))).map(|f| f[5].to_owned());
            let extra = additional(&process.group_add, &lazily(root, !process.group_add.is_empty())?)?;
            let all = with_primary(*gid, groups.iter().copied().chain(extra));
            Ok(Identity { uid: *uid, gid: *gid, groups: all, home: home_or_root(home) })
        }
        UserChoice::Named(spec) => {
            let group = lazily(root, !spec.is_empty() || !process.group_add.is_empty())?;
            find(spec, &process.group_add, &passwd, &group)
        }
    }
}

fn lazily(root: &OwnedFd, needed: bool) -> Result<String, LaunchError> {
    if needed { read(root, "/etc/group") } else { Ok(String::new()) }
}

/// A missing file is an empty one; a FIFO, a device or a giant is an error (CVE-2024-9676).
fn read(root: &OwnedFd, path: &str) -> Result<String, LaunchError> {
    let text = || -> io::Result<String> {
        let fd = match resolve::open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Ok(fd) => fd,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                return Ok(String::new());
            }
            Err(error) => return Err(error),
        };
        let stat = fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("not a regular file"));
        }
        if stat.st_size as u64 > MAX_BYTES {
            return Err(io::Error::other("file too large"));
        }
        let mut bytes = Vec::with_capacity(stat.st_size as usize + 1);
        std::fs::File::from(fd).take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    text().map_err(engine(format_args!("reading {path} of the container")))
}

/// Lines with at least `fields - 1` fields, padded.
fn entries(text: &str, fields: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let mut parts: Vec<&str> = line.split(':').collect();
        if parts.len() < 3 {
            return None;
        }
        parts.resize(fields.max(parts.len()), "");
        Some(parts)
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotAnId {
    Name,
    OutOfRange,
}

fn number(text: &str) -> Result<u64, NotAnId> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(NotAnId::Name);
    }
    text.parse().ok().filter(|id| *id <= MAX_ID).ok_or(NotAnId::OutOfRange)
}

fn refuse(message: String) -> LaunchError {
    LaunchError { exit_code: 125, message }
}

fn id_or(text: &str, otherwise: impl FnOnce() -> LaunchError) -> Result<u32, LaunchError> {
    match number(text) {
        Ok(id) => Ok(id as u32),
        Err(NotAnId::OutOfRange) => Err(refuse("uids and gids must be in range 0-2147483647".into())),
        Err(NotAnId::Name) => Err(otherwise()),
    }
}

fn find(spec: &str, group_add: &[String], passwd: &str, group: &str) -> Result<Identity, LaunchError> {
    let (user, group_name) = spec.split_once(':').unwrap_or((spec, ""));
    let as_number = if user.is_empty() { Ok(0) } else { number(user) };
    let entry = entries(passwd, 7).find_map(|fields| {
        let (uid, gid) = (number(fields[2]).ok()?, number(fields[3]).ok()?);
        let matches = match as_number {
            Ok(id) => uid == id,
            Err(_) => fields[0] == user,
        };
        matches.then(|| (fields[0].to_owned(), uid as u32, gid as u32, fields[5].to_owned()))
    });
    let (name, uid, mut gid, home) = match entry {
        Some((name, uid, gid, home)) => (Some(name), uid, gid, Some(home)),
        None if user.is_empty() => (None, 0, 0, None),
        None => {
            let missing =
                || refuse(format!("unable to find user {user}: no matching entries in passwd file"));
            (None, id_or(user, missing)?, 0, None)
        }
    };
    let mut supplementary = vec![];
    if !group_name.is_empty() {
        gid = one_group(group_name, group)?;
    } else if !user.is_empty() {
        let member = name.as_deref().unwrap_or(user);
        supplementary.extend(entries(group, 4).filter_map(|fields| {
            let listed = fields[3].split(',').any(|listed| listed == member);
            number(fields[2]).ok().filter(|_| listed).map(|gid| gid as u32)
        }));
    }
    supplementary.extend(additional(group_add, group)?);
    Ok(Identity { uid, gid, groups: with_primary(gid, supplementary.into_iter()), home: home_or_root(home) })
}

fn one_group(name: &str, group: &str) -> Result<u32, LaunchError> {
    if number(name).is_err() {
        let named =
            entries(group, 4).find(|fields| fields[0] == name).and_then(|fields| number(fields[2]).ok());
        if let Some(gid) = named {
            return Ok(gid as u32);
        }
    }
    id_or(name, || refuse(format!("unable to find group {name}: no matching entries in group file")))
}

fn additional(names: &[String], group: &str) -> Result<Vec<u32>, LaunchError> {
    names.iter().map(|name| one_group(name, group)).collect()
}

fn with_primary(gid: u32, others: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut all = vec![gid];
    for other in others {
        if !all.contains(&other) {
            all.push(other);
        }
    }
    all
}

/// A control character in a home directory is no directory's name (CVE-2022-4318).
fn home_or_root(home: Option<String>) -> String {
    home.filter(|home| home.starts_with('/') && !home.chars().any(char::is_control))
        .unwrap_or_else(|| "/".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        web:x:33:33::/var/www:\n\
        1000:x:0:0:trap:/trap:\n\
        huge:x:4294967296:0::/:\n\
        zero:x:00:0::/:\n\
        plus:x:+0:0::/:\n\
        app:x:1001:1001::/home/app:\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nmedia:x:44:app,web\naudio:x:29:app\nbig:x:99999999999:app\n";

    fn of(spec: &str, add: &[&str]) -> Result<(u32, u32, Vec<u32>, String), String> {
        let add: Vec<String> = add.iter().map(ToString::to_string).collect();
        find(spec, &add, PASSWD, GROUP).map(|i| (i.uid, i.gid, i.groups, i.home)).map_err(|e| e.message)
    }

    #[test]
    fn names_numbers_and_groups() {
        assert_eq!(of("", &[]), Ok((0, 0, vec![0], "/root".into())));
        assert_eq!(of("app", &[]), Ok((1001, 1001, vec![1001, 44, 29], "/home/app".into())));
        assert_eq!(of("1001", &[]), Ok((1001, 1001, vec![1001, 44, 29], "/home/app".into())));
        assert_eq!(of("app:web", &["7", "media"]), Ok((1001, 33, vec![33, 7, 44], "/home/app".into())));
        assert_eq!(of("1234", &[]), Ok((1234, 0, vec![0], "/".into())));
        assert_eq!(of("1234:5", &[]), Ok((1234, 5, vec![5], "/".into())));
        assert_eq!(of(":33", &[]), Ok((0, 33, vec![33], "/root".into())));
    }

    #[test]
    fn nobody_is_root_by_accident() {
        assert_eq!(of("1000", &[]).unwrap().0, 1000);
        for name in ["huge", "zero", "plus", "00", "+1", "-1", "nobody"] {
            let message = format!("unable to find user {name}: no matching entries in passwd file");
            assert_eq!(of(name, &[]), Err(message));
        }
        for id in ["4294967295", "2147483648", "4294967296", "99999999999999999999"] {
            assert_eq!(of(id, &[]), Err("uids and gids must be in range 0-2147483647".into()));
            assert_eq!(
                of(&format!("app:{id}"), &[]),
                Err("uids and gids must be in range 0-2147483647".into())
            );
        }
        assert_eq!(
            of("app:none", &[]),
            Err("unable to find group none: no matching entries in group file".into())
        );
        assert_eq!(
            of("app", &["none"]),
            Err("unable to find group none: no matching entries in group file".into())
        );
    }
}
