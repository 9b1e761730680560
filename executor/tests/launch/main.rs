//! Containers started for real, looked at from inside. Needs root and busybox-static.

mod attacks;
mod common;
mod world;
