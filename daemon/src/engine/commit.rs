//! Making an image of a container.

use storage::ImageId;
use storage::archive::{ArchiveError, CommitRequest};

use super::state::State;
use super::{CommitOptions, Engine, Error};

/// See [`Engine::commit`]. Not to be cancelled: a container that was paused for it goes on.
pub(super) async fn commit(engine: Engine, name: String, options: CommitOptions) -> Result<ImageId, Error> {
    let view = engine.view(&name)?;
    if matches!(view.state, State::Removing { .. }) {
        return Err(Error::Conflict(format!(
            "You cannot commit container {} which is being removed",
            view.id
        )));
    }
    let record = &view.record;
    let parent = ImageId::parse(&record.image_id)
        .ok_or_else(|| Error::Internal(format!("container {} has no image id", view.id)))?;
    let config = serde_json::to_value(&record.config).map_err(|error| Error::Internal(error.to_string()))?;
    let request = CommitRequest {
        container: view.id.clone(),
        parent,
        config,
        changes: options.changes,
        author: options.author,
        comment: options.comment,
        created_by: record.command_line().join(" "),
        reference: options.reference,
    };
    let paused = match options.pause && view.state.is_running() {
        true => match engine.pause(&view.id).await {
            Ok(()) => true,
            // It has ended, or somebody else has paused it: then nothing writes.
            Err(Error::Conflict(_)) => false,
            Err(error) => return Err(error),
        },
        false => false,
    };
    let result = engine.0.store.commit(request).await;
    if paused && let Err(error) = engine.unpause(&view.id).await {
        tracing::warn!(container = view.id, %error, "not unpaused after a commit");
    }
    let image = result.map_err(|error| match error {
        ArchiveError::Lookup(error) => Error::Image(error),
        ArchiveError::Invalid(text) | ArchiveError::OverBudget(text) => Error::Invalid(text),
        ArchiveError::Local(text) => Error::Internal(text),
        ArchiveError::Store(error) => Error::Store(error),
    })?;
    let more = [("imageID", image.as_str().to_owned())];
    engine.0.emit_container("commit", &view.id, &view.name, record, &more);
    Ok(image)
}
