//! `docker ps`: summaries and filters, from snapshots.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use proto_api::models::{
    ContainerStateStatusEnum as Status, ContainerSummary, ContainerSummaryHostConfig,
    ContainerSummaryNetworkSettings, ContainerSummaryStateEnum as SummaryState, EndpointSettings,
    PortSummary, PortSummaryTypeEnum as PortType,
};
use regex::Regex;

use super::registry::View;
use super::state::Flags;
use super::{Error, Inner, ListOptions, mounts, time_text};

const FILTERS: [&str; 17] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "annotation",
];

const STATUSES: [&str; 8] =
    ["created", "restarting", "running", "removing", "paused", "exited", "dead", "stopping"];

/// `Up 3 minutes`, `Exited (0) 5 seconds ago`.
pub fn status_text(flags: &Flags, now: SystemTime) -> String {
    let since = |time: Option<SystemTime>| {
        time_text::human(now.duration_since(time.unwrap_or(now)).unwrap_or_default())
    };
    match flags.status {
        Status::RUNNING => format!("Up {}", since(flags.started_at)),
        Status::PAUSED => format!("Up {} (Paused)", since(flags.started_at)),
        Status::RESTARTING => format!("Restarting ({}) {} ago", flags.exit_code, since(flags.finished_at)),
        Status::REMOVING => "Removal In Progress".to_owned(),
        Status::DEAD => "Dead".to_owned(),
        Status::EXITED => format!("Exited ({}) {} ago", flags.exit_code, since(flags.finished_at)),
        _ => "Created".to_owned(),
    }
}

fn summary_state(status: Status) -> SummaryState {
    match status {
        Status::EMPTY => SummaryState::EMPTY,
        Status::CREATED => SummaryState::CREATED,
        Status::RUNNING => SummaryState::RUNNING,
        Status::PAUSED => SummaryState::PAUSED,
        Status::RESTARTING => SummaryState::RESTARTING,
        Status::REMOVING => SummaryState::REMOVING,
        Status::EXITED => SummaryState::EXITED,
        Status::DEAD => SummaryState::DEAD,
        Status::STOPPING => SummaryState::STOPPING,
    }
}

/// The one network a container is in, by its mode.
pub fn networks(view: &View) -> HashMap<String, EndpointSettings> {
    let mode = view.record.host.network_mode.clone().unwrap_or_default();
    match mode.starts_with("container:") {
        true => HashMap::new(),
        false => HashMap::from([(mode, EndpointSettings::default())]),
    }
}

fn ports(view: &View) -> Vec<PortSummary> {
    let parse = |text: &String| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let typ = match protocol {
            "tcp" => PortType::TCP,
            "udp" => PortType::UDP,
            "sctp" => PortType::SCTP,
            _ => return None,
        };
        Some(PortSummary { ip: None, private_port: port.parse().ok()?, public_port: None, typ: Some(typ) })
    };
    match view.state.is_running() {
        true => view.record.config.exposed_ports.iter().flatten().filter_map(parse).collect(),
        false => vec![],
    }
}

impl Inner {
    /// See [`super::Engine::list`].
    pub(super) async fn list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>, Error> {
        let bad = |error: proto_api::filters::FilterError| Error::Invalid(error.to_string());
        let filters = options.filters.only(&FILTERS).map_err(bad)?;
        let filter = Filter::new(self, filters, options.all || options.limit.is_some())?;
        let limit = options.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let now = SystemTime::now();
        let chosen: Vec<_> =
            self.registry.views().into_iter().filter(|view| filter.matches(view)).take(limit).collect();
        let mut summaries = Vec::with_capacity(chosen.len());
        for view in chosen {
            let mut summary = self.summary(&view, now);
            if options.size {
                let own = self.store.snapshot_size_bytes(&view.id).await?;
                let image = self.store.image(&view.record.image_id).map_or(0, |image| image.size_bytes);
                summary.size_rw = i64::try_from(own).ok();
                summary.size_root_fs = i64::try_from(own + image).ok();
            }
            summaries.push(summary);
        }
        Ok(summaries)
    }

    fn summary(&self, view: &View, now: SystemTime) -> ContainerSummary {
        let flags = view.state.flags();
        let record = &view.record;
        let command: Vec<String> = record
            .command_line()
            .into_iter()
            .map(|word| if word.contains(' ') { format!("'{word}'") } else { word })
            .collect();
        ContainerSummary {
            id: Some(view.id.clone()),
            names: Some(vec![format!("/{}", view.name)]),
            image: Some(self.image_name(view)),
            image_id: Some(record.image_id.clone()),
            image_manifest_descriptor: None,
            command: Some(command.join(" ")),
            created: Some(time_text::unix(record.created)),
            ports: Some(ports(view)),
            size_rw: None,
            size_root_fs: None,
            labels: Some(record.config.labels.clone().unwrap_or_default()),
            state: Some(summary_state(flags.status)),
            status: Some(status_text(&flags, now)),
            host_config: Some(ContainerSummaryHostConfig {
                network_mode: record.host.network_mode.clone(),
                annotations: record.host.annotations.clone(),
            }),
            network_settings: Some(ContainerSummaryNetworkSettings { networks: Some(networks(view)) }),
            mounts: Some(
                mounts::collect(&record.host)
                    .unwrap_or_default()
                    .iter()
                    .filter(|mount| mount.source.is_some())
                    .map(mounts::UserMount::point)
                    .collect(),
            ),
            health: None,
        }
    }

    /// The name it was created by, or the image's id once that name means another image.
    fn image_name(&self, view: &View) -> String {
        let name = view.record.config.image.clone().unwrap_or_default();
        match self.store.image(&name) {
            Ok(image) if image.id.as_str() == view.record.image_id => name,
            _ => view.record.image_id.clone(),
        }
    }
}

/// The filters, read once.
struct Filter<'a> {
    engine: &'a Inner,
    filters: proto_api::filters::Filters,
    all: bool,
    names: Vec<Regex>,
    exited: Vec<i32>,
    before: Option<Arc<View>>,
    since: Option<Arc<View>>,
    ancestors: Option<Vec<String>>,
}

impl<'a> Filter<'a> {
    fn new(engine: &'a Inner, filters: proto_api::filters::Filters, all: bool) -> Result<Self, Error> {
        let bad = |name: &str, value: &String| Error::Invalid(format!("invalid filter '{name}={value}'"));
        let names = filters.get("name").iter();
        let names =
            names.map(|name| Regex::new(name).map_err(|_| bad("name", name))).collect::<Result<_, _>>()?;
        let exited = filters.get("exited").iter();
        let exited: Vec<i32> =
            exited.map(|code| code.parse().map_err(|_| bad("exited", code))).collect::<Result<_, _>>()?;
        if let Some(status) = filters.get("status").iter().find(|status| !STATUSES.contains(&status.as_str()))
        {
            return Err(bad("status", status));
        }
        let task = filters.boolean("is-task").map_err(|error| Error::Invalid(error.to_string()))?;
        if let Some(health) = filters
            .get("health")
            .iter()
            .find(|health| !["none", "starting", "healthy", "unhealthy"].contains(&health.as_str()))
        {
            return Err(bad("health", health));
        }
        let point = |name: &str| match filters.get(name).last() {
            Some(container) => engine.registry.find(container).map(|handle| Some(handle.now())),
            None => Ok(None),
        };
        let (before, since) = (point("before")?, point("since")?);
        let ancestors = filters.has("ancestor").then(|| engine.descendants(filters.get("ancestor")));
        let all = all
            || ["status", "exited", "before", "since"].iter().any(|name| filters.has(name))
            || task == Some(true);
        Ok(Self { engine, all, names, exited, before, since, ancestors, filters })
    }

    fn matches(&self, view: &View) -> bool {
        let flags = view.state.flags();
        let filters = &self.filters;
        let record = &view.record;
        let slashed = format!("/{}", view.name);
        let mode = record.host.network_mode.as_deref().unwrap_or_default();
        let exposed = |value: &String| {
            let wanted = if value.contains('/') { value.clone() } else { format!("{value}/tcp") };
            record.config.exposed_ports.iter().flatten().any(|port| *port == wanted)
        };
        let mounted = || mounts::collect(&record.host).unwrap_or_default();
        (self.all || flags.running)
            && filters.any("status", |status| flags.status.to_string() == *status)
            && filters.any("id", |id| view.id.starts_with(id.as_str()))
            && (self.names.is_empty()
                || self.names.iter().any(|name| name.is_match(&view.name) || name.is_match(&slashed)))
            && (self.exited.is_empty()
                || (!flags.running && flags.finished_at.is_some() && self.exited.contains(&flags.exit_code)))
            && self.before.as_ref().is_none_or(|point| older(view, point))
            && self.since.as_ref().is_none_or(|point| older(point, view))
            && self.ancestors.as_ref().is_none_or(|ids| ids.contains(&record.image_id))
            && filters.labels("label", |key| record.config.labels.as_ref()?.get(key).cloned())
            && (!filters.has("label!")
                || !filters.labels("label!", |key| record.config.labels.as_ref()?.get(key).cloned()))
            && filters.labels("annotation", |key| record.host.annotations.as_ref()?.get(key).cloned())
            && filters.any("network", |network| mode == network)
            && filters.any("health", |health| health == "none")
            && filters.any("is-task", |task| matches!(task.as_str(), "false" | "0"))
            && filters.any("isolation", |isolation| isolation == "default")
            && filters.any("expose", exposed)
            && !filters.has("publish")
            && filters.any("volume", |volume| {
                mounted().iter().any(|mount| {
                    mount.destination == *volume
                        || mount.source.as_ref().is_some_and(|s| s.to_str() == Some(volume))
                })
            })
            && self.engine.registry.find(&view.id).is_ok()
    }
}

fn older(view: &View, than: &View) -> bool {
    (view.record.created, &view.id) < (than.record.created, &than.id)
}

impl Inner {
    /// Ids of the images that are named, or that are built on them.
    fn descendants(&self, names: &[String]) -> Vec<String> {
        let mut ids = Vec::new();
        for name in names {
            let Ok(base) = self.store.image(name) else {
                continue;
            };
            let layers = base.config.rootfs().diff_ids();
            for image in self.store.images() {
                if image.id == base.id || image.config.rootfs().diff_ids().starts_with(layers) {
                    ids.push(image.id.as_str().to_owned());
                }
            }
        }
        ids
    }
}
