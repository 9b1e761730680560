//! Files of the shim's directory, which is the current directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use executor::protocol::{EXIT_FILE, PLAN_FILE, SHIM_FILE, ShimRecord, StartRecord};
use executor::shims::ExitRecord;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What was asked for. Read whenever it is needed: kept, it would be memory for as long as the
/// container lives.
pub fn start_record() -> io::Result<StartRecord> {
    read(PLAN_FILE)
}

/// Says who runs.
pub fn write_shim(record: &ShimRecord) -> io::Result<()> {
    write(SHIM_FILE, record)
}

/// Says how it ended.
pub fn write_exit(record: &ExitRecord) -> io::Result<()> {
    write(EXIT_FILE, record)
}

fn read<T: DeserializeOwned>(name: &str) -> io::Result<T> {
    let bytes =
        std::fs::read(name).map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    serde_json::from_slice(&bytes).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

/// Atomically, 0600.
fn write<T: Serialize>(name: &str, value: &T) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let mut file: File =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    drop(file);
    std::fs::rename(&temporary, name)
}
