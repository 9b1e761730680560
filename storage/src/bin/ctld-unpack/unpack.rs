//! The run: entries into the tree, everything else into the recipe.

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;

use sha2::digest::Output;
use storage::recipe::RecipeWriter;
use storage::tar::{Kind, TarReader};
use storage::unpack::Report;

use crate::Budget;
use crate::extract::Content;
use crate::failure::Failure;
use crate::pipeline::{Pipeline, TarStream, over_bytes};
use crate::tree::Tree;

/// How hard headers are compressed: they are repetitive, and time is what counts.
pub const RECIPE_LEVEL: i32 = 3;

type Recipe = RecipeWriter<zstd::stream::write::Encoder<'static, BufWriter<File>>>;

struct Counts {
    size_bytes: u64,
    entries: u64,
    /// Of the contents that the recipe refers to, in order.
    inodes: Vec<u64>,
}

/// Unpacks stdin into `/`.
pub fn unpack(budget: Budget) -> Result<Report, Failure> {
    let mut tree = Tree::create()?;
    let mut recipe = create_recipe().map_err(recipe_failed)?;
    let (pipeline, stream) = Pipeline::start(budget.layer_bytes)?;
    let counts = match apply(stream, &mut tree, &mut recipe, budget) {
        Ok(counts) => counts,
        Err(seen) => return Err(pipeline.cause(seen)),
    };
    let (blob, diff) = pipeline.finish()?;
    let finish_recipe =
        || recipe.finish(&diff.sha256, diff.bytes)?.finish()?.into_inner().map_err(io::Error::from);
    drop(finish_recipe().map_err(recipe_failed)?);
    tree.finish_directories()?;
    let size_bytes = counts.size_bytes - tree.replaced.bytes.min(counts.size_bytes);
    let replaced = std::mem::take(&mut tree.replaced);
    replaced.finish(tree.root(), &counts.inodes)?;
    Ok(Report::Done {
        diff_id: digest(&diff.sha256),
        blob_digest: digest(&blob.sha256),
        blob_bytes: blob.bytes,
        size_bytes,
        entries: counts.entries,
    })
}

fn digest(sha256: &[u8; 32]) -> String {
    format!("sha256:{}", hex::encode(Output::<sha2::Sha256>::from(*sha256)))
}

fn create_recipe() -> io::Result<Recipe> {
    let file = BufWriter::new(create_private("tar.zst")?);
    RecipeWriter::new(zstd::stream::write::Encoder::new(file, RECIPE_LEVEL)?)
}

/// A new file of our own: the umask is off, for the layer's files.
pub fn create_private(path: &str) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn recipe_failed(error: io::Error) -> Failure {
    Failure::local(format!("writing the recipe: {error}"))
}

fn apply(stream: TarStream, tree: &mut Tree, recipe: &mut Recipe, budget: Budget) -> Result<Counts, Failure> {
    let mut tar = TarReader::new(stream);
    let mut counts = Counts { size_bytes: 0, entries: 0, inodes: Vec::new() };
    loop {
        let entry = tar.next_entry()?;
        let mut written = Ok(());
        tar.take_raw(|bytes| written = recipe.raw(bytes));
        written.map_err(recipe_failed)?;
        let Some(entry) = entry else { break };
        counts.entries += 1;
        if counts.entries > budget.layer_entries {
            let most = budget.layer_entries;
            return Err(Failure::budget(format!(
                "over budget: the layer has more than {most} entries (layer_entries)"
            )));
        }
        if let Kind::File { size, .. } = entry.kind
            && counts.size_bytes.saturating_add(size) > budget.layer_bytes
        {
            return Err(over_bytes(budget.layer_bytes));
        }
        match tree.apply(&entry, &mut tar)? {
            Content::Kept { inode } => {
                let Kind::File { size, segments } = &entry.kind else { continue };
                counts.size_bytes += size;
                if *size > 0 {
                    recipe.file(&entry.path, *size, segments.as_deref()).map_err(recipe_failed)?;
                    counts.inodes.push(inode);
                }
            }
            Content::Unread => loop {
                let piece = tar.content()?;
                if piece.is_empty() {
                    break;
                }
                recipe.raw(piece).map_err(recipe_failed)?;
                let length = piece.len();
                tar.consume(length);
            },
        }
    }
    let mut written = Ok(());
    tar.trailer(|bytes| {
        if written.is_ok() {
            written = recipe.raw(bytes);
        }
    })?;
    written.map_err(recipe_failed)?;
    Ok(counts)
}
