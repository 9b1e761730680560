//! Settings: defaults, then the configuration file, then flags; each overrides the one before.
//!
//! The file is TOML with keys in kebab-case (`docs/configuration.md` lists them). A key that is not
//! known is an error that names it, so that a misspelt limit is never silently without effect.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use storage::{Budget, RegistryOptions, StoreOptions};

/// Where the configuration file is looked for when no flag names one.
pub const DEFAULT_FILE: &str = "/etc/ctl/ctld.toml";
/// The socket that is listened on when nothing else is said.
pub const DEFAULT_SOCKET: &str = "unix:///run/ctl/ctl.sock";

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("configuration file {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind; the text has line and key.
    #[error("configuration file {path}: {text}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What is wrong and where.
        text: String,
    },
    /// A value that cannot be.
    #[error("{0}")]
    Value(String),
}

/// The configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct FileConfig {
    /// Images, layers, containers, the database.
    pub data_root: Option<PathBuf>,
    /// Sockets and records of running containers.
    pub run_root: Option<PathBuf>,
    /// `unix://PATH` or `fd://`.
    pub hosts: Option<Vec<String>>,
    /// Group of the sockets.
    pub group: Option<String>,
    /// `error`, `warn`, `info`, `debug`, `trace` or directives of `tracing`.
    pub log_level: Option<String>,
    /// The program `ctld-shim`.
    pub shim: Option<PathBuf>,
    /// The program `ctld-unpack`.
    pub unpack_worker: Option<PathBuf>,
    /// Parent of the containers' control groups.
    pub cgroup_parent: Option<String>,
    /// Layers fetched side by side in one pull.
    pub max_concurrent_downloads: Option<usize>,
    /// Keep compressed layers.
    pub keep_blobs: Option<bool>,
    /// `ADDRESS:PORT` on which the store is served as a read-only registry, without TLS or passwords.
    pub serve_registry: Option<SocketAddr>,
    /// Bytes of unpacked layers beyond which the least recently used images are evicted.
    pub disk_budget_bytes: Option<u64>,
    /// Hosts that may be spoken to without verified TLS.
    pub insecure_registries: Option<Vec<String>>,
    /// Mirrors of Docker Hub.
    pub registry_mirrors: Option<Vec<String>>,
    /// Settings by registry host.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Bounds on what an image may hold.
    pub budget: BudgetConfig,
}

/// `[registries."host:port"]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RegistryConfig {
    /// Plain HTTP or unverified TLS is allowed.
    pub insecure: bool,
    /// PEM file with further certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// PEM file of a client certificate.
    pub client_cert: Option<PathBuf>,
    /// PEM file of its key.
    pub client_key: Option<PathBuf>,
    /// Base URLs that are asked first.
    pub mirrors: Vec<String>,
    /// `accept`, `reject` or `{ signed = { keys = [PEM files] } }`, by repository or path of
    /// repositories; the empty path is the whole registry.
    pub policies: BTreeMap<String, storage::Policy>,
}

/// `[budget]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BudgetConfig {
    /// Bytes of file content in one layer.
    pub layer_bytes: Option<u64>,
    /// Entries in one layer.
    pub layer_entries: Option<u64>,
    /// Bytes of a manifest, index or configuration.
    pub document_bytes: Option<u64>,
}

/// What the flags say; `None` and empty lists say nothing.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--data-root`
    pub data_root: Option<PathBuf>,
    /// `--run-root`
    pub run_root: Option<PathBuf>,
    /// `-H`
    pub hosts: Vec<String>,
    /// `--group`
    pub group: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
    /// `--insecure-registry`
    pub insecure_registries: Vec<String>,
    /// `--registry-mirror`
    pub registry_mirrors: Vec<String>,
}

/// Everything decided.
#[derive(Debug, Clone)]
pub struct Config {
    /// Images, layers, containers, the database.
    pub data_root: PathBuf,
    /// Sockets and records of running containers.
    pub run_root: PathBuf,
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// Group of the sockets; it is an error where a named one does not exist.
    pub group: Option<String>,
    /// For the log.
    pub log_level: String,
    /// The program `ctld-shim`.
    pub shim: PathBuf,
    /// The program `ctld-unpack`.
    pub unpack_worker: PathBuf,
    /// Parent of the containers' control groups.
    pub cgroup_parent: String,
    /// Layers fetched side by side in one pull.
    pub max_concurrent_downloads: usize,
    /// Keep compressed layers.
    pub keep_blobs: bool,
    /// Where the store is served as a read-only registry.
    pub serve_registry: Option<SocketAddr>,
    /// Bytes of unpacked layers beyond which the least recently used images are evicted.
    pub disk_budget_bytes: Option<u64>,
    /// By host.
    pub registries: BTreeMap<String, RegistryOptions>,
    /// Bounds on what an image may hold.
    pub budget: Budget,
}

/// One place to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket of our own.
    Unix(PathBuf),
    /// The sockets that the service manager passed.
    Activated,
}

impl Listen {
    /// Parses `unix://PATH` and `fd://`.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text == "fd://" {
            return Ok(Self::Activated);
        }
        let path = text.strip_prefix("unix://").ok_or_else(|| {
            ConfigError::Value(format!("host {text:?}: only unix://PATH and fd:// are supported"))
        })?;
        if !path.starts_with('/') {
            return Err(ConfigError::Value(format!("host {text:?}: the socket's path must be absolute")));
        }
        Ok(Self::Unix(path.into()))
    }
}

impl FileConfig {
    /// Reads a file. `Ok(None)` where it does not exist.
    pub fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text)
                .map(Some)
                .map_err(|text| ConfigError::Syntax { path: path.to_owned(), text }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Parses the text of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }

    /// Reads the named file, which must exist then, or the default one, which need not.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        match (Self::read(path)?, named) {
            (Some(config), _) => Ok(config),
            (None, None) => Ok(Self::default()),
            (None, Some(path)) => {
                Err(ConfigError::Read { path: path.to_owned(), source: std::io::ErrorKind::NotFound.into() })
            }
        }
    }
}

impl Config {
    /// Puts defaults, file and flags together and checks the values.
    pub fn new(file: FileConfig, flags: Overrides) -> Result<Self, ConfigError> {
        let hosts = if flags.hosts.is_empty() { file.hosts.unwrap_or_default() } else { flags.hosts };
        let listen = hosts.iter().map(|host| Listen::parse(host)).collect::<Result<_, _>>()?;
        let mut registries = BTreeMap::new();
        for (host, registry) in file.registries {
            registries.insert(host.clone(), registry.resolve(&host)?);
        }
        for host in file.insecure_registries.into_iter().flatten().chain(flags.insecure_registries) {
            let options: &mut RegistryOptions = registries.entry(registry_host(&host)?).or_default();
            options.insecure = true;
        }
        for mirror in file.registry_mirrors.into_iter().flatten().chain(flags.registry_mirrors) {
            check_mirror(&mirror)?;
            let options: &mut RegistryOptions = registries.entry("docker.io".to_owned()).or_default();
            options.mirrors.push(mirror);
        }
        let defaults = Budget::default();
        let config = Self {
            data_root: absolute("data-root", flags.data_root.or(file.data_root), "/var/lib/ctl")?,
            run_root: absolute("run-root", flags.run_root.or(file.run_root), "/run/ctl")?,
            listen,
            group: flags.group.or(file.group),
            log_level: flags.log_level.or(file.log_level).unwrap_or_else(|| "info".into()),
            shim: file.shim.map_or_else(|| beside_us("ctld-shim"), Ok)?,
            unpack_worker: file.unpack_worker.map_or_else(|| beside_us("ctld-unpack"), Ok)?,
            cgroup_parent: file.cgroup_parent.unwrap_or_else(|| "/ctl".into()),
            max_concurrent_downloads: file.max_concurrent_downloads.unwrap_or(3),
            keep_blobs: file.keep_blobs.unwrap_or(false),
            serve_registry: file.serve_registry,
            disk_budget_bytes: file.disk_budget_bytes,
            registries,
            budget: Budget {
                layer_bytes: file.budget.layer_bytes.unwrap_or(defaults.layer_bytes),
                layer_entries: file.budget.layer_entries.unwrap_or(defaults.layer_entries),
                document_bytes: file.budget.document_bytes.unwrap_or(defaults.document_bytes),
            },
        };
        if config.max_concurrent_downloads == 0 {
            return Err(ConfigError::Value("max-concurrent-downloads: must be at least 1".into()));
        }
        if !config.cgroup_parent.starts_with('/') || config.cgroup_parent.contains("..") {
            return Err(ConfigError::Value(format!(
                "cgroup-parent: {:?} is not an absolute path without ..",
                config.cgroup_parent
            )));
        }
        Ok(config)
    }

    /// What the store is opened with.
    pub fn store_options(&self) -> StoreOptions {
        StoreOptions {
            data_root: self.data_root.clone(),
            unpack_worker: self.unpack_worker.clone(),
            registries: self.registries.clone(),
            parallel_layers: self.max_concurrent_downloads,
            keep_blobs: self.keep_blobs,
            disk_budget_bytes: self.disk_budget_bytes,
            budget: self.budget.clone(),
        }
    }
}

impl RegistryConfig {
    fn resolve(self, host: &str) -> Result<RegistryOptions, ConfigError> {
        let client_cert = match (self.client_cert, self.client_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                return Err(ConfigError::Value(format!(
                    "registries.{host:?}: client-cert and client-key belong together"
                )));
            }
        };
        self.mirrors.iter().try_for_each(|mirror| check_mirror(mirror))?;
        Ok(RegistryOptions {
            insecure: self.insecure,
            ca_file: self.ca_file,
            client_cert,
            mirrors: self.mirrors,
            policies: self.policies,
        })
    }
}

fn registry_host(text: &str) -> Result<String, ConfigError> {
    let host = text.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
    if host.is_empty() || host.contains('/') {
        return Err(ConfigError::Value(format!("insecure registry {text:?} is not HOST[:PORT]")));
    }
    Ok(host.to_owned())
}

fn check_mirror(url: &str) -> Result<(), ConfigError> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') => Ok(()),
        _ => Err(ConfigError::Value(format!("registry mirror {url:?} is not an http:// or https:// URL"))),
    }
}

fn absolute(key: &str, path: Option<PathBuf>, default: &str) -> Result<PathBuf, ConfigError> {
    let path = path.unwrap_or_else(|| default.into());
    if path.is_absolute() {
        return Ok(path);
    }
    std::path::absolute(&path)
        .map_err(|error| ConfigError::Value(format!("{key} {}: {error}", path.display())))
}

/// A helper program in the directory that our own program is in.
fn beside_us(name: &str) -> Result<PathBuf, ConfigError> {
    let us = std::env::current_exe()
        .map_err(|error| ConfigError::Value(format!("our own program's path is not known: {error}")))?;
    Ok(us.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        let file = FileConfig::parse(text)?;
        Config::new(file, Overrides::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_the_defaults() {
        let file =
            FileConfig::parse("data-root = '/a'\nrun-root = '/b'\nhosts = ['unix:///a.sock']").unwrap();
        let flags = Overrides {
            data_root: Some("/c".into()),
            hosts: vec!["unix:///x".into(), "fd://".into()],
            ..Overrides::default()
        };
        let config = Config::new(file, flags).unwrap();
        assert_eq!(config.data_root, Path::new("/c"));
        assert_eq!(config.run_root, Path::new("/b"));
        assert_eq!(config.listen, [Listen::Unix("/x".into()), Listen::Activated]);
        assert_eq!(config.log_level, "info");
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        for (text, key) in [
            ("data-rot = '/a'", "data-rot"),
            ("[registries.'a:5000']\ninsecur = true", "insecur"),
            ("[budget]\nlayer-byte = 1", "layer-byte"),
        ] {
            let error = config(text).unwrap_err();
            assert!(error.contains(&format!("unknown field `{key}`")), "{error}");
        }
    }

    #[test]
    fn registries_from_all_places_come_together() {
        let file = FileConfig::parse(
            "insecure-registries = ['a:5000']\nregistry-mirrors = ['https://m']\n[registries.'a:5000']\nca-file = '/ca'",
        )
        .unwrap();
        let flags = Overrides { insecure_registries: vec!["b".into()], ..Overrides::default() };
        let config = Config::new(file, flags).unwrap();
        assert!(config.registries["a:5000"].insecure && config.registries["b"].insecure);
        assert_eq!(config.registries["a:5000"].ca_file.as_deref(), Some(Path::new("/ca")));
        assert_eq!(config.registries["docker.io"].mirrors, ["https://m"]);
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for text in [
            "hosts = ['tcp://0.0.0.0:1']",
            "hosts = ['unix://relative']",
            "max-concurrent-downloads = 0",
            "registry-mirrors = ['mirror']",
            "[registries.a]\nclient-cert = '/c'",
            "cgroup-parent = '/a/../..'",
        ] {
            assert!(config(text).is_err(), "{text}");
        }
    }
}
