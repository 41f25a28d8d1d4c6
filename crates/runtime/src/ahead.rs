//! Servers whose services were started ahead: they became ready, stand still, and go on when one is taken.
//!
//! Whoever makes one waits until it is ready, and has it frozen then ([`kiln_sys::cgroup`]): it keeps its memory, its sockets and its
//! files, and no processor. Whether that does the services good only their recipe can know. Its record says all the while that its
//! launch is not finished, so that what a crash leaves of it is removed when the servers are next taken over.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, PoisonError},
    time::Duration,
};

use kiln_model::{ServerId, VerifiedRelease};

use crate::{
    Inner, Observed, Phase, Request, Runtime, check_generation,
    error::{OnFile as _, Result, RuntimeError},
    fresh, launch,
    record::Progress,
    see,
    server::Server,
};

/// All processes of a server stand still within this time.
const FREEZES_WITHIN: Duration = Duration::from_secs(5);

/// What is ahead of a server that does not serve yet.
#[derive(Debug)]
pub(crate) enum Ahead {
    /// Its services start. These of its places can be written.
    Starting(Vec<String>),
    /// They stand still.
    Frozen(fresh::Still),
}

impl Runtime {
    /// Whether servers can be held after their services were started.
    pub fn freezes(&self) -> bool {
        self.inner.ground.cgroups.freezes()
    }

    /// Starts the services of a server that serves nobody yet; [`Self::freeze`] is next, and then [`Self::launch`]. A repeated
    /// call answers with the same server. It is removed when this runtime is closed, or the next one opened.
    pub fn warm(&self, release: &VerifiedRelease, request: &Request) -> Result<Observed> {
        let lock = self.inner.lock_of(&request.server);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(existing) = self.inner.find(&request.server) {
            check_generation(&existing, request.generation)?;
            return see(&existing);
        }
        let server = Arc::new(launch::warm(&self.inner, release, request)?);
        self.inner.servers().insert(request.server.clone(), Arc::clone(&server));
        Ok(Observed { record: server.record.clone(), phase: Phase::Running })
    }

    /// Lets a server stand still that [`Self::warm`] has started.
    pub fn freeze(&self, server: &ServerId, generation: u64) -> Result<()> {
        let lock = self.inner.lock_of(server);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.inner.find(server)?;
        check_generation(&found, generation)?;
        let Some(Ahead::Starting(places)) = &found.ahead else { return Ok(()) };
        found.running()?;
        found.group.freeze(FREEZES_WITHIN)?;
        let still = fresh::Still::of(&found, places)?;
        let frozen = again(&found)?.with_ahead(Ahead::Frozen(still));
        self.inner.servers().insert(server.clone(), Arc::new(frozen));
        Ok(())
    }
}

/// Lets a server go on that was made ahead, if nothing happened to it since. What is not fresh is removed.
pub(crate) fn take(
    inner: &Inner,
    existing: &Server,
    release: &VerifiedRelease,
    request: &Request,
) -> Result<Option<Server>> {
    if let Some(why) = fresh::why_not_taken(existing, release) {
        tracing::warn!(server = %request.server, %why, "what was made ahead is not used");
        inner.destroy(existing)?;
        return Ok(None);
    }
    let mut server = again(existing)?.with_secrets(Arc::clone(&request.secrets));
    server.group.thaw()?;
    request.times.note("thaw");
    server.record.progress = Progress::Launched;
    server.files.write(&server.record)?;
    request.times.note("record-again");
    Ok(Some(server))
}

/// The same server, of which nothing is ahead.
fn again(server: &Server) -> Result<Server> {
    let process: OwnedFd = server.running()?.try_clone().on("watch", server.record.server.as_str())?;
    Ok(Server::new(server.record.clone(), Some(process), server.group.clone(), server.files.clone()))
}

impl Server {
    /// Lets it go on, so that it can be asked to end.
    pub(crate) fn wake(&self) -> Result<()> {
        match self.ahead {
            Some(Ahead::Frozen(_)) => Ok(self.group.thaw()?),
            _ => Ok(()),
        }
    }
}

impl Inner {
    /// Removes all that was made ahead.
    pub(crate) fn discard_ahead(&self) -> Result<()> {
        self.discard_staged()?;
        let ahead: Vec<_> = self.servers().values().filter(|server| server.ahead.is_some()).cloned().collect();
        ahead.iter().try_for_each(|server| self.destroy(server))
    }
}

impl From<fresh::Moved> for RuntimeError {
    fn from(_: fresh::Moved) -> Self {
        Self::Init { action: "stand still".into(), source: kiln_sys::Outcome::TimedOut }
    }
}
