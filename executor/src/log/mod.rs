//! Docker's json-file log, as the shim writes it.
//!
//! One JSON object a line: `{"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.678Z"}`.
//! A line of output longer than 16 KiB is cut into pieces, of which only the last has `\n`; all of
//! them bear the time of the first. `<path>.1` is the newest rotated file.

mod entry;
mod json_file;

pub use json_file::{JsonFile, MAX_LINE_BYTES, Stream};
