//! Docker's resource limits as the runtime specification has them.

use oci_spec::runtime::{
    LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxMemoryBuilder, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder,
};

use super::{Resources, SpecError};

/// Docker's period where only `--cpus` is given.
const PERIOD_US: u64 = 100_000;

const MIN_MEMORY_BYTES: i64 = 6 * 1024 * 1024;

fn invalid(text: impl Into<String>) -> SpecError {
    SpecError::Invalid(text.into())
}

fn broken(error: oci_spec::OciSpecError) -> SpecError {
    SpecError::Invalid(error.to_string())
}

/// Validates and converts. 0 counts as not given, as in the Engine API.
pub fn to_oci(resources: &Resources, devices: Vec<LinuxDeviceCgroup>) -> Result<LinuxResources, SpecError> {
    let mut out = LinuxResourcesBuilder::default();
    if !devices.is_empty() {
        out = out.devices(devices);
    }
    out = memory(resources, out)?;
    out = cpu(resources, out)?;
    if let Some(limit) = resources.pids_limit.filter(|limit| *limit != 0) {
        let limit = if limit < 0 { -1 } else { limit };
        out = out.pids(LinuxPidsBuilder::default().limit(limit).build().map_err(broken)?);
    }
    if let Some(weight) = resources.blkio_weight.filter(|weight| *weight != 0) {
        if !(10..=1000).contains(&weight) {
            return Err(invalid("Range of blkio weight is from 10 to 1000"));
        }
        out = out.block_io(LinuxBlockIoBuilder::default().weight(weight).build().map_err(broken)?);
    }
    out.build().map_err(broken)
}

fn memory(resources: &Resources, out: LinuxResourcesBuilder) -> Result<LinuxResourcesBuilder, SpecError> {
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let limit = given(resources.memory_bytes);
    let swap = given(resources.memory_swap_bytes);
    let reservation = given(resources.memory_reservation_bytes);
    let swappiness = resources.memory_swappiness.filter(|value| *value >= 0);
    if limit.is_some_and(|limit| limit > 0 && limit < MIN_MEMORY_BYTES) {
        return Err(invalid("Minimum memory limit allowed is 6MB"));
    }
    match (limit, swap) {
        (None, Some(swap)) if swap > 0 => {
            return Err(invalid(
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ));
        }
        (Some(limit), Some(swap)) if swap > 0 && swap < limit => {
            return Err(invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
        }
        _ => {}
    }
    if swappiness.is_some_and(|value| value > 100) {
        let value = swappiness.unwrap_or_default();
        return Err(invalid(format!("Invalid value: {value}, valid memory swappiness range is 0-100")));
    }
    if let Some(reservation) = reservation {
        if reservation < MIN_MEMORY_BYTES {
            return Err(invalid("Minimum memory reservation allowed is 6MB"));
        }
        if limit.is_some_and(|limit| limit > 0 && reservation > limit) {
            return Err(invalid(
                "Minimum memory limit can not be less than memory reservation limit, see usage",
            ));
        }
    }
    if limit.is_none()
        && swap.is_none()
        && reservation.is_none()
        && swappiness.is_none()
        && !resources.oom_kill_disable
    {
        return Ok(out);
    }
    let mut memory = LinuxMemoryBuilder::default();
    if let Some(limit) = limit {
        memory = memory.limit(limit);
        // Docker's default: as much swap as memory.
        memory = memory.swap(swap.unwrap_or(if limit > 0 { limit.saturating_mul(2) } else { -1 }));
    } else if let Some(swap) = swap {
        memory = memory.swap(swap);
    }
    if let Some(reservation) = reservation {
        memory = memory.reservation(reservation);
    }
    if let Some(swappiness) = swappiness {
        memory = memory.swappiness(swappiness as u64);
    }
    if resources.oom_kill_disable {
        memory = memory.disable_oom_killer(true);
    }
    Ok(out.memory(memory.build().map_err(broken)?))
}

fn cpu(resources: &Resources, out: LinuxResourcesBuilder) -> Result<LinuxResourcesBuilder, SpecError> {
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let nano = given(resources.nano_cpus);
    let (quota, period) = (given(resources.cpu_quota_us), given(resources.cpu_period_us));
    let shares = given(resources.cpu_shares);
    let cpus = resources.cpuset_cpus.as_deref().filter(|list| !list.is_empty());
    let mems = resources.cpuset_mems.as_deref().filter(|list| !list.is_empty());
    if nano.is_none()
        && quota.is_none()
        && period.is_none()
        && shares.is_none()
        && cpus.is_none()
        && mems.is_none()
    {
        return Ok(out);
    }
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(nano) = nano {
        if quota.is_some() {
            return Err(invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set"));
        }
        if period.is_some() {
            return Err(invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set"));
        }
        let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // A daemon that is itself pinned sees fewer; the host's count is what Docker compares with.
        let available = available.max(host_cpus());
        let most = i64::try_from(available).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        if nano < 0 || nano > most {
            return Err(invalid(format!(
                "range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs available"
            )));
        }
        // 1 ms of a 100 ms period is the least the kernel takes.
        if nano < 10_000_000 {
            return Err(invalid(format!(
                "range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs available"
            )));
        }
        cpu = cpu.period(PERIOD_US).quota((i128::from(nano) * i128::from(PERIOD_US) / 1_000_000_000) as i64);
    }
    if let Some(period) = period {
        if !(1000..=1_000_000).contains(&period) {
            return Err(invalid(
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            ));
        }
        cpu = cpu.period(period as u64);
    }
    if let Some(quota) = quota {
        if (0..1000).contains(&quota) {
            return Err(invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
        }
        cpu = cpu.quota(quota);
    }
    if let Some(shares) = shares {
        if shares < 0 {
            return Err(invalid(format!("invalid CPU shares ({shares}): value must be a positive integer")));
        }
        cpu = cpu.shares(shares.clamp(2, 262_144) as u64);
    }
    if let Some(cpus) = cpus {
        check_list(cpus, "cpuset cpus")?;
        cpu = cpu.cpus(cpus);
    }
    if let Some(mems) = mems {
        check_list(mems, "cpuset mems")?;
        cpu = cpu.mems(mems);
    }
    Ok(out.cpu(cpu.build().map_err(broken)?))
}

/// CPUs the machine has on line.
fn host_cpus() -> usize {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    list.trim()
        .split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(last.parse::<usize>().ok()?.saturating_sub(first.parse().ok()?) + 1)
        })
        .sum()
}

/// `0-2,4` and nothing else, since the text is written to a kernel file as it is.
fn check_list(list: &str, what: &str) -> Result<(), SpecError> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let good = list.split(',').all(|part| match part.split_once('-') {
        Some((first, last)) => {
            matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
        }
        None => number(part).is_some(),
    });
    if good { Ok(()) } else { Err(invalid(format!("Invalid value {list} for {what}"))) }
}
