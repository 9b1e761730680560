//! `images`, `rmi` and `tag`.

use clap::Args;
use proto_api::client::image_path;
use serde_json::Value;

use crate::app::Subcommand;
use crate::commands::{filters, tree};
use crate::context::Context;
use crate::failure::{Outcome, fail};
use crate::reference::Reference;
use crate::table::{self, Layout};
use crate::{output, rows};

const HEADERS: &[(&str, &str)] = &[
    ("Containers", "CONTAINERS"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("SharedSize", "SHARED SIZE"),
    ("Size", "SIZE"),
    ("Tag", "TAG"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
];

const CREATED: &str = "{{if .CreatedSince}}{{.CreatedSince}}{{else}}N/A{{end}}";

/// Lists images.
#[derive(Debug, Args)]
pub struct Images {
    /// Show all images (default hides intermediate images)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// List multi-platform images as a tree
    #[arg(long)]
    tree: bool,
    /// Only images of that repository, or with that tag
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
}

impl Subcommand for Images {
    const NAME: &'static str = "images";
    const ABOUT: &'static str = "List images";
    const USAGE: &'static str = "[OPTIONS] [REPOSITORY[:TAG]]";

    async fn run(self, context: Context) -> Outcome {
        let conflict =
            [(self.quiet, "--quiet"), (self.digests, "--digests"), (self.format.is_some(), "--format")];
        if let (true, Some((_, option))) = (self.tree, conflict.iter().find(|(given, _)| *given)) {
            return Err(fail(format!("{option} is not yet supported with --tree")));
        }
        let mut wanted = self.filter.clone();
        wanted.extend(self.repository.iter().map(|name| format!("reference={name}")));
        let images: Vec<Value> = context
            .client
            .get("/images/json")
            .flag("all", self.all)
            .flag("manifests", self.tree)
            .query_opt("filters", filters(&wanted)?)
            .json()
            .await?;
        if self.tree {
            output::print(tree::draw(&images, self.no_trunc))?;
            return Ok(0);
        }
        let digests = self.digests || self.format.as_deref().is_some_and(|format| format.contains(".Digest"));
        let rows: Vec<_> =
            images.iter().flat_map(|image| rows::image(image, self.no_trunc, digests)).collect();
        let digest = if self.digests { "{{.Digest}}\t" } else { "" };
        let table =
            format!("{{{{.Repository}}}}\t{{{{.Tag}}}}\t{digest}{{{{.ID}}}}\t{CREATED}\t{{{{.Size}}}}");
        let layout = Layout { headers: HEADERS, table: &table, quiet: "{{.ID}}" };
        table::print(self.format.as_deref(), self.quiet, layout, &rows)?;
        Ok(0)
    }
}

/// Removes images.
#[derive(Debug, Args)]
pub struct Remove {
    /// Force removal of the image
    #[arg(short, long)]
    force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    no_prune: bool,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Subcommand for Remove {
    const NAME: &'static str = "rmi";
    const ABOUT: &'static str = "Remove one or more images";
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";

    async fn run(self, context: Context) -> Outcome {
        let mut failures = Vec::new();
        for image in &self.images {
            let request = context
                .client
                .delete(format!("/images/{}", image_path(image)))
                .flag("force", self.force)
                .flag("noprune", self.no_prune);
            match request.json::<Vec<Value>>().await {
                Ok(done) => done.iter().try_for_each(removed)?,
                // Forced, an image that is not there is as good as removed.
                Err(error) if self.force && error.is_not_found() => eprintln!("{error}"),
                Err(error) => failures.push(error.to_string()),
            }
        }
        output::end(failures)
    }
}

/// Prints what a removal did.
pub fn removed(item: &Value) -> Outcome<()> {
    match (item["Deleted"].as_str(), item["Untagged"].as_str()) {
        (Some(id), _) if !id.is_empty() => output::line(format!("Deleted: {id}")),
        (_, Some(name)) => output::line(format!("Untagged: {name}")),
        _ => Ok(()),
    }
}

/// Gives an image one more name.
#[derive(Debug, Args)]
pub struct Tag {
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

impl Subcommand for Tag {
    const NAME: &'static str = "tag";
    const ABOUT: &'static str = "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE";
    const USAGE: &'static str = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]";

    async fn run(self, context: Context) -> Outcome {
        let named = |text: &str, error: crate::failure::Failure| {
            fail(format!(
                "Error parsing reference: \"{text}\" is not a valid repository/tag: {}",
                error.message.unwrap_or_default()
            ))
        };
        let target = Reference::parse(&self.target).map_err(|error| named(&self.target, error))?.tagged();
        if target.digest.is_some() {
            return Err(fail("refusing to create a tag with a digest reference"));
        }
        context
            .client
            .post(format!("/images/{}/tag", image_path(&self.source)))
            .query("repo", target.familiar_name())
            .query_opt("tag", target.tag)
            .done()
            .await?;
        Ok(0)
    }
}
