//! Image references as people type them: `[domain/]path[:tag][@digest]`.

use crate::failure::{Outcome, fail};

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";

/// A reference with its domain and path written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry's host and port.
    pub domain: String,
    /// The repository within it.
    pub path: String,
    /// The tag, where there is one.
    pub tag: Option<String>,
    /// The digest, where there is one.
    pub digest: Option<String>,
}

impl Reference {
    /// Takes a reference apart. No tag is added.
    pub fn parse(text: &str) -> Outcome<Self> {
        let invalid = || fail("invalid reference format");
        let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let (domain, path) = match name.split_once('/') {
            Some((first, path)) if is_domain(first) => (first, path.to_owned()),
            _ => (DEFAULT_DOMAIN, name.to_owned()),
        };
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        let path = match domain == DEFAULT_DOMAIN && !path.contains('/') {
            true => format!("{OFFICIAL}{path}"),
            false => path,
        };
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(fail(format!(
                "invalid reference format: repository name ({path}) must be lowercase"
            )));
        }
        let good_path = path.split('/').all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.ends_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        });
        let good_tag = tag.is_none_or(|tag| {
            (1..=128).contains(&tag.len())
                && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        });
        let good_digest = digest.is_none_or(|digest| {
            digest.split_once(':').is_some_and(|(algorithm, hex)| {
                !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
            })
        });
        if !(good_path && good_tag && good_digest) {
            return Err(invalid());
        }
        Ok(Self {
            domain: domain.to_owned(),
            path,
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// The same reference with the tag `latest` where it has neither tag nor digest.
    pub fn tagged(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// Domain and path.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Domain and path without what goes without saying.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        self.path.strip_prefix(OFFICIAL).unwrap_or(&self.path).to_owned()
    }

    /// Everything, written out.
    pub fn canonical(&self) -> String {
        self.name() + &self.suffix()
    }

    /// Everything, without what goes without saying.
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.suffix()
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

fn is_domain(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':']) || text.chars().any(|c| c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_written_out_and_back() {
        for (text, canonical, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("a/b:1", "docker.io/a/b:1", "a/b:1"),
            ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
            ("index.docker.io/library/x:2", "docker.io/library/x:2", "x:2"),
        ] {
            let reference = Reference::parse(text).unwrap().tagged();
            assert_eq!(
                (reference.canonical().as_str(), reference.familiar().as_str()),
                (canonical, familiar)
            );
        }
        let digest = format!("x@sha256:{}", "a".repeat(64));
        assert_eq!(Reference::parse(&digest).unwrap().tagged().familiar(), digest);
    }

    #[test]
    fn mistakes_are_refused() {
        for bad in ["", "a:", "a b", "-x", "a//b", "a:b:c", "x@sha256:zz", "a/", ":1"] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
        let message = Reference::parse("Foo").unwrap_err().message.unwrap();
        assert_eq!(message, "invalid reference format: repository name (library/Foo) must be lowercase");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                let again = Reference::parse(&reference.canonical()).unwrap();
                prop_assert_eq!(&again, &reference);
                prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
            }
        }
    }
}
