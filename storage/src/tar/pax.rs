//! PAX extended headers (POSIX.1-2001, `pax Interchange Format`).

use super::{Segment, TarError, Time, shown};

/// The records of one extended header that mean something here.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link_path: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub mtime: Option<Time>,
    pub atime: Option<Time>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Sparse,
}

/// GNU's sparse records, in the three versions there are.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Versions 0.0 and 0.1.
    pub map: Vec<Segment>,
    /// Version 0.0: an offset whose length has not come yet.
    offset: Option<u64>,
    pub blocks: Option<u64>,
    pub any: bool,
}

impl Pax {
    /// Reads the content of an `x` entry.
    pub(super) fn parse(content: &[u8]) -> Result<Self, TarError> {
        let mut pax = Self::default();
        records(content, |key, value| pax.set(key, value))?;
        if pax.sparse.offset.is_some() {
            return Err(TarError::invalid("a sparse record has an offset without a length"));
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        // An empty value takes an earlier record back.
        let given = !value.is_empty();
        let text = || name(key, value).map(|text| given.then_some(text));
        let time = || if given { time(value).map(Some) } else { Ok(None) };
        let signed = || if given { integer(key, value).map(Some) } else { Ok(None) };
        match key {
            b"path" => self.path = text()?,
            b"linkpath" => self.link_path = text()?,
            b"size" => self.size = if given { Some(natural(key, value)?) } else { None },
            b"uid" => self.uid = signed()?,
            b"gid" => self.gid = signed()?,
            b"mtime" => self.mtime = time()?,
            b"atime" => self.atime = time()?,
            _ => {
                if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
                    if attribute.is_empty() || attribute.contains(&0) {
                        return Err(TarError::invalid("an extended attribute has no name"));
                    }
                    self.xattrs.retain(|(known, _)| known != attribute);
                    self.xattrs.push((attribute.to_vec(), value.to_vec()));
                } else if let Some(record) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.any = true;
                    self.sparse.set(key, record, value)?;
                }
            }
        }
        Ok(())
    }
}

impl Sparse {
    fn set(&mut self, key: &[u8], record: &[u8], value: &[u8]) -> Result<(), TarError> {
        match record {
            b"major" => self.major = Some(natural(key, value)?),
            b"minor" => self.minor = Some(natural(key, value)?),
            b"name" => self.name = Some(name(key, value)?),
            b"size" | b"realsize" => {
                let size = natural(key, value)?;
                if self.real_size.is_some_and(|known| known != size) {
                    return Err(TarError::invalid("sparse records with two sizes"));
                }
                self.real_size = Some(size);
            }
            b"numblocks" => self.blocks = Some(natural(key, value)?),
            b"offset" => {
                if self.offset.replace(natural(key, value)?).is_some() {
                    return Err(TarError::invalid("a sparse record has an offset without a length"));
                }
            }
            b"numbytes" => {
                let offset =
                    self.offset.take().ok_or_else(|| TarError::invalid("a sparse record has no offset"))?;
                self.map.push(Segment { offset, length: natural(key, value)? });
            }
            b"map" => {
                let numbers: Vec<u64> =
                    value.split(|b| *b == b',').map(|part| natural(key, part)).collect::<Result<_, _>>()?;
                if !numbers.len().is_multiple_of(2) {
                    return Err(TarError::invalid("a sparse map has an odd count of numbers"));
                }
                self.map =
                    numbers.chunks(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect();
            }
            _ => return Err(TarError::invalid(format!("unknown sparse record {}", shown(key)))),
        }
        Ok(())
    }
}

/// Checks the content of a `g` entry. Docker and containerd ignore global headers and GNU tar does
/// not: one that would change an entry is refused.
pub(super) fn check_global(content: &[u8]) -> Result<(), TarError> {
    records(content, |key, _| {
        let harmful = matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"uname" | b"gname")
            || key.starts_with(b"GNU.sparse.")
            || key.starts_with(b"SCHILY.");
        if harmful {
            return Err(TarError::invalid(format!("a global header sets {}", shown(key))));
        }
        Ok(())
    })
}

/// Calls `each` with every record `<length> <key>=<value>\n`.
fn records(
    mut content: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), TarError>,
) -> Result<(), TarError> {
    let broken = || TarError::invalid("a PAX record is broken");
    while !content.is_empty() {
        let blank = content.iter().take(20).position(|b| *b == b' ').ok_or_else(broken)?;
        let length = usize::try_from(natural(b"length", &content[..blank])?).map_err(|_| broken())?;
        if length < blank + 4 || length > content.len() || content[length - 1] != b'\n' {
            return Err(broken());
        }
        let record = &content[blank + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(broken)?;
        if equals == 0 {
            return Err(broken());
        }
        each(&record[..equals], &record[equals + 1..])?;
        content = &content[length..];
    }
    Ok(())
}

fn name(key: &[u8], value: &[u8]) -> Result<Vec<u8>, TarError> {
    if value.contains(&0) {
        return Err(TarError::invalid(format!("the PAX record {} has a NUL byte in it", shown(key))));
    }
    Ok(value.to_vec())
}

fn junk(key: &[u8], value: &[u8]) -> TarError {
    TarError::invalid(format!("the PAX record {} is no number: {}", shown(key), shown(value)))
}

pub(super) fn natural(key: &[u8], value: &[u8]) -> Result<u64, TarError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(junk(key, value));
    }
    value
        .iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .filter(|number| i64::try_from(*number).is_ok())
        .ok_or_else(|| junk(key, value))
}

fn integer(key: &[u8], value: &[u8]) -> Result<i64, TarError> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let number = i64::try_from(natural(key, digits)?).map_err(|_| junk(key, value))?;
    Ok(if negative { -number } else { number })
}

/// `seconds[.fraction]`, the fraction rounded down to nanoseconds.
fn time(value: &[u8]) -> Result<Time, TarError> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |b| *b == b'.');
    let whole = parts.next().unwrap_or_default();
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(junk(b"time", value));
    }
    let seconds = i64::try_from(natural(b"time", whole)?).map_err(|_| junk(b"time", value))?;
    let nanos = (0..9)
        .fold(0_u32, |sum, place| sum * 10 + u32::from(fraction.get(place).map_or(0, |digit| digit - b'0')));
    Ok(match (negative, nanos) {
        (false, _) => Time { seconds, nanos },
        (true, 0) => Time { seconds: -seconds, nanos },
        (true, _) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"1.5").unwrap(), Time { seconds: 1, nanos: 500_000_000 });
        assert_eq!(time(b"-1.25").unwrap(), Time { seconds: -2, nanos: 750_000_000 });
        assert_eq!(time(b"7.1234567891").unwrap(), Time { seconds: 7, nanos: 123_456_789 });
        assert!(time(b"1.x").is_err() && time(b"--1").is_err() && time(b".5").is_err());
    }

    #[test]
    fn records_are_strict() {
        assert_eq!(Pax::parse(b"9 path=a\n11 path=ab\n").ok().and_then(|p| p.path), Some(b"ab".to_vec()));
        for bad in [
            &b"8 path=a\n"[..],
            b"11 path=a\n",
            b"9 path=a",
            b"x path=a\n",
            b"6 =ab\n",
            b"12 size=1x1\n",
            b"0 a=b\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn global_headers_change_no_entry() {
        assert!(check_global(b"13 comment=a\n").is_ok());
        assert!(check_global(b"9 path=a\n").is_err());
    }
}
