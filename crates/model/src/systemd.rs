//! Unit files of systemd, read to propose `[service]` of a recipe: what Kiln's PID 1 would do of them, and what a person must
//! decide.
//!
//! Form: `systemd.syntax(7)`, `systemd.service(5)`, `systemd.exec(5)`, `systemd.kill(5)`.

mod propose;
mod sayable;
mod unit;

pub use propose::{Kept, Proposal, propose};
pub use unit::{Unit, UnitError};
