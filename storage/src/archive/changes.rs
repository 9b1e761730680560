//! Dockerfile instructions of `--change`, applied to an image's configuration.

use serde_json::{Map, Value, json};

use super::ArchiveError;

/// Applies instructions in their order.
pub(super) fn apply(config: &mut Map<String, Value>, changes: &[String]) -> Result<(), ArchiveError> {
    let mut command_set = false;
    for change in changes {
        for line in change.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let (word, rest) = (word.to_uppercase(), rest.trim());
            if rest.is_empty() {
                return Err(invalid(format!(
                    "dockerfile parse error on line 1: {word} requires an argument"
                )));
            }
            if word == "ENTRYPOINT" && !command_set {
                config.remove("Cmd");
            }
            command_set |= word == "CMD";
            instruction(config, &word, rest)?;
        }
    }
    Ok(())
}

fn invalid(text: impl Into<String>) -> ArchiveError {
    ArchiveError::Invalid(text.into())
}

fn instruction(config: &mut Map<String, Value>, word: &str, rest: &str) -> Result<(), ArchiveError> {
    match word {
        "CMD" => put(config, "Cmd", command(config, rest)),
        "ENTRYPOINT" => put(config, "Entrypoint", command(config, rest)),
        "ENV" => {
            for (key, value) in pairs(word, &expand(config, rest))? {
                set_env(config, &key, &value);
            }
        }
        "LABEL" => {
            for (key, value) in pairs(word, &expand(config, rest))? {
                object(config, "Labels").insert(key, value.into());
            }
        }
        "EXPOSE" => {
            for port in words(word, &expand(config, rest))? {
                let port = if port.contains('/') { port } else { format!("{port}/tcp") };
                let number = port.split(['/', '-']).next().unwrap_or_default();
                if number.parse::<u16>().is_err() {
                    return Err(invalid(format!("invalid containerPort: {port}")));
                }
                object(config, "ExposedPorts").insert(port, json!({}));
            }
        }
        "USER" => put(config, "User", expand(config, rest).into()),
        "WORKDIR" => {
            let path = expand(config, rest);
            let base = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
            let path =
                if path.starts_with('/') { path } else { format!("{}/{path}", base.trim_end_matches('/')) };
            put(config, "WorkingDir", path.into());
        }
        "STOPSIGNAL" => put(config, "StopSignal", expand(config, rest).into()),
        "VOLUME" => {
            let volumes = match serde_json::from_str::<Vec<String>>(rest) {
                Ok(list) => list,
                Err(_) => words(word, &expand(config, rest))?,
            };
            for volume in volumes {
                object(config, "Volumes").insert(volume, json!({}));
            }
        }
        "ONBUILD" => {
            let list = config.entry("OnBuild").or_insert_with(|| json!([]));
            if !list.is_array() {
                *list = json!([]);
            }
            list.as_array_mut().expect("made an array above").push(rest.into());
        }
        "HEALTHCHECK" => {
            let check = health_check(rest)?;
            put(config, "Healthcheck", check);
        }
        _ => return Err(invalid(format!("{word} is not a valid change command"))),
    }
    Ok(())
}

fn put(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

fn object<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made an object above")
}

/// The exec form (a JSON array), or the shell form.
fn command(config: &Map<String, Value>, rest: &str) -> Value {
    if let Ok(list) = serde_json::from_str::<Vec<String>>(rest) {
        return list.into();
    }
    let shell = config.get("Shell").and_then(Value::as_array).filter(|shell| !shell.is_empty());
    let mut words = shell.cloned().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
    words.push(rest.into());
    words.into()
}

fn set_env(config: &mut Map<String, Value>, key: &str, value: &str) {
    let list = config.entry("Env").or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    let list = list.as_array_mut().expect("made an array above");
    let line = format!("{key}={value}");
    let known = |entry: &&mut Value| entry.as_str().is_some_and(|e| e.split('=').next() == Some(key));
    match list.iter_mut().find(known) {
        Some(entry) => *entry = line.into(),
        None => list.push(line.into()),
    }
}

/// `KEY=value …`, or the old form `KEY value`.
fn pairs(word: &str, rest: &str) -> Result<Vec<(String, String)>, ArchiveError> {
    let first = rest.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| invalid(format!("{word} must have two arguments")))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words(word, rest)?
        .into_iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(invalid(format!(
                "Syntax error - can't find = in {pair:?}. Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// Words as a shell splits them: quotes and backslashes, no more.
fn words(word: &str, text: &str) -> Result<Vec<String>, ArchiveError> {
    let mut list = Vec::new();
    let mut current: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => {
                let next = characters.next();
                let text = current.get_or_insert_default();
                if quote.is_some() && !matches!(next, Some('"' | '\\' | '$')) {
                    text.push('\\');
                }
                text.extend(next);
            }
            (q @ ('"' | '\''), None) => {
                quote = Some(q);
                current.get_or_insert_default();
            }
            (q, Some(open)) if q == open => quote = None,
            (c, None) if c.is_whitespace() => list.extend(current.take()),
            (c, _) => current.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(invalid(format!("{word}: unexpected end of statement while looking for matching quote")));
    }
    list.extend(current);
    Ok(list)
}

/// `$NAME` and `${NAME}` from the configuration's environment, outside of single quotes.
fn expand(config: &Map<String, Value>, text: &str) -> String {
    let lookup = |name: &str| {
        let list = config.get("Env").and_then(Value::as_array)?;
        list.iter().filter_map(Value::as_str).find_map(|e| e.split_once('=').filter(|(key, _)| *key == name))
    };
    let mut out = String::new();
    let mut rest = text;
    let mut single = false;
    while let Some(at) = rest.find(['$', '\'', '\\']) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        if tail.starts_with('\'') {
            single = !single;
        }
        let after = &tail[1..];
        if tail.starts_with('\\') || !tail.starts_with('$') || single {
            let length =
                if tail.starts_with('\\') { after.chars().next().map_or(0, char::len_utf8) } else { 0 };
            out.push_str(&tail[..=length]);
            rest = &after[length..];
            continue;
        }
        let (name, remaining) = if let Some(braced) = after.strip_prefix('{') {
            braced.split_once('}').unwrap_or((braced, ""))
        } else {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            after.split_at(end)
        };
        if name.is_empty() {
            out.push('$');
            rest = after;
            continue;
        }
        out.push_str(lookup(name).map_or("", |(_, value)| value));
        rest = remaining;
    }
    out.push_str(rest);
    out
}

fn health_check(rest: &str) -> Result<Value, ArchiveError> {
    let mut check = Map::new();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, tail) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let key = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            _ => return Err(invalid(format!("unknown flag: --{name}"))),
        };
        let number = if key == "Retries" { value.parse().ok() } else { nanoseconds(value) };
        let number = number.ok_or_else(|| invalid(format!("invalid value {value:?} for --{name}")))?;
        check.insert(key.to_owned(), number.into());
        rest = tail.trim_start();
    }
    let (word, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let test = match word.to_uppercase().as_str() {
        "NONE" => json!(["NONE"]),
        "CMD" if !arguments.trim().is_empty() => match serde_json::from_str::<Vec<String>>(arguments) {
            Ok(list) => [vec!["CMD".to_owned()], list].concat().into(),
            Err(_) => json!(["CMD-SHELL", arguments.trim()]),
        },
        "CMD" => return Err(invalid("Missing command after HEALTHCHECK CMD")),
        _ => return Err(invalid(format!("Unknown type {word:?} in HEALTHCHECK (try CMD)"))),
    };
    check.insert("Test".to_owned(), test);
    Ok(check.into())
}

/// A duration as Go writes it: `1m30s`, `500ms`.
fn nanoseconds(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        let unit = match &rest[end..unit_end] {
            "h" => 3.6e12,
            "m" => 6e10,
            "s" => 1e9,
            "ms" => 1e6,
            "us" | "µs" => 1e3,
            "ns" => 1.0,
            _ => return None,
        };
        sum += number * unit;
        rest = &rest[unit_end..];
    }
    // Far below what a double holds exactly for any sensible duration.
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    (!text.is_empty()).then_some(sum as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(changes: &[&str]) -> Result<Value, String> {
        let mut config = Map::new();
        config.insert("Cmd".into(), json!(["old"]));
        config.insert("Env".into(), json!(["PATH=/bin", "A=1"]));
        let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        apply(&mut config, &changes).map_err(|e| e.to_string())?;
        Ok(config.into())
    }

    #[test]
    fn instructions_change_the_configuration() {
        let config = after(&[
            "ENTRYPOINT [\"/x\", \"y\"]",
            "cmd echo $A",
            "ENV A=2 B='a b' C=\"q$PATH\"",
            "LABEL k v w",
            "EXPOSE 80 53/udp",
            "WORKDIR /a",
            "WORKDIR b",
            "USER ${A}",
            "VOLUME [\"/v\"]",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl x",
        ])
        .unwrap();
        assert_eq!(
            config,
            json!({
                "Env": ["PATH=/bin", "A=2", "B=a b", "C=q/bin"],
                "Entrypoint": ["/x", "y"], "Cmd": ["/bin/sh", "-c", "echo $A"],
                "Labels": {"k": "v w"}, "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "WorkingDir": "/a/b", "User": "2", "Volumes": {"/v": {}}, "OnBuild": ["RUN x"],
                "Healthcheck": {"Interval": 90_000_000_000_i64, "Retries": 3, "Test": ["CMD-SHELL", "curl x"]},
            })
        );
        assert_eq!(after(&["ENTRYPOINT x"]).unwrap().get("Cmd"), None);
    }

    #[test]
    fn others_are_refused() {
        assert_eq!(after(&["RUN x"]).unwrap_err(), "RUN is not a valid change command");
        for bad in ["CMD", "ENV A", "EXPOSE x", "LABEL a='b", "HEALTHCHECK CMD", "HEALTHCHECK --x=1 NONE"] {
            assert!(after(&[bad]).is_err(), "{bad}");
        }
    }
}
