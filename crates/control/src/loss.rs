//! What would be gone with servers: who is asked, and what they say.
//!
//! Files are asked of the engine, which looks into each server; lines of the group's shipper. All servers are asked at the same time, and
//! everybody has a limit of time: what is not known then is said to be unknown. Whether it is too much, `kiln_model::loss` decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use kiln_api::error::chain;
use kiln_engine::{Engine, EngineError};
use kiln_model::{
    GroupName, ImageDigest, ImageManifest, ServerId, ServerState,
    fleet::LossPolicy,
    loss::{Bounds, Place, Stake, Written},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    Control, ControlError,
    db::{Batch, Record},
    group::Message,
    handle::ask,
    traffic::{Carried, TrafficError},
};

/// How far somebody looks who asks what would be lost.
const LOOK: Bounds = Bounds { entries: 200_000, time: Duration::from_secs(2), largest: 10 };
/// An engine answers within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many servers are looked into at once: each keeps a thread.
const AT_ONCE: usize = 32;

/// A group, as its task describes it to whoever asks what would be lost.
#[derive(Debug, Clone)]
pub(crate) struct AtStake {
    pub policy: LossPolicy,
    /// The collector of its lines.
    pub collector: Option<String>,
    pub servers: Vec<ServerAtStake>,
}

/// A server of it.
#[derive(Debug, Clone)]
pub(crate) struct ServerAtStake {
    pub id: ServerId,
    pub state: ServerState,
    /// Its slot in the group, where it has volumes.
    pub slot: Option<u32>,
    /// Whether something of it runs, as far as is known.
    pub running: bool,
    pub image: Option<ImageDigest>,
    pub manifest: Option<Arc<ImageManifest>>,
}

impl ServerAtStake {
    /// Whether it stays if nobody asks for anything.
    pub fn stays(&self) -> bool {
        use ServerState::{Drained, Draining, Gone, Stopped, Stopping};
        !matches!(self.state, Draining | Drained | Stopping | Stopped | Gone)
    }
}

/// Where somebody looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// At what the recipe declares.
    Declared,
    /// Also at the scratch of every server.
    All,
}

/// What would be gone with servers of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStake {
    /// The group.
    pub group: GroupName,
    /// What may be lost with each of its servers.
    pub policy: LossPolicy,
    /// The collector of its lines.
    pub collector: Option<String>,
    /// Those of its servers that were asked for.
    pub servers: Vec<ServerStake>,
}

/// What would be gone with a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStake {
    /// The server.
    pub server: ServerId,
    /// Where it is in its life.
    pub state: ServerState,
    /// What.
    pub stake: Stake,
}

impl Control {
    /// What would be gone with those servers that `of` names, of these groups or of all. Nobody is asked where nothing can be lost.
    pub(crate) async fn at_stake(
        &self,
        groups: &[GroupName],
        of: impl Fn(&GroupName, &ServerAtStake) -> bool,
        look: Look,
    ) -> Result<Vec<GroupStake>, ControlError> {
        let mut asked = Vec::new();
        for (name, mut group) in self.describe(groups).await? {
            group.servers.retain(|server| of(&name, server));
            asked.push((name, group));
        }
        let stakes = asked.into_iter().map(|(name, group)| self.group_stake(name, group, look));
        Ok(futures::future::join_all(stakes).await)
    }

    /// Enters in the audit log what somebody accepted to be lost by a verb.
    pub(crate) async fn accept_loss(
        &self,
        accepted: Vec<(GroupName, ServerId, Stake)>,
        verb: &str,
    ) -> Result<(), ControlError> {
        let mut batch = Batch::default();
        for (group, server, stake) in accepted {
            let inputs = json!({
                "files": stake.files(),
                "bytes": stake.bytes(),
                "at_least": !stake.whole(),
                "lines": stake.lines,
                "unknown": stake.unknown,
            });
            let reason = format!("somebody accepted that this is lost by `{verb}`");
            let (at, group, server) = (self.shared.now(), Some(group), Some(server));
            batch.record(Record { at, action: "accept-loss", group, server, inputs, reason });
        }
        Ok(self.shared.db.write(Arc::new(batch)).await?)
    }

    /// Whether servers of these groups can lose anything at all.
    pub(crate) async fn may_lose(&self, groups: &[GroupName]) -> Result<bool, ControlError> {
        if groups.is_empty() {
            return Ok(false);
        }
        for (_, group) in self.describe(groups).await? {
            for server in group.servers.iter().filter(|server| server.stays()) {
                let places = self.manifest(server).await.map(|manifest| kiln_model::loss::declared(&manifest));
                if group.collector.is_some() || places.is_none_or(|places| !places.is_empty()) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The groups there are.
    pub(crate) async fn groups(&self) -> BTreeSet<GroupName> {
        self.mailboxes(&[]).await.unwrap_or_default().into_iter().map(|(name, _)| name).collect()
    }

    /// What the gateway carries to whom.
    pub(crate) async fn traffic_load(&self) -> Result<Vec<Carried>, TrafficError> {
        Ok(self.shared.traffic.load().await?.carried)
    }

    async fn describe(&self, groups: &[GroupName]) -> Result<Vec<(GroupName, AtStake)>, ControlError> {
        let mut all = Vec::new();
        for (name, mailbox) in self.mailboxes(groups).await? {
            // A group that is just gone has lost everything.
            if let Ok(group) = ask(&self.shared, &mailbox, Message::AtStake).await {
                all.push((name, group));
            }
        }
        Ok(all)
    }

    async fn group_stake(&self, group: GroupName, asked: AtStake, look: Look) -> GroupStake {
        let nobody = asked.servers.is_empty();
        let lines = async {
            match nobody {
                true => None,
                false => self.shared.logs.unacknowledged(&group).await,
            }
        };
        let servers = stream::iter(asked.servers)
            .map(|server| async move { (self.written(&server, look).await, server) })
            .buffered(AT_ONCE)
            .collect::<Vec<_>>();
        let (lines, servers): (Option<BTreeMap<ServerId, u64>>, _) = tokio::join!(lines, servers);
        let stake = |(seen, server): (Result<Vec<Written>, String>, ServerAtStake)| {
            let lines = lines.as_ref().map(|lines| lines.get(&server.id).copied().unwrap_or(0));
            let (written, unknown) = seen.map_or_else(|why| (Vec::new(), Some(why)), |written| (written, None));
            ServerStake { server: server.id, state: server.state, stake: Stake { written, lines, unknown } }
        };
        let servers = servers.into_iter().map(stake).collect();
        GroupStake { group, policy: asked.policy, collector: asked.collector, servers }
    }

    async fn written(&self, server: &ServerAtStake, look: Look) -> Result<Vec<Written>, String> {
        let Some(manifest) = self.manifest(server).await else {
            return Err("its image is not known any more".to_owned());
        };
        let places = match look {
            Look::Declared => kiln_model::loss::declared(&manifest),
            Look::All => kiln_model::loss::all(&manifest),
        };
        if !server.running {
            return Ok(Vec::new());
        }
        written(&*self.shared.engine, &server.id, &places, LOOK, PATIENCE).await
    }

    async fn manifest(&self, server: &ServerAtStake) -> Option<Arc<ImageManifest>> {
        if let Some(manifest) = &server.manifest {
            return Some(manifest.clone());
        }
        let (releases, image) = (self.shared.releases.clone(), server.image?);
        let looked = tokio::task::spawn_blocking(move || releases.image(&image)).await;
        Some(looked.ok()?.ok()?.manifest)
    }
}

/// What is in these places, or why nobody knows. A server that is gone has lost it already.
pub(crate) async fn written(
    engine: &dyn Engine,
    server: &ServerId,
    places: &[Place],
    bounds: Bounds,
    patience: Duration,
) -> Result<Vec<Written>, String> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let Some(inside) = engine.inside() else { return Err(format!("engine {} cannot look inside", engine.name())) };
    match timeout(patience, inside.written(server, places, bounds)).await {
        Ok(Ok(written)) => Ok(written),
        Ok(Err(EngineError::Unknown { .. })) => Ok(Vec::new()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("looking took longer than {} s", patience.as_secs())),
    }
}
