//! Log lines leave the host.
//!
//! ```text
//! spool     follows the two files that PID 1 writes
//! lines     frames become lines; a line may be spread over many
//! shipper   one task for each group that has a collector: reads, sends, is told what has arrived, remembers how far it is
//! link      one connection: UDP, TCP, TLS, RELP
//! relp      RELP's frames
//! news      is told by the kernel when a server has written something
//! hub       finds a group's shipper, and what others may know of it
//! left      how many lines nobody has acknowledged
//! ```
//!
//! Nothing here can slow a server down: PID 1 writes to files of a bounded size and waits for nobody. A collector that is away
//! or slow finds the lines there when it comes back, as far as they are kept; what was overwritten meanwhile is counted. How
//! far a server's lines have arrived is in the state file, so that a daemon that was killed goes on from there: with RELP nothing
//! is lost, and what is sent twice bears the same `seq`.

mod hub;
mod left;
mod lines;
mod link;
mod message;
mod news;
mod relp;
mod shipper;
pub mod spool;

use serde::{Deserialize, Serialize};

pub(crate) use self::hub::{Logs, Origin};
pub(crate) use self::lines::Lines;
use self::lines::{LineId, Place};

/// How far a server's lines have arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arrived {
    /// Reading goes on here.
    place: Place,
    /// The last line that has arrived: this and all before are not sent again.
    last: LineId,
}

impl Arrived {
    fn nothing(next: Option<u64>) -> Self {
        Self { place: Place::at(next), last: (0, 0) }
    }
}

/// How a server that ended handed over its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandOver {
    /// The collector has its last line.
    Complete,
    /// The time was over, and so many lines are gone.
    Lost(u64),
}

/// What the fuzz target calls: a collector that says anything.
#[cfg(any(test, fuzzing))]
pub fn fuzz_relp(bytes: &[u8]) {
    relp::fuzz(bytes);
}

#[cfg(test)]
pub(crate) mod tests;
