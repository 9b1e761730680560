//! ctld: the Docker Engine API over the engine.
//!
//! - [`engine`]: containers, their states and everything that is done to them.

#![forbid(unsafe_code)]

pub mod engine;
