//! ctld: the Docker Engine API over the engine.
//!
//! - [`config`]: flags and the configuration file.
//! - [`server`]: sockets and connections.
//! - [`api`]: HTTP requests to calls of the engine and the store, and back.
//! - [`engine`]: containers, their states and everything that is done to them.

#![forbid(unsafe_code)]

pub mod api;
pub mod config;
pub mod engine;
pub mod registry_server;
pub mod server;
