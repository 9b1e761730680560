//! The files that every container gets from the engine: hosts, hostname, resolv.conf.

use std::net::IpAddr;
use std::path::Path;

use executor::spec::{MountInput, MountSource};

use super::Error;
use super::record::Record;

const HOSTS: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// Takes `name:address` or `name=address` apart.
pub fn extra_host(text: &str) -> Result<(&str, IpAddr), Error> {
    let bad = || Error::Invalid(format!("bad format for add-host: {text:?}"));
    let (name, address) = text.split_once(['=', ':']).ok_or_else(bad)?;
    if address == "host-gateway" {
        return Err(Error::Unsupported("host-gateway".into()));
    }
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(bad());
    }
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(address) => Ok((name, address)),
        Err(_) => Err(Error::Invalid(format!("invalid IP address in add-host: {address:?}"))),
    }
}

fn hosts(record: &Record) -> Result<String, Error> {
    let mut text = match record.host.network_mode.as_deref() {
        Some("host") => std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| HOSTS.to_owned()),
        _ => HOSTS.to_owned(),
    };
    for extra in record.host.extra_hosts.iter().flatten() {
        let (name, address) = extra_host(extra)?;
        text.push_str(&format!("{address}\t{name}\n"));
    }
    Ok(text)
}

fn resolv_conf(record: &Record) -> String {
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let list = |own: &Option<Vec<String>>| own.clone().filter(|list| !list.is_empty());
    let keyword = |word: &str| {
        let of = |line: &str| line.split_whitespace().next() == Some(word);
        host.lines().filter(|line| of(line)).map(|line| format!("{line}\n")).collect::<String>()
    };
    let mut text = match list(&record.host.dns) {
        Some(servers) => servers.iter().map(|server| format!("nameserver {server}\n")).collect(),
        None => keyword("nameserver"),
    };
    text.push_str(&match list(&record.host.dns_search) {
        Some(domains) if domains == ["."] => String::new(),
        Some(domains) => format!("search {}\n", domains.join(" ")),
        None => keyword("search"),
    });
    text.push_str(&match list(&record.host.dns_options) {
        Some(options) => format!("options {}\n", options.join(" ")),
        None => keyword("options"),
    });
    text
}

/// Writes the three files (blocks) into a container's directory.
pub fn write(record: &Record, dir: &Path) -> Result<(), Error> {
    let hostname = record.config.hostname.as_deref().unwrap_or_default();
    for (name, text) in [
        ("hosts", hosts(record)?),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", resolv_conf(record)),
    ] {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())))?;
    }
    Ok(())
}

/// Mounts of the files in `dir`, where no mount of the user's takes their place.
pub fn mounts(dir: &Path, taken: &[String]) -> Vec<MountInput> {
    [("/etc/resolv.conf", "resolv.conf"), ("/etc/hostname", "hostname"), ("/etc/hosts", "hosts")]
        .into_iter()
        .filter(|(path, _)| !taken.iter().any(|own| own == path))
        .map(|(path, name)| MountInput {
            destination: path.to_owned(),
            source: MountSource::Bind(dir.join(name)),
            read_only: false,
            options: vec!["bind".into(), "rprivate".into()],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_are_checked() {
        assert_eq!(extra_host("db:10.0.0.1").unwrap(), ("db", "10.0.0.1".parse().unwrap()));
        assert_eq!(extra_host("db=[::1]").unwrap(), ("db", "::1".parse().unwrap()));
        assert_eq!(extra_host("db:::1").unwrap(), ("db", "::1".parse().unwrap()));
        assert!(extra_host("db").is_err());
        assert!(extra_host("db:nowhere").is_err());
        assert!(extra_host("a\nb:10.0.0.1").is_err());
    }
}
