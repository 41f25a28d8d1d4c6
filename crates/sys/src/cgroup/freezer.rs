//! Frozen groups: their processes keep all they have and do nothing, until the group is thawed.
//!
//! Version 2 has `cgroup.freeze`, and says in `cgroup.events` when all stand still (Documentation/admin-guide/cgroup-v2.rst);
//! version 1 has `freezer.state` (cgroup-v1/freezer-subsystem.rst). What is frozen by version 2 can be killed; by version 1 it dies
//! when it is thawed.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{FREEZER, Group, keyed, write};
use crate::error::{Outcome, Result, SysError};

/// What still runs is looked for so often.
const PAUSE: Duration = Duration::from_millis(1);

/// The file that freezes, and the words it knows.
enum Freezer {
    V1(PathBuf),
    V2 { freeze: PathBuf, events: PathBuf },
}

impl Group {
    fn freezer(&self) -> Result<Freezer> {
        if let Some(directory) = &self.v2 {
            return Ok(Freezer::V2 {
                freeze: directory.join("cgroup.freeze"),
                events: directory.join("cgroup.events"),
            });
        }
        match self.v1_freezer() {
            Some(state) => Ok(Freezer::V1(state)),
            None => Err(SysError { action: "freeze a control group".into(), outcome: Outcome::Unsupported }),
        }
    }

    fn v1_freezer(&self) -> Option<PathBuf> {
        let found = self.v1.iter().find(|(controller, _)| *controller == FREEZER);
        found.map(|(_, directory)| directory.join("freezer.state"))
    }

    /// Freezes every process in the group, and returns when all stand still.
    pub fn freeze(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        match self.freezer()? {
            Freezer::V2 { freeze, .. } => write(&freeze, "1")?,
            Freezer::V1(state) => write(&state, "FROZEN")?,
        }
        while !self.is_frozen()? {
            if Instant::now() >= deadline {
                self.thaw()?;
                return Err(SysError { action: "freeze a control group".into(), outcome: Outcome::TimedOut });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<()> {
        match self.freezer()? {
            Freezer::V2 { freeze, .. } => write(&freeze, "0"),
            Freezer::V1(state) => write(&state, "THAWED"),
        }
    }

    /// Whether every process in the group stands still.
    pub fn is_frozen(&self) -> Result<bool> {
        Ok(match self.freezer()? {
            Freezer::V2 { events, .. } => keyed(&events, "frozen") == Some(1),
            Freezer::V1(state) => std::fs::read_to_string(state).is_ok_and(|state| state.trim() == "FROZEN"),
        })
    }

    /// What was killed while version 1 had it frozen dies now.
    pub fn let_die(&self) -> Result<()> {
        let Some(state) = self.v1_freezer().filter(|state| state.exists()) else { return Ok(()) };
        match write(&state, "THAWED") {
            // Its last process was gone already, and so is the group.
            Err(SysError { outcome: Outcome::Absent, .. }) => Ok(()),
            other => other,
        }
    }
}
