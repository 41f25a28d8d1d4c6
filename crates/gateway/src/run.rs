//! The life of a gateway process.
//!
//! ```text
//! lock gateway.lock (one starter at a time)
//!   somebody answers on gateway.sock → hand_over: its table and sockets
//!   nobody does                      → gateway.json, and sockets given at start or opened
//! serve; put our control socket under the name gateway.sock
//! tell the one before to retire; it accepts until then, so there is no moment at which nobody does
//! unlock; serve until `retire` or `stop` or SIGTERM; then finish what is in flight
//! ```

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::FlockOperation;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use crate::{
    client, control,
    gateway::{Gateway, Stage},
    inherit,
    options::GatewayOptions,
    ports::Sockets,
    proto::{Refusal, Reply, Request},
    store::{self, Kept},
};

/// A starter waits so long for another to finish its start.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
/// The one before has this long for each step of the hand-over.
const STEP_PATIENCE: Duration = Duration::from_secs(5);
const TIDY: Duration = Duration::from_secs(1);

/// Why a gateway could not be started or go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The state directory, the lock or the control socket.
    #[error("cannot use the state directory {}", .path.display())]
    StateDir {
        /// The path in question.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process has been starting for too long.
    #[error("another gateway is starting in {}", .0.display())]
    Starting(PathBuf),
    /// Threads, runtimes, signals.
    #[error("cannot start the gateway's workers")]
    Workers(#[source] io::Error),
    /// The sockets given at start.
    #[error("cannot take the listening sockets from standard input")]
    Inherit(#[source] io::Error),
    /// The table kept on disk cannot be served.
    #[error("cannot serve the kept table")]
    Restore(#[source] Refusal),
}

/// Serves until told to stop, and returns when everything in flight has finished. Blocks; must not be called on a
/// thread that belongs to a tokio runtime.
pub fn run(options: GatewayOptions) -> Result<(), GatewayError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(GatewayError::Workers)?;
    let served = runtime.block_on(serve(options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(mut options: GatewayOptions) -> Result<(), GatewayError> {
    options.limits.connections = options.limits.connections.min(possible_connections());
    let dir = options.state_dir.clone();
    let broken = |source| GatewayError::StateDir { path: dir.clone(), source };
    let lock = lock(&dir).await?;
    let gateway = Gateway::new(&options).map_err(GatewayError::Workers)?;
    let inherited = if options.inherit { inherit::take().map_err(GatewayError::Inherit)? } else { Sockets::new() };
    let (before, kept, sockets) = match Predecessor::find(&dir).await {
        Some((before, kept, sockets)) => (Some(before), kept, sockets),
        None => (None, store::load(&dir).map_err(broken)?, inherited),
    };
    gateway.restore(kept, sockets).map_err(GatewayError::Restore)?;
    let (own, link) = control::open(&dir, &control::link_name(std::process::id())).map_err(broken)?;
    let _link = Removed(link);
    let (shared, _) = control::open(&dir, control::SOCKET).map_err(broken)?;
    if let Some(before) = before {
        before.retire().await;
    }
    gateway.set_before(control::others(&dir).await);
    drop(lock);
    live(gateway, own, shared).await.map_err(GatewayError::Workers)
}

/// Takes as many descriptors as the system gives, and says how many client connections they are enough for: two each,
/// and some for everything else.
fn possible_connections() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let descriptors = current.map_or(usize::MAX, |number| usize::try_from(number).unwrap_or(usize::MAX));
    (descriptors.saturating_sub(256) / 2).max(16)
}

/// A file that goes when the process does.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "could not be removed");
        }
    }
}

async fn lock(dir: &Path) -> Result<File, GatewayError> {
    let path = dir.join("gateway.lock");
    let broken = |source| GatewayError::StateDir { path: path.clone(), source };
    fs::create_dir_all(dir).map_err(broken)?;
    let file = File::options().create(true).append(true).open(&path).map_err(broken)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(GatewayError::Starting(dir.to_owned())),
            Err(errno) => return Err(broken(errno.into())),
        }
    }
}

/// The gateway that serves now, which gave its sockets and accepts until it is told to retire.
struct Predecessor(UnixStream);

impl Predecessor {
    async fn find(dir: &Path) -> Option<(Self, Kept, Sockets)> {
        let socket = dir.join(control::SOCKET);
        let found = tokio::task::spawn_blocking(move || Self::ask(&socket)).await.map_err(io::Error::other);
        match found.and_then(|answer| answer) {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::debug!(%error, "nobody hands over");
                None
            }
        }
    }

    fn ask(socket: &Path) -> io::Result<(Self, Kept, Sockets)> {
        let stream = UnixStream::connect(socket)?;
        send(&stream, &Request::HandOver {})?;
        let (kept, listeners) = client::receive_sockets_from(&stream)?;
        Ok((Self(stream), kept, inherit::by_port(listeners.0)?))
    }

    /// Tells it that we accept.
    async fn retire(self) {
        let stream = self.0;
        let told = tokio::task::spawn_blocking(move || {
            send(&stream, &Request::Retire {})?;
            crate::fds::receive_line(&stream, 4_096, |line| Ok((0, serde_json::from_slice::<Reply>(line)?)))
        });
        if let Err(error) = told.await.map_err(io::Error::other).and_then(|answer| answer) {
            tracing::warn!(%error, "the gateway before this one ended in the middle of the hand-over");
        }
    }
}

fn send(mut stream: &UnixStream, request: &Request) -> io::Result<()> {
    stream.set_write_timeout(Some(STEP_PATIENCE))?;
    stream.set_read_timeout(Some(STEP_PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Serves, then finishes.
async fn live(gateway: Arc<Gateway>, own: UnixListener, shared: UnixListener) -> io::Result<()> {
    let own = tokio::spawn(control::serve(gateway.clone(), own));
    let shared = tokio::spawn(control::serve(gateway.clone(), shared));
    let tidy = tokio::spawn(tidy(gateway.clone()));
    let mut stage = gateway.stage.subscribe();
    // Who closes a terminal does not mean the traffic.
    let _hangup = signal(SignalKind::hangup())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = stage.wait_for(|stage| *stage != Stage::Serving) => {}
        _ = terminate.recv() => gateway.stop().await,
        _ = interrupt.recv() => gateway.stop().await,
    }
    // Who asks under the shared name is to reach the successor, or nobody.
    shared.abort();
    if gateway.stage() == Stage::Stopping {
        remove_socket(&gateway.state_dir);
    }
    tokio::select! {
        () = finish(&gateway) => {}
        _ = terminate.recv() => tracing::info!("cut what was in flight"),
        _ = interrupt.recv() => tracing::info!("cut what was in flight"),
    }
    own.abort();
    tidy.abort();
    Ok(())
}

/// Removes the shared name, unless somebody is starting and about to take it.
fn remove_socket(dir: &Path) {
    let locked = File::open(dir.join("gateway.lock"))
        .and_then(|file| Ok(rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map(|()| file)?));
    match locked {
        Ok(_lock) => drop(Removed(dir.join(control::SOCKET))),
        Err(error) => tracing::debug!(%error, "the control socket stays"),
    }
}

async fn tidy(gateway: Arc<Gateway>) {
    loop {
        tokio::time::sleep(TIDY).await;
        gateway.tidy();
        gateway.look_before().await;
    }
}

/// Waits until nobody is connected; when stopping, within the limit.
async fn finish(gateway: &Gateway) {
    let mut deadline = None;
    while !control::is_finished(gateway) {
        if gateway.stage() == Stage::Stopping {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + gateway.workers.limits.stop_limit);
            if Instant::now() >= deadline {
                return tracing::info!(connections = gateway.workers.connections(), "cut what was in flight");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
