//! What this host can do, found out by doing it: `kiln doctor` shows the list, and a daemon reads it once at start.
//!
//! Nothing is concluded from a version number or a configuration file where the thing itself can be tried: file systems
//! are opened, a user namespace is made, and bridge, veth and packet filter are set up in a network namespace of their
//! own. Everything tried is gone when [`run`] returns, and nothing of it is seen by the host.

use std::path::Path;

mod kernel;
mod limits;
mod network;
mod storage;

pub use network::dropping_forward_chains;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All is there.
    Found,
    /// Kiln works, but something is slower, weaker or will end soon; [`Check::effect`] says what.
    Degraded,
    /// Kiln cannot do its main job on this host.
    Missing,
}

/// One thing about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, in a word or three: stable, for scripts.
    pub name: &'static str,
    /// How it came out.
    pub state: State,
    /// What was found, with its figure.
    pub found: String,
    /// What does not work, or works less well, because of it. Nothing when all is there.
    pub effect: Option<&'static str>,
    /// What to do about it. Nothing when all is there.
    pub help: Option<&'static str>,
}

impl Check {
    fn found(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Found, found: found.into(), effect: None, help: None }
    }

    fn lacking(
        name: &'static str,
        state: State,
        found: impl Into<String>,
        effect: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, state, found: found.into(), effect: Some(effect), help: Some(help) }
    }

    /// Found when something was tried with success, else lacking, with the refusal in words.
    fn tried<T, E: std::error::Error>(
        name: &'static str,
        tried: Result<T, E>,
        state: State,
        effect: &'static str,
        help: &'static str,
    ) -> Self {
        match tried {
            Ok(_) => Self::found(name, "works"),
            Err(error) => Self::lacking(name, state, words(&error), effect, help),
        }
    }
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Looks at everything. `state_dir` is where the state directory is or will be; what does not exist of it is not made.
pub fn run(state_dir: &Path) -> Vec<Check> {
    let storage = storage::nearest_existing(state_dir);
    let mut checks = kernel::checks();
    checks.extend(network::checks());
    checks.extend(storage::checks(&storage));
    checks.extend(limits::checks());
    checks
}

/// Whether Kiln can do its main job.
pub fn usable(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.state != State::Missing)
}
