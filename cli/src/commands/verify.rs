//! `image verify`: has the daemon hash an image again.

use clap::Args;
use proto_api::client::image_path;
use serde::Deserialize;

use crate::app::Subcommand;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output;

/// Hashes the layers of images and compares them with their diff ids.
#[derive(Debug, Args)]
pub struct Verify {
    /// Only say what is wrong
    #[arg(short, long)]
    quiet: bool,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// What `GET /images/{name}/verify` answers.
#[derive(Debug, Deserialize)]
struct Verified {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Layers", default)]
    layers: Vec<Layer>,
}

#[derive(Debug, Deserialize)]
struct Layer {
    #[serde(rename = "DiffId")]
    diff_id: String,
    /// What is wrong; nothing where the layer is whole.
    #[serde(rename = "Error", default)]
    error: Option<String>,
}

impl Subcommand for Verify {
    const NAME: &'static str = "verify";
    const ABOUT: &'static str = "Hash the layers of one or more images and compare them with their diff ids";
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";

    async fn run(self, context: Context) -> Outcome {
        let mut failures = Vec::new();
        for image in &self.images {
            let request = context.client.get(format!("/images/{}/verify", image_path(image)));
            let verified: Verified = match request.json().await {
                Ok(verified) => verified,
                Err(error) => {
                    failures.push(error.to_string());
                    continue;
                }
            };
            for layer in &verified.layers {
                match layer.error.as_deref().filter(|error| !error.is_empty()) {
                    Some(error) => failures.push(format!("{image}: {}: {error}", layer.diff_id)),
                    None if !self.quiet => output::line(format!("{}: OK", layer.diff_id))?,
                    None => {}
                }
            }
            if !self.quiet && failures.is_empty() {
                output::line(format!(
                    "{image}: {} layers verified ({})",
                    verified.layers.len(),
                    verified.id
                ))?;
            }
        }
        output::end(failures)
    }
}
