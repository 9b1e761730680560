//! Images and file systems as tar archives: `save`, `load`, `import`, `export`, and `commit`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;
use proto_api::client::{Request, Response, segment};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWriteExt as _};

use crate::app::Subcommand;
use crate::context::Context;
use crate::failure::{Outcome, fail, reason};
use crate::progress::{self, Target};
use crate::reference::Reference;
use crate::{output, terminal};

/// Writes an archive to `path` or, without one, to standard output. The file appears under its
/// name once it is whole.
async fn write(request: Request, path: Option<&Path>, verb: &str) -> Outcome {
    let Some(path) = path else {
        if output::is_terminal() {
            let verb = verb.split(' ').next().unwrap_or(verb);
            let why = format!("cowardly refusing to {verb} to a terminal. Use the -o flag or redirect");
            return Err(fail(why));
        }
        copy(request.send().await?, &mut tokio::io::stdout()).await?;
        return Ok(0);
    };
    let refused = |why: &str| fail(format!("failed to {verb}: {why}"));
    let failed = |error: std::io::Error| refused(&format!("open {}: {}", path.display(), reason(&error)));
    if path.is_dir() {
        return Err(refused("cannot write to a directory"));
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
        && let Err(error) = std::fs::metadata(parent)
    {
        let why = format!("invalid output path: stat {}: {}", parent.display(), reason(&error));
        return Err(refused(&why));
    }
    // A device or a pipe has no name to be renamed to.
    let special = std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file());
    let response = request.send().await?;
    if special {
        let mut file = tokio::fs::OpenOptions::new().write(true).open(path).await.map_err(failed)?;
        copy(response, &mut file).await?;
        return Ok(0);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temporary).await.map_err(failed)?;
    let copied = async {
        copy(response, &mut file).await?;
        file.sync_all().await?;
        tokio::fs::rename(&temporary, path).await?;
        Outcome::Ok(0)
    };
    let outcome = copied.await;
    if outcome.is_err() {
        tokio::fs::remove_file(&temporary).await.ok();
    }
    outcome
}

async fn copy(mut response: Response, to: &mut (impl tokio::io::AsyncWrite + Unpin)) -> Outcome<()> {
    while let Some(chunk) = response.chunk().await? {
        to.write_all(&chunk).await?;
    }
    to.flush().await?;
    Ok(())
}

/// Saves images.
#[derive(Debug, Args)]
pub struct Save {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "string")]
    output: Option<PathBuf>,
    /// Save only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Subcommand for Save {
    const NAME: &'static str = "save";
    const ABOUT: &'static str = "Save one or more images to a tar archive (streamed to STDOUT by default)";
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";

    async fn run(self, context: Context) -> Outcome {
        let request = context.client.get("/images/get");
        let request = self.images.iter().fold(request, |request, image| request.query("names", image));
        let request = request.query_opt("platform", platform(self.platform.as_deref())?);
        write(request, self.output.as_deref(), "save image").await
    }
}

/// A platform as the API takes it, in JSON.
pub fn platform(text: Option<&str>) -> Outcome<Option<String>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let parts: Vec<&str> = text.split('/').collect();
    let platform = match parts.as_slice() {
        [os] => json!({"os": os}),
        [os, architecture] => json!({"os": os, "architecture": architecture}),
        [os, architecture, variant] => json!({"os": os, "architecture": architecture, "variant": variant}),
        _ => return Err(fail(format!("invalid platform: {text}"))),
    };
    match parts.iter().any(|part| part.is_empty()) {
        true => Err(fail(format!("invalid platform: {text}"))),
        false => Ok(Some(platform.to_string())),
    }
}

/// Exports a file system.
#[derive(Debug, Args)]
pub struct Export {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "string")]
    output: Option<PathBuf>,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Subcommand for Export {
    const NAME: &'static str = "export";
    const ABOUT: &'static str = "Export a container's filesystem as a tar archive";
    const USAGE: &'static str = "[OPTIONS] CONTAINER";

    async fn run(self, context: Context) -> Outcome {
        let request = context.client.get(format!("/containers/{}/export", segment(&self.container)));
        write(request, self.output.as_deref(), "export container").await
    }
}

/// An archive to be sent: a file, or standard input.
async fn archive(path: Option<&Path>) -> Outcome<Box<dyn AsyncRead + Send + Unpin>> {
    Ok(match path {
        Some(path) => {
            let file = tokio::fs::File::open(path);
            Box::new(
                file.await.map_err(|error| fail(format!("open {}: {}", path.display(), reason(&error))))?,
            )
        }
        None => Box::new(tokio::io::stdin()),
    })
}

/// Loads images.
#[derive(Debug, Args)]
pub struct Load {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long, value_name = "string")]
    input: Option<PathBuf>,
    /// Load only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
}

impl Subcommand for Load {
    const NAME: &'static str = "load";
    const ABOUT: &'static str = "Load an image from a tar archive or STDIN";
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, context: Context) -> Outcome {
        if self.input.is_none() && terminal::stdin_is_terminal() {
            return Err(fail("requested load from stdin, but stdin is empty"));
        }
        let quiet = self.quiet || !std::io::stdout().is_terminal();
        let response = context
            .client
            .post("/images/load")
            .query("quiet", if quiet { "1" } else { "0" })
            .query_opt("platform", platform(self.platform.as_deref())?)
            .tar(archive(self.input.as_deref()).await?)
            .send()
            .await?;
        progress::show(response, Target::Stdout).await?;
        Ok(0)
    }
}

/// Makes an image of a file system.
#[derive(Debug, Args)]
pub struct Import {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "list")]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short, long, value_name = "string")]
    message: Option<String>,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    #[arg(value_name = "file|URL|-")]
    source: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Subcommand for Import {
    const NAME: &'static str = "import";
    const ABOUT: &'static str = "Import the contents from a tarball to create a filesystem image";
    const USAGE: &'static str = "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]";

    async fn run(self, context: Context) -> Outcome {
        let name = self.name.as_deref().map(Reference::parse).transpose()?;
        let is_url = ["http://", "https://"].iter().any(|scheme| self.source.starts_with(scheme));
        let mut request = context
            .client
            .post("/images/create")
            .query("fromSrc", if is_url { &self.source } else { "-" })
            .query_opt("repo", name.as_ref().map(Reference::familiar_name))
            .query_opt("tag", name.as_ref().and_then(|name| name.tag.as_ref()))
            .query_opt("message", self.message.as_ref())
            .query_opt("platform", self.platform.as_ref());
        for change in &self.change {
            request = request.query("changes", change);
        }
        if !is_url {
            let path = (self.source != "-").then(|| Path::new(&self.source));
            request = request.tar(archive(path).await?);
        }
        progress::show(request.send().await?, Target::Stdout).await?;
        Ok(0)
    }
}

/// Makes an image of a container.
#[derive(Debug, Args)]
pub struct Commit {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short, long, value_name = "string")]
    author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "list")]
    change: Vec<String>,
    /// Commit message
    #[arg(short, long, value_name = "string")]
    message: Option<String>,
    /// Pause container during commit (default true)
    #[arg(short, long, value_name = "", default_value = "true", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    pause: bool,
    #[arg(value_name = "CONTAINER")]
    container: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Committed {
    #[serde(rename = "Id")]
    id: String,
}

impl Subcommand for Commit {
    const NAME: &'static str = "commit";
    const ABOUT: &'static str = "Create a new image from a container's changes";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]";

    async fn run(self, context: Context) -> Outcome {
        let name = self.name.as_deref().map(Reference::parse).transpose()?;
        let mut request = context
            .client
            .post("/commit")
            .query("container", &self.container)
            .query_opt("repo", name.as_ref().map(Reference::familiar_name))
            .query_opt("tag", name.as_ref().and_then(|name| name.tag.as_ref()))
            .query_opt("comment", self.message.as_ref())
            .query_opt("author", self.author.as_ref())
            .query("pause", if self.pause { "1" } else { "0" });
        for change in &self.change {
            request = request.query("changes", change);
        }
        let committed: Committed = request.body(&json!({})).json().await?;
        output::line(committed.id)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_have_up_to_three_parts() {
        assert_eq!(platform(Some("linux")).unwrap().unwrap(), r#"{"os":"linux"}"#);
        let whole = r#"{"os":"linux","architecture":"arm","variant":"v7"}"#;
        assert_eq!(platform(Some("linux/arm/v7")).unwrap().unwrap(), whole);
        assert_eq!(platform(None).unwrap(), None);
        assert!(platform(Some("linux//v7")).is_err() && platform(Some("a/b/c/d")).is_err());
    }
}
