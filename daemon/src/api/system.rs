//! The daemon itself: ping, version, information, events.

use std::fs;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::error::Answer;
use super::images::rfc3339;
use super::request::Params;
use super::{Api, reply};
use crate::engine::EventOptions;

/// Our version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `/_ping`, GET and HEAD.
pub async fn ping() -> Response {
    let mut response = Response::new(Body::from("OK"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert("builder-version", HeaderValue::from_static("1"));
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    response
}

/// The machine in Go's words.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

fn git_commit() -> &'static str {
    option_env!("CTL_GIT_COMMIT").unwrap_or_default()
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// `GET /version`
pub async fn version() -> Answer {
    let build_time = option_env!("CTL_BUILD_TIME").unwrap_or_default();
    let kernel = kernel();
    Ok(reply::ok(&json!({
        "Platform": {"Name": "ctl"},
        "Components": [{
            "Name": "Engine",
            "Version": VERSION,
            "Details": {
                "ApiVersion": proto_api::API_VERSION, "Arch": go_architecture(), "BuildTime": build_time,
                "Experimental": "false", "GitCommit": git_commit(), "GoVersion": "",
                "KernelVersion": kernel, "MinAPIVersion": proto_api::MIN_API_VERSION, "Os": "linux",
            },
        }],
        "Version": VERSION,
        "ApiVersion": proto_api::API_VERSION,
        "MinAPIVersion": proto_api::MIN_API_VERSION,
        "GitCommit": git_commit(),
        "GoVersion": "",
        "Os": "linux",
        "Arch": go_architecture(),
        "KernelVersion": kernel,
        "BuildTime": build_time,
    })))
}

/// `GET /info`
pub async fn info(State(api): State<Api>) -> Answer {
    let counts = api.engine().counts();
    let images = api.store().images().len();
    let mut answer = host();
    let config = api.config();
    let insecure: Vec<&String> =
        config.registries.iter().filter(|(_, options)| options.insecure).map(|(host, _)| host).collect();
    let hub = config.registries.get("docker.io").map(|options| options.mirrors.clone()).unwrap_or_default();
    let mut indexes = serde_json::Map::new();
    indexes.insert("docker.io".into(), index("docker.io", &hub, true, true));
    for host in insecure {
        indexes.insert(host.clone(), index(host, &[], false, false));
    }
    let ours = json!({
        "Containers": counts.running + counts.paused + counts.stopped,
        "ContainersRunning": counts.running,
        "ContainersPaused": counts.paused,
        "ContainersStopped": counts.stopped,
        "Images": images,
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", filesystem(api.store().data_root())]],
        "Plugins": {"Volume": [], "Network": ["host", "null"], "Authorization": null, "Log": ["json-file", "none"]},
        "Debug": tracing::enabled!(tracing::Level::DEBUG),
        "NFd": fs::read_dir("/proc/self/fd").map_or(-1, |entries| i64::try_from(entries.count()).unwrap_or(-1)),
        "NGoroutines": fs::read_dir("/proc/self/task").map_or(-1, |tasks| i64::try_from(tasks.count()).unwrap_or(-1)),
        "SystemTime": rfc3339(Some(std::time::SystemTime::now())),
        "LoggingDriver": "json-file",
        "NEventsListener": 0,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": null,
            "AllowNondistributableArtifactsHostnames": null,
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
            "IndexConfigs": indexes,
            "Mirrors": hub,
        },
        "GenericResources": null,
        "DockerRootDir": api.store().data_root(),
        "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": VERSION,
        "Runtimes": {"ctld-shim": {"path": config.shim}},
        "DefaultRuntime": "ctld-shim",
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false,
            "Error": "", "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "ctld-shim",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "CDISpecDirs": [],
        "Warnings": null,
    });
    if let (Value::Object(answer), Value::Object(ours)) = (&mut answer, ours) {
        answer.extend(ours);
    }
    Ok(reply::ok(&answer))
}

fn index(name: &str, mirrors: &[String], secure: bool, official: bool) -> Value {
    json!({"Name": name, "Mirrors": mirrors, "Secure": secure, "Official": official})
}

/// What `/info` tells of the machine.
fn host() -> Value {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let release = |key: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.map_or_else(String::new, |value| value.trim_matches(['"', '\'']).to_owned())
    };
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let v1 = |controller: &str, file: &str| {
        v2 || std::path::Path::new("/sys/fs/cgroup").join(controller).join(file).exists()
    };
    let sysctl =
        |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|text| text.trim() == "1");
    json!({
        "ID": machine_id(),
        "Name": rustix::system::uname().nodename().to_string_lossy(),
        "KernelVersion": kernel(),
        "OperatingSystem": release("PRETTY_NAME"),
        "OSVersion": release("VERSION_ID"),
        "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": memory_bytes(),
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": if v2 { "2" } else { "1" },
        "MemoryLimit": v1("memory", "memory.limit_in_bytes"),
        "SwapLimit": v1("memory", "memory.memsw.limit_in_bytes"),
        "CpuCfsPeriod": v1("cpu", "cpu.cfs_period_us"),
        "CpuCfsQuota": v1("cpu", "cpu.cfs_quota_us"),
        "CPUShares": v1("cpu", "cpu.shares"),
        "CPUSet": v1("cpuset", "cpuset.cpus"),
        "PidsLimit": v2 || std::path::Path::new("/sys/fs/cgroup/pids").is_dir(),
        "OomKillDisable": !v2 && v1("memory", "memory.oom_control"),
        "IPv4Forwarding": sysctl("net/ipv4/ip_forward"),
    })
}

fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes: u64 =
        line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0);
    kibibytes * 1024
}

/// Stable for the machine and not its machine id, which is meant to be kept from others.
fn machine_id() -> String {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let hash = hex::encode(Sha256::digest(format!("ctl machine {}", id.trim())));
    format!("{}-{}-{}-{}-{}", &hash[..8], &hash[8..12], &hash[12..16], &hash[16..20], &hash[20..32])
}

/// The kind of file system that a path is on.
fn filesystem(path: &std::path::Path) -> String {
    let name = match rustix::fs::statfs(path).map(|found| found.f_type) {
        Ok(0xef53) => "extfs",
        Ok(0x5846_5342) => "xfs",
        Ok(0x9123_683e) => "btrfs",
        Ok(0x0102_1994) => "tmpfs",
        Ok(0x2fc1_2fc1) => "zfs",
        Ok(0x794c_7630) => "overlayfs",
        _ => "<unknown>",
    };
    name.to_owned()
}

/// `GET /events`
pub async fn events(State(api): State<Api>, params: Params) -> Answer {
    let options = EventOptions {
        since: params.time("since")?,
        until: params.time("until")?,
        filters: params.filters()?,
    };
    Ok(reply::lines(api.engine().events(options).await?))
}
