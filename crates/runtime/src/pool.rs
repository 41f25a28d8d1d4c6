//! Slots, and the berths kept ready in some of them.
//!
//! New berths are made when no launch is under way: making one takes processor time and the kernel's locks, which a
//! launch must not wait for. Berths are attached to a network ahead, too: all but one to that of the fleet, one to that of
//! servers under test.

use std::{
    collections::BTreeSet,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    berth::Berth,
    error::{Result, RuntimeError},
    ground::Ground,
    network::{FIRST_BUILD_SLOT, Mode, Network},
};

/// So long after the last launch, its services have mostly started, and berths are made again.
const QUIET: Duration = Duration::from_millis(30);

/// Berths, made ahead by a thread of its own.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    maker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    ground: Arc<Ground>,
    network: Option<Arc<Network>>,
    block: u32,
    wanted: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    used: BTreeSet<u16>,
    /// The slot given last: slots are taken in turn, so that one that was just left rests.
    last: u16,
    ready: Vec<Berth>,
    closed: bool,
    /// Launches under way.
    launches: usize,
    /// When the last launch ended.
    quiet_from: Option<Instant>,
    /// Set when a berth could not be made: no further one is tried ahead until a launch makes one itself.
    failed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prepare(&self, slot: u16) -> Result<Berth> {
        let berth = Berth::prepare(&self.ground, self.block, slot);
        if berth.is_err() {
            self.state().used.remove(&slot);
        }
        berth
    }

    /// As `prepare`, with a network.
    fn prepare_whole(&self, slot: u16, mode: Mode) -> Result<Berth> {
        let mut berth = self.prepare(slot)?;
        let attached = self.network.as_ref().map_or(Ok(()), |network| berth.attach(network, mode));
        if let Err(error) = attached {
            berth.discard(self.network.as_deref())?;
            self.state().used.remove(&slot);
            return Err(error);
        }
        Ok(berth)
    }

    fn make_ahead(&self) {
        let mut state = self.state();
        while !state.closed {
            if let Some(pause) = state.pause(self.wanted) {
                state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let Ok(slot) = state.reserve() else {
                state.failed = true;
                continue;
            };
            let mode = state.missing_mode(self.wanted);
            drop(state);
            let made = self.prepare_whole(slot, mode);
            state = self.state();
            match made {
                Ok(berth) => state.ready.push(berth),
                Err(error) => {
                    state.failed = true;
                    tracing::warn!(error = &error as &dyn std::error::Error, "could not prepare a place for a server");
                }
            }
        }
    }
}

impl State {
    /// How long to wait before a berth is made ahead; none if one is to be made now.
    fn pause(&self, wanted: usize) -> Option<Duration> {
        if self.failed || self.launches > 0 || self.ready.len() >= wanted {
            return Some(Duration::from_secs(3600));
        }
        let quiet = self.quiet_from.map_or(QUIET, |since| since.elapsed());
        (quiet < QUIET).then(|| QUIET - quiet)
    }

    /// Which network the next berth is for.
    fn missing_mode(&self, wanted: usize) -> Mode {
        let isolated = self.ready.iter().any(|berth| berth.attached == Some(Mode::Isolated));
        if isolated || wanted < 2 { Mode::Fleet } else { Mode::Isolated }
    }

    /// A ready berth in this network, or in none. Leaving a network takes longer than making a berth.
    fn take_ready(&mut self, mode: Mode) -> Option<Berth> {
        let fits = |berth: &Berth| berth.attached.is_none_or(|attached| attached == mode);
        let index = self.ready.iter().position(fits)?;
        Some(self.ready.remove(index))
    }

    fn reserve(&mut self) -> Result<u16> {
        let slots = FIRST_BUILD_SLOT;
        let free = (1..=slots).map(|step| (self.last + step) % slots).find(|slot| !self.used.contains(slot));
        let slot = free.ok_or(RuntimeError::Exhausted("places for servers"))?;
        self.last = slot;
        self.used.insert(slot);
        Ok(slot)
    }
}

impl Pool {
    /// Starts making `wanted` berths ahead. `used` slots have servers.
    pub(crate) fn new(
        ground: Arc<Ground>,
        network: Option<Arc<Network>>,
        block: u32,
        wanted: usize,
        used: BTreeSet<u16>,
    ) -> Self {
        let last = used.last().copied().unwrap_or(FIRST_BUILD_SLOT - 1);
        let state = Mutex::new(State { used, last, ..State::default() });
        let shared = Arc::new(Shared { ground, network, block, wanted, state, changed: Condvar::new() });
        let maker = Arc::clone(&shared);
        let maker = std::thread::Builder::new().name("berths".into()).spawn(move || maker.make_ahead());
        // Without the thread every launch makes its own.
        Self { shared, maker: Mutex::new(maker.ok()) }
    }

    /// A berth: one that is ready for this network, or a new one. Every call is followed by one of [`Pool::launched`].
    pub(crate) fn take(&self, mode: Mode) -> Result<Berth> {
        let mut state = self.shared.state();
        state.failed = false;
        state.launches += 1;
        if let Some(berth) = state.take_ready(mode) {
            return Ok(berth);
        }
        let slot = state.reserve()?;
        drop(state);
        self.shared.prepare(slot)
    }

    /// A launch is over, well or not.
    pub(crate) fn launched(&self) {
        let mut state = self.shared.state();
        state.launches = state.launches.saturating_sub(1);
        state.quiet_from = Some(Instant::now());
        self.shared.changed.notify_all();
    }

    /// Gives a slot back. Nothing of its server may be left.
    pub(crate) fn release(&self, slot: u16) {
        self.shared.state().used.remove(&slot);
        self.shared.changed.notify_all();
    }

    /// How many berths are ready.
    pub(crate) fn ready(&self) -> usize {
        self.shared.state().ready.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Pool {
    /// Ends the thread and removes the berths that are ready. A second time there is nothing to do.
    pub(crate) fn close(&self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_all();
        let maker = self.maker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(maker) = maker
            && maker.join().is_err()
        {
            tracing::warn!("the thread that prepares places for servers had failed");
        }
        for berth in std::mem::take(&mut self.shared.state().ready) {
            if let Err(error) = berth.discard(self.shared.network.as_deref()) {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not remove a prepared place");
            }
        }
    }
}
