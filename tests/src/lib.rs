//! What the end-to-end tests are driven with: a daemon of their own, a real registry, images.
//!
//! `scripts/test` prepares what is used here (binaries in `target/ctl/bin`, images in a registry's
//! storage) and then runs the tests. Each test has a daemon with its own data root, run root and
//! socket, and, where it wants one, a `docker-registry` process of its own over the shared images.

#![forbid(unsafe_code)]

pub mod daemon;
pub mod image;
pub mod process;
pub mod registry;

use std::path::PathBuf;

/// The top of the checkout.
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// Where the programs under test are: `CTL_BIN_DIR`, or `target/ctl/bin` as `scripts/build` fills it.
pub fn bin(name: &str) -> PathBuf {
    let dir =
        std::env::var_os("CTL_BIN_DIR").map_or_else(|| workspace().join("target/ctl/bin"), PathBuf::from);
    let path = dir.join(name);
    assert!(path.exists(), "{} is missing: run scripts/build first, or scripts/test for all", path.display());
    path
}

/// Where images are kept between runs: `CTL_TEST_CACHE`, or `target/ctl/cache`.
pub fn cache() -> PathBuf {
    std::env::var_os("CTL_TEST_CACHE").map_or_else(|| workspace().join("target/ctl/cache"), PathBuf::from)
}
