//! The options of `run` and `create`, and the request that they become.

mod body;
mod environment;
mod options;
mod parse;

use std::path::Path;

pub use environment::resolve;
pub use options::{CreateOptions, PullPolicy};
use proto_api::client::Error;
use serde::Deserialize;

use crate::commands::pull;
use crate::context::Context;
use crate::failure::{Outcome, fail};

/// The answer to a creation.
#[derive(Debug, Deserialize)]
struct Created {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Warnings", default)]
    warnings: Option<Vec<String>>,
}

/// Creates a container, after pulling its image where the policy wants that. Returns its id.
pub async fn create(
    context: &Context,
    options: &CreateOptions,
    auto_remove: bool,
    attach: Attach,
) -> Outcome<String> {
    let body = options.body(auto_remove, attach)?;
    let cidfile = options.cidfile.as_deref().map(reserve_cidfile).transpose()?;
    let image = options.image().to_owned();
    let platform = options.platform.as_deref();
    if options.pull == PullPolicy::Always {
        pull::for_create(context, &image, platform, options.quiet).await?;
    }
    let request = || {
        context
            .client
            .post("/containers/create")
            .query_opt("name", options.name.as_deref())
            .query_opt("platform", platform)
            .body(&body)
    };
    let created: Created = match request().json().await {
        Err(error) if options.pull == PullPolicy::Missing && is_missing_image(&error) => {
            eprintln!("Unable to find image '{}' locally", pull::familiar(&image));
            pull::for_create(context, &image, platform, options.quiet).await?;
            request().json().await?
        }
        other => other?,
    };
    for warning in created.warnings.iter().flatten() {
        eprintln!("WARNING: {warning}");
    }
    if let Some(path) = cidfile {
        std::fs::write(path, &created.id)
            .map_err(|error| fail(format!("failed to write the container ID: {error}")))?;
    }
    Ok(created.id)
}

/// A creation is answered with 404 for other things as well, such as a network.
fn is_missing_image(error: &Error) -> bool {
    match error {
        Error::Api { status: 404, message } => message.to_lowercase().contains("no such image"),
        _ => false,
    }
}

fn reserve_cidfile(path: &Path) -> Outcome<&Path> {
    if path.exists() {
        let path = path.display();
        return Err(fail(format!(
            "container ID file found, make sure the other container isn't running or delete {path}"
        )));
    }
    std::fs::File::create(path)
        .map_err(|error| fail(format!("failed to create the container ID file: {error}")))?;
    Ok(path)
}

/// Which standard streams are attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attach {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}
