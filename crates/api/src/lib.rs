//! The daemon's HTTP types, OpenAPI document and client.
//!
//! The daemon listens on `kiln.sock` (mode 0600) in its state directory and on nothing else. Short calls answer JSON; long
//! work (tests, rollouts) answers a stream of [`event::Event`]s, one JSON object to a line, the last of which is
//! [`event::Event::Result`]. What cannot be done is answered with a status of 400 or more and an [`error::ErrorBody`]; once a
//! stream has begun, with a result that holds the same error.
#![forbid(unsafe_code)]

pub mod client;
pub mod config;
pub mod difference;
pub mod error;
pub mod event;
pub mod host;
pub mod identity;
pub mod loss;
pub mod openapi;
pub mod recovery;
pub mod report;
pub mod request;
pub mod status;
pub mod volume;

pub use client::{Client, ClientError};
pub use error::{ApiError, ErrorBody, ErrorCode};
pub use event::Event;
pub use openapi::openapi;
