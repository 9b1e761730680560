//! Capabilities as sets of 64 bits, by their kernel numbers (capabilities(7)).

use serde::{Deserialize, Serialize};

use crate::spec::SpecError;

/// Names without `CAP_`; the index is the kernel's number.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// CAP_SYS_ADMIN's number: loading a filter without no_new_privs takes it.
pub const SYS_ADMIN: u32 = 21;

/// What Docker gives a container that asks for nothing.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapSet(pub u64);

/// The five sets of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapSets {
    /// What can be gained by exec at most.
    pub bounding: CapSet,
    /// What the kernel checks.
    pub effective: CapSet,
    /// What may become effective.
    pub permitted: CapSet,
    /// Empty in everything we start by ourselves (CVE-2022-24769).
    pub inheritable: CapSet,
    /// What survives an exec without root.
    pub ambient: CapSet,
}

impl CapSet {
    /// Every capability known here.
    pub fn all() -> Self {
        Self((1 << NAMES.len()) - 1)
    }

    /// Docker's default set.
    pub fn docker_default() -> Self {
        DEFAULT.iter().filter_map(|name| number(name)).fold(Self(0), Self::with)
    }

    /// The set with one more.
    pub fn with(self, number: u32) -> Self {
        Self(self.0 | 1 << number)
    }

    /// The set without one.
    pub fn without(self, number: u32) -> Self {
        Self(self.0 & !(1 << number))
    }

    /// Whether a capability is in it.
    pub fn has(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    /// Whether a capability is in it, by name with or without `CAP_`.
    pub fn has_name(self, name: &str) -> bool {
        number(name).is_some_and(|number| self.has(number))
    }

    /// The names without `CAP_`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(number, _)| self.has(*number as u32)).map(|(_, name)| *name)
    }

    /// Docker's `--cap-add` and `--cap-drop` on top of the default set. `ALL` on one side makes the
    /// other one pick from or add to everything.
    pub fn from_docker(add: &[String], drop: &[String], privileged: bool) -> Result<Self, SpecError> {
        if privileged {
            return Ok(Self::all());
        }
        let (add, add_all) = parse_list(add)?;
        let (drop, drop_all) = parse_list(drop)?;
        let base = match (add_all, drop_all) {
            (true, _) => Self::all(),
            (false, true) => Self(0),
            (false, false) => Self::docker_default(),
        };
        // What is both dropped by name and added by name is added, as Docker has it.
        if add_all { Ok(Self(base.0 & !drop.0)) } else { Ok(Self(base.0 & !drop.0 | add.0)) }
    }
}

/// A capability's number by its name in any case, with or without `CAP_`.
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == short).map(|position| position as u32)
}

fn parse_list(names: &[String]) -> Result<(CapSet, bool), SpecError> {
    let (mut set, mut all) = (CapSet(0), false);
    for name in names {
        if name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL") {
            all = true;
        } else {
            let number = number(name).ok_or_else(|| {
                SpecError::Invalid(format!("invalid capability: unknown capability: \"{name}\""))
            })?;
            set = set.with(number);
        }
    }
    Ok((set, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_set_is_dockers() {
        assert_eq!(CapSet::docker_default().0, 0xa804_25fb);
    }

    #[test]
    fn add_and_drop() {
        let set = |add: &[&str], drop: &[&str]| CapSet::from_docker(&list(add), &list(drop), false).unwrap();
        assert_eq!(set(&["NET_ADMIN"], &[]).0, 0xa804_35fb);
        assert_eq!(set(&["cap_net_admin"], &["ALL"]), CapSet(1 << 12));
        assert_eq!(set(&["ALL"], &["CAP_CHOWN"]), CapSet::all().without(0));
        assert_eq!(set(&[], &["all"]), CapSet(0));
        assert!(CapSet::from_docker(&list(&["FLY"]), &[], false).is_err());
    }
}
