//! A container's configuration as the database keeps it, and how it comes from a request and an image.

use std::time::SystemTime;

use proto_api::models::{
    ContainerConfig, ContainerCreateBody, HostConfig, RestartPolicyNameEnum as RestartName,
};
use serde::{Deserialize, Serialize};
use storage::Image;

use super::Error;
use super::state::{Policy, RestartPolicy};

/// Docker's search path where neither image nor user has one.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container is. Written at its creation, changed by `update` alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it was created.
    pub created: SystemTime,
    /// Id of the image.
    pub image_id: String,
    /// The program.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// The request's configuration over the image's.
    pub config: ContainerConfig,
    /// The request's, with defaults filled in.
    pub host: HostConfig,
}

impl Record {
    /// The part that moves states.
    pub fn policy(&self) -> Policy {
        let restart = self.host.restart_policy.as_ref();
        let most = restart.and_then(|policy| policy.maximum_retry_count).unwrap_or(0);
        Policy {
            auto_remove: self.host.auto_remove == Some(true),
            restart: match restart.and_then(|policy| policy.name) {
                None | Some(RestartName::EMPTY | RestartName::NO) => RestartPolicy::No,
                Some(RestartName::ALWAYS) => RestartPolicy::Always,
                Some(RestartName::UNLESS_STOPPED) => RestartPolicy::UnlessStopped,
                Some(RestartName::ON_FAILURE) => RestartPolicy::OnFailure(u32::try_from(most).unwrap_or(0)),
            },
        }
    }

    /// Whether process 1 has a terminal.
    pub fn tty(&self) -> bool {
        self.config.tty == Some(true)
    }

    /// The signal that asks it to end.
    pub fn stop_signal(&self) -> i32 {
        let name = self.config.stop_signal.as_deref().filter(|name| !name.is_empty());
        name.and_then(|name| super::signals::parse(name).ok()).unwrap_or(15)
    }

    /// Seconds from the stop signal to SIGKILL; negative is never.
    pub fn stop_timeout(&self) -> i64 {
        self.config.stop_timeout.unwrap_or(10)
    }

    /// Program and arguments.
    pub fn command_line(&self) -> Vec<String> {
        std::iter::once(&self.path).chain(&self.args).filter(|word| !word.is_empty()).cloned().collect()
    }

    /// The environment of process 1: defaults first, each overridden by the configuration.
    pub fn environment(&self, hostname: &str) -> Vec<String> {
        let mut defaults = vec![DEFAULT_PATH.to_owned()];
        if !hostname.is_empty() {
            defaults.push(format!("HOSTNAME={hostname}"));
        }
        if self.tty() {
            defaults.push("TERM=xterm".to_owned());
        }
        override_environment(defaults, self.config.env.as_deref().unwrap_or_default())
    }
}

/// `changes` over `base`, as Docker does it: the place of the first stays, and an entry without `=`
/// takes the variable away.
pub fn override_environment(base: Vec<String>, changes: &[String]) -> Vec<String> {
    let mut result: Vec<Option<String>> = base.into_iter().map(Some).collect();
    for change in changes {
        let (key, value) = match change.split_once('=') {
            Some((key, _)) => (key, Some(change.clone())),
            None => (change.as_str(), None),
        };
        let place =
            result.iter_mut().find(|entry| entry.as_deref().is_some_and(|entry| env_key(entry) == key));
        match place {
            Some(place) => *place = value,
            None => result.extend(value.map(Some)),
        }
    }
    result.into_iter().flatten().collect()
}

fn env_key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

/// Takes the request apart; the image fills in what it does not say.
pub fn merge(
    body: ContainerCreateBody,
    image: &Image,
    id: &str,
    host_uts: bool,
) -> Result<(ContainerConfig, String, Vec<String>), Error> {
    let ContainerCreateBody {
        hostname,
        domainname,
        user,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        exposed_ports,
        tty,
        open_stdin,
        stdin_once,
        env,
        cmd,
        healthcheck,
        args_escaped,
        image: reference,
        volumes,
        working_dir,
        entrypoint,
        network_disabled,
        on_build,
        labels,
        stop_signal,
        stop_timeout,
        shell,
        host_config: _,
        networking_config: _,
    } = body;
    let defaults = image.config.config().clone().unwrap_or_default();
    let (entrypoint, cmd) = command(entrypoint, cmd, &defaults);
    let mut words = entrypoint.iter().flatten().chain(cmd.iter().flatten()).cloned();
    let path = words.next().ok_or_else(|| Error::Invalid("no command specified".into()))?;
    let args = words.collect();

    let mut env = env.unwrap_or_default();
    if let Some(bad) = env.iter().find(|entry| env_key(entry).is_empty() || entry.contains('\0')) {
        return Err(Error::Invalid(format!("invalid environment variable: {bad}")));
    }
    // What the image says without a `=` is no variable and never reaches the host's environment.
    for entry in defaults.env().iter().flatten().filter(|entry| entry.contains('=') && !entry.contains('\0'))
    {
        if !env.iter().any(|own| env_key(own) == env_key(entry)) {
            env.push(entry.clone());
        }
    }
    let mut all_labels = defaults.labels().clone().unwrap_or_default();
    all_labels.extend(labels.unwrap_or_default());
    let working_dir = filled(working_dir).or_else(|| filled(defaults.working_dir().clone()));
    if let Some(dir) = working_dir.as_deref().filter(|dir| !dir.starts_with('/')) {
        return Err(Error::Invalid(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        )));
    }
    let stop_signal = filled(stop_signal).or_else(|| filled(defaults.stop_signal().clone()));
    if let Some(name) = &stop_signal {
        super::signals::parse(name)?;
    }
    let hostname = match filled(hostname) {
        Some(name) => name,
        None if host_uts => host_name(),
        None => id[..12].to_owned(),
    };
    if hostname.len() > 63 || hostname.contains(['\0', '\n', ' ']) {
        return Err(Error::Invalid(format!("invalid hostname format: {hostname}")));
    }
    let mut ports = exposed_ports.unwrap_or_default();
    ports.extend(defaults.exposed_ports().iter().flatten().cloned());
    ports.sort();
    ports.dedup();
    let mut all_volumes = volumes.unwrap_or_default();
    all_volumes.extend(defaults.volumes().iter().flatten().cloned());
    all_volumes.sort();
    all_volumes.dedup();
    let config = ContainerConfig {
        hostname: Some(hostname),
        domainname: Some(domainname.unwrap_or_default()),
        user: Some(filled(user).or_else(|| defaults.user().clone()).unwrap_or_default()),
        attach_stdin: Some(attach_stdin.unwrap_or(false)),
        attach_stdout: Some(attach_stdout.unwrap_or(false)),
        attach_stderr: Some(attach_stderr.unwrap_or(false)),
        exposed_ports: Some(ports).filter(|ports| !ports.is_empty()),
        tty: Some(tty.unwrap_or(false)),
        open_stdin: Some(open_stdin.unwrap_or(false)),
        stdin_once: Some(stdin_once.unwrap_or(false)),
        env: Some(env),
        cmd,
        healthcheck,
        args_escaped,
        image: reference,
        volumes: Some(all_volumes).filter(|volumes| !volumes.is_empty()),
        working_dir: Some(working_dir.unwrap_or_default()),
        entrypoint,
        network_disabled,
        on_build,
        labels: Some(all_labels),
        stop_signal,
        stop_timeout,
        shell,
    };
    Ok((config, path, args))
}

type Words = Option<Vec<String>>;

/// Docker's rule: an entrypoint of the request does away with the image's command; an empty word
/// as the entrypoint is none at all.
fn command(entrypoint: Words, cmd: Words, image: &oci_spec::image::Config) -> (Words, Words) {
    let filled = |words: &Words| words.as_ref().is_some_and(|words| !words.is_empty());
    if filled(&entrypoint) {
        let none = entrypoint.as_deref() == Some(&[String::new()]);
        return (entrypoint.filter(|_| !none), cmd);
    }
    let cmd = if filled(&cmd) { cmd } else { image.cmd().clone() };
    (image.entrypoint().clone().filter(|words| !words.is_empty()), cmd)
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// The host's own name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Words {
        Some(list.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn entrypoint_and_command_merge_as_in_docker() {
        let mut image = oci_spec::image::Config::default();
        image.set_entrypoint(words(&["/entry"])).set_cmd(words(&["default"]));
        let of = |entrypoint, cmd| command(entrypoint, cmd, &image);
        assert_eq!(of(None, None), (words(&["/entry"]), words(&["default"])));
        assert_eq!(of(None, words(&["x"])), (words(&["/entry"]), words(&["x"])));
        assert_eq!(of(words(&["sh"]), None), (words(&["sh"]), None));
        assert_eq!(of(words(&[""]), words(&["ls"])), (None, words(&["ls"])));
        assert_eq!(of(None, Some(vec![])), (words(&["/entry"]), words(&["default"])));
    }

    #[test]
    fn variables_are_overridden_in_place_and_taken_away() {
        let base = vec!["PATH=/bin".to_owned(), "A=1".to_owned()];
        let changes = ["A".to_owned(), "PATH=/x".to_owned(), "B=a=b".to_owned(), "C".to_owned()];
        assert_eq!(override_environment(base, &changes), ["PATH=/x", "B=a=b"]);
    }
}
