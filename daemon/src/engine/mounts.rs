//! What a container asks to be mounted: `Binds`, `Mounts` and `Tmpfs`, as one list.

use std::path::{Path, PathBuf};

use executor::spec::{MountInput, MountSource};
use proto_api::models::{HostConfig, Mount, MountPoint, MountType};

use super::Error;

/// A mount that a user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserMount {
    /// `None` is a tmpfs.
    pub source: Option<PathBuf>,
    /// Absolute, normalised.
    pub destination: String,
    /// As it was written, for `inspect`.
    pub mode: String,
    /// Read-only.
    pub read_only: bool,
    /// Propagation; `rprivate` by default.
    pub propagation: String,
    /// Further options of a tmpfs.
    pub options: Vec<String>,
    /// Whether a missing source directory is made.
    pub create: bool,
    /// Without the mounts below the source.
    pub non_recursive: bool,
}

/// Collects and validates everything; touches no file.
pub fn collect(host: &HostConfig) -> Result<Vec<UserMount>, Error> {
    let mut all = Vec::new();
    for bind in host.binds.iter().flatten() {
        all.push(parse_bind(bind)?);
    }
    for mount in host.mounts.iter().flatten() {
        all.push(parse_mount(mount)?);
    }
    let mut tmpfs: Vec<_> = host.tmpfs.iter().flatten().collect();
    tmpfs.sort();
    for (path, options) in tmpfs {
        let given = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned);
        let options = ["noexec", "nosuid", "nodev"].into_iter().map(str::to_owned).chain(given).collect();
        all.push(tmpfs_at(destination(path, path)?, options, false)?);
    }
    for (index, mount) in all.iter().enumerate() {
        if all[..index].iter().any(|other| other.destination == mount.destination) {
            return Err(Error::Invalid(format!("Duplicate mount point: {}", mount.destination)));
        }
    }
    Ok(all)
}

fn destination(path: &str, whole: &str) -> Result<String, Error> {
    let invalid = |why: &str| Error::Invalid(format!("invalid volume specification: '{whole}': {why}"));
    if !path.starts_with('/') {
        return Err(Error::Invalid(format!(
            "invalid volume specification: '{whole}': invalid mount config for type \"bind\": invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    if path.contains('\0') {
        return Err(invalid("destination holds a zero byte"));
    }
    let clean = clean(path);
    if clean == "/" {
        return Err(invalid("invalid specification: destination can't be '/'"));
    }
    Ok(clean)
}

/// Takes `.`, `..` and doubled slashes out, by the text alone.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

fn parse_bind(text: &str) -> Result<UserMount, Error> {
    let invalid = |why: &str| Error::Invalid(format!("invalid volume specification: '{text}'{why}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, path, mode) = match *parts.as_slice() {
        [path] if path.starts_with('/') => {
            return Err(Error::Unsupported(format!("an anonymous volume ({path})")));
        }
        [source, path] => (source, path, ""),
        [source, path, mode] => (source, path, mode),
        _ => return Err(invalid("")),
    };
    if source.is_empty() {
        return Err(invalid(": empty section between colons"));
    }
    if !source.starts_with('/') {
        return Err(Error::Unsupported(format!("a named volume ({source})")));
    }
    let mut mount = UserMount {
        source: Some(PathBuf::from(clean(source))),
        destination: destination(path, text)?,
        mode: mode.to_owned(),
        read_only: false,
        propagation: "rprivate".into(),
        options: vec![],
        create: true,
        non_recursive: false,
    };
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            // Labels of SELinux, which is not there, and hints for other platforms.
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            option if PROPAGATIONS.contains(&option) => mount.propagation = option.to_owned(),
            _ => return Err(Error::Invalid(format!("invalid mode: {mode}"))),
        }
    }
    Ok(mount)
}

fn tmpfs_at(destination: String, options: Vec<String>, read_only: bool) -> Result<UserMount, Error> {
    Ok(UserMount {
        source: None,
        destination,
        mode: String::new(),
        read_only: read_only || options.iter().any(|option| option == "ro"),
        propagation: String::new(),
        options: options.into_iter().filter(|option| option != "ro" && option != "rw").collect(),
        create: false,
        non_recursive: false,
    })
}

fn parse_mount(mount: &Mount) -> Result<UserMount, Error> {
    let Mount {
        target,
        source,
        typ,
        read_only,
        consistency: _,
        bind_options,
        volume_options,
        image_options,
        tmpfs_options,
    } = mount;
    let kind = typ.map_or("volume".to_owned(), |kind| kind.to_string());
    let invalid = |why: String| Error::Invalid(format!("invalid mount config for type \"{kind}\": {why}"));
    let target = target.as_deref().unwrap_or_default();
    if target.is_empty() {
        return Err(invalid("field Target must not be empty".into()));
    }
    if !target.starts_with('/') {
        return Err(invalid(format!("invalid mount path: '{target}' mount path must be absolute")));
    }
    let destination = clean(target);
    if destination == "/" {
        return Err(invalid("invalid specification: destination can't be '/'".into()));
    }
    let read_only = *read_only == Some(true);
    match typ {
        Some(MountType::BIND) => {
            if volume_options.is_some() || tmpfs_options.is_some() || image_options.is_some() {
                return Err(invalid(
                    "field VolumeOptions, ImageOptions or TmpfsOptions must not be specified".into(),
                ));
            }
            let source = source.as_deref().unwrap_or_default();
            if source.is_empty() {
                return Err(invalid("field Source must not be empty".into()));
            }
            if !source.starts_with('/') {
                return Err(invalid(format!("invalid mount path: '{source}' mount path must be absolute")));
            }
            let options = bind_options.clone().unwrap_or_default();
            if options.read_only_force_recursive == Some(true) {
                return Err(Error::Unsupported("the bind option ReadOnlyForceRecursive".into()));
            }
            let create = options.create_mountpoint == Some(true);
            if !create && !Path::new(source).exists() {
                return Err(invalid(format!("bind source path does not exist: {source}")));
            }
            let propagation = options.propagation.map(|p| p.to_string()).filter(|p| !p.is_empty());
            Ok(UserMount {
                source: Some(PathBuf::from(clean(source))),
                destination,
                mode: String::new(),
                read_only,
                propagation: propagation.unwrap_or_else(|| "rprivate".into()),
                options: vec![],
                create,
                non_recursive: options.non_recursive == Some(true),
            })
        }
        Some(MountType::TMPFS) => {
            if source.as_deref().is_some_and(|source| !source.is_empty()) {
                return Err(invalid("field Source must not be specified".into()));
            }
            let given = tmpfs_options.clone().unwrap_or_default();
            let mut options: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
            if let Some(size) = given.size_bytes.filter(|size| *size != 0) {
                if size < 0 {
                    return Err(invalid("size must not be negative".into()));
                }
                options.push(format!("size={size}"));
            }
            if let Some(mode) = given.mode.filter(|mode| *mode != 0) {
                options.push(format!("mode={mode:o}"));
            }
            options.extend(given.options.iter().flatten().map(|option| option.join("=")));
            tmpfs_at(destination, options, read_only)
        }
        _ => Err(Error::Unsupported(format!("a mount of type {kind} ({target})"))),
    }
}

impl UserMount {
    /// For the specification.
    pub fn input(&self) -> MountInput {
        let mut options = self.options.clone();
        if self.source.is_some() {
            options.push(if self.non_recursive { "bind" } else { "rbind" }.to_owned());
            options.push(self.propagation.clone());
        }
        MountInput {
            destination: self.destination.clone(),
            source: self.source.clone().map_or(MountSource::Tmpfs, MountSource::Bind),
            read_only: self.read_only,
            options,
        }
    }

    /// For `inspect`; tmpfs of `--tmpfs` has none in Docker.
    pub fn point(&self) -> MountPoint {
        MountPoint {
            typ: Some(if self.source.is_some() { "bind" } else { "tmpfs" }.to_owned()),
            name: None,
            source: Some(self.source.as_ref().map(|path| path.display().to_string()).unwrap_or_default()),
            destination: Some(self.destination.clone()),
            driver: None,
            mode: Some(self.mode.clone()),
            rw: Some(!self.read_only),
            propagation: Some(self.propagation.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(binds: &[&str]) -> Result<Vec<UserMount>, Error> {
        let binds = binds.iter().map(|bind| (*bind).to_owned()).collect();
        collect(&HostConfig { binds: Some(binds), ..HostConfig::default() })
    }

    #[test]
    fn binds_are_parsed() {
        let mounts = of(&["/a/../b:/x//y/:ro,rslave"]).unwrap();
        assert_eq!(mounts[0].source.as_deref(), Some(Path::new("/b")));
        assert_eq!(mounts[0].destination, "/x/y");
        assert!(mounts[0].read_only);
        assert_eq!(mounts[0].propagation, "rslave");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in ["/a:b", "/a:/", "/a:/b:nope", "/a:/b:ro:x", ":/b", "/a:/b/.."] {
            assert_eq!(of(&[bad]).unwrap_err().kind(), crate::engine::ErrorKind::BadRequest, "{bad}");
        }
        assert_eq!(of(&["vol:/b"]).unwrap_err().to_string(), "a named volume (vol) is not supported yet");
        assert_eq!(of(&["/a:/b", "/c:/b/"]).unwrap_err().to_string(), "Duplicate mount point: /b");
    }
}
