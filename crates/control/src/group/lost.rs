//! What goes with a server that is about to end, for whatever reason: written down right before, where that is cheap to know.

use std::{sync::Arc, time::Duration};

use kiln_model::{
    GroupName, ServerId,
    loss::{self, Bounds, Place, Stake},
};
use serde_json::json;

use super::GroupTask;
use crate::{
    db::{Batch, Record},
    shared::Shared,
};

/// A server that is to end waits at most about this long for somebody who looks what is in it.
const LOOK: Bounds = Bounds { entries: 50_000, time: Duration::from_millis(250), largest: 0 };
const PATIENCE: Duration = Duration::from_secs(1);

/// Where a server that is about to end may have written what is gone with it.
pub(super) struct Lost {
    group: GroupName,
    server: ServerId,
    places: Vec<Place>,
    /// Why it ends.
    reason: String,
}

impl GroupTask {
    /// One that does not run has lost it already.
    pub(super) fn lost_with(&self, id: &ServerId, reason: &str) -> Lost {
        let server = self.servers.get(id).filter(|server| server.running);
        let release = server.and_then(|server| self.releases.get(&server.row.release));
        let image = release.and_then(|release| self.images.get(&release.image));
        let places = image.map(|image| loss::declared(&image.manifest)).unwrap_or_default();
        Lost {
            group: self.row.name.clone(),
            server: id.clone(),
            places,
            reason: format!("it goes with the server, which ends: {reason}"),
        }
    }
}

impl Lost {
    /// Enters in the audit log what is gone. Nothing waits for a log that cannot be written, or for a server that nobody can look
    /// into.
    pub(super) async fn note(self, shared: &Shared) {
        let Self { group, server, places, reason } = self;
        let Ok(written) = crate::loss::written(&*shared.engine, &server, &places, LOOK, PATIENCE).await else { return };
        let stake = Stake { written, ..Stake::default() };
        if stake.is_nothing() {
            return;
        }
        let inputs = json!({"files": stake.files(), "bytes": stake.bytes(), "at_least": !stake.whole()});
        let (at, group, server) = (shared.now(), Some(group), Some(server));
        let mut batch = Batch::default();
        batch.record(Record { at, action: "loss", group, server, inputs, reason });
        if let Err(error) = shared.db.write(Arc::new(batch)).await {
            let error = kiln_api::error::chain(&error);
            tracing::warn!(error, "what was lost with a server could not be entered in the audit log");
        }
    }
}
