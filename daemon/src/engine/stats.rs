//! `docker stats`: samples of a container's control group.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use executor::cgroup::Usage;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use proto_api::models::{
    ContainerBlkioStats, ContainerCpuStats, ContainerCpuUsage, ContainerMemoryStats, ContainerPidsStats,
    ContainerStatsResponse, ContainerStorageStats, ContainerThrottlingData,
};

use super::registry::{Handle, View};
use super::{Inner, time_text};

/// One sample a second.
const INTERVAL: Duration = Duration::from_secs(1);

struct Host {
    system_ns: u64,
    cpus: u32,
    memory_bytes: u64,
}

/// Reads the host's CPU time and memory from procfs.
fn host() -> Host {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let ticks: u64 =
        first.split_whitespace().skip(1).take(7).filter_map(|text| text.parse::<u64>().ok()).sum();
    let cpus = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    Host {
        system_ns: ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
        cpus: u32::try_from(cpus).unwrap_or(1),
        memory_bytes: kib.unwrap_or(0) * 1024,
    }
}

fn cpu(usage: &Usage, host: &Host) -> ContainerCpuStats {
    let (total, kernel, user) = usage.cpu_ns;
    ContainerCpuStats {
        cpu_usage: Some(ContainerCpuUsage {
            total_usage: Some(total),
            percpu_usage: None,
            usage_in_kernelmode: Some(kernel),
            usage_in_usermode: Some(user),
        }),
        system_cpu_usage: Some(host.system_ns),
        online_cpus: Some(host.cpus),
        throttling_data: Some(ContainerThrottlingData {
            periods: Some(0),
            throttled_periods: Some(0),
            throttled_time: Some(0),
        }),
    }
}

type Sample = (SystemTime, ContainerCpuStats);

fn nothing() -> ContainerCpuStats {
    let usage = ContainerCpuUsage {
        total_usage: Some(0),
        percpu_usage: None,
        usage_in_kernelmode: Some(0),
        usage_in_usermode: Some(0),
    };
    let throttling =
        ContainerThrottlingData { periods: Some(0), throttled_periods: Some(0), throttled_time: Some(0) };
    ContainerCpuStats {
        cpu_usage: Some(usage),
        throttling_data: Some(throttling),
        ..ContainerCpuStats::default()
    }
}

/// A container that does not run has zeros, as in Docker.
async fn sample(engine: &Inner, view: &View) -> (Usage, Option<Host>) {
    if !view.state.is_running() {
        return (Usage::default(), None);
    }
    match engine.runtime.usage(&engine.cgroup_path(&view.id)).await {
        Ok(usage) => (usage, Some(host())),
        Err(_) => (Usage::default(), None),
    }
}

fn response(
    view: &View,
    usage: &Usage,
    host: Option<&Host>,
    before: Option<&Sample>,
) -> (ContainerStatsResponse, Sample) {
    let now = SystemTime::now();
    let current = host.map_or_else(nothing, |host| cpu(usage, host));
    let memory = host.map(|host| ContainerMemoryStats {
        usage: Some(usage.memory_bytes),
        limit: Some(usage.memory_limit_bytes.unwrap_or(host.memory_bytes).min(host.memory_bytes)),
        stats: Some(std::collections::HashMap::new()),
        ..ContainerMemoryStats::default()
    });
    let pids = host.map(|_| ContainerPidsStats { current: Some(usage.pids), limit: pids_limit(view) });
    let (preread, precpu) = match before {
        Some((at, cpu)) => (time_text::rfc3339(*at), cpu.clone()),
        None => (time_text::ZERO.to_owned(), nothing()),
    };
    let response = ContainerStatsResponse {
        id: Some(view.id.clone()),
        name: Some(format!("/{}", view.name)),
        os_type: Some("linux".to_owned()),
        read: Some(time_text::rfc3339(now)),
        cpu_stats: Some(current.clone()),
        memory_stats: Some(memory.unwrap_or_default()),
        networks: None,
        pids_stats: Some(pids.unwrap_or_default()),
        blkio_stats: Some(ContainerBlkioStats::default()),
        num_procs: Some(0),
        storage_stats: Some(ContainerStorageStats::default()),
        preread: Some(preread),
        precpu_stats: Some(precpu),
    };
    (response, (now, current))
}

fn pids_limit(view: &View) -> Option<u64> {
    view.record.host.pids_limit.filter(|limit| *limit > 0).and_then(|limit| u64::try_from(limit).ok())
}

/// See [`super::Engine::stats`].
pub(super) fn stream(
    engine: Arc<Inner>,
    handle: Handle,
    stream: bool,
    one_shot: bool,
) -> BoxStream<'static, ContainerStatsResponse> {
    let samples = futures_util::stream::unfold((engine, handle, None::<Sample>), move |state| async move {
        let (engine, handle, mut before) = state;
        // The first sample of a stream comes at once; a single one needs another before it.
        if before.is_some() {
            tokio::time::sleep(INTERVAL).await;
        } else if !stream && !one_shot {
            let view = handle.now();
            let (usage, host) = sample(&engine, &view).await;
            if host.is_some() {
                before = Some(response(&view, &usage, host.as_ref(), None).1);
                tokio::time::sleep(INTERVAL).await;
            }
        }
        if engine.registry.find(&handle.now().id).is_err() {
            return None;
        }
        let view = handle.now();
        let (usage, host) = sample(&engine, &view).await;
        let (response, now) = response(&view, &usage, host.as_ref(), before.as_ref());
        Some((response, (engine, handle, Some(now))))
    });
    match stream {
        true => samples.boxed(),
        false => samples.take(1).boxed(),
    }
}
