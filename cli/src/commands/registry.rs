//! Registries: `push`, `login`, `logout`, `search`.

use std::io::{Read as _, Write as _};

use clap::Args;
use proto_api::client::image_path;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::Subcommand;
use crate::commands::{archive, filters};
use crate::context::Context;
use crate::credentials::{self, Credential, HUB};
use crate::failure::{Outcome, fail};
use crate::progress::{self, Target};
use crate::reference::Reference;
use crate::rows::{ellipsis, text};
use crate::table::{self, Layout, Row};
use crate::{output, terminal};

/// Uploads an image.
#[derive(Debug, Args)]
pub struct Push {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Push a platform-specific manifest as a single-platform image to the registry
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

impl Subcommand for Push {
    const NAME: &'static str = "push";
    const ABOUT: &'static str = "Upload an image to a registry";
    const USAGE: &'static str = "[OPTIONS] NAME[:TAG]";

    async fn run(self, context: Context) -> Outcome {
        let given = Reference::parse(&self.name)?;
        if self.all_tags && (given.tag.is_some() || given.digest.is_some()) {
            return Err(fail("tag can't be used with --all-tags/-a"));
        }
        let reference = if self.all_tags { given.clone() } else { given.clone().tagged() };
        if reference != given && !self.quiet {
            output::line("Using default tag: latest")?;
        }
        // The header has to be there even where nothing is known.
        let header = credentials::header(&context, &reference.domain)?.unwrap_or_else(|| "e30=".to_owned());
        let response = context
            .client
            .post(format!("/images/{}/push", image_path(&reference.familiar_name())))
            .query_opt("tag", reference.tag.as_ref())
            .query_opt("platform", archive::platform(self.platform.as_deref())?)
            .header("x-registry-auth", &header)
            .send()
            .await?;
        let target = if self.quiet { Target::Quiet } else { Target::Stdout };
        progress::show(response, target).await?;
        if self.quiet {
            output::line(reference.canonical())?;
        }
        Ok(0)
    }
}

/// Logs in to a registry.
#[derive(Debug, Args)]
pub struct Login {
    /// Password or Personal Access Token (PAT)
    #[arg(short, long, value_name = "string")]
    password: Option<String>,
    /// Take the Password or Personal Access Token (PAT) from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Username
    #[arg(short, long, value_name = "string")]
    username: Option<String>,
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Authenticated {
    #[serde(rename = "Status", default)]
    status: String,
    #[serde(rename = "IdentityToken", default)]
    identity_token: Option<String>,
}

impl Subcommand for Login {
    const NAME: &'static str = "login";
    const ABOUT: &'static str = "Authenticate to a registry";
    const USAGE: &'static str = "[OPTIONS] [SERVER]";

    async fn run(self, context: Context) -> Outcome {
        if self.password_stdin && self.password.is_some() {
            return Err(fail("--password and --password-stdin are mutually exclusive"));
        }
        if self.password_stdin && self.username.is_none() {
            return Err(fail("Must provide --username with --password-stdin"));
        }
        let server = server(self.server.as_deref());
        let known = match self.username.is_none() && self.password.is_none() {
            true => credentials::find(&context, &server)?,
            false => None,
        };
        let credential = match known {
            Some(known) => {
                output::line("Authenticating with existing credentials...")?;
                known
            }
            None => self.ask(&server)?,
        };
        let request = context.client.post("/auth").body(&credential_body(&credential));
        let answer: Authenticated = request.json().await?;
        let identity_token = answer.identity_token.unwrap_or_default();
        let password = if identity_token.is_empty() { credential.password.clone() } else { String::new() };
        let stored = Credential { password, identity_token, ..credential };
        if credentials::store(&context, &stored)? {
            let path = context.config_dir.join("config.json");
            eprintln!(
                "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning.\n",
                path.display()
            );
        }
        output::line(if answer.status.is_empty() { "Login Succeeded" } else { &answer.status })?;
        Ok(0)
    }
}

fn credential_body(credential: &Credential) -> Value {
    json!({
        "username": credential.username,
        "password": credential.password,
        "identitytoken": credential.identity_token,
        "serveraddress": credential.server,
    })
}

/// The key of a server as it was typed; the hub where it was not.
fn server(text: Option<&str>) -> String {
    let text = text.unwrap_or_default();
    let plain = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let plain = plain.trim_end_matches('/');
    match text == HUB || plain == "index.docker.io/v1" {
        true => HUB.to_owned(),
        false => credentials::key(plain.split('/').next().unwrap_or(plain)).to_owned(),
    }
}

impl Login {
    fn ask(&self, server: &str) -> Outcome<Credential> {
        let not_terminal = || fail("Error: Cannot perform an interactive login from a non TTY device");
        let username = match &self.username {
            Some(username) => username.clone(),
            None if !terminal::stdin_is_terminal() => return Err(not_terminal()),
            None => prompt("Username: ", false)?,
        };
        let password = match &self.password {
            Some(password) => {
                eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
                password.clone()
            }
            None if self.password_stdin => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                let text = text.strip_suffix('\n').unwrap_or(&text);
                text.strip_suffix('\r').unwrap_or(text).to_owned()
            }
            None if !terminal::stdin_is_terminal() => return Err(not_terminal()),
            None => prompt("Password: ", true)?,
        };
        if username.is_empty() {
            return Err(fail("username is empty"));
        }
        if password.is_empty() {
            return Err(fail("password is empty"));
        }
        Ok(Credential { username, password, server: server.to_owned(), ..Credential::default() })
    }
}

fn prompt(question: &str, secret: bool) -> Outcome<String> {
    let mut out = std::io::stdout();
    write!(out, "{question}")?;
    out.flush()?;
    let hidden = secret.then(terminal::hide_input).transpose()?;
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if hidden.is_some() {
        terminal::restore();
        writeln!(out)?;
    }
    read?;
    Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
}

/// Logs out of a registry.
#[derive(Debug, Args)]
pub struct Logout {
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Subcommand for Logout {
    const NAME: &'static str = "logout";
    const ABOUT: &'static str = "Log out from a registry";
    const USAGE: &'static str = "[SERVER]";

    async fn run(self, context: Context) -> Outcome {
        let server = server(self.server.as_deref());
        output::line(match credentials::erase(&context, &server)? {
            true => format!("Removing login credentials for {server}"),
            false => format!("Not logged in to {server}"),
        })?;
        Ok(0)
    }
}

const SEARCH_HEADERS: &[(&str, &str)] = &[
    ("Description", "DESCRIPTION"),
    ("IsAutomated", "AUTOMATED"),
    ("IsOfficial", "OFFICIAL"),
    ("Name", "NAME"),
    ("StarCount", "STARS"),
];

/// Searches a registry.
#[derive(Debug, Args)]
pub struct Search {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Pretty-print search using a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Max number of search results
    #[arg(long, value_name = "int")]
    limit: Option<u32>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    #[arg(value_name = "TERM")]
    term: String,
}

impl Subcommand for Search {
    const NAME: &'static str = "search";
    const ABOUT: &'static str = "Search Docker Hub for images";
    const USAGE: &'static str = "[OPTIONS] TERM";

    async fn run(self, context: Context) -> Outcome {
        let mut request = context
            .client
            .get("/images/search")
            .query("term", &self.term)
            .query_opt("limit", self.limit.map(|limit| limit.to_string()))
            .query_opt("filters", filters(&self.filter)?);
        let domain = Reference::parse(&self.term).map(|reference| reference.domain).unwrap_or_default();
        if let Some(header) = credentials::header(&context, &domain)? {
            request = request.header("x-registry-auth", &header);
        }
        let found: Vec<Value> = request.json().await?;
        let rows: Vec<Row> = found.iter().map(|result| self.row(result)).collect();
        let table = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
        let layout = Layout { headers: SEARCH_HEADERS, table, quiet: "{{.Name}}" };
        table::print(self.format.as_deref(), false, layout, &rows)?;
        Ok(0)
    }
}

impl Search {
    fn row(&self, result: &Value) -> Row {
        let mark = |name: &str| if result[name] == true { "[OK]" } else { "" };
        let description = text(result, "description").replace(['\n', '\r'], " ");
        let description = if self.no_trunc { description } else { ellipsis(&description, 45) };
        Row::new([
            ("Description", json!(description)),
            ("IsAutomated", json!(mark("is_automated"))),
            ("IsOfficial", json!(mark("is_official"))),
            ("Name", json!(text(result, "name"))),
            ("StarCount", json!(result["star_count"].as_i64().unwrap_or_default().to_string())),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_hosts() {
        assert_eq!(server(None), HUB);
        assert_eq!(server(Some("docker.io")), HUB);
        assert_eq!(server(Some("https://index.docker.io/v1/")), HUB);
        assert_eq!(server(Some("https://r.example:5000/v2/")), "r.example:5000");
    }
}
