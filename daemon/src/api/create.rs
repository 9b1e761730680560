//! The body of `POST /containers/create`, made strict.
//!
//! Go reads JSON leniently: keys in any case, a command as a string, `null` for empty objects. The
//! models do not, so the body is brought into their form first.

use proto_api::models::ContainerCreateBody;
use serde_json::{Map, Value, json};

use super::error::Failure;

/// Reads a body.
pub fn body(mut value: Value) -> Result<ContainerCreateBody, Failure> {
    let Some(top) = value.as_object_mut() else {
        return Err(Failure::bad("invalid JSON: the body is not an object"));
    };
    capitalise(top);
    for key in ["Cmd", "Entrypoint", "Shell"] {
        words(top, key);
    }
    for key in ["ExposedPorts", "Volumes"] {
        objects(top, key);
    }
    healthcheck(top);
    if let Some(host) = top.get_mut("HostConfig").and_then(Value::as_object_mut) {
        capitalise(host);
        if let Some(policy) = host.get_mut("RestartPolicy").and_then(Value::as_object_mut) {
            capitalise(policy);
            restart_policy(policy)?;
        }
        enumeration(host, "CgroupnsMode", &["", "private", "host"], "invalid cgroup namespace mode")?;
        enumeration(host, "Isolation", &["", "default", "process", "hyperv"], "invalid isolation")?;
    }
    if let Some(networking) = top.get_mut("NetworkingConfig").and_then(Value::as_object_mut) {
        capitalise(networking);
        objects(networking, "EndpointsConfig");
    }
    super::request::from_value(value)
}

/// Gives keys that start in lower case their capital.
fn capitalise(object: &mut Map<String, Value>) {
    let lower: Vec<String> =
        object.keys().filter(|key| key.starts_with(|c: char| c.is_ascii_lowercase())).cloned().collect();
    for key in lower {
        if let Some(value) = object.remove(&key) {
            let mut capital = key;
            capital[..1].make_ascii_uppercase();
            object.entry(capital).or_insert(value);
        }
    }
}

/// A string is a list of one.
fn words(object: &mut Map<String, Value>, key: &str) {
    if let Some(value) = object.get_mut(key)
        && value.is_string()
    {
        *value = json!([value.take()]);
    }
}

/// Null values of an object are empty objects.
fn objects(object: &mut Map<String, Value>, key: &str) {
    let inner = object.get_mut(key).and_then(Value::as_object_mut);
    for value in inner.into_iter().flat_map(|inner| inner.values_mut()).filter(|value| value.is_null()) {
        *value = json!({});
    }
}

fn healthcheck(top: &mut Map<String, Value>) {
    if let Some(check) = top.get_mut("Healthcheck").and_then(Value::as_object_mut) {
        capitalise(check);
    }
}

fn restart_policy(policy: &Map<String, Value>) -> Result<(), Failure> {
    let name = policy.get("Name").and_then(Value::as_str).unwrap_or_default();
    if matches!(name, "" | "no" | "always" | "on-failure" | "unless-stopped") {
        return Ok(());
    }
    Err(Failure::bad(format!(
        "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
    )))
}

fn enumeration(object: &Map<String, Value>, key: &str, known: &[&str], message: &str) -> Result<(), Failure> {
    match object.get(key).and_then(Value::as_str) {
        Some(value) if !known.contains(&value) => Err(Failure::bad(format!("{message}: {value}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_would_read_is_read() {
        let body = body(json!({
            "image": "busybox", "Cmd": "true", "Entrypoint": ["/bin/sh", "-c"],
            "ExposedPorts": {"80/tcp": null}, "Labels": {"lower": "x"},
            "hostConfig": {"memory": 4096, "RestartPolicy": {"name": "always"}, "CgroupnsMode": ""},
            "NetworkingConfig": {"EndpointsConfig": {"none": null}}
        }))
        .unwrap();
        assert_eq!(body.image.as_deref(), Some("busybox"));
        assert_eq!(body.cmd.unwrap(), ["true"]);
        assert_eq!(body.exposed_ports.unwrap(), ["80/tcp"]);
        assert_eq!(body.labels.unwrap()["lower"], "x");
        assert_eq!(body.host_config.unwrap().memory, Some(4096));
        assert!(body.networking_config.unwrap().endpoints_config.unwrap().contains_key("none"));
    }

    #[test]
    fn wrong_values_are_named() {
        let message = |value| body(value).unwrap_err().message;
        assert!(
            message(json!({"HostConfig": {"RestartPolicy": {"Name": "x"}}})).contains("unknown policy 'x'")
        );
        assert_eq!(message(json!({"HostConfig": {"Isolation": "x"}})), "invalid isolation: x");
        assert!(message(json!({"Env": 1})).starts_with("invalid JSON: "));
        assert!(message(json!([])).starts_with("invalid JSON: "));
    }
}
