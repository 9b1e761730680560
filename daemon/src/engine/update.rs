//! Changes to many or to the limits of one: `update` and `prune`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto_api::filters::Filters;
use proto_api::models::{ContainerPruneResponse, ContainerUpdateBody, HostConfig};

use super::actor::Command;
use super::{Engine, Error, spec_input, validate};

/// See [`Engine::update`].
pub(super) async fn update(
    engine: &Engine,
    name: &str,
    body: ContainerUpdateBody,
) -> Result<Vec<String>, Error> {
    let view = engine.view(name)?;
    let mut record = (*view.record).clone();
    apply(&mut record.host, body)?;
    record.host = validate::adapt(record.host, |name| Ok(name.to_owned()))?;
    let resources = spec_input::resources(&record.host);
    let record = Box::new(record);
    engine.tell(&view.id, |reply| Command::Update { record, resources, reply }).await?;
    Ok(vec![])
}

/// What is given and not zero replaces what was there, as in Docker.
fn apply(host: &mut HostConfig, body: ContainerUpdateBody) -> Result<(), Error> {
    let ContainerUpdateBody {
        cpu_shares,
        memory,
        cgroup_parent,
        blkio_weight,
        blkio_weight_device,
        blkio_device_read_bps,
        blkio_device_write_bps,
        blkio_device_read_iops,
        blkio_device_write_iops,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus,
        cpuset_mems,
        devices,
        device_cgroup_rules,
        device_requests,
        memory_reservation,
        memory_swap,
        memory_swappiness,
        nano_cpus,
        oom_kill_disable,
        init,
        pids_limit,
        ulimits,
        cpu_count,
        cpu_percent,
        io_maximum_iops,
        io_maximum_bandwidth,
        restart_policy,
    } = body;
    let empty = |list: bool, name: &str| match list {
        true => Ok(()),
        false => Err(Error::Unsupported(format!("changing {name} of a container"))),
    };
    empty(cgroup_parent.is_none_or(|text| text.is_empty()), "CgroupParent")?;
    empty(blkio_weight_device.is_none_or(|list| list.is_empty()), "BlkioWeightDevice")?;
    empty(blkio_device_read_bps.is_none_or(|list| list.is_empty()), "BlkioDeviceReadBps")?;
    empty(blkio_device_write_bps.is_none_or(|list| list.is_empty()), "BlkioDeviceWriteBps")?;
    empty(blkio_device_read_iops.is_none_or(|list| list.is_empty()), "BlkioDeviceReadIOps")?;
    empty(blkio_device_write_iops.is_none_or(|list| list.is_empty()), "BlkioDeviceWriteIOps")?;
    empty(devices.is_none_or(|list| list.is_empty()), "Devices")?;
    empty(device_cgroup_rules.is_none_or(|list| list.is_empty()), "DeviceCgroupRules")?;
    empty(device_requests.is_none_or(|list| list.is_empty()), "DeviceRequests")?;
    empty(ulimits.is_none_or(|list| list.is_empty()), "Ulimits")?;
    empty(init.is_none(), "Init")?;
    for (value, name) in [
        (cpu_realtime_period, "CpuRealtimePeriod"),
        (cpu_realtime_runtime, "CpuRealtimeRuntime"),
        (cpu_count, "CpuCount"),
        (cpu_percent, "CpuPercent"),
        (io_maximum_iops, "IOMaximumIOps"),
        (io_maximum_bandwidth, "IOMaximumBandwidth"),
    ] {
        empty(value.is_none_or(|value| value == 0), name)?;
    }
    let number = |own: &mut Option<i64>, new: Option<i64>| {
        if let Some(new) = new.filter(|new| *new != 0) {
            *own = Some(new);
        }
    };
    let text = |own: &mut Option<String>, new: Option<String>| {
        if let Some(new) = new.filter(|new| !new.is_empty()) {
            *own = Some(new);
        }
    };
    let over_swap =
        host.memory_swap.is_some_and(|swap| swap > 0 && memory.is_some_and(|memory| memory > swap));
    if over_swap && memory_swap.is_none_or(|swap| swap == 0) {
        return Err(Error::Invalid(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
                .into(),
        ));
    }
    number(&mut host.cpu_shares, cpu_shares);
    number(&mut host.memory, memory);
    number(&mut host.cpu_period, cpu_period);
    number(&mut host.cpu_quota, cpu_quota);
    number(&mut host.memory_reservation, memory_reservation);
    number(&mut host.memory_swap, memory_swap);
    number(&mut host.nano_cpus, nano_cpus);
    number(&mut host.pids_limit, pids_limit);
    text(&mut host.cpuset_cpus, cpuset_cpus);
    text(&mut host.cpuset_mems, cpuset_mems);
    host.blkio_weight = blkio_weight.filter(|weight| *weight != 0).or(host.blkio_weight);
    host.memory_swappiness = memory_swappiness.filter(|value| *value >= 0).or(host.memory_swappiness);
    host.oom_kill_disable = oom_kill_disable.or(host.oom_kill_disable);
    if let Some(policy) =
        restart_policy.filter(|policy| policy.name.is_some_and(|name| !name.to_string().is_empty()))
    {
        if host.auto_remove == Some(true) {
            return Err(Error::Invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container".into(),
            ));
        }
        host.restart_policy = Some(policy);
    }
    Ok(())
}

/// `until` as a time: `10m`, `1h30m`, seconds since 1970, RFC 3339.
pub(super) fn moment(text: &str, now: SystemTime) -> Option<SystemTime> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok().map(|since| UNIX_EPOCH + since);
    }
    if let Some(age) = duration(text) {
        return now.checked_sub(age);
    }
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc().into());
    }
    let local = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"]
        .into_iter()
        .find_map(|format| chrono::NaiveDateTime::parse_from_str(text, format).ok())
        .or_else(|| chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))?;
    Some(local.and_local_timezone(chrono::Local).earliest()?.to_utc().into())
}

/// Go's durations, such as `1h30m` and `1.5s`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        total += value
            * match &rest[digits..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(total).ok() }
}

/// See [`Engine::prune`].
pub(super) async fn prune(engine: Engine, filters: Filters) -> Result<ContainerPruneResponse, Error> {
    let filters =
        filters.only(&["until", "label", "label!"]).map_err(|error| Error::Invalid(error.to_string()))?;
    let now = SystemTime::now();
    let until =
        match filters.get("until") {
            [] => None,
            [text] => Some(moment(text, now).ok_or_else(|| {
                Error::Invalid(format!("failed to parse value as time or duration: {text:?}"))
            })?),
            _ => return Err(Error::Invalid("more than one until filter specified".into())),
        };
    super::detached(async move {
        let mut deleted = Vec::new();
        let mut reclaimed = 0;
        for view in engine.0.registry.views() {
            let label = |key: &str| view.record.config.labels.as_ref()?.get(key).cloned();
            let excluded = filters.has("label!") && filters.labels("label!", label);
            let recent = until.is_some_and(|until| view.record.created > until);
            if view.state.flags().running
                || view.state.is_live()
                || !filters.labels("label", label)
                || excluded
                || recent
            {
                continue;
            }
            let bytes = engine.0.store.snapshot_size_bytes(&view.id).await.unwrap_or(0);
            match engine.remove(&view.id, false, false).await {
                Ok(()) => {
                    deleted.push(view.id.clone());
                    reclaimed += bytes;
                }
                // Somebody started or removed it in the meantime.
                Err(Error::Conflict(_) | Error::NoSuchContainer(_)) => {}
                Err(error) => tracing::warn!(container = view.id, %error, "not pruned"),
            }
        }
        Ok(ContainerPruneResponse {
            containers_deleted: Some(deleted),
            space_reclaimed: i64::try_from(reclaimed).ok(),
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_in_all_their_forms() {
        let now = UNIX_EPOCH + Duration::from_secs(10_000);
        let at =
            |text: &str| moment(text, now).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(at("10m"), Some(9_400));
        assert_eq!(at("1h30m"), Some(4_600));
        assert_eq!(at("5000"), Some(5_000));
        assert_eq!(at("1970-01-01T00:00:07Z"), Some(7));
        assert_eq!(at("1x"), None);
        assert_eq!(at(""), None);
    }
}
