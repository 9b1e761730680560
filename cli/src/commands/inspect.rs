//! `inspect`, and its forms for one kind of object.

use clap::{Args, ValueEnum};
use proto_api::client::{image_path, segment};
use serde_json::Value;

use crate::app::Subcommand;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::template::Template;

/// Kinds of objects, in the order in which a name is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Container, Self::Image, Self::Network, Self::Volume];
    fn path(self, name: &str) -> String {
        match self {
            Self::Container => format!("/containers/{}/json", segment(name)),
            Self::Image => format!("/images/{}/json", image_path(name)),
            Self::Network => format!("/networks/{}", segment(name)),
            Self::Volume => format!("/volumes/{}", segment(name)),
        }
    }
}

/// Prints what the daemon knows of objects of any kind.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Format output using a custom template: 'json' or 'TEMPLATE' (Go template)
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    size: bool,
    /// Only inspect objects of the given type
    #[arg(long = "type", value_name = "string", value_enum, hide_possible_values = true)]
    kind: Option<Kind>,
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

/// The form for containers.
#[derive(Debug, Args)]
pub struct InspectContainer {
    /// Format output using a custom template: 'json' or 'TEMPLATE' (Go template)
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

/// The form for images.
#[derive(Debug, Args)]
pub struct InspectImage {
    /// Format output using a custom template: 'json' or 'TEMPLATE' (Go template)
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

impl Subcommand for Inspect {
    const NAME: &'static str = "inspect";
    const ABOUT: &'static str = "Return low-level information on ctl objects";
    const USAGE: &'static str = "[OPTIONS] NAME|ID [NAME|ID...]";

    async fn run(self, context: Context) -> Outcome {
        let kinds = match &self.kind {
            Some(kind) => std::slice::from_ref(kind),
            None => &Kind::ALL,
        };
        inspect(&context, &self.names, kinds, self.size, self.format.as_deref()).await
    }
}

impl Subcommand for InspectContainer {
    const NAME: &'static str = "inspect";
    const ABOUT: &'static str = "Display detailed information on one or more containers";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";

    async fn run(self, context: Context) -> Outcome {
        inspect(&context, &self.names, &[Kind::Container], self.size, self.format.as_deref()).await
    }
}

impl Subcommand for InspectImage {
    const NAME: &'static str = "inspect";
    const ABOUT: &'static str = "Display detailed information on one or more images";
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";

    async fn run(self, context: Context) -> Outcome {
        inspect(&context, &self.names, &[Kind::Image], false, self.format.as_deref()).await
    }
}

async fn inspect(
    context: &Context,
    names: &[String],
    kinds: &[Kind],
    size: bool,
    format: Option<&str>,
) -> Outcome {
    let template = match format {
        None | Some("") => None,
        Some("json") => Some(Template::parse("{{json .}}")?),
        Some(format) => Some(Template::parse(format)?),
    };
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        match find(context, name, kinds, size).await {
            Ok(object) => found.push(object),
            Err(message) => failures.push(message),
        }
    }
    match template {
        None => output::line(output::pretty(&Value::Array(found))?)?,
        Some(template) => {
            for object in &found {
                match template.render(object) {
                    Ok(text) => output::line(text)?,
                    Err(error) => {
                        // The line that could not be filled is still a line.
                        output::line("")?;
                        return Err(Failure::from(error));
                    }
                }
            }
            if found.is_empty() {
                output::line("")?;
            }
        }
    }
    output::end(failures)
}

async fn find(context: &Context, name: &str, kinds: &[Kind], size: bool) -> Result<Value, String> {
    for kind in kinds {
        let request = context.client.get(kind.path(name)).flag("size", size && *kind == Kind::Container);
        match request.json::<Value>().await {
            Ok(object) => return Ok(object),
            // Daemons without networks or volumes do not know the path, which is a 404 as well.
            Err(error) if error.is_not_found() && kinds.len() > 1 => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("Error: No such object: {name}"))
}
