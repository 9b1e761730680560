//! `pull`.

use clap::Args;

use crate::app::Subcommand;
use crate::context::Context;
use crate::failure::{Outcome, fail};
use crate::output;
use crate::progress::{self, Target};
use crate::reference::Reference;

/// Downloads an image.
#[derive(Debug, Args)]
pub struct Pull {
    /// Download all tagged images in the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

impl Subcommand for Pull {
    const NAME: &'static str = "pull";
    const ABOUT: &'static str = "Download an image from a registry";
    const USAGE: &'static str = "[OPTIONS] NAME[:TAG|@DIGEST]";

    async fn run(self, context: Context) -> Outcome {
        let given = Reference::parse(&self.name)?;
        if self.all_tags && (given.tag.is_some() || given.digest.is_some()) {
            return Err(fail("tag can't be used with --all-tags/-a"));
        }
        let reference = if self.all_tags { given.clone() } else { given.clone().tagged() };
        if reference != given && !self.quiet {
            output::line("Using default tag: latest")?;
        }
        let target = if self.quiet { Target::Quiet } else { Target::Stdout };
        pull(&context, &reference, self.platform.as_deref(), target).await?;
        output::line(reference.canonical())?;
        Ok(0)
    }
}

/// Pulls the image of a new container; what is said goes to standard error.
pub async fn for_create(context: &Context, image: &str, platform: Option<&str>, quiet: bool) -> Outcome<()> {
    let target = if quiet { Target::Quiet } else { Target::Stderr };
    pull(context, &Reference::parse(image)?.tagged(), platform, target).await
}

/// An image's name as it is shown: with its tag, without what goes without saying.
pub fn familiar(image: &str) -> String {
    Reference::parse(image).map_or_else(|_| image.to_owned(), |reference| reference.tagged().familiar())
}

async fn pull(
    context: &Context,
    reference: &Reference,
    platform: Option<&str>,
    target: Target,
) -> Outcome<()> {
    let version = reference.digest.as_ref().or(reference.tag.as_ref());
    let mut request = context
        .client
        .post("/images/create")
        .query("fromImage", reference.name())
        .query_opt("tag", version)
        .query_opt("platform", platform);
    if let Some(header) = crate::credentials::header(context, &reference.domain)? {
        request = request.header("x-registry-auth", &header);
    }
    progress::show(request.send().await?, target).await
}
