//! System calls that no safe wrapper offers.
//!
//! Everything here is a thin, safe function over one call; what the calls are combined to lives in
//! [`crate::launch`] and [`crate::cgroup`].

pub mod bpf;
pub mod memory;
pub mod mount;
pub mod process;

use std::io;

/// Turns a kernel result into `io::Result`.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
