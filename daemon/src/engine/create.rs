//! Creating a container, and taking one away.
//!
//! The row comes last: a crash before it leaves a writable layer and a directory that no row names,
//! which the store sweeps at its next start.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use executor::plan::RootSource;
use executor::shims::{Attachment, ProcessId};
use proto_api::models::{ContainerCreateBody, HealthConfig};
use storage::{ContainerRow, Image, ImageId, RootMount};

use super::actor::Actor;
use super::record::{self, Record};
use super::registry::View;
use super::runtime::{Launch, Task};
use super::spec_input::{self, Surroundings};
use super::state::State;
use super::{Created, Error, Inner, files, log_target, names, validate};

impl Inner {
    /// See [`super::Engine::create`]. Not to be cancelled.
    pub(super) async fn create(
        self: Arc<Self>,
        name: Option<String>,
        mut body: ContainerCreateBody,
        platform: Option<String>,
    ) -> Result<Created, Error> {
        let wanted = match name.filter(|name| !name.is_empty()) {
            Some(name) => Some(names::checked(&name)?.to_owned()),
            None => None,
        };
        let reference = body.image.clone().unwrap_or_default();
        if reference.is_empty() {
            return Err(Error::Invalid("no image was named".into()));
        }
        let image = self.store.image(&reference)?;
        check_platform(&image, &reference, platform.as_deref())?;
        let id = names::new_id();
        validate::check_body(&body)?;
        let host = validate::adapt(body.host_config.clone().unwrap_or_default(), |name| {
            Ok(self.registry.find(name)?.now().id.clone())
        })?;
        let host_uts =
            host.uts_mode.as_deref() == Some("host") || host.network_mode.as_deref() == Some("host");
        if body.healthcheck.is_none() {
            body.healthcheck = health_check(&image);
        }
        let (config, path, args) = record::merge(body, &image, &id, host_uts)?;
        let warnings = warnings(&image, config.healthcheck.as_ref());
        let record = Record {
            created: SystemTime::now(),
            image_id: image.id.as_str().to_owned(),
            path,
            args,
            config,
            host,
        };
        let name = self.take_name(wanted, &id)?;
        if let Err(error) = self.make(&id, &name, &record, &image.id).await {
            self.registry.release(&name);
            self.unmake(&id).await;
            return Err(error);
        }
        let record = Arc::new(record);
        let state = State::Created { failure: None };
        self.emit_container("create", &id, &name, &record, &[]);
        Actor::spawn(self.clone(), View { id: id.clone(), name, record, state, task: None }, None);
        Ok(Created { id, warnings })
    }

    fn take_name(&self, wanted: Option<String>, id: &str) -> Result<String, Error> {
        if let Some(name) = wanted {
            self.registry.reserve(&name, id)?;
            return Ok(name);
        }
        for attempt in 0..12 {
            let name = names::random_name(attempt);
            if self.registry.reserve(&name, id).is_ok() {
                return Ok(name);
            }
        }
        let name = id[..12].to_owned();
        self.registry.reserve(&name, id)?;
        Ok(name)
    }

    async fn make(&self, id: &str, name: &str, record: &Record, image: &ImageId) -> Result<(), Error> {
        let dir = self.store.container_dir(id);
        make_dir(&dir)?;
        self.store.prepare_snapshot(id, image).await?;
        let row = ContainerRow {
            id: id.to_owned(),
            name: name.to_owned(),
            config: serde_json::to_string(record).expect("a record serialises"),
            state: serde_json::to_string(&State::Created { failure: None }).expect("a state serialises"),
        };
        match self.store.insert_container(&row).await? {
            true => Ok(()),
            false => {
                Err(Error::Conflict(format!("Conflict. The container name \"/{name}\" is already in use")))
            }
        }
    }

    /// Takes back what [`Inner::make`] did; the error that led here is the one to tell.
    async fn unmake(&self, id: &str) {
        if let Err(error) = self.store.remove_snapshot(id).await {
            tracing::warn!(container = id, %error, "snapshot of a container that was not made stays until the next start");
        }
        if let Err(error) = remove_dir(&self.store.container_dir(id)).await {
            tracing::warn!(container = id, %error, "directory of a container that was not made stays until the next start");
        }
    }

    /// Builds everything a start needs and starts.
    pub(super) async fn launch(
        self: &Arc<Self>,
        id: &str,
        record: Arc<Record>,
        attach: Vec<Attachment>,
    ) -> Result<(ProcessId, Arc<dyn Task>), Error> {
        let image = ImageId::parse(&record.image_id)
            .ok_or_else(|| Error::Internal(format!("container {id} has no image id")))?;
        let RootMount { lower, upper, work } = self.store.root_mount(id, &image)?;
        let root = RootSource::Overlay { lower, upper, work };
        let dir = self.store.container_dir(id);
        let (engine, own_id) = (self.clone(), id.to_owned());
        let launch = tokio::task::spawn_blocking(move || {
            let files_dir =
                match record.host.network_mode.as_deref().and_then(|mode| mode.strip_prefix("container:")) {
                    Some(other) => engine.store.container_dir(&engine.registry.find(other)?.now().id),
                    None => {
                        files::write(&record, &dir)?;
                        dir.clone()
                    }
                };
            let around = Surroundings {
                id: &own_id,
                cgroup_path: engine.cgroup_path(&own_id),
                files_dir,
                init_of: &|other| engine.init_of(other),
            };
            let spec = spec_input::build(&record, &around)?;
            let open_stdin = record.config.open_stdin == Some(true);
            let stdin_once = record.config.stdin_once == Some(true);
            let log = log_target::target(&record, &dir, &own_id)?;
            Ok::<_, Error>(Launch { spec, root, open_stdin, stdin_once, log, attach })
        })
        .await
        .map_err(|error| Error::Internal(error.to_string()))??;
        Ok(self.runtime.start(launch).await?)
    }

    fn init_of(&self, id: &str) -> Result<i32, Error> {
        let view = self.registry.find(id)?.now();
        match view.state.flags().pid {
            0 => Err(Error::Conflict(format!("cannot join namespace of a non running container: {id}"))),
            pid => Ok(pid),
        }
    }

    /// Deletes everything that belongs to a container, its row last. Does all it can.
    pub(super) async fn remove_everything(&self, id: &str) -> Result<(), Error> {
        let cgroup = self.cgroup_path(id);
        let dir = self.store.container_dir(id);
        let (forgotten, snapshot, files) =
            tokio::join!(self.runtime.forget(id, &cgroup), self.store.remove_snapshot(id), remove_dir(&dir));
        forgotten?;
        snapshot?;
        files?;
        Ok(self.store.delete_container(id).await?)
    }
}

/// The health check of an image, which is Docker's own addition to the OCI's configuration.
fn health_check(image: &Image) -> Option<HealthConfig> {
    #[derive(serde::Deserialize)]
    struct Configuration {
        config: Option<Settings>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Settings {
        healthcheck: Option<HealthConfig>,
    }
    serde_json::from_slice::<Configuration>(&image.raw_config).ok()?.config?.healthcheck
}

/// What the image asks for and does not get. A health check that the user asks for is refused earlier.
fn warnings(image: &Image, health: Option<&HealthConfig>) -> Vec<String> {
    let mut warnings = vec![];
    let volumes =
        image.config.config().as_ref().and_then(|config| config.volumes().clone()).unwrap_or_default();
    if !volumes.is_empty() {
        warnings.push(format!(
            "volumes of the image ({}) are kept in the container's writable layer: anonymous volumes are not supported yet",
            volumes.join(", ")
        ));
    }
    let test = health.and_then(|health| health.test.as_deref()).unwrap_or_default();
    if test.first().is_some_and(|kind| kind != "NONE") {
        warnings.push("the health check of the image is not run: health checks are not supported yet".into());
    }
    warnings
}

fn check_platform(image: &Image, reference: &str, platform: Option<&str>) -> Result<(), Error> {
    let Some(wanted) = platform.filter(|platform| !platform.is_empty()) else {
        return Ok(());
    };
    let normal = |arch: &str| match arch {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    let mut parts = wanted.split('/');
    let os = parts.next().unwrap_or_default();
    let arch = parts.next().map(normal);
    let (own_os, own_arch) = (image.config.os().to_string(), image.config.architecture().to_string());
    let same_variant = match (parts.next(), image.config.variant()) {
        (Some(wanted), Some(own)) => wanted == own,
        _ => true,
    };
    if os == own_os && arch.is_none_or(|arch| arch == own_arch) && same_variant {
        return Ok(());
    }
    Err(Error::WrongPlatform(format!(
        "image with reference {reference} was found but its platform ({own_os}/{own_arch}) does not match the specified platform ({wanted})"
    )))
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(Error::io(format!("make {}", dir.display())))
}

async fn remove_dir(dir: &Path) -> Result<(), Error> {
    match tokio::fs::remove_dir_all(dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}
