//! Image references: `[registry/]repository[:tag][@digest]`.
//!
//! The grammar, the normalisation (`busybox` is `docker.io/library/busybox`) and the error texts are
//! those of the distribution project, because users and scripts know them.

use crate::LookupError;
use crate::digest::is_hex;

const DEFAULT_REGISTRY: &str = "docker.io";
const LEGACY_REGISTRY: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const INVALID_FORMAT: &str = "invalid reference format";

/// A parsed and normalised image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Parses what a user wrote. No tag is added; see [`Reference::or_latest`].
    pub fn parse(text: &str) -> Result<Self, LookupError> {
        if is_hex(text, 64) {
            return Err(invalid(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )));
        }
        let (registry, remainder) = split_registry(text);
        let before_colon = remainder.split(':').next().unwrap_or_default();
        if before_colon.to_lowercase() != before_colon {
            return Err(invalid(format!(
                "{INVALID_FORMAT}: repository name ({before_colon}) must be lowercase"
            )));
        }
        let (name, digest) = match remainder.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (remainder.as_str(), None),
        };
        let (repository, tag) = match name.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (name, None),
        };
        let fine =
            is_registry(&registry) && repository.split('/').all(is_component) && tag.is_none_or(is_tag);
        if !fine {
            return Err(invalid(INVALID_FORMAT.into()));
        }
        if repository.len() > 255 {
            return Err(invalid(format!(
                "{INVALID_FORMAT}: repository name must not be more than 255 characters"
            )));
        }
        if let Some(digest) = digest {
            check_digest(digest)?;
        }
        Ok(Self {
            registry,
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// `host[:port]` of the registry; `docker.io` by default.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry: `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, where one was written or added.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest after `@`, as `algorithm:hex`.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Adds `latest` where neither tag nor digest was written.
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.into());
        }
        self
    }

    /// The same repository under another tag; the tag is checked.
    pub fn with_tag(&self, tag: &str) -> Result<Self, LookupError> {
        if !is_tag(tag) {
            return Err(invalid("invalid tag format".into()));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository under a digest alone.
    pub fn with_digest(&self, digest: &crate::Digest) -> Self {
        Self { tag: None, digest: Some(digest.as_str().to_owned()), ..self.clone() }
    }

    /// The repository as Docker shows it: `busybox`, `user/app`, `localhost:5000/a/b`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        match self.repository.strip_prefix(OFFICIAL_PREFIX) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// The whole reference as Docker shows it: `busybox:latest`, `busybox@sha256:…`.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest);
        }
        text
    }

    /// The key under which the store knows it: a digest goes before a tag that is written with it.
    pub(crate) fn key(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.familiar_name()),
            None => self.clone().or_latest().familiar(),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.familiar())
    }
}

fn invalid(text: String) -> LookupError {
    LookupError::Invalid(text)
}

/// Splits off the registry and spells out Docker Hub's short forms.
fn split_registry(text: &str) -> (String, String) {
    let (registry, rest) = match text.split_once('/') {
        None => (DEFAULT_REGISTRY, text),
        Some((LEGACY_REGISTRY, rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest))
            if first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first =>
        {
            (first, rest)
        }
        Some(_) => (DEFAULT_REGISTRY, text),
    };
    if registry == DEFAULT_REGISTRY && !rest.contains('/') {
        return (registry.into(), format!("{OFFICIAL_PREFIX}{rest}"));
    }
    (registry.into(), rest.into())
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rfind(':') {
        Some(at) if !text[at..].contains(']') => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[') {
        return address
            .strip_suffix(']')
            .is_some_and(|a| !a.is_empty() && a.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'));
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// Runs of `[a-z0-9]` with one separator between them: `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_fine = bytes.first().is_some_and(|b| is_word(*b)) && bytes.last().is_some_and(|b| is_word(*b));
    ends_fine
        && text
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
        && is_word(text.as_bytes()[0])
}

fn check_digest(text: &str) -> Result<(), LookupError> {
    let format = || invalid(INVALID_FORMAT.into());
    let (algorithm, hex) = text.split_once(':').ok_or_else(format)?;
    if hex.len() < 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) || algorithm.is_empty() {
        return Err(format());
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(invalid("unsupported digest algorithm".into())),
    };
    if hex.len() != length {
        return Err(invalid("invalid checksum digest length".into()));
    }
    if !is_hex(hex, length) {
        return Err(invalid("invalid checksum digest format".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &str) -> (String, String, Option<String>, String) {
        let r = Reference::parse(text).expect(text);
        (r.registry.clone(), r.repository.clone(), r.tag.clone(), r.familiar())
    }

    #[test]
    fn normalises_as_docker_does() {
        for (text, registry, repository, tag, familiar) in [
            ("busybox", "docker.io", "library/busybox", None, "busybox"),
            ("busybox:1.36", "docker.io", "library/busybox", Some("1.36"), "busybox:1.36"),
            ("docker.io/library/busybox", "docker.io", "library/busybox", None, "busybox"),
            ("docker.io/busybox", "docker.io", "library/busybox", None, "busybox"),
            ("index.docker.io/a/b", "docker.io", "a/b", None, "a/b"),
            ("user/app:V1", "docker.io", "user/app", Some("V1"), "user/app:V1"),
            ("localhost/app", "localhost", "app", None, "localhost/app"),
            ("localhost:5000/a/b:1", "localhost:5000", "a/b", Some("1"), "localhost:5000/a/b:1"),
            ("Host/app", "Host", "app", None, "Host/app"),
            ("[::1]:5000/app", "[::1]:5000", "app", None, "[::1]:5000/app"),
            ("ghcr.io/x/y__z--w.v", "ghcr.io", "x/y__z--w.v", None, "ghcr.io/x/y__z--w.v"),
            ("docker.io/library/a/b", "docker.io", "library/a/b", None, "library/a/b"),
        ] {
            assert_eq!(
                parts(text),
                (registry.into(), repository.into(), tag.map(str::to_owned), familiar.into()),
                "{text}"
            );
        }
    }

    #[test]
    fn errors_have_dockers_words() {
        let hex = "a".repeat(64);
        for (text, message) in [
            ("", "invalid reference format".to_owned()),
            ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase".into()),
            ("a/Foo:x", "invalid reference format: repository name (a/Foo) must be lowercase".into()),
            ("foo:", "invalid reference format".into()),
            ("-foo", "invalid reference format".into()),
            ("foo..bar", "invalid reference format".into()),
            ("foo___bar", "invalid reference format".into()),
            ("a//b", "invalid reference format".into()),
            ("../etc", "invalid reference format".into()),
            ("foo:a:b", "invalid reference format".into()),
            ("host:port/foo", "invalid reference format".into()),
            ("foo@sha256:abc", "invalid reference format".into()),
            (&format!("foo@md5:{hex}"), "unsupported digest algorithm".into()),
            (&format!("foo@sha256:{hex}00"), "invalid checksum digest length".into()),
            (&hex, format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings")),
            (
                &"x".repeat(300),
                "invalid reference format: repository name must not be more than 255 characters".into(),
            ),
        ] {
            let error = Reference::parse(text).expect_err(text);
            assert_eq!(error.to_string(), message, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,80}") {
            drop(Reference::parse(&text));
        }

        #[test]
        fn familiar_form_parses_to_the_same(
            text in "([a-z]{1,5}(\\.[a-z]{2})?(:[0-9]{1,4})?/)?[a-z0-9]{1,6}([_-][a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,5})?(:[a-zA-Z0-9_][a-z.-]{0,5})?(@sha256:[0-9a-f]{64})?"
        ) {
            let once = Reference::parse(&text).expect(&text);
            let again = Reference::parse(&once.familiar()).expect(&text);
            prop_assert_eq!(&once, &again);
            prop_assert_eq!(once.familiar(), again.familiar());
        }

        #[test]
        fn what_parses_is_harmless(text in "[a-zA-Z0-9:/@._\\- \\n]{0,40}") {
            if let Ok(parsed) = Reference::parse(&text) {
                prop_assert!(!parsed.repository().split('/').any(|c| c == ".." || c.is_empty()));
                prop_assert!(!parsed.familiar().contains(char::is_whitespace));
            }
        }
    }
}
