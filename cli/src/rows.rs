//! The rows of `ps` and `images`: what the API says of an object, as texts.
//!
//! Answers are read as plain JSON and not as the models, so that an unknown value of some
//! enumeration, of a newer daemon, never hides a container.

use serde_json::{Value, json};

use crate::table::Row;
use crate::units;

/// A text field; empty where it is not there.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// A list field; empty where it is not there.
pub fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// An id without its algorithm, cut to 12 characters unless `no_trunc`.
pub fn short_id(id: &str, no_trunc: bool) -> &str {
    if no_trunc {
        return id;
    }
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

/// A text of at most `length` characters, the last one an ellipsis where it was longer.
pub fn ellipsis(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(length.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Labels as `a=1,b=2`, by name.
pub fn labels(labels: &Value) -> String {
    let mut pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    pairs.join(",")
}

/// A container of `GET /containers/json`.
pub fn container(summary: &Value, no_trunc: bool) -> Row {
    let names: Vec<&str> = list(summary, "Names")
        .iter()
        .filter_map(Value::as_str)
        .map(|name| name.strip_prefix('/').unwrap_or(name))
        .filter(|name| no_trunc || !name.contains('/'))
        .collect();
    let command = text(summary, "Command");
    let command = if no_trunc { command.to_owned() } else { ellipsis(command, 20) };
    let image = match text(summary, "Image") {
        "" => "<no image>",
        image if image.starts_with("sha256:") => short_id(image, no_trunc),
        image => image,
    };
    let created = summary["Created"].as_i64().unwrap_or_default();
    let mounts = list(summary, "Mounts");
    let mount_names: Vec<String> = mounts
        .iter()
        .map(|mount| match text(mount, "Name") {
            "" => text(mount, "Source"),
            name => name,
        })
        .map(|name| if no_trunc { name.to_owned() } else { ellipsis(name, 15) })
        .collect();
    let volumes = mounts.iter().filter(|mount| mount["Driver"] == "local").count();
    let networks: Vec<&str> = summary["NetworkSettings"]["Networks"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    let size = |name: &str| units::human_size(summary[name].as_f64().unwrap_or_default());
    let virtual_size = summary["SizeRootFs"].as_f64().unwrap_or_default();
    let size = if virtual_size > 0.0 {
        format!("{} (virtual {})", size("SizeRw"), size("SizeRootFs"))
    } else {
        size("SizeRw")
    };
    Row::new([
        ("Command", format!("\"{}\"", escaped(&command)).into()),
        ("CreatedAt", units::go_time(created).into()),
        ("ID", short_id(text(summary, "Id"), no_trunc).into()),
        ("Image", image.into()),
        ("Labels", labels(&summary["Labels"]).into()),
        ("LocalVolumes", volumes.to_string().into()),
        ("Mounts", mount_names.join(",").into()),
        ("Names", names.join(",").into()),
        ("Networks", networks.join(",").into()),
        ("Platform", summary["ImageManifestDescriptor"]["platform"].clone()),
        ("Ports", ports(list(summary, "Ports")).into()),
        ("RunningFor", units::ago(created).into()),
        ("Size", size.into()),
        ("State", text(summary, "State").into()),
        ("Status", text(summary, "Status").into()),
    ])
    .with_labels(&summary["Labels"])
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t")
}

/// Ports as `0.0.0.0:8080->80/tcp, 443/tcp`; neighbours with the same number on both sides are a range.
pub fn ports(ports: &[Value]) -> String {
    let mut ports: Vec<(i64, &str, i64, &str)> = ports
        .iter()
        .map(|port| {
            let number = |name: &str| port[name].as_i64().unwrap_or_default();
            (number("PrivatePort"), text(port, "IP"), number("PublicPort"), text(port, "Type"))
        })
        .collect();
    ports.sort_unstable();
    let host =
        |address: &str| if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let group = |(address, kind, first, last): &(&str, &str, i64, i64)| {
        let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
        match *address {
            "" => format!("{range}/{kind}"),
            address => format!("{}:{range}->{range}/{kind}", host(address)),
        }
    };
    let (mut shown, mut open, mut mapped) = (Vec::new(), Vec::<(&str, &str, i64, i64)>::new(), Vec::new());
    for (private, address, public, kind) in ports {
        if !address.is_empty() && public != private {
            mapped.push(format!("{}:{public}->{private}/{kind}", host(address)));
            continue;
        }
        match open.iter_mut().find(|group| group.0 == address && group.1 == kind) {
            Some(group) if group.3 + 1 == private => group.3 = private,
            Some(found) => {
                shown.push(group(found));
                *found = (address, kind, private, private);
            }
            None => open.push((address, kind, private, private)),
        }
    }
    shown.extend(open.iter().map(group));
    shown.extend(mapped);
    shown.join(", ")
}

/// The rows of an image of `GET /images/json`: one for each of its names.
pub fn image(summary: &Value, no_trunc: bool, digests: bool) -> Vec<Row> {
    const NONE: &str = "<none>";
    let tags: Vec<(&str, &str)> = list(summary, "RepoTags")
        .iter()
        .filter_map(|tag| tag.as_str()?.rsplit_once(':'))
        .filter(|tag| *tag != (NONE, NONE))
        .collect();
    let by_digest: Vec<(&str, &str)> = list(summary, "RepoDigests")
        .iter()
        .filter_map(|digest| digest.as_str()?.rsplit_once('@'))
        .filter(|digest| *digest != (NONE, NONE))
        .collect();
    let mut names: Vec<(&str, &str, &str)> = Vec::new();
    for (repository, tag) in &tags {
        let mut of_repository = by_digest.iter().filter(|(name, _)| name == repository).peekable();
        if !digests || of_repository.peek().is_none() {
            names.push((repository, tag, NONE));
            continue;
        }
        names.extend(of_repository.map(|(_, digest)| (*repository, *tag, *digest)));
    }
    for (repository, digest) in &by_digest {
        let is_tagged = tags.iter().any(|(name, _)| name == repository);
        let is_listed = !digests && names.iter().any(|(name, _, _)| name == repository);
        if !is_tagged && !is_listed {
            names.push((repository, NONE, digest));
        }
    }
    if names.is_empty() {
        names.push((NONE, NONE, NONE));
    }
    let created = summary["Created"].as_i64().unwrap_or_default();
    let size = |name: &str| match summary[name].as_f64() {
        Some(bytes) if bytes >= 0.0 => units::human_size(bytes),
        _ => "N/A".to_owned(),
    };
    let containers = match summary["Containers"].as_i64() {
        Some(count) if count >= 0 => count.to_string(),
        _ => "N/A".to_owned(),
    };
    let unique = match (summary["Size"].as_f64(), summary["SharedSize"].as_f64()) {
        (Some(size), Some(shared)) if shared >= 0.0 => units::human_size_4(size - shared),
        _ => "N/A".to_owned(),
    };
    let known = created > 0;
    names
        .into_iter()
        .map(|(repository, tag, digest)| {
            Row::new([
                ("Containers", json!(containers)),
                ("CreatedAt", if known { json!(units::go_time(created)) } else { json!("") }),
                ("CreatedSince", if known { json!(units::ago(created)) } else { json!("") }),
                ("Digest", json!(digest)),
                ("ID", json!(short_id(text(summary, "Id"), no_trunc))),
                ("Repository", json!(repository)),
                ("SharedSize", json!(size("SharedSize"))),
                ("Size", json!(size("Size"))),
                ("Tag", json!(tag)),
                ("UniqueSize", json!(unique)),
                ("VirtualSize", json!(units::human_size_4(summary["Size"].as_f64().unwrap_or_default()))),
            ])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_read_as_docker_prints_them() {
        let port = |private: u16, ip: &str, public: u16| json!({"PrivatePort": private, "IP": ip, "PublicPort": public, "Type": "tcp"});
        assert_eq!(ports(&[]), "");
        let open = json!({"PrivatePort": 443, "Type": "tcp"});
        assert_eq!(ports(&[open, port(80, "0.0.0.0", 8080)]), "443/tcp, 0.0.0.0:8080->80/tcp");
        assert_eq!(ports(&[port(80, "::", 80), port(81, "::", 81)]), "[::]:80-81->80-81/tcp");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("abcdef", 6), "abcdef");
        assert_eq!(ellipsis("abcdefg", 6), "abcde…");
        assert_eq!(short_id("sha256:0123456789abcdef", false), "0123456789ab");
        assert_eq!(short_id("sha256:0123456789abcdef", true), "sha256:0123456789abcdef");
    }

    #[test]
    fn an_image_has_a_row_for_each_name() {
        let summary = json!({
            "Id": "sha256:0123456789abcdef", "Created": 1, "Size": 1000,
            "RepoTags": ["a:1", "localhost:5000/b:2"], "RepoDigests": ["a@sha256:ff", "c@sha256:ee"],
        });
        let layout = crate::table::Layout { headers: &[], table: "", quiet: "" };
        let format = Some("{{.Repository}} {{.Tag}} {{.Digest}}");
        let text =
            |digests| crate::table::render(format, false, layout, &image(&summary, false, digests)).unwrap();
        assert_eq!(text(false), "a 1 <none>\nlocalhost:5000/b 2 <none>\nc <none> sha256:ee\n");
        assert_eq!(text(true), "a 1 sha256:ff\nlocalhost:5000/b 2 <none>\nc <none> sha256:ee\n");
    }
}
