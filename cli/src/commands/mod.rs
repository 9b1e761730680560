//! The commands. The options of one are the fields of its type; [`COMMANDS`] and [`GROUPS`] say
//! under which names they are reached.

pub mod archive;
pub mod attach;
pub mod completion;
pub mod disk;
pub mod events;
pub mod exec;
pub mod history;
pub mod images;
pub mod info;
pub mod inspect;
pub mod lifecycle;
pub mod logs;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod registry;
pub mod run;
pub mod start;
pub mod stats;
pub mod top;
mod tree;
pub mod verify;
pub mod version;

use proto_api::filters::Filters;

use crate::app::{Entry, Group};
use crate::failure::{Failure, Outcome};

/// `--filter name=value` options as the query parameter; none where there are none.
pub fn filters(options: &[String]) -> Outcome<Option<String>> {
    let mut filters = Filters::default();
    for option in options {
        let (name, value) = option.split_once('=').ok_or_else(|| {
            Failure::option(format!(
                "invalid argument \"{option}\" for \"-f, --filter\" flag: bad format of filter (expected name=value)"
            ))
        })?;
        filters.add(name.trim().to_lowercase(), value.trim());
    }
    Ok((!filters.is_empty()).then(|| filters.to_json()))
}

/// The commands of the top level, in the order of the help.
pub const COMMANDS: &[Entry] = &[
    Entry::of::<run::Run>(),
    Entry::of::<exec::Exec>(),
    Entry::of::<ps::Ps>(),
    Entry::of::<pull::Pull>(),
    Entry::of::<registry::Push>(),
    Entry::of::<images::Images>(),
    Entry::of::<registry::Login>(),
    Entry::of::<registry::Logout>(),
    Entry::of::<registry::Search>(),
    Entry::of::<version::Version>(),
    Entry::of::<info::Info>(),
    Entry::of::<attach::Attach>(),
    Entry::of::<archive::Commit>(),
    Entry::of::<completion::Completion>(),
    Entry::of::<run::Create>(),
    Entry::of::<history::Diff>(),
    Entry::of::<events::Events>(),
    Entry::of::<archive::Export>(),
    Entry::of::<history::History>(),
    Entry::of::<archive::Import>(),
    Entry::of::<inspect::Inspect>(),
    Entry::of::<lifecycle::Kill>(),
    Entry::of::<archive::Load>(),
    Entry::of::<logs::Logs>(),
    Entry::of::<lifecycle::Pause>(),
    Entry::of::<lifecycle::Rename>(),
    Entry::of::<lifecycle::Restart>(),
    Entry::of::<lifecycle::Remove>(),
    Entry::of::<images::Remove>(),
    Entry::of::<archive::Save>(),
    Entry::of::<start::Start>(),
    Entry::of::<stats::Stats>(),
    Entry::of::<lifecycle::Stop>(),
    Entry::of::<images::Tag>(),
    Entry::of::<top::Top>(),
    Entry::of::<lifecycle::Unpause>(),
    Entry::of::<lifecycle::Wait>(),
];

/// The commands below a word.
pub const GROUPS: &[Group] = &[
    Group {
        name: "container",
        about: "Manage containers",
        entries: &[
            Entry::of::<attach::Attach>(),
            Entry::of::<archive::Commit>(),
            Entry::of::<run::Create>(),
            Entry::of::<history::Diff>(),
            Entry::of::<exec::Exec>(),
            Entry::of::<archive::Export>(),
            Entry::of::<inspect::InspectContainer>(),
            Entry::of::<lifecycle::Kill>(),
            Entry::of::<logs::Logs>(),
            Entry::named::<ps::Ps>("ls"),
            Entry::named::<ps::Ps>("list"),
            Entry::named::<ps::Ps>("ps"),
            Entry::of::<lifecycle::Pause>(),
            Entry::of::<prune::Containers>(),
            Entry::of::<lifecycle::Rename>(),
            Entry::of::<lifecycle::Restart>(),
            Entry::of::<lifecycle::Remove>(),
            Entry::named::<lifecycle::Remove>("remove"),
            Entry::of::<run::Run>(),
            Entry::of::<start::Start>(),
            Entry::of::<stats::Stats>(),
            Entry::of::<lifecycle::Stop>(),
            Entry::of::<top::Top>(),
            Entry::of::<lifecycle::Unpause>(),
            Entry::of::<lifecycle::Wait>(),
        ],
    },
    Group {
        name: "image",
        about: "Manage images",
        entries: &[
            Entry::of::<history::History>(),
            Entry::of::<archive::Import>(),
            Entry::of::<inspect::InspectImage>(),
            Entry::of::<archive::Load>(),
            Entry::named::<images::Images>("ls"),
            Entry::named::<images::Images>("list"),
            Entry::of::<prune::Images>(),
            Entry::of::<pull::Pull>(),
            Entry::of::<registry::Push>(),
            Entry::named::<images::Remove>("rm"),
            Entry::named::<images::Remove>("remove"),
            Entry::of::<archive::Save>(),
            Entry::of::<images::Tag>(),
            Entry::of::<verify::Verify>(),
        ],
    },
    Group {
        name: "system",
        about: "Manage ctl",
        entries: &[
            Entry::of::<disk::Df>(),
            Entry::of::<events::Events>(),
            Entry::of::<info::Info>(),
            Entry::of::<prune::System>(),
        ],
    },
];
