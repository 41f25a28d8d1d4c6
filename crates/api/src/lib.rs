//! The daemon's HTTP types, OpenAPI document and client.
//!
//! The daemon listens on `kiln.sock` (mode 0600) in its state directory and on nothing else. Short calls answer
//! JSON; long work (tests, rollouts) answers a stream of JSON lines, the last of which is its result.
#![forbid(unsafe_code)]

pub mod status;
