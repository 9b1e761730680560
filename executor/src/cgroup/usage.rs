//! Reading what a group has used.

use super::hierarchies::Hierarchies;
use super::{Cgroup, Usage, keyed};

/// Ticks a second of `cpuacct.stat` (USER_HZ, fixed in the kernel's ABI).
const NS_PER_TICK: u64 = 1_000_000_000 / 100;

/// v1 says "no limit" with a number near the largest one.
const NO_LIMIT: u64 = 1 << 62;

pub(super) fn read(group: &Cgroup) -> Usage {
    if Hierarchies::host().is_v2() { unified(group) } else { legacy(group) }
}

fn unified(group: &Cgroup) -> Usage {
    let text = |controller, file| group.read(controller, file).unwrap_or_default();
    let cpu = text("cpu", "cpu.stat");
    let cpu_us = |key| keyed(&cpu, key).unwrap_or(0) * 1000;
    let memory = group.number("memory", "memory.current").unwrap_or(0);
    let cache = keyed(&text("memory", "memory.stat"), "inactive_file").unwrap_or(0);
    Usage {
        cpu_ns: (cpu_us("usage_usec"), cpu_us("system_usec"), cpu_us("user_usec")),
        memory_bytes: memory.saturating_sub(cache),
        memory_limit_bytes: group.number("memory", "memory.max"),
        pids: group.number("pids", "pids.current").unwrap_or(0),
        oom_kills: keyed(&text("memory", "memory.events"), "oom_kill").unwrap_or(0),
    }
}

fn legacy(group: &Cgroup) -> Usage {
    let text = |controller, file| group.read(controller, file).unwrap_or_default();
    let ticks = text("cpuacct", "cpuacct.stat");
    let ticks = |key| keyed(&ticks, key).unwrap_or(0) * NS_PER_TICK;
    let memory = group.number("memory", "memory.usage_in_bytes").unwrap_or(0);
    let cache = keyed(&text("memory", "memory.stat"), "total_inactive_file").unwrap_or(0);
    Usage {
        cpu_ns: (group.number("cpuacct", "cpuacct.usage").unwrap_or(0), ticks("system"), ticks("user")),
        memory_bytes: memory.saturating_sub(cache),
        memory_limit_bytes: group.number("memory", "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT),
        pids: group.number("pids", "pids.current").unwrap_or(0),
        oom_kills: keyed(&text("memory", "memory.oom_control"), "oom_kill").unwrap_or(0),
    }
}
