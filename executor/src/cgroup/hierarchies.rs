//! Where the host has its control groups mounted.

use std::path::PathBuf;
use std::sync::OnceLock;

/// The hierarchies of the host. Controllers on v1 with an empty v2 tree beside them is the hybrid
/// layout; the v2 tree is of no use to us then and counts as absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    /// v1, one entry a mount.
    pub v1: Vec<V1>,
    /// The v2 tree's root, where the host has no v1 hierarchies.
    pub v2: Option<PathBuf>,
}

/// A v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1 {
    /// Where it is mounted.
    pub root: PathBuf,
    /// `cpu`, `cpuacct`, …, or `name=systemd`.
    pub controllers: Vec<String>,
}

impl Hierarchies {
    /// Those of this host, found once.
    pub fn host() -> &'static Self {
        static HOST: OnceLock<Hierarchies> = OnceLock::new();
        HOST.get_or_init(|| Self::parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()))
    }

    /// Reads them from the text of `/proc/<pid>/mountinfo`.
    pub fn parse(mountinfo: &str) -> Self {
        let mut found = Self { v1: vec![], v2: None };
        for line in mountinfo.lines() {
            let Some((mount, fs)) = line.split_once(" - ") else { continue };
            let Some(root) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut fs = fs.split(' ');
            match (fs.next(), fs.nth(1)) {
                (Some("cgroup2"), _) => found.v2 = found.v2.or(Some(root)),
                (Some("cgroup"), Some(options)) => {
                    let flags = ["rw", "ro", "xattr", "noprefix", "clone_children", "none", "cpuset_v2_mode"];
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|option| !flags.contains(option) && !option.starts_with("release_agent="))
                        .map(str::to_owned)
                        .collect();
                    if !found.v1.iter().any(|known| known.controllers == controllers) {
                        found.v1.push(V1 { root, controllers });
                    }
                }
                _ => {}
            }
        }
        if !found.v1.is_empty() {
            found.v2 = None;
        }
        found
    }

    /// Whether the host has v2 alone.
    pub fn is_v2(&self) -> bool {
        self.v2.is_some()
    }

    /// The root of the v1 hierarchy with a controller.
    pub fn v1_root(&self, controller: &str) -> Option<&PathBuf> {
        self.v1.iter().find(|h| h.controllers.iter().any(|c| c == controller)).map(|h| &h.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_is_v1() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::parse(text);
        assert!(!found.is_v2());
        assert_eq!(found.v1_root("cpuacct"), Some(&PathBuf::from("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(found.v1[1].controllers, ["name=systemd"]);
    }

    #[test]
    fn unified_is_v2() {
        let text = "26 23 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(Hierarchies::parse(text), Hierarchies { v1: vec![], v2: Some("/sys/fs/cgroup".into()) });
    }
}
