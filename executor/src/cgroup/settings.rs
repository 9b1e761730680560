//! Limits as writes to files of cgroupfs. Pure.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};
use serde::{Deserialize, Serialize};

use super::devices::{DeviceRule, NodeKind};
use crate::spec::SpecError;

/// One write to a file of the container's group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The v1 controller whose hierarchy has the file; without meaning on v2.
    pub controller: String,
    /// File name.
    pub file: String,
    /// What is written.
    pub value: String,
    /// Whether a kernel without this file is tolerated (with a warning).
    pub optional: bool,
}

fn setting(controller: &str, file: &str, value: impl ToString) -> Setting {
    Setting { controller: controller.into(), file: file.into(), value: value.to_string(), optional: false }
}

fn optional(controller: &str, file: &str, value: impl ToString) -> Setting {
    Setting { optional: true, ..setting(controller, file, value) }
}

/// The writes for these limits, in the order in which the kernel takes them.
pub fn settings(resources: &LinuxResources, v2: bool) -> Result<Vec<Setting>, SpecError> {
    let mut out = vec![];
    refuse_unsupported(resources, v2)?;
    if v2 {
        unified(resources, &mut out)
    } else {
        legacy(resources, &mut out)
    }
    for (file, value) in resources.unified().iter().flatten() {
        let good =
            file.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_')) && file.contains('.');
        if !good || file.starts_with("cgroup.") {
            return Err(SpecError::Invalid(format!("unified resource {file:?} is not allowed")));
        }
        out.push(setting("", file, value));
    }
    Ok(out)
}

fn refuse_unsupported(resources: &LinuxResources, v2: bool) -> Result<(), SpecError> {
    let refuse = |what: &str| Err(SpecError::Invalid(format!("{what} is not supported")));
    if resources.rdma().as_ref().is_some_and(|map| !map.is_empty()) {
        return refuse("linux.resources.rdma");
    }
    if resources.network().is_some() {
        return refuse("linux.resources.network");
    }
    if !v2 && resources.unified().as_ref().is_some_and(|map| !map.is_empty()) {
        return refuse("linux.resources.unified on cgroup v1");
    }
    Ok(())
}

fn legacy(resources: &LinuxResources, out: &mut Vec<Setting>) {
    if let Some(memory) = resources.memory() {
        // Unlimited memory-and-swap must be there before a smaller memory limit is raised.
        if memory.swap() == Some(-1) {
            out.push(optional("memory", "memory.memsw.limit_in_bytes", -1));
        }
        if let Some(limit) = memory.limit() {
            out.push(setting("memory", "memory.limit_in_bytes", limit));
        }
        if let Some(swap) = memory.swap().filter(|swap| *swap != -1) {
            out.push(optional("memory", "memory.memsw.limit_in_bytes", swap));
        }
        if let Some(reservation) = memory.reservation() {
            out.push(setting("memory", "memory.soft_limit_in_bytes", reservation));
        }
        if let Some(swappiness) = memory.swappiness() {
            out.push(optional("memory", "memory.swappiness", swappiness));
        }
        if memory.disable_oom_killer() == Some(true) {
            out.push(setting("memory", "memory.oom_control", 1));
        }
        if let Some(kernel) = memory.kernel_tcp() {
            out.push(optional("memory", "memory.kmem.tcp.limit_in_bytes", kernel));
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares() {
            out.push(setting("cpu", "cpu.shares", shares));
        }
        if let Some(period) = cpu.period() {
            out.push(setting("cpu", "cpu.cfs_period_us", period));
        }
        if let Some(quota) = cpu.quota() {
            out.push(setting("cpu", "cpu.cfs_quota_us", quota));
        }
        if let Some(burst) = cpu.burst() {
            out.push(setting("cpu", "cpu.cfs_burst_us", burst));
        }
        if let Some(idle) = cpu.idle() {
            out.push(setting("cpu", "cpu.idle", idle));
        }
        if let Some(period) = cpu.realtime_period() {
            out.push(setting("cpu", "cpu.rt_period_us", period));
        }
        if let Some(runtime) = cpu.realtime_runtime() {
            out.push(setting("cpu", "cpu.rt_runtime_us", runtime));
        }
        cpuset(cpu, out);
    }
    if let Some(pids) = resources.pids() {
        out.push(setting("pids", "pids.max", max_or(pids.limit())));
    }
    if let Some(io) = resources.block_io() {
        if let Some(weight) = io.weight() {
            out.push(optional("blkio", "blkio.bfq.weight", weight));
            out.push(optional("blkio", "blkio.weight", weight));
        }
        let lists = [
            (io.throttle_read_bps_device(), "blkio.throttle.read_bps_device"),
            (io.throttle_write_bps_device(), "blkio.throttle.write_bps_device"),
            (io.throttle_read_iops_device(), "blkio.throttle.read_iops_device"),
            (io.throttle_write_iops_device(), "blkio.throttle.write_iops_device"),
        ];
        for (list, file) in lists {
            for device in list.iter().flatten() {
                out.push(setting(
                    "blkio",
                    file,
                    format!("{}:{} {}", device.major(), device.minor(), device.rate()),
                ));
            }
        }
    }
    for page in resources.hugepage_limits().iter().flatten() {
        out.push(setting("hugetlb", &format!("hugetlb.{}.limit_in_bytes", page.page_size()), page.limit()));
    }
}

fn cpuset(cpu: &oci_spec::runtime::LinuxCpu, out: &mut Vec<Setting>) {
    if let Some(cpus) = cpu.cpus() {
        out.push(setting("cpuset", "cpuset.cpus", cpus));
    }
    if let Some(mems) = cpu.mems() {
        out.push(setting("cpuset", "cpuset.mems", mems));
    }
}

fn unified(resources: &LinuxResources, out: &mut Vec<Setting>) {
    if let Some(memory) = resources.memory() {
        if let Some(limit) = memory.limit() {
            out.push(setting("memory", "memory.max", max_or(limit)));
        }
        if let Some(swap) = memory.swap() {
            // v2 counts swap alone, the specification memory and swap together.
            let swap = if swap < 0 { -1 } else { (swap - memory.limit().unwrap_or(0)).max(0) };
            out.push(optional("memory", "memory.swap.max", max_or(swap)));
        }
        if let Some(reservation) = memory.reservation() {
            out.push(setting("memory", "memory.low", max_or(reservation)));
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            out.push(setting("cpu", "cpu.weight", weight_of_shares(shares)));
        }
        if cpu.quota().is_some() || cpu.period().is_some() {
            let quota = max_or(cpu.quota().filter(|quota| *quota > 0).unwrap_or(-1));
            let value = match cpu.period() {
                Some(period) => format!("{quota} {period}"),
                None => quota,
            };
            out.push(setting("cpu", "cpu.max", value));
        }
        if let Some(burst) = cpu.burst() {
            out.push(setting("cpu", "cpu.max.burst", burst));
        }
        if let Some(idle) = cpu.idle() {
            out.push(setting("cpu", "cpu.idle", idle));
        }
        cpuset(cpu, out);
    }
    if let Some(pids) = resources.pids() {
        out.push(setting("pids", "pids.max", max_or(pids.limit())));
    }
    if let Some(io) = resources.block_io() {
        if let Some(weight) = io.weight() {
            out.push(optional("io", "io.bfq.weight", weight));
            out.push(optional("io", "io.weight", io_weight(weight)));
        }
        let lists = [
            (io.throttle_read_bps_device(), "rbps"),
            (io.throttle_write_bps_device(), "wbps"),
            (io.throttle_read_iops_device(), "riops"),
            (io.throttle_write_iops_device(), "wiops"),
        ];
        for (list, key) in lists {
            for device in list.iter().flatten() {
                out.push(setting(
                    "io",
                    "io.max",
                    format!("{}:{} {key}={}", device.major(), device.minor(), device.rate()),
                ));
            }
        }
    }
    for page in resources.hugepage_limits().iter().flatten() {
        out.push(setting("hugetlb", &format!("hugetlb.{}.max", page.page_size()), page.limit()));
    }
}

fn max_or(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// v1 shares (2 to 262144) onto v2 weights (1 to 10000), linearly, as runtimes agree to do it.
pub fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// blkio weights (10 to 1000) onto io weights (1 to 10000).
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

/// The device rules as our own type.
pub fn device_rules(rules: &[LinuxDeviceCgroup]) -> Vec<DeviceRule> {
    let number = |number: Option<i64>| number.and_then(|n| u32::try_from(n).ok());
    rules
        .iter()
        .map(|rule| DeviceRule {
            allow: rule.allow(),
            kind: match rule.typ() {
                Some(LinuxDeviceType::C | LinuxDeviceType::U) => NodeKind::Character,
                Some(LinuxDeviceType::B) => NodeKind::Block,
                _ => NodeKind::Any,
            },
            major: number(rule.major()),
            minor: number(rule.minor()),
            access: rule.access().clone().filter(|access| !access.is_empty()).unwrap_or_else(|| "rwm".into()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Resources, resources_to_oci};

    fn writes(resources: &Resources, v2: bool) -> Vec<(String, String)> {
        let oci = resources_to_oci(resources, vec![]).unwrap();
        settings(&oci, v2).unwrap().into_iter().map(|s| (s.file, s.value)).collect()
    }

    fn pair(file: &str, value: &str) -> (String, String) {
        (file.into(), value.into())
    }

    #[test]
    fn memory_and_cpu_in_both_versions() {
        let resources = Resources {
            memory_bytes: Some(64 << 20),
            nano_cpus: Some(500_000_000),
            pids_limit: Some(20),
            cpu_shares: Some(1024),
            ..Default::default()
        };
        assert_eq!(
            writes(&resources, false),
            [
                pair("memory.limit_in_bytes", "67108864"),
                pair("memory.memsw.limit_in_bytes", "134217728"),
                pair("cpu.shares", "1024"),
                pair("cpu.cfs_period_us", "100000"),
                pair("cpu.cfs_quota_us", "50000"),
                pair("pids.max", "20"),
            ]
        );
        assert_eq!(
            writes(&resources, true),
            [
                pair("memory.max", "67108864"),
                pair("memory.swap.max", "67108864"),
                pair("cpu.weight", "39"),
                pair("cpu.max", "50000 100000"),
                pair("pids.max", "20"),
            ]
        );
    }

    #[test]
    fn the_ends_of_the_weights() {
        assert_eq!([2, 262_144].map(weight_of_shares), [1, 10_000]);
        assert_eq!([10, 1000].map(io_weight), [1, 10_000]);
    }
}
