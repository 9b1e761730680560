//! One header block of 512 bytes.

use super::TarError;

pub(super) const BLOCK: usize = 512;

/// A header block whose checksum is right.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl<'a> Header<'a> {
    pub(super) fn new(block: &'a [u8; BLOCK]) -> Result<Self, TarError> {
        let stored = number(&block[148..156], "checksum")?;
        let rest = block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]);
        let unsigned: i64 = rest.clone().map(|b| i64::from(*b)).sum();
        // Some old writers summed signed bytes; every reader accepts both.
        let signed: i64 = rest.map(|b| i64::from(b.cast_signed())).sum();
        if stored != unsigned && stored != signed {
            return Err(TarError::invalid("a header has a wrong checksum"));
        }
        Ok(Self(block))
    }

    fn format(&self) -> Format {
        match &self.0[257..265] {
            b"ustar\x0000" if &self.0[508..512] == b"tar\0" => Format::Star,
            // Writers that leave the version out are read as ustar by all readers.
            field if field.starts_with(b"ustar\0") => Format::Ustar,
            b"ustar  \0" => Format::Gnu,
            _ => Format::V7,
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn is_gnu(&self) -> bool {
        self.format() == Format::Gnu
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match self.format() {
            Format::Ustar => text(&self.0[345..500]),
            Format::Star => text(&self.0[345..476]),
            Format::V7 | Format::Gnu => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') }
    }

    pub(super) fn link_name(&self) -> &'a [u8] {
        text(&self.0[157..257])
    }

    pub(super) fn mode(&self) -> Result<u32, TarError> {
        let mode = number(&self.0[100..108], "mode")?;
        u32::try_from(mode & 0o7777).map_err(|_| TarError::invalid("a header has a negative mode"))
    }

    pub(super) fn uid(&self) -> Result<i64, TarError> {
        number(&self.0[108..116], "uid")
    }

    pub(super) fn gid(&self) -> Result<i64, TarError> {
        number(&self.0[116..124], "gid")
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        unsigned(&self.0[124..136], "size")
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        number(&self.0[136..148], "mtime")
    }

    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        let part = |range: std::ops::Range<usize>| {
            u32::try_from(number(&self.0[range], "device number")?)
                .map_err(|_| TarError::invalid("a device number is out of range"))
        };
        Ok((part(329..337)?, part(337..345)?))
    }

    /// The four sparse entries, the flag that more follow, and the real size (GNU `S` entries).
    pub(super) fn gnu_sparse(&self) -> Result<(&'a [u8], bool, u64), TarError> {
        Ok((&self.0[386..482], self.0[482] != 0, unsigned(&self.0[483..495], "real size")?))
    }
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    &field[..end]
}

pub(super) fn unsigned(field: &[u8], what: &str) -> Result<u64, TarError> {
    u64::try_from(number(field, what)?)
        .map_err(|_| TarError::invalid(format!("a header has a negative {what}")))
}

/// A numeric field: octal digits between blanks, or base 256 where the first bit is set.
fn number(field: &[u8], what: &str) -> Result<i64, TarError> {
    let junk = || TarError::invalid(format!("a header has junk in its {what}: {}", super::shown(field)));
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = if negative { i128::from(field[0].cast_signed()) } else { i128::from(field[0] & 0x7f) };
        let mut value = first;
        for byte in &field[1..] {
            value = (value << 8) | i128::from(*byte);
        }
        return i64::try_from(value).map_err(|_| junk());
    }
    let start = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|b| !(b'0'..=b'7').contains(b)).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    // After the digits only what ends a field: bytes behind a NUL are nobody's business, but some
    // readers stop there and some do not, so that they have to be blank as well.
    if rest.iter().any(|b| !matches!(b, b' ' | 0)) {
        return Err(junk());
    }
    Ok(digits.iter().fold(0_i64, |sum, digit| (sum << 3) | i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0", "x").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0", "x").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0", "x").unwrap(), 0);
        assert_eq!(number(b"77777777777\0", "x").unwrap(), 0o77_777_777_777);
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\x00", "x").unwrap(), 256);
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff", "x").unwrap(), -1);
    }

    #[test]
    fn junk_is_no_number() {
        for field in [&b"12a4567\0"[..], b"0x12\0\0\0\0", b"-1\0\0\0\0\0\0", b"12\x0034\0\0\0", b"0000648\0"]
        {
            assert!(number(field, "x").is_err(), "{field:?}");
        }
        assert!(number(b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "x").is_err());
    }
}
