//! `-e`, `--env-file`, `-l`, `--label-file`: variables and labels from options and files.

use std::path::Path;

use crate::failure::{Outcome, fail, reason};

/// Variables of files and options, in this order; a name without a value takes ours, or none at all.
pub fn resolve(files: &[impl AsRef<Path>], options: &[String]) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        all.extend(read_file(file.as_ref())?);
    }
    for option in options {
        if option.is_empty() || option.starts_with('=') {
            return Err(fail(format!("invalid environment variable: {option}")));
        }
        all.push(option.clone());
    }
    Ok(all.into_iter().filter_map(|variable| value_of(variable, |name| std::env::var(name).ok())).collect())
}

fn value_of(variable: String, ours: impl Fn(&str) -> Option<String>) -> Option<String> {
    match variable.contains('=') {
        true => Some(variable),
        false => ours(&variable).map(|value| format!("{variable}={value}")),
    }
}

/// The lines of a file of `NAME=value` or `NAME`, without comments and empty lines.
pub fn read_file(path: &Path) -> Outcome<Vec<String>> {
    let bytes =
        std::fs::read(path).map_err(|error| fail(format!("open {}: {}", path.display(), reason(&error))))?;
    parse(&path.display().to_string(), &bytes)
}

fn parse(name: &str, bytes: &[u8]) -> Outcome<Vec<String>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let Ok(line) = std::str::from_utf8(line) else {
            return Err(fail(format!("env file {name} contains invalid utf8 bytes at line {}", number + 1)));
        };
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (variable, value) =
            line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value)));
        if variable.is_empty() {
            return Err(fail(format!("invalid environment variable: {line} in {name}")));
        }
        let trimmed = if value.is_none() { variable.trim_end() } else { variable };
        if trimmed.contains(char::is_whitespace) {
            return Err(fail(format!("variable '{trimmed}' contains whitespaces in {name}")));
        }
        lines.push(value.map_or_else(|| trimmed.to_owned(), |value| format!("{variable}={value}")));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_comments_and_values_with_spaces() {
        let text = "\u{feff}# comment\n\n  A=1\r\nB= x y \nC=a=b#c\nHOME\nEMPTY=\n";
        assert_eq!(parse("f", text.as_bytes()).unwrap(), ["A=1", "B= x y ", "C=a=b#c", "HOME", "EMPTY="]);
    }

    #[test]
    fn bad_lines_are_named() {
        let message = |text: &[u8]| parse("f", text).unwrap_err().message.unwrap();
        assert_eq!(message(b"A B=1\n"), "variable 'A B' contains whitespaces in f");
        assert_eq!(message(b"=1"), "invalid environment variable: =1 in f");
        assert_eq!(message(b"A=1\n\xff"), "env file f contains invalid utf8 bytes at line 2");
    }

    #[test]
    fn names_without_a_value_take_ours() {
        let ours = |name: &str| (name == "A").then(|| "1".to_owned());
        assert_eq!(value_of("A".into(), ours).unwrap(), "A=1");
        assert_eq!(value_of("B".into(), ours), None);
        assert_eq!(value_of("A=".into(), ours).unwrap(), "A=");
        assert!(resolve(&[] as &[&Path], &["=x".into()]).is_err());
    }
}
