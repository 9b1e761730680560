//! Images: list, inspect, history, tag, remove.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Path, State};
use chrono::{DateTime, SecondsFormat, Utc};
use http::{Request, StatusCode};
use proto_api::filters::Filters;
use proto_api::models::EventMessageTypeEnum;
use serde_json::{Map, Value, json};
use storage::{Image, Removal};

use super::error::{Answer, Failure};
use super::glob::Pattern;
use super::request::{ApiVersion, Params};
use super::{Api, archives, registries, reply};

/// Splits `a/b/json` into the image's name and what is wanted of it.
fn split<'a>(rest: &'a str, suffixes: &[&'static str]) -> Option<(&'a str, &'static str)> {
    let (name, last) = rest.rsplit_once('/')?;
    let suffix = suffixes.iter().find(|suffix| **suffix == last)?;
    (!name.is_empty()).then_some((name, suffix))
}

/// `GET /images/{name}/…`
pub async fn get(state: State<Api>, Path(rest): Path<String>, version: ApiVersion, params: Params) -> Answer {
    match split(&rest, &["json", "history", "get", "verify"]) {
        Some((name, "json")) => inspect(&state.0, name, version, &params),
        Some((name, "history")) => history(&state.0, name),
        Some((name, "verify")) => verify(&state.0, name).await,
        Some((name, "get")) => archives::save_one(&state.0, name, &params).await,
        _ => Err(super::not_found().await),
    }
}

/// `POST /images/{name}/…`
pub async fn post(
    state: State<Api>,
    Path(rest): Path<String>,
    params: Params,
    request: Request<Body>,
) -> Answer {
    match split(&rest, &["tag", "push"]) {
        Some((name, "tag")) => tag(&state.0, name, &params).await,
        Some((name, "push")) => registries::push(&state.0, name, &params, request.headers()).await,
        _ => Err(super::not_found().await),
    }
}

/// `GET /images/json`
pub async fn list(State(api): State<Api>, version: ApiVersion, params: Params) -> Answer {
    let filters =
        params.filters()?.only(&["dangling", "label", "label!", "before", "since", "reference", "until"])?;
    let selection = Selection::new(&api, &filters)?;
    let mut uses: HashMap<&str, i64> = HashMap::new();
    let images = api.store().images();
    for image in &images {
        let users = i64::try_from(api.engine().image_users(&image.id).len()).unwrap_or(i64::MAX);
        uses.insert(image.id.as_str(), users);
    }
    let shared = params.flag("shared-size").then(|| shared_layers(&api, &images));
    let summaries: Vec<Value> = images
        .iter()
        .filter(|image| selection.admits(image))
        .map(|image| {
            let tags: Vec<&String> =
                image.tags.iter().filter(|tag| selection.shows(tag) || !filters.has("reference")).collect();
            let old = version < ApiVersion(43) && tags.is_empty() && image.repo_digests.is_empty();
            let mut summary = summary(image);
            summary["RepoTags"] = if old { json!(["<none>:<none>"]) } else { json!(tags) };
            if old {
                summary["RepoDigests"] = json!(["<none>@<none>"]);
            }
            summary["Containers"] = json!(uses.get(image.id.as_str()).copied().unwrap_or(-1));
            if let Some(shared) = &shared {
                summary["SharedSize"] = json!(shared.get(&image.id).copied().unwrap_or(0));
            }
            if version < ApiVersion(44) {
                summary["VirtualSize"] = json!(image.size_bytes);
            }
            summary
        })
        .collect();
    Ok(reply::ok(&summaries))
}

/// An image as lists show it.
pub fn summary(image: &Image) -> Value {
    json!({
        "Id": image.id.as_str(),
        "ParentId": image.parent.as_ref().map_or("", |parent| parent.as_str()),
        "RepoTags": image.tags,
        "RepoDigests": image.repo_digests,
        "Created": image.created.map_or(0, unix_seconds),
        "Size": image.size_bytes,
        "SharedSize": -1,
        "Labels": labels(image),
        "Containers": -1,
    })
}

/// Bytes of layers that another image has as well, by image.
fn shared_layers(api: &Api, images: &[Arc<Image>]) -> HashMap<storage::ImageId, u64> {
    let mut owners: HashMap<&storage::Digest, usize> = HashMap::new();
    for image in images {
        let layers: HashSet<_> = image.layers().iter().collect();
        layers.into_iter().for_each(|layer| *owners.entry(layer).or_default() += 1);
    }
    let shared = |layer: &&storage::Digest| owners.get(layer).is_some_and(|&owners| owners > 1);
    images
        .iter()
        .map(|image| {
            let layers: HashSet<_> = image.layers().iter().filter(shared).collect();
            let sizes = layers.into_iter().filter_map(|layer| api.store().layer_size_bytes(layer));
            (image.id.clone(), sizes.sum())
        })
        .collect()
}

fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

/// As Docker writes times in documents; a missing one is Go's zero time.
pub fn rfc3339(time: Option<SystemTime>) -> String {
    time.map_or_else(
        || "0001-01-01T00:00:00Z".to_owned(),
        |time| DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::AutoSi, true),
    )
}

fn raw(image: &Image) -> Map<String, Value> {
    serde_json::from_slice(&image.raw_config).unwrap_or_default()
}

fn labels(image: &Image) -> BTreeMap<String, String> {
    let labels = image.config.config().as_ref().and_then(|config| config.labels().as_ref());
    labels.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The filters of a list, resolved.
pub struct Selection<'a> {
    filters: &'a Filters,
    dangling: Option<bool>,
    before: Option<SystemTime>,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    patterns: Vec<Pattern>,
}

impl<'a> Selection<'a> {
    /// Looks the named images up and checks the values.
    pub fn new(api: &Api, filters: &'a Filters) -> Result<Self, Failure> {
        let created = |name: &str| -> Result<Option<SystemTime>, Failure> {
            let values = filters.get(name);
            let times = values.iter().map(|value| Ok(api.store().image(value)?.created));
            let times = times.collect::<Result<Vec<_>, Failure>>()?;
            Ok(times.into_iter().flatten().next())
        };
        let patterns = filters.get("reference").iter().map(|text| {
            Pattern::new(text).ok_or_else(|| Failure::bad(format!("invalid filter 'reference={text}'")))
        });
        Ok(Self {
            filters,
            dangling: filters.boolean("dangling")?,
            before: created("before")?,
            since: created("since")?,
            until: until(filters)?,
            patterns: patterns.collect::<Result<_, _>>()?,
        })
    }

    fn shows(&self, reference: &str) -> bool {
        let name = reference.rsplit_once('@').map_or_else(|| without_tag(reference), |(name, _)| name);
        self.patterns.iter().any(|pattern| pattern.matches(reference) || pattern.matches(name))
    }

    /// Whether the image passes.
    pub fn admits(&self, image: &Image) -> bool {
        let labels = labels(image);
        let label = |key: &str| labels.get(key).cloned();
        let created = image.created.unwrap_or(UNIX_EPOCH);
        self.dangling.is_none_or(|wanted| image.tags.is_empty() == wanted)
            && self.before.is_none_or(|time| created < time)
            && self.since.is_none_or(|time| created > time)
            && self.until.is_none_or(|time| created <= time)
            && self.filters.labels("label", label)
            && !(self.filters.has("label!") && self.filters.labels("label!", label))
            && (self.patterns.is_empty()
                || image.tags.iter().chain(&image.repo_digests).any(|name| self.shows(name)))
    }
}

fn without_tag(reference: &str) -> &str {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => reference,
    }
}

/// The filter `until`: a Unix time, RFC 3339, or a duration before now such as `24h`.
pub fn until(filters: &Filters) -> Result<Option<SystemTime>, Failure> {
    match filters.get("until") {
        [] => Ok(None),
        [text] => {
            moment(text).map(Some).ok_or_else(|| Failure::bad(format!("invalid filter 'until={text}'")))
        }
        _ => Err(Failure::bad("more than one until filter specified")),
    }
}

fn moment(text: &str) -> Option<SystemTime> {
    use std::time::Duration;
    if let Ok(seconds) = text.parse::<f64>() {
        return UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.into());
    }
    for form in ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"] {
        if let Ok(time) = chrono::NaiveDateTime::parse_from_str(text, form) {
            return Some(time.and_utc().into());
        }
    }
    if let Ok(day) = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(day.and_hms_opt(0, 0, 0)?.and_utc().into());
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += value
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    SystemTime::now().checked_sub(Duration::try_from_secs_f64(seconds).ok()?)
}

fn inspect(api: &Api, name: &str, version: ApiVersion, params: &Params) -> Answer {
    if params.get("platform").is_some() {
        return Err(Failure::unsupported("inspecting one platform of an image"));
    }
    let image = api.store().image(name)?;
    let document = raw(&image);
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let comment = document.get("history").and_then(Value::as_array).and_then(|steps| steps.last());
    let comment = comment.and_then(|step| step.get("comment")).and_then(Value::as_str).unwrap_or_default();
    let mut config = document.get("config").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
    for key in ["Env", "Cmd"] {
        if config.get(key).is_none() {
            config[key] = Value::Null;
        }
    }
    let mut answer = json!({
        "Id": image.id.as_str(),
        "RepoTags": image.tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent.as_ref().map_or("", |parent| parent.as_str()),
        "Comment": comment,
        "Created": rfc3339(image.created),
        "DockerVersion": text("docker_version"),
        "Author": text("author"),
        "Config": config,
        "Architecture": text("architecture"),
        "Variant": text("variant"),
        "Os": text("os"),
        "OsVersion": text("os.version"),
        "Size": image.size_bytes,
        "GraphDriver": {"Name": "overlay2", "Data": {}},
        "RootFS": {"Type": "layers", "Layers": image.config.rootfs().diff_ids()},
        "Metadata": {"LastTagTime": rfc3339(image.last_tagged)},
    });
    if let Some(fields) = answer.as_object_mut() {
        fields.retain(|key, value| !(matches!(key.as_str(), "Variant" | "OsVersion") && value == ""));
    }
    if version < ApiVersion(44) {
        answer["VirtualSize"] = json!(image.size_bytes);
    }
    Ok(reply::ok(&answer))
}

fn history(api: &Api, name: &str) -> Answer {
    let image = api.store().image(name)?;
    let document = raw(&image);
    let steps = document.get("history").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut sizes = image.layers().iter().map(|layer| api.store().layer_size_bytes(layer).unwrap_or(0));
    let mut answer: Vec<Value> = steps
        .iter()
        .map(|step| {
            let text = |key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let is_empty = step.get("empty_layer").and_then(Value::as_bool).unwrap_or(false);
            let created = DateTime::parse_from_rfc3339(&text("created")).map_or(0, |time| time.timestamp());
            json!({
                "Id": "<missing>",
                "Created": created,
                "CreatedBy": text("created_by"),
                "Tags": null,
                "Size": if is_empty { 0 } else { sizes.next().unwrap_or(0) },
                "Comment": text("comment"),
            })
        })
        .collect();
    // Layers that the history does not speak of.
    answer.extend(sizes.by_ref().map(|size| {
        json!({"Id": "<missing>", "Created": 0, "CreatedBy": "", "Tags": null, "Size": size, "Comment": ""})
    }));
    answer.reverse();
    if let Some(top) = answer.first_mut() {
        top["Id"] = json!(image.id.as_str());
        if !image.tags.is_empty() {
            top["Tags"] = json!(image.tags);
        }
    }
    Ok(reply::ok(&answer))
}

async fn tag(api: &Api, name: &str, params: &Params) -> Answer {
    let Some(repository) = params.get("repo") else {
        return Err(Failure::bad("repository name must have at least one component"));
    };
    let target = match params.get("tag") {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    };
    api.store().tag(name, &target).await?;
    if let (Ok(image), Ok(name)) = (api.store().image(&target), storage::Reference::parse(&target)) {
        emit(api, "tag", image.id.as_str(), &name.or_latest().familiar());
    }
    Ok(reply::empty(StatusCode::CREATED))
}

/// `GET /images/{name}/verify`, an addition to Docker's API: hashes an image anew. A damaged document
/// comes in the list like a damaged layer.
async fn verify(api: &Api, name: &str) -> Answer {
    let image = api.store().image(name)?;
    let damages = api.store().verify_image(image.id.as_str()).await?;
    let documents = damages.iter().filter(|damage| !damage.is_layer);
    let documents = documents.map(|damage| json!({"DiffId": damage.digest.as_str(), "Error": damage.why}));
    let layers = image.layers().iter().map(|layer| {
        let damage = damages.iter().find(|damage| damage.is_layer && damage.digest == *layer);
        json!({"DiffId": layer.as_str(), "Error": damage.map(|damage| &damage.why)})
    });
    let all: Vec<Value> = documents.chain(layers).collect();
    Ok(reply::ok(&json!({"Id": image.id.as_str(), "Layers": all})))
}

/// Tells the event bus of an image.
pub fn emit(api: &Api, action: &str, actor: &str, name: &str) {
    let attributes = HashMap::from([("name".to_owned(), name.to_owned())]);
    api.engine().emit(EventMessageTypeEnum::IMAGE, action, actor, attributes);
}

/// `DELETE /images/{name}`
pub async fn delete(State(api): State<Api>, Path(name): Path<String>, params: Params) -> Answer {
    if params.get("platforms").is_some() {
        return Err(Failure::unsupported("removing one platform of an image"));
    }
    let image = api.store().image(&name)?;
    let users = api.engine().image_users(&image.id);
    let removals = api.store().remove_image(&name, params.flag("force"), &users).await?;
    let answer: Vec<Value> = removals
        .iter()
        .map(|removal| match removal {
            Removal::Untagged(name) => {
                emit(&api, "untag", image.id.as_str(), name);
                json!({"Untagged": name})
            }
            Removal::Deleted(id) => {
                if id == image.id.as_str() {
                    emit(&api, "delete", id, id);
                }
                json!({"Deleted": id})
            }
        })
        .collect();
    Ok(reply::ok(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_slashes_and_words_of_ours() {
        let suffixes = ["json", "history", "get"];
        assert_eq!(split("busybox/json", &suffixes), Some(("busybox", "json")));
        assert_eq!(split("localhost:5000/a/json/json", &suffixes), Some(("localhost:5000/a/json", "json")));
        assert_eq!(split("a/b@sha256:00/history", &suffixes), Some(("a/b@sha256:00", "history")));
        for wrong in ["busybox", "json", "/json", "a/b/c"] {
            assert_eq!(split(wrong, &suffixes), None, "{wrong}");
        }
    }

    #[test]
    fn moments_are_absolute_or_before_now() {
        let at = |seconds| UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        assert_eq!(moment("1700000000"), Some(at(1_700_000_000)));
        assert_eq!(moment("1970-01-02"), Some(at(86_400)));
        assert_eq!(moment("1970-01-01T01:00:00Z"), Some(at(3_600)));
        let then = moment("1h30m").unwrap();
        let ago = then.elapsed().unwrap().as_secs();
        assert!((5_400..5_460).contains(&ago));
        assert_eq!(moment("soon"), None);
        assert_eq!(moment("5x"), None);
        assert_eq!(moment("-1h"), None);
    }

    #[test]
    fn tags_are_told_from_ports() {
        assert_eq!(without_tag("localhost:5000/a"), "localhost:5000/a");
        assert_eq!(without_tag("localhost:5000/a:1"), "localhost:5000/a");
        assert_eq!(without_tag("busybox:latest"), "busybox");
    }
}
