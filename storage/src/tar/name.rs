//! Names of entries and of hard links' targets.

use super::TarError;

/// Longest path of an entry in bytes (the kernel's `PATH_MAX` without the final NUL).
pub const MAX_PATH_BYTES: usize = 4095;
/// Most components in a path.
pub const MAX_PATH_DEPTH: usize = 1024;

/// A path as error messages show it: quoted, with what is not printable escaped.
pub fn shown(path: &[u8]) -> String {
    let short = &path[..path.len().min(256)];
    format!("{:?}", String::from_utf8_lossy(short))
}

/// Brings a name into the form of [`super::Entry::path`]. A leading slash is taken off, as every
/// extractor does; `..` is refused, even where it would stay inside.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, TarError> {
    if name.is_empty() {
        return Err(TarError::invalid("an entry has an empty name"));
    }
    if name.contains(&0) {
        return Err(TarError::invalid(format!("the name {} has a NUL byte in it", shown(name))));
    }
    let mut path = Vec::with_capacity(name.len());
    let mut depth = 0;
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(TarError::invalid(format!("the name {} has \"..\" in it", shown(name)))),
            _ if part.len() > 255 => {
                return Err(TarError::invalid(format!(
                    "the name {} has a component longer than 255 bytes",
                    shown(name)
                )));
            }
            _ => {
                if depth > 0 {
                    path.push(b'/');
                }
                path.extend_from_slice(part);
                depth += 1;
            }
        }
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(TarError::Budget(format!(
            "over budget: the path {} is longer than {MAX_PATH_BYTES} bytes",
            shown(name)
        )));
    }
    if depth > MAX_PATH_DEPTH {
        return Err(TarError::Budget(format!(
            "over budget: the path {} is deeper than {MAX_PATH_DEPTH} directories",
            shown(name)
        )));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_brought_into_one_form() {
        for (name, path) in [("./a//b/", "a/b"), ("/etc/passwd", "etc/passwd"), ("./", ""), ("/", "")] {
            assert_eq!(clean(name.as_bytes()).unwrap(), path.as_bytes());
        }
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in ["..", "../a", "a/../b", "a/..", "/../a", ""] {
            assert!(clean(name.as_bytes()).is_err(), "{name}");
        }
        assert!(clean(b"a\0b").is_err());
        assert!(clean(&[b'a'; 256]).is_err());
        assert!(matches!(clean(&b"a/".repeat(1025)), Err(TarError::Budget(_))));
    }
}
