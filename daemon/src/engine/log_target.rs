//! Where a container's output is kept: the options of the `json-file` driver.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use executor::shims::LogTarget;

use super::Error;
use super::record::Record;

/// Size and number of log files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes at which a file is closed.
    pub max_size_bytes: Option<u64>,
    /// How many there are.
    pub max_files: u32,
}

/// Reads `max-size` and `max-file`.
pub fn parse(options: &HashMap<String, String>) -> Result<Rotation, Error> {
    let mut rotation = Rotation { max_size_bytes: None, max_files: 1 };
    let mut options: Vec<_> = options.iter().collect();
    options.sort();
    for (name, value) in options {
        let invalid = |what: &str| Error::Invalid(format!("invalid value for {name}: {value:?}: {what}"));
        match name.as_str() {
            "max-size" => {
                rotation.max_size_bytes = match value.as_str() {
                    "-1" => None,
                    text => Some(size(text).filter(|size| *size > 0).ok_or_else(|| invalid("invalid size"))?),
                }
            }
            "max-file" => {
                rotation.max_files = match value.parse() {
                    Ok(0) | Err(_) => return Err(invalid("max-file cannot be less than 1")),
                    Ok(count) => count,
                }
            }
            "compress" if value == "false" => {}
            "compress" | "mode" | "max-buffer-size" | "labels" | "labels-regex" | "env" | "env-regex"
            | "tag" => {
                return Err(Error::Unsupported(format!("the log option {name}={value}")));
            }
            _ => return Err(Error::Invalid(format!("unknown log opt '{name}' for json-file log driver"))),
        }
    }
    if rotation.max_files > 1 && rotation.max_size_bytes.is_none() {
        return Err(Error::Invalid("max-file cannot be set without max-size".into()));
    }
    Ok(rotation)
}

/// `10m`, `1k`, `3`, as Docker reads sizes.
fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(factor)
}

/// The current log file.
pub fn path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}-json.log"))
}

/// Whether there is a log to read.
pub fn readable(record: &Record) -> bool {
    record.host.log_config.as_ref().and_then(|log| log.typ.as_deref()) != Some("none")
}

/// For the shim.
pub fn target(record: &Record, dir: &Path, id: &str) -> Result<LogTarget, Error> {
    if !readable(record) {
        return Ok(LogTarget::None);
    }
    let none = HashMap::new();
    let options = record.host.log_config.as_ref().and_then(|log| log.config.as_ref()).unwrap_or(&none);
    let Rotation { max_size_bytes, max_files } = parse(options)?;
    Ok(LogTarget::JsonFile { path: path(dir, id), max_size_bytes, max_files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("10m", Some(10 << 20)), ("1k", Some(1024)), ("7", Some(7)), ("1x", None), ("", None)]
        {
            assert_eq!(size(text), bytes, "{text:?}");
        }
    }
}
