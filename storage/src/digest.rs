//! Content digests: the only text from outside that ever becomes a file name.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// `sha256:<64 lower-case hex digits>`; a blob digest or a diff id. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Arc<str>);

impl Digest {
    /// The algorithm's prefix; no other algorithm is stored.
    const PREFIX: &str = "sha256:";

    /// Checks the form; `None` for any other algorithm, length or case.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix(Self::PREFIX)?;
        is_hex(hex, 64).then(|| Self(text.into()))
    }

    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(format!("{}{}", Self::PREFIX, hex::encode(Sha256::digest(bytes))).into())
    }

    /// `sha256:<hex>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hexadecimal digits alone; a safe file name.
    pub fn hex(&self) -> &str {
        &self.0[Self::PREFIX.len()..]
    }

    /// From a directory entry's name, which is the digits alone.
    pub(crate) fn from_hex(hex: &str) -> Option<Self> {
        is_hex(hex, 64).then(|| Self(format!("{}{hex}", Self::PREFIX).into()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is `length` lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_sha256_is_a_digest() {
        let good = Digest::of(b"");
        assert_eq!(good.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(Digest::parse(good.as_str()), Some(good.clone()));
        assert_eq!(Digest::from_hex(good.hex()), Some(good.clone()));
        for bad in ["", "sha256:", "sha256:../../etc/passwd", &good.as_str().to_uppercase(), "sha512:00"] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }
}
