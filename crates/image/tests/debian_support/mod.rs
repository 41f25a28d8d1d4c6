//! A tiny Debian archive, made and signed by the test, behind an HTTP server that can misbehave.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod archive;
pub mod server;
