//! `images --tree`: the platforms of each image below it.

use serde_json::Value;

use crate::rows::{list, short_id, text};
use crate::{table, units};

/// The images with their platforms.
pub fn draw(images: &[Value], no_trunc: bool) -> String {
    let mut lines = vec!["IMAGE\tID\tDISK USAGE\tCONTENT SIZE\tIN USE".to_owned()];
    for image in images {
        let manifests: Vec<&Value> =
            list(image, "Manifests").iter().filter(|manifest| text(manifest, "Kind") == "image").collect();
        let names: Vec<&str> = list(image, "RepoTags")
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "<none>:<none>")
            .collect();
        let name = if names.is_empty() { "<untagged>".to_owned() } else { names.join(", ") };
        let used = match manifests.is_empty() {
            true => image["Containers"].as_i64().unwrap_or_default() > 0,
            false => manifests.iter().any(|manifest| in_use(manifest)),
        };
        let content: f64 = manifests.iter().filter_map(|manifest| manifest["Size"]["Content"].as_f64()).sum();
        lines.push(format!(
            "{name}\t{}\t{}\t{}\t{}",
            short_id(text(image, "Id"), no_trunc),
            units::human_size(image["Size"].as_f64().unwrap_or_default()),
            if manifests.is_empty() { String::new() } else { units::human_size(content) },
            if used { "U" } else { "" },
        ));
        for (at, manifest) in manifests.iter().enumerate() {
            let branch = if at + 1 == manifests.len() { "└─" } else { "├─" };
            let size = |name: &str| units::human_size(manifest["Size"][name].as_f64().unwrap_or_default());
            lines.push(format!(
                "{branch} {}\t{}\t{}\t{}\t{}",
                platform(&manifest["ImageData"]["Platform"]),
                short_id(text(manifest, "ID"), no_trunc),
                size("Total"),
                size("Content"),
                if in_use(manifest) { "U" } else { "" },
            ));
        }
    }
    let text = table::align(&lines);
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn in_use(manifest: &Value) -> bool {
    !list(&manifest["ImageData"], "Containers").is_empty()
}

fn platform(platform: &Value) -> String {
    let parts = ["os", "architecture", "variant"].map(|name| text(platform, name));
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn platforms_hang_below_their_image() {
        let images = [json!({
            "Id": "sha256:0123456789abcdef", "RepoTags": ["x:1"], "Size": 1000,
            "Manifests": [
                {"ID": "sha256:aaaaaaaaaaaaaaaa", "Kind": "image", "Size": {"Total": 600, "Content": 200},
                 "ImageData": {"Platform": {"os": "linux", "architecture": "amd64"}, "Containers": ["c"]}},
                {"ID": "sha256:bbbbbbbbbbbbbbbb", "Kind": "image", "Size": {"Total": 400, "Content": 100},
                 "ImageData": {"Platform": {"os": "linux", "architecture": "arm", "variant": "v7"}}},
                {"ID": "sha256:cccccccccccccccc", "Kind": "attestation", "Size": {"Total": 1, "Content": 1}},
            ],
        })];
        let text = draw(&images, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(
            lines[1].starts_with("x:1") && lines[1].ends_with('U') && lines[1].contains("300B"),
            "{text}"
        );
        assert!(lines[2].starts_with("├─ linux/amd64") && lines[3].starts_with("└─ linux/arm/v7"), "{text}");
    }
}
