//! Mount options in mount(8)'s words, sorted into what the kernel's calls take.

use serde::{Deserialize, Serialize};

use crate::spec::SpecError;

/// One mount, decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStep {
    /// Absolute path in the container.
    pub destination: String,
    /// What.
    pub kind: MountKind,
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// The same for everything below a recursive bind mount.
    pub recursive_set: u64,
    /// Likewise.
    pub recursive_clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`.
    pub propagation: u64,
    /// Whether that holds for everything below.
    pub propagation_recursive: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// Part of the host's file system.
    Bind {
        /// Absolute path on the host.
        source: String,
        /// Whether what is mounted below comes along.
        recursive: bool,
    },
    /// A new file system.
    Fs {
        /// Its type.
        fstype: String,
        /// Its source, for show.
        source: String,
        /// Its own options; `None` is a flag.
        data: Vec<(String, Option<String>)>,
    },
    /// The container's view of its control groups, in whichever version the host has.
    Cgroup,
}

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// Option, attributes set, attributes cleared.
const ATTRIBUTES: [(&str, u64, u64); 16] = [
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("noatime", NOATIME, ATIME),
    ("relatime", 0, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("atime", 0, ATIME),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
];

const PROPAGATION: [(&str, u64, bool); 8] = [
    ("private", libc::MS_PRIVATE, false),
    ("rprivate", libc::MS_PRIVATE, true),
    ("slave", libc::MS_SLAVE, false),
    ("rslave", libc::MS_SLAVE, true),
    ("shared", libc::MS_SHARED, false),
    ("rshared", libc::MS_SHARED, true),
    ("unbindable", libc::MS_UNBINDABLE, false),
    ("runbindable", libc::MS_UNBINDABLE, true),
];

impl MountStep {
    /// Sorts a mount of the specification.
    pub fn new(destination: &str, fstype: &str, source: &str, options: &[String]) -> Result<Self, SpecError> {
        let mut step = Self {
            destination: destination.into(),
            kind: MountKind::Cgroup,
            set: 0,
            clear: 0,
            recursive_set: 0,
            recursive_clear: 0,
            propagation: libc::MS_PRIVATE,
            propagation_recursive: true,
        };
        let (mut bind, mut recursive) = (fstype == "bind", false);
        let mut data = vec![];
        for option in options {
            match option.as_str() {
                "bind" => bind = true,
                "rbind" => (bind, recursive) = (true, true),
                "defaults" | "async" | "" => {}
                "z" | "Z" => {} // relabelling, on hosts without SELinux
                other => {
                    if let Some((_, set, clear)) = ATTRIBUTES.iter().find(|(name, ..)| *name == other) {
                        step.set = step.set & !clear | set;
                        step.clear = step.clear & !set | clear;
                    } else if let Some((_, kind, recursive)) =
                        PROPAGATION.iter().find(|(name, ..)| *name == other)
                    {
                        step.propagation = *kind;
                        step.propagation_recursive = *recursive;
                    } else if let Some((_, set, clear)) =
                        other.strip_prefix('r').and_then(|o| ATTRIBUTES.iter().find(|(name, ..)| *name == o))
                    {
                        step.recursive_set = step.recursive_set & !clear | set;
                        step.recursive_clear = step.recursive_clear & !set | clear;
                    } else if matches!(
                        other,
                        "sync" | "dirsync" | "mand" | "nomand" | "tmpcopyup" | "idmap" | "ridmap"
                    ) {
                        return Err(SpecError::Invalid(format!(
                            "mount option {other:?} of {destination} is not supported"
                        )));
                    } else {
                        let (key, value) = match other.split_once('=') {
                            Some((key, value)) => (key, Some(value.to_owned())),
                            None => (other, None),
                        };
                        data.push((key.to_owned(), value));
                    }
                }
            }
        }
        step.kind = if bind {
            if let Some((option, _)) = data.first() {
                return Err(SpecError::Invalid(format!(
                    "invalid mode: {option} for the bind mount on {destination}"
                )));
            }
            MountKind::Bind { source: source.into(), recursive }
        } else if matches!(fstype, "cgroup" | "cgroup2") {
            MountKind::Cgroup
        } else {
            // The last of several values for one key counts.
            let mut unique: Vec<(String, Option<String>)> = vec![];
            for (key, value) in data {
                unique.retain(|(known, _)| *known != key);
                unique.push((key, value));
            }
            MountKind::Fs { fstype: fstype.into(), source: source.into(), data: unique }
        };
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(fstype: &str, options: &[&str]) -> MountStep {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        MountStep::new("/x", fstype, "/src", &options).unwrap()
    }

    #[test]
    fn tmpfs_options_are_data() {
        let step = step("tmpfs", &["noexec", "size=64m", "exec", "mode=1777", "size=1m"]);
        assert_eq!((step.set, step.clear), (0, NOEXEC));
        let MountKind::Fs { data, .. } = step.kind else { panic!("{step:?}") };
        assert_eq!(data, [("mode".into(), Some("1777".into())), ("size".into(), Some("1m".into()))]);
    }

    #[test]
    fn bind_options() {
        let step = step("bind", &["rbind", "rro", "rshared", "noatime"]);
        assert_eq!(
            (step.recursive_set, step.set, step.clear & !NOATIME),
            (RDONLY, NOATIME, ATIME & !NOATIME)
        );
        assert_eq!((step.propagation, step.propagation_recursive), (libc::MS_SHARED, true));
        assert_eq!(step.kind, MountKind::Bind { source: "/src".into(), recursive: true });
        assert!(MountStep::new("/x", "bind", "/s", &["size=1".into()]).is_err());
    }
}
