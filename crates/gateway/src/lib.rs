//! The gateway: where traffic enters a Kiln host.
//!
//! One process listens on the published ports and hands each HTTP request, or each TCP connection, to a server
//! that is ready. It knows nothing of images, releases or rollouts: the daemon gives it a table of routes
//! ([`table::Routes`], with a version), and tells it which server to drain. It keeps the last table in
//! `gateway.json`, so it serves without the daemon and comes back by itself.
//!
//! ```text
//! run        start: lock, take over from a running gateway or bind, serve until told to stop
//! control    JSON lines over `gateway.sock`: set_routes, drain, status, asked, take_listeners, hand_over, retire, stop
//! client     the other end of it, used by the daemon
//! live       the table as it is served: routes, upstreams, who is in flight where
//! bell       how the daemon hears that a request waits for a group without servers
//! latency    how long servers take to answer
//! worker     threads, each with its own runtime, its own connections and its own idle connections to servers
//! http, tcp  what happens to one connection
//! ```
//!
//! Invariants:
//! - A request goes only to a server that is in the table, is not draining and did not just refuse a connection.
//! - A request is sent a second time only when it cannot have had an effect: the connection could not be made, the
//!   request was never written, or it has an idempotent method, no body, and no byte of a response came.
//! - An acknowledged table is on disk and in force for every request that begins after the acknowledgement.
//! - A port that stays in the table is never closed: tables change, processes follow each other, the socket stays.
#![forbid(unsafe_code)]

mod bell;
pub mod client;
mod control;
mod fds;
mod gateway;
mod holder;
mod http;
mod inherit;
pub mod latency;
mod listen;
mod live;
mod options;
mod ports;
mod proto;
mod run;
mod store;
pub mod table;
mod tcp;
mod upstream;
mod watch;
mod worker;

pub use holder::Holder;
pub use options::{GatewayOptions, Limits, TrustedProxy};
pub use run::{GatewayError, run};
