//! Percent-encoding of path segments and query values.

use std::fmt::Write as _;

fn push(out: &mut String, text: &str, keep: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string");
        }
    }
}

/// One segment of a path: a slash in it does not start a new one.
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push(&mut out, text, b":@");
    out
}

/// An image's reference in a path; the API takes its slashes as they are.
pub fn image_path(reference: &str) -> String {
    let mut out = String::with_capacity(reference.len());
    push(&mut out, reference, b":@/");
    out
}

/// Appends `name=value` to a query.
pub(super) fn query(out: &mut String, name: &str, value: &str) {
    out.push(if out.is_empty() { '?' } else { '&' });
    push(out, name, b"");
    out.push('=');
    push(out, value, b":,/");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_the_meaning_is_encoded() {
        assert_eq!(segment("a/b?c#d %"), "a%2Fb%3Fc%23d%20%25");
        assert_eq!(image_path("docker.io/library/x:1@sha256:ab"), "docker.io/library/x:1@sha256:ab");
        assert_eq!(image_path("x?y"), "x%3Fy");
        let mut out = String::new();
        query(&mut out, "filters", r#"{"a":["b&c"]}"#);
        query(&mut out, "t", "é+");
        assert_eq!(out, "?filters=%7B%22a%22:%5B%22b%26c%22%5D%7D&t=%C3%A9%2B");
    }
}
