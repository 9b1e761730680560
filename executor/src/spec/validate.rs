//! What is refused before anything is made: sysctls outside the container's namespaces, names and
//! paths that cannot work.

use super::{Namespace, SpecError, SpecInput};

fn invalid(text: impl Into<String>) -> SpecError {
    SpecError::Invalid(text.into())
}

/// Resource limits by Docker's names, with the kernel's numbers (x86_64 and arm64).
pub const RLIMITS: [(&str, u32); 15] = [
    ("core", libc::RLIMIT_CORE),
    ("cpu", libc::RLIMIT_CPU),
    ("data", libc::RLIMIT_DATA),
    ("fsize", libc::RLIMIT_FSIZE),
    ("locks", libc::RLIMIT_LOCKS),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("nofile", libc::RLIMIT_NOFILE),
    ("nproc", libc::RLIMIT_NPROC),
    ("rss", libc::RLIMIT_RSS),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("rttime", libc::RLIMIT_RTTIME),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("stack", libc::RLIMIT_STACK),
];

/// Everything of the input that can be judged without looking at the host.
pub fn input(input: &SpecInput) -> Result<(), SpecError> {
    if input.args.first().is_none_or(|program| program.is_empty()) {
        return Err(invalid("no command specified"));
    }
    let strings = input.args.iter().chain(&input.env).chain([&input.cwd, &input.user]);
    if strings.into_iter().any(|text| text.contains('\0')) {
        return Err(invalid("a command, variable or path contains a NUL byte"));
    }
    if !input.cwd.is_empty() && !input.cwd.starts_with('/') {
        return Err(invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            input.cwd
        )));
    }
    for name in [&input.hostname, &input.domainname].into_iter().flatten() {
        if name.len() > 64 || name.bytes().any(|b| b == 0 || b == b'\n') {
            return Err(invalid(format!("invalid hostname format: {name}")));
        }
    }
    if input.hostname.is_some() && input.namespaces.uts == Namespace::Host {
        return Err(invalid("conflicting options: hostname and the UTS mode"));
    }
    if let Some(adjustment) = input.oom_score_adj.filter(|a| !(-1000..=1000).contains(a)) {
        return Err(invalid(format!("Invalid value {adjustment}, range for oom score adj is [-1000, 1000]")));
    }
    for (name, soft, hard) in &input.rlimits {
        if !RLIMITS.iter().any(|(known, _)| known == name) {
            return Err(invalid(format!("invalid ulimit type: {name}")));
        }
        if soft > hard {
            return Err(invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
    }
    if !valid_cgroup_path(&input.cgroup_path) {
        return Err(invalid(format!("invalid cgroup path: {}", input.cgroup_path)));
    }
    for (name, _) in &input.sysctls {
        sysctl(name, input)?;
    }
    for mount in &input.mounts {
        if !mount.destination.starts_with('/') {
            return Err(invalid(format!(
                "invalid mount path: '{}' mount path must be absolute",
                mount.destination
            )));
        }
        if mount.destination.split('/').all(|part| part.is_empty() || part == ".") {
            return Err(invalid("invalid specification: destination can't be '/'"));
        }
    }
    Ok(())
}

fn valid_cgroup_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() > 1
        && path.len() < 512
        && path[1..]
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\n'))
}

/// A sysctl must belong to a namespace that is the container's own (CVE-2022-0811: names and values
/// are data, one file each).
fn sysctl(name: &str, input: &SpecInput) -> Result<(), SpecError> {
    const IPC: [&str; 9] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.shm_next_id",
    ];
    let refuse = |why: &str| Err(invalid(format!("invalid argument: sysctl \"{name}\" {why}")));
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':');
    if !name.chars().all(good) || name.split(['.', '/']).any(str::is_empty) {
        return refuse("is not a name");
    }
    let dotted = name.replace('/', ".");
    if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        if input.namespaces.ipc == Namespace::Host {
            return refuse("not allowed in host ipc namespace");
        }
        return Ok(());
    }
    if dotted.starts_with("net.") {
        if input.namespaces.net == Namespace::Host {
            return refuse("not allowed in host network namespace");
        }
        return Ok(());
    }
    if dotted == "kernel.domainname" {
        if input.namespaces.uts == Namespace::Host {
            return refuse("not allowed in host uts namespace");
        }
        return Ok(());
    }
    refuse("is not in a separate kernel namespace")
}
