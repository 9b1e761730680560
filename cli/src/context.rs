//! What every command gets: the client and the configuration's place.

use std::path::PathBuf;

use proto_api::client::Client;

use crate::failure::{Failure, Outcome, fail};

/// Where `ctld` listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ctl/ctl.sock";

/// The surroundings of one command.
#[derive(Debug)]
pub struct Context {
    /// The daemon.
    pub client: Client,
    /// The directory of `config.json`.
    pub config_dir: PathBuf,
}

impl Context {
    /// Chooses the daemon: `-H`, `CTL_HOST`, `DOCKER_HOST`, the default.
    pub fn new(host: Option<String>, config_dir: Option<PathBuf>) -> Outcome<Self> {
        let host = host
            .or_else(|| environment("CTL_HOST"))
            .or_else(|| environment("DOCKER_HOST"))
            .unwrap_or_else(|| format!("unix://{DEFAULT_SOCKET}"));
        let client = Client::new(socket_path(&host)?);
        if let Some(version) = environment("DOCKER_API_VERSION") {
            client.set_version(version.trim_start_matches('v'));
        }
        let config_dir = config_dir
            .or_else(|| environment("DOCKER_CONFIG").map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(environment("HOME").unwrap_or_default()).join(".docker"));
        Ok(Self { client, config_dir })
    }
}

/// A variable that is set and not empty.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn socket_path(host: &str) -> Result<PathBuf, Failure> {
    match host.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(path.into()),
        Some(("unix", "")) => Ok(DEFAULT_SOCKET.into()),
        None if host.starts_with('/') => Ok(host.into()),
        Some((scheme @ ("tcp" | "ssh" | "http" | "https" | "fd" | "npipe"), _)) => Err(fail(format!(
            "unsupported protocol {scheme}:// in \"{host}\": only unix://PATH is supported"
        ))),
        _ => Err(fail(format!("unable to parse docker host `{host}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_unix_sockets() {
        assert_eq!(socket_path("unix:///a/b").unwrap(), PathBuf::from("/a/b"));
        assert_eq!(socket_path("unix://").unwrap(), PathBuf::from(DEFAULT_SOCKET));
        assert_eq!(socket_path("/a").unwrap(), PathBuf::from("/a"));
        assert!(socket_path("tcp://1.2.3.4:2375").is_err());
        assert!(socket_path("unix://rel").is_err());
        assert!(socket_path("nonsense").is_err());
    }
}
