//! `docker inspect`, from a snapshot.

use std::collections::HashMap;

use proto_api::models::{
    ContainerInspectResponse, ContainerState, DriverData, HostConfigCgroupnsModeEnum as CgroupNs,
    NetworkSettings,
};

use super::registry::View;
use super::state::State;
use super::{Error, Inner, list, log_target, mounts, time_text};

impl Inner {
    /// See [`super::Engine::inspect`].
    pub(super) async fn inspect(&self, view: &View, size: bool) -> Result<ContainerInspectResponse, Error> {
        let record = &view.record;
        let dir = self.store.container_dir(&view.id);
        let file = |name: &str| Some(dir.join(name).display().to_string());
        let log =
            log_target::readable(record).then(|| log_target::path(&dir, &view.id).display().to_string());
        let image = self.store.image(&record.image_id).ok();
        let size_rw = match size {
            true => Some(self.store.snapshot_size_bytes(&view.id).await?),
            false => None,
        };
        let total = size_rw.map(|own| own + image.as_ref().map_or(0, |image| image.size_bytes));
        let restarts = match &view.state {
            State::Running(run) => run.restarts,
            State::Starting { restarts, .. } => *restarts,
            State::Exited(exit) | State::Restarting { last: exit, .. } => exit.restarts,
            _ => 0,
        };
        let mut host = record.host.clone();
        host.cgroupns_mode = host.cgroupns_mode.or(Some(CgroupNs::PRIVATE));
        Ok(ContainerInspectResponse {
            id: Some(view.id.clone()),
            created: Some(time_text::rfc3339(record.created)),
            path: Some(record.path.clone()),
            args: Some(record.args.clone()),
            state: Some(state(&view.state)),
            image: Some(record.image_id.clone()),
            resolv_conf_path: file("resolv.conf"),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            log_path: Some(log.unwrap_or_default()),
            name: Some(format!("/{}", view.name)),
            restart_count: Some(i64::from(restarts)),
            driver: Some("overlay2".to_owned()),
            platform: Some("linux".to_owned()),
            image_manifest_descriptor: None,
            mount_label: Some(String::new()),
            process_label: Some(String::new()),
            app_armor_profile: Some(String::new()),
            exec_ids: Some(self.exec_ids(&view.id)).filter(|ids| !ids.is_empty()),
            host_config: Some(host),
            graph_driver: Some(self.graph_driver(view)),
            storage: None,
            size_rw: size_rw.and_then(|size| i64::try_from(size).ok()),
            size_root_fs: total.and_then(|size| i64::try_from(size).ok()),
            mounts: Some(
                mounts::collect(&record.host)
                    .unwrap_or_default()
                    .iter()
                    .filter(|mount| mount.source.is_some())
                    .map(mounts::UserMount::point)
                    .collect(),
            ),
            config: Some(record.config.clone()),
            network_settings: Some(NetworkSettings {
                sandbox_id: Some(String::new()),
                sandbox_key: Some(String::new()),
                ports: Some(HashMap::new()),
                networks: Some(list::networks(view)),
            }),
        })
    }

    fn graph_driver(&self, view: &View) -> DriverData {
        let image = storage::ImageId::parse(&view.record.image_id);
        let root = image.and_then(|image| self.store.root_mount(&view.id, &image).ok());
        let data = root.map(|root| {
            let lower: Vec<String> = root.lower.iter().map(|path| path.display().to_string()).collect();
            HashMap::from([
                ("LowerDir".to_owned(), lower.join(":")),
                ("UpperDir".to_owned(), root.upper.display().to_string()),
                ("WorkDir".to_owned(), root.work.display().to_string()),
            ])
        });
        DriverData { name: "overlay2".to_owned(), data: data.unwrap_or_default() }
    }
}

fn state(state: &State) -> ContainerState {
    let flags = state.flags();
    ContainerState {
        status: Some(flags.status),
        running: Some(flags.running),
        paused: Some(flags.paused),
        restarting: Some(flags.restarting),
        oom_killed: Some(flags.oom_killed),
        dead: Some(flags.dead),
        pid: Some(i64::from(flags.pid)),
        exit_code: Some(i64::from(flags.exit_code)),
        error: Some(flags.error),
        started_at: Some(time_text::rfc3339_or_zero(flags.started_at)),
        finished_at: Some(time_text::rfc3339_or_zero(flags.finished_at)),
        health: None,
    }
}
