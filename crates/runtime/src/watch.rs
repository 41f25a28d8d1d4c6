//! Sees servers die: one thread over the descriptors of all their PID 1s.

use std::{
    collections::HashMap,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use kiln_model::ServerId;
use kiln_sys::pidfd;
use rustix::event::{EventfdFlags, epoll};

use crate::error::{OnFile as _, Result};

/// Called with a server that has changed. A hint: the truth is asked from the runtime.
pub type OnChange = Arc<dyn Fn(&ServerId) + Send + Sync>;

/// The number that stands for the end of the watch.
const CLOSE: u64 = 0;

/// The watch over all servers.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    epoll: OwnedFd,
    close: OwnedFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    watched: HashMap<u64, (ServerId, OwnedFd)>,
    listeners: Vec<OnChange>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).on("watch", "servers")?;
        let close = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).on("watch", "servers")?;
        epoll::add(&epoll, &close, epoll::EventData::new_u64(CLOSE), epoll::EventFlags::IN).on("watch", "servers")?;
        let shared = Arc::new(Shared { epoll, close, state: Mutex::new(State { next: 1, ..State::default() }) });
        let watcher = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("servers".into()).spawn(move || watcher.run());
        Ok(Self { shared, thread: Some(thread.on("watch", "servers")?) })
    }

    /// Watches a server's PID 1.
    pub(crate) fn add(&self, server: &ServerId, process: &OwnedFd) -> Result<()> {
        let process = process.try_clone().on("watch", server.as_str())?;
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.next;
        state.next += 1;
        epoll::add(
            &self.shared.epoll,
            &process,
            epoll::EventData::new_u64(number),
            epoll::EventFlags::IN | epoll::EventFlags::ONESHOT,
        )
        .on("watch", server.as_str())?;
        state.watched.insert(number, (server.clone(), process));
        Ok(())
    }

    pub(crate) fn listen(&self, listener: OnChange) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).listeners.push(listener);
    }

    /// Tells all listeners.
    pub(crate) fn tell(&self, server: &ServerId) {
        self.shared.tell(server);
    }
}

impl Shared {
    fn run(&self) {
        let mut buffer: Vec<epoll::Event> = Vec::with_capacity(64);
        loop {
            buffer.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut buffer), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the watch over servers has failed");
                    return;
                }
            }
            for event in &buffer {
                match event.data.u64() {
                    CLOSE => return,
                    number => self.ended(number),
                }
            }
        }
    }

    /// Takes the process's end, so that it does not stay as a zombie, and tells.
    fn ended(&self, number: u64) {
        let watched = self.state.lock().unwrap_or_else(PoisonError::into_inner).watched.remove(&number);
        let Some((server, process)) = watched else { return };
        if let Err(error) = pidfd::reap(process.as_fd()) {
            tracing::warn!(error = &error as &dyn std::error::Error, %server, "could not take a server's end");
        }
        self.tell(&server);
    }

    fn tell(&self, server: &ServerId) {
        let listeners = self.state.lock().unwrap_or_else(PoisonError::into_inner).listeners.clone();
        listeners.iter().for_each(|listener| listener(server));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Err(error) = rustix::io::write(&self.shared.close, &1_u64.to_ne_bytes()) {
            tracing::warn!(%error, "could not end the watch over servers");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the watch over servers had failed");
        }
    }
}
