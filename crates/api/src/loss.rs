//! `GET /v1/loss`: what would be gone with servers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What would be gone with the servers that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LossReport {
    /// Their groups, by name.
    pub groups: Vec<GroupLoss>,
}

/// A group, and what it may lose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupLoss {
    /// Its name.
    pub name: String,
    /// So many lines may be lost with each server without being told.
    pub limit_logs: u64,
    /// So many bytes may.
    pub limit_data: u64,
    /// The collector of its log lines; null where they stay on this host, and go with the server's spool.
    pub collector: Option<String>,
    /// Its servers.
    pub servers: Vec<ServerLoss>,
}

/// A server, and what would be gone with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerLoss {
    /// Its id.
    pub id: String,
    /// As in `status`.
    pub state: String,
    /// Its writable paths that are no volumes, those that every server has included.
    pub places: Vec<PlaceLoss>,
    /// Files in declared places.
    pub files: u64,
    /// Their bytes; where not all were seen, all that the places hold in memory.
    pub bytes: u64,
    /// Lines that the collector has not acknowledged; null where there is none.
    pub lines: Option<u64>,
    /// Requests and connections that the gateway has under way there; null where it does not say.
    pub in_flight: Option<u64>,
    /// TCP connections of the server to or from elsewhere; null where nobody could look.
    pub connections: Option<u64>,
    /// What of it is above the group's limit, in words.
    pub above: Vec<String>,
    /// Why it is not known what is in its places; null where it is.
    pub unknown: Option<String>,
}

/// A writable path that is no volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlaceLoss {
    /// The path.
    pub path: String,
    /// `tmpfs`, `ephemeral`, or `scratch` (every server has it, and it counts for no limit).
    pub kind: String,
    /// Files that the image does not have like that.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What its memory holds in all, in bytes: files that are deleted and still open, and copies of the image, included.
    pub held: u64,
    /// When the first of them was changed last, RFC 3339.
    pub oldest: Option<String>,
    /// When the last of them was, RFC 3339.
    pub newest: Option<String>,
    /// The largest of them, the largest first.
    pub largest: Vec<FileLoss>,
    /// Whether there may be more than that: looking was ended at its limit.
    pub at_least: bool,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileLoss {
    /// Its path; what is no text in it is replaced.
    pub path: String,
    /// Bytes that are there: holes do not count.
    pub bytes: u64,
    /// When it was changed last, as the service says, RFC 3339.
    pub changed: Option<String>,
}
