//! `ctld`, the daemon.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use daemon::api::{Api, Service};
use daemon::config::{Config, DEFAULT_SOCKET, FileConfig, Listen, Overrides};
use daemon::engine::{Engine, EngineOptions};
use daemon::registry_server;
use daemon::server::{self, Listener};
use sd_notify::NotifyState;
use storage::{Credentials, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Answers the Docker Engine API on a Unix socket and runs containers.
#[derive(Debug, Parser)]
#[command(name = "ctld", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct Settings {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for images, layers, containers and the database
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Directory for the sockets and records of running containers
    #[arg(long, value_name = "DIR")]
    run_root: Option<PathBuf>,
    /// Where to listen: unix://PATH or fd:// (may be repeated)
    #[arg(short = 'H', long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Group of the sockets
    #[arg(short = 'G', long, value_name = "GROUP")]
    group: Option<String>,
    /// error, warn, info, debug or trace
    #[arg(short = 'l', long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Registry that may be spoken to without verified TLS (may be repeated)
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    insecure_registries: Vec<String>,
    /// Mirror of Docker Hub (may be repeated)
    #[arg(long = "registry-mirror", value_name = "URL")]
    registry_mirrors: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work with the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Compare the database with what is on disk; exits with 1 where they differ
    Fsck {
        #[command(flatten)]
        settings: Settings,
        /// Hash every layer as well
        #[arg(long)]
        verify: bool,
        /// Sweep what is left over, and fetch damaged images again from where they came (without
        /// credentials)
        #[arg(long)]
        repair: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration file and exit
    Check {
        #[command(flatten)]
        settings: Settings,
    },
}

impl Settings {
    fn resolve(&self) -> anyhow::Result<Config> {
        let file = FileConfig::load(self.config.as_deref())?;
        let flags = Overrides {
            data_root: self.data_root.clone(),
            run_root: self.run_root.clone(),
            hosts: self.hosts.clone(),
            group: self.group.clone(),
            log_level: self.log_level.clone(),
            insecure_registries: self.insecure_registries.clone(),
            registry_mirrors: self.registry_mirrors.clone(),
        };
        let config = Config::new(file, flags)?;
        filter(&config.log_level)?;
        Ok(config)
    }
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(level).with_context(|| format!("log-level {level:?}"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        None => daemon(&arguments.settings),
        Some(Command::Config { command: ConfigCommand::Check { settings } }) => {
            settings.resolve().map(|_| println!("configuration OK")).map(|()| ExitCode::SUCCESS)
        }
        Some(Command::Fsck { settings, verify, repair }) => fsck(settings, *verify, *repair),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("ctld: {error:#}");
        ExitCode::FAILURE
    })
}

/// Two threads do all there is; blocking work gets threads that soon end again.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .thread_keep_alive(Duration::from_secs(2))
        .thread_stack_size(1 << 20)
        .thread_name("ctld")
        .enable_all()
        .build()
        .context("the runtime could not be started")
}

fn fsck(settings: &Settings, verify: bool, repair: bool) -> anyhow::Result<ExitCode> {
    let config = settings.resolve()?;
    let runtime = runtime()?;
    if repair {
        runtime.block_on(self::repair(&config))?;
    }
    let mut findings = runtime.block_on(Store::check_offline(&config.data_root))?;
    if verify {
        findings.extend(runtime.block_on(Store::verify_offline(&config.data_root))?);
    }
    for finding in &findings {
        println!("{}", finding.what);
    }
    if findings.is_empty() {
        println!("{}: no faults found", config.data_root.display());
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

/// Opening sweeps leftovers; what is damaged is fetched again. What remains, the check says.
async fn repair(config: &Config) -> anyhow::Result<()> {
    Store::check_offline(&config.data_root).await?;
    let store = Store::open(config.store_options()).await?;
    for image in store.images() {
        let (progress, _unseen) = tokio::sync::mpsc::channel(1);
        match store.repair_image(image.id.as_str(), Credentials::Anonymous, progress).await {
            Ok(repaired) => {
                for part in repaired {
                    println!("repaired {} of image {}: {}", part.digest, image.id.short(), part.why);
                }
            }
            Err(error) => println!("cannot repair image {}: {error}", image.id.short()),
        }
    }
    store.close().await;
    Ok(())
}

fn daemon(settings: &Settings) -> anyhow::Result<ExitCode> {
    let config = settings.resolve()?;
    let (log_filter, log_handle) = reload::Layer::new(filter(&config.log_level)?);
    let output = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    tracing_subscriber::registry().with(log_filter).with(output).init();
    let runtime = runtime()?;
    let outcome = runtime.block_on(run(config, settings, log_handle));
    // Handlers that did not end in time are not waited for: what they do survives a kill.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn run(
    config: Config,
    settings: &Settings,
    log: reload::Handle<EnvFilter, Registry>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    prepare_run_root(&config)?;
    let store = Store::open(config.store_options()).await?;
    let engine = Engine::open(EngineOptions {
        cgroup_parent: config.cgroup_parent.clone(),
        ..EngineOptions::new(store.clone(), config.shim.clone(), config.run_root.clone())
    })
    .await?;
    let listeners = listeners(&config)?;
    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();
    if let Some(address) = config.serve_registry {
        let listener = registry_server::bind(address).await.with_context(|| format!("registry {address}"))?;
        tasks.spawn(registry_server::serve(listener, store.clone(), shutdown.clone(), tasks.clone()));
    }
    let api = Api::new(engine, store.clone(), config, shutdown.clone(), tasks.clone());
    let serving = tokio::spawn(server::serve(listeners, Service::new(api), shutdown.clone(), tasks));
    notify(&[NotifyState::Ready]);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload_log_level(settings, &log),
        }
    }
    tracing::info!("shutting down; containers keep running");
    notify(&[NotifyState::Stopping]);
    shutdown.cancel();
    serving.await.context("the server ended badly")?;
    store.close().await;
    Ok(())
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("the service manager was not told: {error}");
    }
}

/// The socket's default place is in the run root, so members of its group must be able to walk
/// through; what is inside is for root alone.
fn prepare_run_root(config: &Config) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&config.run_root)
        .with_context(|| format!("run root {}", config.run_root.display()))
}

/// What is configured, else what the service manager passed, else the default socket.
fn listeners(config: &Config) -> anyhow::Result<Vec<Listener>> {
    if config.listen.is_empty() {
        let passed = Listener::activated()?;
        if !passed.is_empty() {
            return Ok(passed);
        }
        return Ok(Listener::bind(&Listen::parse(DEFAULT_SOCKET)?, config.group.as_deref())?);
    }
    let mut listeners = Vec::new();
    for listen in &config.listen {
        listeners.extend(Listener::bind(listen, config.group.as_deref())?);
    }
    Ok(listeners)
}

fn reload_log_level(settings: &Settings, log: &reload::Handle<EnvFilter, Registry>) {
    let reloaded = settings.resolve().and_then(|config| {
        log.reload(filter(&config.log_level)?)?;
        Ok(config.log_level)
    });
    match reloaded {
        Ok(level) => tracing::info!(level, "log level reloaded; other settings need a restart"),
        Err(error) => tracing::error!("the configuration was not reloaded: {error:#}"),
    }
}
