//! Values of options that have a notation of their own: mounts, devices, limits, ports.

use std::net::IpAddr;

use proto_api::models::{
    DeviceMapping, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountTmpfsOptions, MountType,
    MountVolumeOptions, PortBinding, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use crate::units::parse_size;

/// `--add-host name:address` or `name=address`; `host-gateway` is an address.
pub fn extra_host(text: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: \"{text}\"");
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    if name.is_empty() {
        return Err(bad());
    }
    let plain = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    if plain != "host-gateway" && plain.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: \"{address}\""));
    }
    Ok(format!("{name}:{plain}"))
}

/// An IP address.
pub fn address(text: &str) -> Result<String, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(format!("{text} is not an ip address")),
    }
}

/// `-a stdin`, in any case.
pub fn stream(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "stdin" | "stdout" | "stderr" => Ok(lower),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

/// A size, or -1 for no limit.
pub fn swap(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { parse_size(text) }
}

/// `key=value` pairs; a key alone has an empty value.
pub fn pairs<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<(String, String)> {
    let split = |text: &'a String| text.split_once('=').unwrap_or((text, ""));
    texts.into_iter().map(split).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// `--ulimit name=soft[:hard]`.
pub fn ulimit(text: &str) -> Result<ResourcesUlimits, String> {
    const NAMES: &[&str] = &[
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let (name, limits) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| match text {
        "unlimited" => Ok(-1),
        text => text.parse::<i64>().map_err(|_| format!("invalid ulimit value: {text}")),
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard >= 0 && (soft > hard || soft == -1) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) })
}

/// `--device host[:container][:rwm]`.
pub fn device(text: &str) -> Result<DeviceMapping, String> {
    let is_mode = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [host, container, mode] if is_mode(mode) => (*host, *container, *mode),
        [_, _, mode] => return Err(format!("invalid device mode: {mode}")),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if host.is_empty() {
        return Err(format!("invalid device specification: {text}"));
    }
    Ok(DeviceMapping {
        path_on_host: Some(host.to_owned()),
        path_in_container: Some(container.to_owned()),
        cgroup_permissions: Some(mode.to_owned()),
    })
}

/// `--restart no | always | unless-stopped | on-failure[:count]`.
pub fn restart(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count)));
    let maximum = match count {
        Some(count) => Some(
            count
                .parse()
                .map_err(|_| "invalid restart policy format: maximum retry count must be an integer")?,
        ),
        None => None,
    };
    let name = match name {
        "" if count.is_some() => {
            return Err("invalid restart policy format: no policy provided before colon".to_owned());
        }
        "" => RestartPolicyNameEnum::EMPTY,
        "no" => RestartPolicyNameEnum::NO,
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        other => return Err(format!("invalid restart policy: unknown policy '{other}'")),
    };
    Ok(RestartPolicy { name: Some(name), maximum_retry_count: maximum })
}

/// A value of `-v`.
#[derive(Debug, PartialEq, Eq)]
pub enum Volume {
    /// An anonymous volume at a path.
    Anonymous(String),
    /// `source:target[:options]`, the source an absolute path or the name of a volume.
    Bind(String),
}

/// `-v [source:]target[:options]`; a source that begins with a dot is taken from the working directory.
pub fn volume(text: &str) -> Result<Volume, String> {
    let bad = |why: &str| Err(format!("invalid spec: {text}: {why}"));
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [""] => Err("invalid empty volume spec".to_owned()),
        [path] if path.starts_with('/') => Ok(Volume::Anonymous((*path).to_owned())),
        [_] => bad("path must be absolute"),
        [source, target, rest @ ..] if rest.len() <= 1 => {
            if source.is_empty() || target.is_empty() {
                return bad("empty section between colons");
            }
            if !target.starts_with('/') {
                return bad("the target path must be absolute");
            }
            let source = match source.starts_with('.') || source.starts_with('~') {
                true => absolute(source)?,
                false => (*source).to_owned(),
            };
            Ok(Volume::Bind([&[source.as_str(), target][..], rest].concat().join(":")))
        }
        _ => bad("too many colons"),
    }
}

fn absolute(path: &str) -> Result<String, String> {
    let path = match path.strip_prefix("~") {
        Some(rest) => format!("{}{rest}", std::env::var("HOME").unwrap_or_default()),
        None => path.to_owned(),
    };
    let whole = std::path::absolute(&path).map_err(|error| format!("{path}: {error}"))?;
    let mut clean = std::path::PathBuf::new();
    for part in whole.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean.into_os_string().into_string().map_err(|path| format!("{} is not valid UTF-8", path.display()))
}

/// `--mount type=bind,source=…,target=…[,…]`.
pub fn mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { typ: Some(MountType::VOLUME), ..Mount::default() };
    let mut bind = MountBindOptions::default();
    let mut tmpfs = MountTmpfsOptions::default();
    let mut volume = MountVolumeOptions::default();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        let key = key.to_ascii_lowercase();
        let needs = || value.ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"));
        let boolean = || match value {
            None => Ok(true),
            Some("1" | "true") => Ok(true),
            Some("0" | "false") => Ok(false),
            Some(value) => Err(format!("invalid value for {key}: {value}")),
        };
        match key.as_str() {
            "type" => {
                mount.typ = Some(match needs()?.to_ascii_lowercase().as_str() {
                    "bind" => MountType::BIND,
                    "tmpfs" => MountType::TMPFS,
                    "volume" => MountType::VOLUME,
                    "image" => MountType::IMAGE,
                    other => return Err(format!("mount type unknown: \"{other}\"")),
                });
            }
            "source" | "src" => {
                let source = needs()?;
                mount.source =
                    Some(if source.starts_with('.') { absolute(source)? } else { source.to_owned() });
            }
            "target" | "dst" | "destination" => mount.target = Some(needs()?.to_owned()),
            "readonly" | "ro" => mount.read_only = Some(boolean()?),
            "bind-propagation" => {
                bind.propagation = Some(match needs()? {
                    "private" => MountBindOptionsPropagationEnum::PRIVATE,
                    "rprivate" => MountBindOptionsPropagationEnum::RPRIVATE,
                    "shared" => MountBindOptionsPropagationEnum::SHARED,
                    "rshared" => MountBindOptionsPropagationEnum::RSHARED,
                    "slave" => MountBindOptionsPropagationEnum::SLAVE,
                    "rslave" => MountBindOptionsPropagationEnum::RSLAVE,
                    other => return Err(format!("invalid bind propagation: {other}")),
                });
            }
            "bind-recursive" => match needs()? {
                "enabled" => {}
                "disabled" => bind.non_recursive = Some(true),
                "writable" => bind.read_only_non_recursive = Some(true),
                "readonly" => bind.read_only_force_recursive = Some(true),
                other => return Err(format!("invalid value for bind-recursive: {other}")),
            },
            "bind-nonrecursive" => bind.non_recursive = Some(boolean()?),
            "tmpfs-size" => {
                tmpfs.size_bytes =
                    Some(parse_size(needs()?).map_err(|error| format!("invalid value for {key}: {error}"))?)
            }
            "tmpfs-mode" => {
                let mode = needs()?;
                tmpfs.mode = Some(
                    i64::from_str_radix(mode, 8).map_err(|_| format!("invalid value for {key}: {mode}"))?,
                );
            }
            "volume-nocopy" => volume.no_copy = Some(boolean()?),
            "volume-subpath" => volume.subpath = Some(needs()?.to_owned()),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if mount.target.is_none() {
        return Err("target is required".to_owned());
    }
    let is = |typ| mount.typ == Some(typ);
    let (has_bind, has_tmpfs) = (bind != MountBindOptions::default(), tmpfs != MountTmpfsOptions::default());
    let has_volume = volume != MountVolumeOptions::default();
    for (has, typ, name) in [
        (has_bind, MountType::BIND, "bind"),
        (has_tmpfs, MountType::TMPFS, "tmpfs"),
        (has_volume, MountType::VOLUME, "volume"),
    ] {
        if has && !is(typ) {
            let mount_type = mount.typ.map(|typ| typ.to_string()).unwrap_or_default();
            return Err(format!("cannot mix '{name}-*' options with mount type '{mount_type}'"));
        }
    }
    mount.bind_options = has_bind.then_some(bind);
    mount.tmpfs_options = has_tmpfs.then_some(tmpfs);
    mount.volume_options = has_volume.then_some(volume);
    Ok(mount)
}

/// `port[-port][/proto]` as single ports.
pub fn expose(text: &str) -> Result<Vec<String>, String> {
    let (ports, proto) = protocol(text)?;
    let (first, last) = range(ports).ok_or_else(|| format!("invalid range format for --expose: {text}"))?;
    Ok((first..=last).map(|port| format!("{port}/{proto}")).collect())
}

/// `-p [[ip:][host]:]container[/proto]`, with ranges, as container ports and their bindings.
pub fn publish(text: &str) -> Result<Vec<(String, PortBinding)>, String> {
    let (spec, proto) = protocol(text)?;
    let (rest, container) = spec.rsplit_once(':').map_or(("", spec), |(rest, container)| (rest, container));
    let (address, host) = match rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, host)) => (address, host.strip_prefix(':').unwrap_or(host)),
        None => rest.rsplit_once(':').unwrap_or(("", rest)),
    };
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    let (first, last) = range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    let hosts = match host {
        "" => None,
        host => Some(range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?),
    };
    let count = last - first;
    if let Some((from, to)) = hosts
        && to - from != count
        && count != 0
    {
        return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
    }
    Ok((first..=last)
        .map(|port| {
            let host_port = match hosts {
                None => String::new(),
                Some((from, to)) if count == 0 && from != to => format!("{from}-{to}"),
                Some((from, _)) => (from + (port - first)).to_string(),
            };
            let binding = PortBinding { host_ip: Some(address.to_owned()), host_port: Some(host_port) };
            (format!("{port}/{proto}"), binding)
        })
        .collect())
}

fn protocol(text: &str) -> Result<(&str, String), String> {
    let (ports, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    let proto = proto.to_ascii_lowercase();
    match proto.as_str() {
        "tcp" | "udp" | "sctp" => Ok((ports, proto)),
        _ => Err(format!("invalid proto: {proto}")),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_limits_devices_and_policies() {
        assert_eq!(extra_host("a:1.2.3.4").unwrap(), "a:1.2.3.4");
        assert_eq!(extra_host("a=[::1]").unwrap(), "a:::1");
        assert!(extra_host("a").is_err() && extra_host("a:b").is_err());
        let limit = ulimit("nofile=10:20").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(10), Some(20)));
        assert_eq!(ulimit("core=-1").unwrap().hard, Some(-1));
        assert!(ulimit("nofile=20:10").is_err() && ulimit("x=1").is_err() && ulimit("nofile").is_err());
        assert_eq!(device("/dev/a:r").unwrap().cgroup_permissions.unwrap(), "r");
        assert_eq!(device("/dev/a:/dev/b:rw").unwrap().path_in_container.unwrap(), "/dev/b");
        assert!(device("/dev/a:/dev/b:x").is_err() && device("a:b:c:d").is_err());
        assert_eq!(restart("on-failure:3").unwrap().maximum_retry_count, Some(3));
        assert!(restart("sometimes").is_err() && restart("on-failure:x").is_err());
    }

    #[test]
    fn volumes_and_mounts() {
        assert_eq!(volume("/a").unwrap(), Volume::Anonymous("/a".into()));
        assert_eq!(volume("/a:/b:ro").unwrap(), Volume::Bind("/a:/b:ro".into()));
        assert_eq!(volume("name:/b").unwrap(), Volume::Bind("name:/b".into()));
        let here = std::env::current_dir().unwrap();
        assert_eq!(volume("./x/../y:/b").unwrap(), Volume::Bind(format!("{}:/b", here.join("y").display())));
        for bad in ["", "a", ":/a", "/a:", "/a:b", "/a:/b:ro:x"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
        let bind = mount("type=bind,src=/a,dst=/b,ro,bind-propagation=rslave").unwrap();
        assert_eq!((bind.typ, bind.read_only), (Some(MountType::BIND), Some(true)));
        let tmpfs =
            mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap().tmpfs_options.unwrap();
        assert_eq!((tmpfs.size_bytes, tmpfs.mode), (Some(1 << 20), Some(0o1770)));
        for bad in
            ["type=bind", "type=x,dst=/a", "type=bind,dst=/a,tmpfs-size=1", "dst=/a,foo=1", "type=bind,src"]
        {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_have_addresses_and_ranges() {
        let flat = |text| -> Vec<String> {
            let ports = publish(text).unwrap();
            ports
                .into_iter()
                .map(|(port, b)| format!("{}:{}->{port}", b.host_ip.unwrap(), b.host_port.unwrap()))
                .collect()
        };
        assert_eq!(flat("80"), [":->80/tcp"]);
        assert_eq!(flat("8080:80/udp"), [":8080->80/udp"]);
        assert_eq!(flat("127.0.0.1:8080:80"), ["127.0.0.1:8080->80/tcp"]);
        assert_eq!(flat("[::1]::80"), ["::1:->80/tcp"]);
        assert_eq!(flat("90-91:80-81"), [":90->80/tcp", ":91->81/tcp"]);
        assert_eq!(flat("90-99:80"), [":90-99->80/tcp"]);
        for bad in ["", "x", "1:2:3", "80/icmp", "1-3:80-81", "99999"] {
            assert!(publish(bad).is_err(), "{bad}");
        }
        assert_eq!(expose("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
    }
}
