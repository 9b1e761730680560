//! Credentials for registries: `config.json` and the helpers it names.
//!
//! The file is Docker's and is shared with it: `auths` (user and password in base64, or an identity
//! token), `credsStore` and `credHelpers` (programs `docker-credential-NAME` that keep them).
//! Everything else in it is left as it is.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::{Outcome, fail};

/// The key of Docker Hub in the file.
pub const HUB: &str = "https://index.docker.io/v1/";

/// What a registry is shown.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Credential {
    /// The user's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The password or access token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// A token from an earlier login, in place of the password.
    #[serde(rename = "identitytoken", skip_serializing_if = "String::is_empty")]
    pub identity_token: String,
    /// The registry.
    #[serde(rename = "serveraddress")]
    pub server: String,
}

#[derive(Deserialize)]
struct Helped {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The key under which a registry's credentials are kept.
pub fn key(domain: &str) -> &str {
    match domain {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB,
        domain => domain,
    }
}

/// The `X-Registry-Auth` header for a registry; none where nothing is known of it.
pub fn header(context: &Context, domain: &str) -> Outcome<Option<String>> {
    let Some(credential) = find(context, domain)? else { return Ok(None) };
    Ok(Some(URL_SAFE.encode(serde_json::to_vec(&credential)?)))
}

/// The credentials of a registry.
pub fn find(context: &Context, domain: &str) -> Outcome<Option<Credential>> {
    let Some(config) = read(context)? else { return Ok(None) };
    let key = key(domain);
    if let Some(helper) = helper(&config, key) {
        return ask(helper, key);
    }
    let auths = config["auths"].as_object();
    let matching =
        auths.into_iter().flatten().find(|(name, _)| *name == key || plain_host(name) == plain_host(key));
    let Some((_, entry)) = matching else { return Ok(None) };
    let decoded =
        entry["auth"].as_str().filter(|auth| !auth.is_empty()).map(|auth| decode(auth, key)).transpose()?;
    let (username, password) = decoded.unwrap_or_default();
    let token = entry["identitytoken"].as_str().unwrap_or_default().to_owned();
    Ok(Some(Credential { username, password, identity_token: token, server: key.to_owned() }))
}

fn decode(auth: &str, key: &str) -> Outcome<(String, String)> {
    let invalid = || fail(format!("invalid auth configuration for {key} in config.json"));
    let text = STANDARD
        .decode(auth.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(invalid)?;
    let (user, password) = text.split_once(':').ok_or_else(invalid)?;
    Ok((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

fn plain_host(name: &str) -> &str {
    let name = name.split_once("://").map_or(name, |(_, rest)| rest);
    name.split('/').next().unwrap_or(name)
}

/// Keeps credentials, in a helper where the file names one. True where they went into the file.
pub fn store(context: &Context, credential: &Credential) -> Outcome<bool> {
    let mut config = read(context)?.unwrap_or_else(|| json!({}));
    let key = credential.server.clone();
    if let Some(helper) = helper(&config, &key) {
        let (username, secret) = match credential.identity_token.is_empty() {
            true => (credential.username.as_str(), &credential.password),
            false => ("<token>", &credential.identity_token),
        };
        let input = json!({"ServerURL": key, "Username": username, "Secret": secret});
        call(helper, "store", &input.to_string())?;
        return Ok(false);
    }
    let auth = STANDARD.encode(format!("{}:{}", credential.username, credential.password));
    let entry = match credential.identity_token.is_empty() {
        true => json!({"auth": auth}),
        false => json!({
            "auth": STANDARD.encode(format!("{}:", credential.username)),
            "identitytoken": credential.identity_token,
        }),
    };
    let root = config.as_object_mut().ok_or_else(|| fail("config.json is not an object"))?;
    let auths = root.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    auths.as_object_mut().ok_or_else(|| fail("auths in config.json is not an object"))?.insert(key, entry);
    write(context, &config)?;
    Ok(true)
}

/// Forgets the credentials of a registry. False where there were none.
pub fn erase(context: &Context, key: &str) -> Outcome<bool> {
    let Some(mut config) = read(context)? else { return Ok(false) };
    if let Some(helper) = helper(&config, key) {
        let known = ask(helper, key)?.is_some();
        if known {
            call(helper, "erase", key)?;
        }
        return Ok(known);
    }
    let Some(auths) = config["auths"].as_object_mut() else { return Ok(false) };
    let names: Vec<String> =
        auths.keys().filter(|name| plain_host(name) == plain_host(key)).cloned().collect();
    for name in &names {
        auths.shift_remove(name);
    }
    if !names.is_empty() {
        write(context, &config)?;
    }
    Ok(!names.is_empty())
}

fn read(context: &Context) -> Outcome<Option<Value>> {
    let path = context.config_dir.join("config.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(format!("Error loading config file: {}: {error}", path.display()))),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| fail(format!("Error loading config file: {}: {error}", path.display())))
}

fn write(context: &Context, config: &Value) -> Outcome<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::create_dir_all(&context.config_dir)?;
    let path = context.config_dir.join("config.json");
    // A link, as people have who keep their configuration elsewhere, stays one.
    let path = std::fs::canonicalize(&path).unwrap_or(path);
    let temporary = path.with_extension(format!("json.{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    config.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))?;
    let written = file
        .write_all(&text)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, &path));
    if written.is_err() {
        std::fs::remove_file(&temporary).ok();
    }
    Ok(written?)
}

fn helper<'a>(config: &'a Value, key: &str) -> Option<&'a str> {
    let of_registry =
        config["credHelpers"][plain_host(key)].as_str().or_else(|| config["credHelpers"][key].as_str());
    of_registry.or_else(|| config["credsStore"].as_str()).filter(|name| !name.is_empty())
}

fn ask(helper: &str, key: &str) -> Outcome<Option<Credential>> {
    let Some(output) = call(helper, "get", key)? else { return Ok(None) };
    let Helped { username, secret } = serde_json::from_str(&output)
        .map_err(|error| fail(format!("docker-credential-{helper} get: {error}")))?;
    let mut credential = Credential { server: key.to_owned(), ..Credential::default() };
    match username.as_str() {
        "<token>" => credential.identity_token = secret,
        _ => (credential.username, credential.password) = (username, secret),
    }
    Ok(Some(credential))
}

/// Runs a helper; `None` where it says that it has no such credentials.
fn call(helper: &str, verb: &str, input: &str) -> Outcome<Option<String>> {
    let program = format!("docker-credential-{helper}");
    if helper.contains('/') {
        return Err(fail(format!("invalid credential helper name: {helper}")));
    }
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| fail(format!("error getting credentials - err: exec: \"{program}\": {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input says why in its output.
        stdin.write_all(input.as_bytes()).ok();
    }
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(Some(text));
    }
    if text.contains("credentials not found") {
        return Ok(None);
    }
    let said = if text.is_empty() { String::from_utf8_lossy(&output.stderr).trim().to_owned() } else { text };
    Err(fail(format!("error getting credentials - err: {}, out: `{said}`", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(directory: &tempfile::TempDir) -> Context {
        let host = Some("unix:///nowhere".to_owned());
        Context::new(host, Some(directory.path().to_owned())).expect("a good host")
    }

    #[test]
    fn credentials_are_kept_found_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), r#"{"psFormat": "x"}"#).unwrap();
        let context = context(&directory);
        assert_eq!(find(&context, "localhost:5000").unwrap(), None);
        let credential = Credential {
            username: "u".into(),
            password: "p:q".into(),
            server: "localhost:5000".into(),
            ..Credential::default()
        };
        assert!(store(&context, &credential).unwrap());
        assert_eq!(find(&context, "localhost:5000").unwrap(), Some(credential));
        let text = std::fs::read_to_string(directory.path().join("config.json")).unwrap();
        assert!(text.contains("psFormat") && text.contains("dTpwOnE="), "{text}");
        let mode = std::os::unix::fs::MetadataExt::mode(
            &std::fs::metadata(directory.path().join("config.json")).unwrap(),
        );
        assert_eq!(mode & 0o777, 0o600);
        assert!(erase(&context, "localhost:5000").unwrap());
        assert!(!erase(&context, "localhost:5000").unwrap());
        assert_eq!(find(&context, "localhost:5000").unwrap(), None);
    }

    #[test]
    fn the_hub_has_several_names_and_others_do_not_get_its_password() {
        let directory = tempfile::tempdir().unwrap();
        let config = json!({"auths": {HUB: {"auth": STANDARD.encode("u:p")}}});
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        let context = context(&directory);
        assert_eq!(find(&context, "docker.io").unwrap().unwrap().username, "u");
        assert_eq!(find(&context, "docker.io.example.com").unwrap(), None);
        assert_eq!(find(&context, "quay.io").unwrap(), None);
    }

    #[test]
    fn a_broken_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), "{").unwrap();
        assert!(
            find(&context(&directory), "x")
                .unwrap_err()
                .message
                .unwrap()
                .starts_with("Error loading config file")
        );
    }
}
