//! Which manifest of an index is meant: `os/architecture/variant`, with the machine's own as default.
//!
//! Variants follow the OCI image index: `arm` is `v5` to `v8`, `arm64` is `v8`, `amd64` is `v1` to `v4`;
//! none written means `v8` for `arm64`, `v7` for `arm` and `v1` for `amd64`. A machine runs older
//! variants of its architecture, so the newest one that is not newer than the wish is taken.

use serde::Deserialize;

/// A platform as indexes and configurations write it, or as a user asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub variant: String,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Self {
        Self::normalised("linux", std::env::consts::ARCH, "")
    }

    /// Parses `os`, `arch`, `os/arch` or `os/arch/variant`. `None` where it is none of these.
    pub fn parse(text: &str) -> Option<Self> {
        let word =
            |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| word(part)) {
            return None;
        }
        match parts[..] {
            [one] if matches!(one.to_lowercase().as_str(), "linux" | "windows" | "darwin" | "freebsd") => {
                Some(Self { os: one.to_lowercase(), ..Self::host() })
            }
            [one] => Some(Self::normalised("linux", one, "")),
            [os, architecture] => Some(Self::normalised(os, architecture, "")),
            [os, architecture, variant] => Some(Self::normalised(os, architecture, variant)),
            _ => None,
        }
    }

    /// With the aliases of architectures and the default variants replaced.
    pub fn normalised(os: &str, architecture: &str, variant: &str) -> Self {
        let (os, architecture, variant) =
            (os.to_lowercase(), architecture.to_lowercase(), variant.to_lowercase());
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64", if v == "v1" { "" } else { v }),
            ("i386" | "i686" | "x86" | "386", _) => ("386", ""),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", "v8"),
            ("aarch64" | "arm64", v) => ("arm64", v),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (other, v) => (other, v),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// How well `offer` serves this wish: `None` not at all, otherwise less is better.
    pub fn rank(&self, offer: &Self) -> Option<u32> {
        let offer = Self::normalised(&offer.os, &offer.architecture, &offer.variant);
        if self.os != offer.os {
            return None;
        }
        if self.architecture == "arm64" && offer.architecture == "arm" {
            return Some(100 + 8u32.checked_sub(offer.number()?)?);
        }
        if self.architecture != offer.architecture {
            return None;
        }
        if self.variant == offer.variant {
            return Some(0);
        }
        match self.architecture.as_str() {
            "amd64" | "arm" => self.number()?.checked_sub(offer.number()?),
            _ => None,
        }
    }

    /// The variant's number; none written is 1.
    fn number(&self) -> Option<u32> {
        match self.variant.strip_prefix('v') {
            Some(number) => number.parse().ok(),
            None if self.variant.is_empty() => Some(1),
            None => None,
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best<'a>(wish: &str, offers: &[&'a str]) -> Option<&'a str> {
        let wish = Platform::parse(wish).expect("a platform");
        offers
            .iter()
            .filter_map(|offer| Some((wish.rank(&Platform::parse(offer)?)?, *offer)))
            .min()
            .map(|(_, offer)| offer)
    }

    #[test]
    fn takes_the_newest_variant_that_runs() {
        let arms = ["linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64"];
        assert_eq!(best("linux/arm/v6", &arms), Some("linux/arm/v6"));
        assert_eq!(best("linux/arm", &arms), Some("linux/arm/v7"));
        assert_eq!(best("linux/arm64", &arms), Some("linux/arm64"));
        assert_eq!(best("linux/arm64", &arms[..4]), Some("linux/arm/v7"));
        assert_eq!(best("linux/arm/v5", &["linux/arm/v6"]), None);
        assert_eq!(best("linux/amd64", &["linux/amd64/v3", "linux/amd64"]), Some("linux/amd64"));
        assert_eq!(best("linux/amd64/v3", &["linux/amd64/v2", "linux/amd64"]), Some("linux/amd64/v2"));
        assert_eq!(best("linux/amd64", &["windows/amd64", "linux/386"]), None);
        assert_eq!(best("x86_64", &["linux/amd64"]), Some("linux/amd64"));
    }

    #[test]
    fn refuses_what_is_no_platform() {
        for text in ["", "/", "linux/", "a/b/c/d", "linux/amd 64", "linux/../x y"] {
            assert_eq!(Platform::parse(text), None, "{text:?}");
        }
    }
}
