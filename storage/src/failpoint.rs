//! Named places at which a test can kill the process, to prove that any moment is survivable.
//!
//! In builds with debug assertions, `CTL_FAILPOINT=<name>` aborts the process when it comes by the
//! place of that name. Release builds hold nothing of it.

/// Aborts here when the environment asks for it.
#[cfg(debug_assertions)]
pub(crate) fn failpoint(name: &str) {
    if std::env::var_os("CTL_FAILPOINT").is_some_and(|wanted| wanted == name) {
        std::process::abort();
    }
}

/// Nothing in release builds.
#[cfg(not(debug_assertions))]
pub(crate) fn failpoint(_name: &str) {}
