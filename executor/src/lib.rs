//! From an OCI runtime specification to a running process, and the shim that holds it.
//!
//! ```text
//! engine: SpecInput ─spec::build→ oci Spec ─plan::Plan::new→ Plan ─shims::Shims::start→ ctld-shim
//! ctld-shim: Plan ─launch::launch→ cgroup, clone3, namespaces, mounts, pivot_root, seccomp, execve
//! ```
//!
//! - [`spec`] builds and validates the specification (pure).
//! - [`plan`] turns it into a serialisable list of operations (pure).
//! - [`launch`] applies a plan; only the shim calls it.
//! - [`cgroup`] reads and writes control groups, v1, hybrid and v2.
//! - [`log`] writes Docker's json-file logs.
//! - [`seccomp`] compiles profiles to BPF.
//! - [`shims`] is the daemon's side: it starts shims, finds them again and talks to them.
//! - [`protocol`] is what daemon and shim say to each other.
//! - [`sys`] is the only place with `unsafe`.

#![deny(unsafe_code)]

pub mod capabilities;
pub mod cgroup;
pub mod errors;
pub mod launch;
pub mod log;
pub mod plan;
pub mod protocol;
pub mod seccomp;
pub mod shims;
pub mod spec;
#[expect(unsafe_code, reason = "system calls that no safe wrapper offers live here and nowhere else")]
pub mod sys;
