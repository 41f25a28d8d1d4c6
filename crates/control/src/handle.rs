//! [`Control`]: the handle that the daemon holds.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use kiln_api::{Event, status::Status};
use kiln_engine::Engine;
use kiln_model::{Fleet, GroupName, ImageDigest, ServerId};
use tokio::sync::broadcast;

use crate::{releases::Releases, traffic::Traffic};

/// Where control keeps its state.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// The state directory; control keeps `kiln.db` in it.
    pub state_dir: PathBuf,
}

/// A fleet with its images resolved.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The fleet. Groups that it does not name are left as they are.
    pub fleet: Fleet,
    /// The image of every group of the fleet.
    pub images: BTreeMap<GroupName, ImageDigest>,
}

/// What is to be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RebuildTarget {
    /// Every server of a group, as its rollout policy says.
    Group(GroupName),
    /// One server.
    Server(ServerId),
}

/// How a group's latest change ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The group.
    pub group: GroupName,
    /// `Ok` if every server wanted is on the release wanted and ready.
    pub outcome: Result<(), Unsettled>,
    /// Where the group can be reached.
    pub endpoints: Vec<String>,
}

/// Why a group is not as it was asked to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsettled {
    /// The evidence does not suffice.
    #[error("{reason}")]
    Refused {
        /// [`kiln_model::trust::Refusal::code`].
        code: String,
        /// Whose fault, what happened, what to try.
        reason: String,
    },
    /// The rollout failed, and was taken back if the policy says so.
    #[error("{reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
    /// Somebody asked for something else before it was done.
    #[error("a newer change took the place of this one")]
    Superseded,
}

/// Why control could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No such group.
    #[error("there is no group `{0}`")]
    NoGroup(GroupName),
    /// No such server.
    #[error("there is no server `{0}`")]
    NoServer(ServerId),
    /// The group never had another release.
    #[error("group `{0}` has no earlier release to go back to")]
    NoEarlierRelease(GroupName),
    /// The images or their evidence.
    #[error("could not look up the images")]
    Releases(#[from] crate::releases::ReleasesError),
    /// Control was shut down.
    #[error("the daemon is shutting down")]
    Closed,
}

/// The state of all groups and the tasks that keep it. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    events: broadcast::Sender<Event>,
}

impl Control {
    /// Opens the state, finds the servers that run, and starts one reconciler for each group.
    pub async fn open(
        _options: ControlOptions,
        _engine: Arc<dyn Engine>,
        _releases: Arc<dyn Releases>,
        _traffic: Arc<dyn Traffic>,
    ) -> Result<Self, ControlError> {
        Ok(Self { events: broadcast::channel(4096).0 })
    }
    /// Records what is wanted and wakes the groups. Returns when that is on disk; [`Self::settle`] waits for the end.
    pub async fn apply(&self, _wanted: Wanted) -> Result<Vec<GroupName>, ControlError> {
        Err(ControlError::Closed)
    }
    /// What [`Self::apply`] would do and why, as [`Event::Step`]s; nothing is changed.
    pub async fn plan_only(&self, _wanted: Wanted) -> Result<Vec<Event>, ControlError> {
        Err(ControlError::Closed)
    }
    /// Waits until each group's latest change is done, failed, refused or superseded. All groups if none is named.
    pub async fn settle(&self, _groups: &[GroupName]) -> Result<Vec<Settled>, ControlError> {
        Err(ControlError::Closed)
    }
    /// What runs.
    pub async fn status(&self) -> Result<Status, ControlError> {
        Err(ControlError::Closed)
    }
    /// Starts moving a group back to the release it had before.
    pub async fn rollback(&self, _group: &GroupName) -> Result<(), ControlError> {
        Err(ControlError::Closed)
    }
    /// Starts replacing servers by new ones of the same release.
    pub async fn rebuild(&self, _target: &RebuildTarget) -> Result<Vec<GroupName>, ControlError> {
        Err(ControlError::Closed)
    }
    /// Drains, stops and destroys every server of these groups, or of all, and forgets the groups. Returns when they are
    /// gone.
    pub async fn down(&self, _groups: &[GroupName]) -> Result<(), ControlError> {
        Err(ControlError::Closed)
    }
    /// Records that somebody ran a command inside a server.
    pub async fn touch(&self, _server: &ServerId, _command: &[String]) -> Result<(), ControlError> {
        Err(ControlError::Closed)
    }
    /// What happens, as it happens, to all groups.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
    /// The images that must be kept: those of running servers, of wanted releases, and of releases to go back to.
    pub async fn images_in_use(&self) -> Result<Vec<ImageDigest>, ControlError> {
        Err(ControlError::Closed)
    }
    /// Stops the reconcilers and closes the state. No server is touched.
    pub async fn close(&self) {}
}
