//! Texts of error numbers, in the words that Docker's users know.

use std::io;

/// What `strerror` says, lower-case at the start as Go prints it: `no such file or directory`.
pub fn text(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else { return error.to_string() };
    let full = io::Error::from_raw_os_error(number).to_string();
    let plain = full.split(" (os error").next().unwrap_or(&full);
    let mut chars = plain.chars();
    match chars.next() {
        // Words such as `RFS` keep their capitals.
        Some(first) if !chars.as_str().starts_with(|c: char| c.is_uppercase()) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => plain.to_owned(),
    }
}
