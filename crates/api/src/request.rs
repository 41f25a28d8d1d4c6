//! What the daemon can be asked to do, and the short answers.

use std::{collections::BTreeMap, path::PathBuf};

use kiln_model::{
    ChannelName, Fleet, Group, GroupName, ImageDigest, ImageName, Reason, ServerId, evidence::Envelope, fleet::ImageRef,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::difference::Difference;

fn root() -> PathBuf {
    PathBuf::from("/")
}

/// `POST /v1/test`: run the newest suite of an image on it and sign what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestRequest {
    /// The image: `name`, `name@channel` or `name@sha256:…`.
    #[schema(value_type = String, example = "hello@dev")]
    pub image: ImageRef,
    /// The group of a fleet whose configuration it is booted with; the recipe's own values where there is none.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub group: Option<Box<Group>>,
    /// Where the fleet's file is.
    #[serde(default = "root")]
    #[schema(value_type = String)]
    pub directory: PathBuf,
    /// Whether to test even if a valid report exists.
    #[serde(default)]
    pub fresh: Fresh,
    /// Whether channel `dev` of the image's name is moved to it when it has passed.
    #[serde(default)]
    pub move_dev: bool,
}

/// Whether an existing report may stand for a new test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fresh {
    /// A report that passed and has not expired is used again.
    #[default]
    Reuse,
    /// The suite is run in any case; for its further configurations an earlier run may stand.
    Renew,
    /// The suite is run in any case, also with its further configurations.
    Always,
}

/// Whether more may be lost than the fleet says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The change is refused then.
    #[default]
    Refuse,
    /// It is made, and what is lost is in the audit log.
    Accept,
}

/// `POST /v1/apply`: make the groups as this fleet says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The fleet wanted. Groups that it does not name are left as they are.
    #[schema(value_type = Object)]
    pub fleet: Fleet,
    /// Images just baked: where a group asks for channel `dev` of such a name it gets this image, and the channel is
    /// moved to it when it has passed its tests with the configuration of every such group.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub baked: BTreeMap<ImageName, ImageDigest>,
    /// Where the fleet's file is: files and commands that give values are looked for from there.
    #[serde(default = "root")]
    #[schema(value_type = String)]
    pub directory: PathBuf,
    /// Only say what would be done and why.
    #[serde(default)]
    pub plan_only: bool,
    /// Whether to test even where a valid report exists.
    #[serde(default)]
    pub fresh: Fresh,
    /// Whether more may be lost with the servers that are replaced or removed than the fleet says.
    #[serde(default)]
    pub loss: Loss,
}

/// `POST /v1/rollback`: move a group back to the release it had before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The group.
    #[schema(value_type = String)]
    pub group: GroupName,
    /// Whether its volumes go back to what they were when that release was left. What was written since is kept as a
    /// snapshot.
    #[serde(default)]
    pub with_data: bool,
    /// Whether more may be lost than the fleet says.
    #[serde(default)]
    pub loss: Loss,
}

/// `POST /v1/rebuild`: tear down and rebuild the same release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebuildRequest {
    /// What.
    #[serde(flatten)]
    pub what: Rebuild,
    /// Whether more may be lost than the fleet says.
    #[serde(default)]
    pub loss: Loss,
}

impl RebuildRequest {
    /// Of a group, if not too much is lost.
    pub fn group(group: GroupName) -> Self {
        Self { what: Rebuild::Group(group), loss: Loss::default() }
    }
    /// Of one server, if not too much is lost.
    pub fn server(server: ServerId) -> Self {
        Self { what: Rebuild::Server(server), loss: Loss::default() }
    }
}

/// What is rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rebuild {
    /// Every server of a group, as its rollout policy says.
    #[schema(value_type = String)]
    Group(GroupName),
    /// One server.
    #[schema(value_type = String)]
    Server(ServerId),
}

/// `POST /v1/heal`: replace what is missing of a group now, although too much of it went down lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealRequest {
    /// The group.
    #[schema(value_type = String)]
    pub group: GroupName,
}

/// What healing goes on in spite of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Healed {
    /// So many failures of servers count no more.
    pub forgotten: u32,
}

/// `POST /v1/down`: stop and destroy servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DownRequest {
    /// These groups; all of them when empty.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub groups: Vec<GroupName>,
    /// Remove everything Kiln made on the host as well (networks, mounts, cgroups, gateway, run directory), and end the
    /// daemon. Images, keys and volumes stay in the state directory.
    #[serde(default)]
    pub purge: bool,
    /// Whether more may be lost than the fleet says.
    #[serde(default)]
    pub loss: Loss,
}

/// `POST /v1/promote`: point a channel at an image, if the rules of the channel hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteRequest {
    /// The image: `name@channel` or `name@sha256:…`.
    #[schema(value_type = String, example = "hello@dev")]
    pub image: ImageRef,
    /// The channel that is moved.
    #[schema(value_type = String, example = "stable")]
    pub to: ChannelName,
    /// Why, in one line.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub reason: Option<Reason>,
    /// Who promotes, as they say.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub who: Option<Reason>,
    /// The promotion signed by whoever promotes: a DSSE envelope, where the rules ask for one.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub signed: Option<Envelope>,
    /// Only say whether the rules hold.
    #[serde(default)]
    pub check_only: bool,
}

impl PromoteRequest {
    /// With nothing said beside image and channel.
    pub fn new(image: ImageRef, to: ChannelName) -> Self {
        Self { image, to, reason: None, who: None, signed: None, check_only: false }
    }
}

/// Answer to `POST /v1/promote`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Promoted {
    /// The image's name.
    pub name: String,
    /// The channel that was moved.
    pub channel: String,
    /// Where it points now.
    pub image: String,
    /// Where it pointed before.
    pub before: Option<String>,
    /// Whether it was moved: not if it pointed there already, or the rules were only checked.
    #[serde(default)]
    pub moved: bool,
    /// What was found to be good, by the rules of the channel.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub evidence: serde_json::Value,
    /// What differs from the image before; null where there was none.
    #[serde(default)]
    pub difference: Option<Difference>,
}

/// `POST /v1/revoke`: launch an image never again on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The image: `name@channel` or `name@sha256:…`. It need not be here.
    #[schema(value_type = String, example = "hello@dev")]
    pub image: ImageRef,
    /// Why, in one line.
    #[schema(value_type = String)]
    pub reason: Reason,
}

/// Answer to `POST /v1/revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// The image's name.
    pub name: String,
    /// Its digest.
    pub image: String,
    /// Whether it was revoked already; then its first reason stands.
    pub already: bool,
    /// Channels that point to it still.
    pub channels: Vec<String>,
    /// Groups with servers of it.
    pub groups: Vec<RevokedGroup>,
}

/// A group with servers of a revoked image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokedGroup {
    /// Its name.
    pub group: String,
    /// Its servers of that image, which run on for now.
    pub servers: Vec<String>,
    /// The release that it goes to; null where its servers run on, because the fleet says so or because there is none.
    pub goes_to: Option<String>,
}

/// `POST /v1/touch`: note that somebody ran a command inside a server. To be called before the command is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TouchRequest {
    /// The server.
    #[schema(value_type = String)]
    pub server: ServerId,
    /// What is run, for the record.
    pub command: Vec<String>,
}

/// Answer to requests that have nothing more to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {}
