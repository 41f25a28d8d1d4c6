//! What PID 1 is asked while it runs: one request per connection, as a line of JSON over a Unix stream socket that
//! exists only on the host; answered by lines of JSON. A request is at most [`MAX_REQUEST`] bytes.

use serde::{Deserialize, Serialize};

/// A longer request is refused.
pub const MAX_REQUEST: usize = 64 << 10;

/// A request. One that PID 1 does not know is answered with [`Reply::Refused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// How the services are: answered by [`Reply::Status`].
    Status,
    /// Stops all services and ends: answered by [`Reply::Stopping`], then by the end of the connection when PID 1 ends.
    Stop,
    /// Sends a signal to a service: answered by [`Reply::Done`].
    Signal {
        /// The service.
        service: String,
        /// The signal's number.
        signal: i32,
    },
    /// Runs a command: answered by [`Reply::Started`] and, at its end, [`Reply::Ended`]. Without a terminal the request
    /// carries three descriptors: standard input, output and error. With one, `Started` carries the terminal's master.
    /// When the connection closes, the command's session is killed.
    Exec(Exec),
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments. A program without `/` is looked up in PATH.
    pub command: Vec<String>,
    /// Name or number of a user of the image.
    pub user: String,
    /// Added to PATH, HOME and USER.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    /// Working directory; `/` where none is given.
    #[serde(default)]
    pub directory: Option<String>,
    /// Rows and columns of a new terminal, where one is wanted.
    #[serde(default)]
    pub terminal: Option<(u16, u16)>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// How the services are.
    Status {
        /// In the order of the boot spec.
        services: Vec<ServiceState>,
    },
    /// PID 1 is stopping the services.
    Stopping,
    /// It is done.
    Done,
    /// The command runs.
    Started {
        /// Its number inside.
        pid: i32,
    },
    /// The command has ended.
    Ended {
        /// Exit code; 128 + signal where it was killed.
        exit: i32,
    },
    /// It was not done.
    Refused {
        /// Why.
        reason: String,
    },
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its name.
    pub name: String,
    /// Whether its process runs, or (for a task) has ended well.
    pub up: bool,
    /// How often it was started.
    pub starts: u32,
    /// Its number inside, while it runs.
    #[serde(default)]
    pub pid: Option<i32>,
    /// How it last ended, if it did.
    #[serde(default)]
    pub last_exit: Option<String>,
}
