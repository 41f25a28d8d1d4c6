//! What PID 1 is told, over the socket it inherits as descriptor [`SOCKET`]: packets of JSON, each with descriptors.
//!
//! A first [`Packet`] without a boot part prepares what all servers have in common while nobody waits; PID 1 then waits
//! (*parked*). A second packet makes it a server. Each is answered with an [`Answer`]. If the socket closes before the
//! second packet, PID 1 ends.

use serde::{Deserialize, Serialize};

use crate::{
    render::{Files, TemplateFailure},
    setup::Operation,
};

/// The inherited socket.
pub const SOCKET: i32 = 3;
/// The version of this contract that PID 1 is built with. The runtime brings its own PID 1, so both agree here.
pub const VERSION: u32 = 1;
/// A packet is at most this many bytes.
pub const MAX_PACKET: usize = 4 << 20;

/// One message to PID 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Executed in order; the first that fails ends PID 1.
    pub operations: Vec<Operation>,
    /// Makes it a server, after the operations.
    pub boot: Option<BootSpec>,
}

/// PID 1's answer to a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// All operations are done. After a packet with a boot part it is a server, and its services are started.
    Done,
    /// PID 1 ends because of this.
    Failed {
        /// What was tried, as the end of "could not …".
        action: String,
        /// The kernel's reason.
        errno: i32,
    },
    /// PID 1 ends because a template could not be rendered.
    Template(TemplateFailure),
}

/// What a server runs. Numbers of descriptors are indexes in the packet's descriptors; all are files or sockets, never
/// directories: through a directory of the host a server could climb out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSpec {
    /// [`VERSION`].
    pub version: u32,
    /// Services to start, all at once.
    pub services: Vec<ServiceSpec>,
    /// Listening socket for [`crate::control`].
    pub control: usize,
    /// The two files of the [`crate::spool`].
    pub spool: [usize; 2],
    /// Each spool file is at most this many bytes.
    pub spool_bytes: u64,
    /// The [`Ending`] is written to this file.
    pub ending: usize,
    /// Files with compiled seccomp programs, installed in this order.
    pub filters: Vec<usize>,
    /// Whether root inside may give capabilities to files. Not where it writes to a directory that the host sees.
    pub file_capabilities: bool,
    /// Files to render before services start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
}

/// One service, resolved as far as it can be outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name.
    pub name: String,
    /// Program and arguments. A program without `/` is looked up in PATH.
    pub command: Vec<String>,
    /// Name or number of a user of the image.
    pub user: String,
    /// The whole environment; HOME and USER are added where they are missing.
    pub environment: Vec<(String, String)>,
    /// Working directory.
    pub directory: String,
    /// Asks it to stop.
    pub stop_signal: i32,
    /// Milliseconds until it is killed.
    pub grace_ms: u64,
    /// What happens when it exits by itself.
    pub restart: Restart,
}

/// What happens when a service exits by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// The server ends.
    Never,
    /// It is started again, after 0.1 s at first and twice as long each time, at most 30 s.
    OnFailure,
    /// It is a task: exit 0 is success, anything else ends the server.
    Once,
}

/// Why PID 1 ended, written before it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It was asked to.
    Stopped {
        /// Services that did not end within their grace.
        killed: Vec<String>,
    },
    /// A service ended that must not.
    Failed {
        /// The service.
        service: String,
        /// How it ended: `exit code 3`, `signal 9`, `could not be started: …`.
        how: String,
    },
    /// Every service has ended well.
    Finished,
}
