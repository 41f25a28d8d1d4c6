//! One server on this host: plan, launch, adopt, destroy.
//!
//! [`Runtime`] keeps the servers of one state directory. A launch takes a prepared place ([`berth`]), makes a plan
//! ([`plan`]) and hands it to PID 1, which shapes the server ([`isolation`]) and starts its services. Servers do not need
//! the process that launched them: a later [`Runtime`] finds them again by their records ([`record`]).
//!
//! Nothing of a server is left on the host's mount table, and no helper process stands beside one.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kiln_boot::control::{Exec, ServiceState};
use kiln_model::{
    Digest, GroupName, ImageDigest, ServerId, VerifiedRelease,
    config::Secrets,
    loss::{Bounds, Place, Written},
    shared::SharedDirectory,
};

mod ahead;
pub mod berth;
mod control;
mod error;
mod facts;
mod fresh;
mod ground;
mod inside;
pub mod isolation;
mod launch;
pub mod network;
mod open;
pub mod plan;
mod pool;
pub mod record;
pub mod sandbox;
mod seed;
mod server;
mod shared;
mod times;
pub mod values;
mod volume;
mod volumes;
mod watch;
mod written;

pub use error::{BoxError, Result, RuntimeError};
pub use facts::{Interface, Socket};
pub use inside::{FileStatus, Output, Process, Session, open_session};
pub use kiln_boot::control as protocol;
pub use launch::{LaunchStep, Probe, Request};
pub use server::{Phase, Stopped};
pub use shared::{SharedError, look as look_at_shared};
pub use times::Times;
pub use volume::{Inside, Seen as VolumeSeen, VolumeError};
pub use volumes::VolumesOf;
pub use watch::OnChange;

use error::OnFile as _;
use record::{Files, Record};
use server::Server;

/// Gives the roots of images.
pub trait RootProvider: Send + Sync {
    /// A detached, read-only mount of the image's root, its owners shifted by the user namespace.
    fn root(&self, image: &ImageDigest, users: BorrowedFd<'_>) -> std::result::Result<OwnedFd, BoxError>;
}

/// How to open a runtime.
#[derive(Clone)]
pub struct RuntimeOptions {
    /// What lasts: spools.
    pub state_dir: PathBuf,
    /// What a reboot may take: records and sockets. Its path is short, as paths of sockets are.
    pub run_dir: PathBuf,
    /// Eight hexadecimal digits that tell this state directory from others on the host.
    pub id: String,
    /// The network of the servers; none leaves them with a loopback interface only.
    pub network: Option<network::NetworkOptions>,
    /// So many places are kept ready for launches.
    pub berths: usize,
    /// Each of a server's two spool files is at most this many bytes.
    pub spool_bytes: u64,
    /// Told of the steps of launches.
    pub probe: Option<Probe>,
}

impl RuntimeOptions {
    /// The usual options for a state directory, which must exist.
    pub fn for_state(state_dir: &Path) -> Result<Self> {
        let state_dir = state_dir.canonicalize().on("find", state_dir)?;
        let id = Digest::of(state_dir.as_os_str().as_encoded_bytes()).hex()[..8].to_owned();
        let shared_dir = PathBuf::from("/run/kiln");
        let run_dir = shared_dir.join(&id);
        let network = network::NetworkOptions {
            id: id.clone(),
            run_dir: run_dir.clone(),
            shared_dir,
            subnet: None,
            offered_ports: Vec::new(),
        };
        let network = Some(network);
        Ok(Self { state_dir, run_dir, id, network, berths: 4, spool_bytes: 8 << 20, probe: None })
    }
}

/// What is seen of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// What it was launched as.
    pub record: Record,
    /// Where it is in its life.
    pub phase: Phase,
}

/// A server, found by its address.
#[derive(Debug, Clone)]
pub struct Resident {
    /// What it was launched as.
    pub record: Record,
    /// The secrets it was launched with; none if an earlier process launched it.
    pub secrets: Option<Arc<Secrets>>,
}

/// The servers of one state directory on this host.
#[derive(Debug)]
pub struct Runtime {
    inner: Inner,
}

pub(crate) struct Inner {
    options: RuntimeOptions,
    block: u32,
    resolvers: Vec<String>,
    roots: Arc<dyn RootProvider>,
    servers: Mutex<BTreeMap<ServerId, Arc<Server>>>,
    /// One lock per server: launches and destructions of one server do not meet.
    locks: Mutex<BTreeMap<ServerId, Arc<Mutex<()>>>>,
    watch: watch::Watch,
    volumes: volume::Volumes,
    shared: shared::SharedDirectories,
    /// Servers that are made up to the point where their services start.
    staged: Mutex<BTreeMap<ServerId, launch::Staged>>,
    /// Before the network: prepared places end first.
    pool: pool::Pool,
    network: Option<Arc<network::Network>>,
    ground: Arc<ground::Ground>,
    /// Held while this runtime is open.
    _lock: File,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("run_dir", &self.options.run_dir).finish_non_exhaustive()
    }
}

impl Inner {
    fn reached(&self, step: LaunchStep) {
        if let Some(probe) = &self.options.probe {
            probe(step);
        }
    }

    fn detach(&self, slot: u16) -> Result<()> {
        if let Some(network) = &self.network {
            network.detach(slot)?;
        }
        Ok(())
    }

    fn servers(&self) -> MutexGuard<'_, BTreeMap<ServerId, Arc<Server>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, server: &ServerId) -> Result<Arc<Server>> {
        self.servers().get(server).cloned().ok_or_else(|| RuntimeError::Unknown(server.clone()))
    }

    fn files_of(&self, server: &ServerId) -> Files {
        Files::new(&self.options.run_dir, &self.options.state_dir, server)
    }

    fn lock_of(&self, server: &ServerId) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks that nobody holds or waits for are let go of.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(server.clone()).or_default())
    }

    fn destroy(&self, server: &Server) -> Result<()> {
        if let Some(process) = server.process() {
            berth::end(std::os::fd::AsFd::as_fd(process), &server.group)?;
        }
        self.wait_until_released(&server.record)?;
        launch::sweep(self, server.record.slot, &server.files)?;
        self.servers().remove(&server.record.server);
        self.pool.release(server.record.slot);
        Ok(())
    }
}

impl Runtime {
    /// Opens the runtime of a state directory: adopts the servers that run, and removes what a crash has left.
    pub fn open(options: RuntimeOptions, roots: Arc<dyn RootProvider>) -> Result<Self> {
        let runtime = open::open(options, roots).map(|inner| Self { inner })?;
        runtime.volumes().thaw_left();
        Ok(runtime)
    }

    /// Launches a server and returns when its services are started. A repeated call answers with the same server; one
    /// with a newer generation replaces it.
    pub fn launch(&self, release: &VerifiedRelease, request: &Request) -> Result<Observed> {
        let lock = self.inner.lock_of(&request.server);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let existing = self.inner.servers().get(&request.server).cloned();
        if let Some(existing) = existing {
            check_generation(&existing, request.generation)?;
            if existing.record.generation != request.generation {
                self.inner.destroy(&existing)?;
            } else if existing.ahead.is_none() {
                return see(&existing);
            } else if let Some(server) = ahead::take(&self.inner, &existing, release, request)? {
                return Ok(self.serve(request, server));
            }
        }
        let server = launch::launch(&self.inner, release, request)?;
        Ok(self.serve(request, server))
    }

    fn serve(&self, request: &Request, server: Server) -> Observed {
        let server = Arc::new(server);
        self.inner.servers().insert(request.server.clone(), Arc::clone(&server));
        self.inner.watch.tell(&request.server);
        Observed { record: server.record.clone(), phase: Phase::Running }
    }

    /// Every server that exists on this host, running or not.
    pub fn observe(&self) -> Result<Vec<Observed>> {
        let mut seen = self.inner.see_staged(|_| true)?;
        let servers: Vec<_> = self.inner.servers().values().cloned().collect();
        for server in servers {
            seen.push(see(&server)?);
        }
        Ok(seen)
    }

    /// Makes a server up to the point where its services start, without its volumes; [`Self::launch`] goes on from there, if nothing
    /// happened to it meanwhile. It ends when this process does. A repeated call is a success.
    pub fn stage(&self, release: &VerifiedRelease, request: &Request) -> Result<Observed> {
        let lock = self.inner.lock_of(&request.server);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let staged = match self.inner.take_staged(&request.server, request.generation)? {
            Some(staged) => staged,
            None => launch::stage(&self.inner, release, request)?,
        };
        let seen = staged.observed();
        self.inner.keep_staged(staged);
        self.inner.watch.tell(&request.server);
        seen
    }

    /// Processor time that the servers of a group have used since their launch; of those that serve, and whose control group tells it.
    pub fn processor_time(&self, group: &GroupName) -> Vec<(ServerId, Duration)> {
        let servers: Vec<_> = self.inner.servers().values().cloned().collect();
        let serves = |server: &&Arc<Server>| server.ahead.is_none() && server.record.group.as_ref() == Some(group);
        let ours = servers.iter().filter(serves);
        ours.filter_map(|server| Some((server.record.server.clone(), server.group.processor_time()?))).collect()
    }

    /// Those of these servers that exist on this host.
    pub fn observe_some(&self, wanted: &BTreeSet<ServerId>) -> Result<Vec<Observed>> {
        let servers: Vec<_> = {
            let servers = self.inner.servers();
            wanted.iter().filter_map(|server| servers.get(server).cloned()).collect()
        };
        let mut seen = self.inner.see_staged(|server| wanted.contains(server))?;
        for server in servers {
            seen.push(see(&server)?);
        }
        Ok(seen)
    }

    /// The server at an address of the network, running or just ended.
    pub fn at(&self, address: Ipv4Addr) -> Option<Resident> {
        let slot = self.inner.network.as_ref()?.subnet().slot(address)?;
        let servers = self.inner.servers();
        let server = servers.values().find(|server| server.record.slot == slot)?;
        Some(Resident { record: server.record.clone(), secrets: server.secrets.clone() })
    }

    /// Which server and launch of it are at an address: what [`Self::at`] answers, without copies.
    pub fn who_is_at(&self, address: Ipv4Addr) -> Option<(ServerId, u64)> {
        let slot = self.inner.network.as_ref()?.subnet().slot(address)?;
        let servers = self.inner.servers();
        let server = servers.values().find(|server| server.record.slot == slot)?;
        Some((server.record.server.clone(), server.record.generation))
    }

    /// Asks PID 1 to stop all services, and waits at most `limit`; then kills.
    pub fn stop(&self, server: &ServerId, generation: u64, limit: Duration) -> Result<Stopped> {
        let server = match self.inner.find(server) {
            Err(RuntimeError::Unknown(_)) => return Ok(Stopped::AlreadyGone),
            other => other?,
        };
        check_generation(&server, generation)?;
        let stopped = server.stop(limit)?;
        self.inner.wait_until_released(&server.record)?;
        self.inner.watch.tell(&server.record.server);
        Ok(stopped)
    }

    /// Kills PID 1 as a crash of the host's would: nobody is asked, and what is left waits for [`Self::destroy`]. One that does
    /// not run is a success.
    pub fn kill(&self, server: &ServerId, generation: u64) -> Result<()> {
        let server = self.inner.find(server)?;
        check_generation(&server, generation)?;
        server.kill()
    }

    /// Removes a server and all it used, running or not. One that does not exist is a success.
    pub fn destroy(&self, server: &ServerId, generation: u64) -> Result<()> {
        let lock = self.inner.lock_of(server);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(staged) = self.inner.take_staged(server, generation)? {
            staged.discard(&self.inner)?;
        }
        let existing = self.inner.servers().get(server).cloned();
        // After a restart of the host nothing knows a server but its spool.
        let Some(existing) = existing else { return self.inner.files_of(server).remove() };
        check_generation(&existing, generation)?;
        self.inner.destroy(&existing)?;
        self.inner.watch.tell(server);
        Ok(())
    }

    /// What PID 1 of a server that runs says of its services.
    pub fn services(&self, server: &ServerId) -> Result<Vec<ServiceState>> {
        self.inner.find(server)?.services()
    }

    /// Runs a command inside to its end, at most `limit`; keeps at most `max_bytes` of each output.
    pub fn exec(&self, server: &ServerId, exec: Exec, limit: Duration, max_bytes: usize) -> Result<Output> {
        let server = self.inner.find(server)?;
        inside::run(&server, berth::map(self.inner.block, server.record.slot).base, exec, limit, max_bytes)
    }

    /// Starts a command inside with these standard input, output and error, or, without them, with a terminal of its own
    /// (then `exec.terminal` must be set).
    pub fn exec_interactive(
        &self,
        server: &ServerId,
        exec: Exec,
        stdio: Option<[BorrowedFd<'_>; 3]>,
    ) -> Result<Session> {
        inside::start(&*self.inner.find(server)?, exec, stdio)
    }

    /// Status of a path inside, links followed; none if absent.
    pub fn stat(&self, server: &ServerId, path: &str) -> Result<Option<FileStatus>> {
        let server = self.inner.find(server)?;
        inside::stat(&server, launch::first_id(&self.inner, server.record.slot), path)
    }

    /// The first `max_bytes` of a regular file inside; none if absent.
    pub fn read(&self, server: &ServerId, path: &str, max_bytes: usize) -> Result<Option<Vec<u8>>> {
        inside::read(&*self.inner.find(server)?, path, max_bytes)
    }

    /// Status of a path inside and what a link at its end says, which is not followed; none if absent.
    pub fn link(&self, server: &ServerId, path: &str) -> Result<Option<(FileStatus, Option<String>)>> {
        let server = self.inner.find(server)?;
        facts::link(&server, launch::first_id(&self.inner, server.record.slot), path)
    }

    /// How many hundredths of the blocks of the file system at a path inside are used; none if absent.
    pub fn usage(&self, server: &ServerId, path: &str) -> Result<Option<u32>> {
        facts::usage(&*self.inner.find(server)?, path)
    }

    /// A kernel parameter as it is seen inside; none if there is no such one.
    pub fn kernel_parameter(&self, server: &ServerId, name: &str) -> Result<Option<String>> {
        facts::kernel_parameter(&*self.inner.find(server)?, name)
    }

    /// All network interfaces inside.
    pub fn interfaces(&self, server: &ServerId) -> Result<Vec<Interface>> {
        facts::interfaces(&*self.inner.find(server)?)
    }

    /// A socket of the server's network for an address of this family.
    pub fn socket(&self, server: &ServerId, family: IpAddr, kind: Socket) -> Result<OwnedFd> {
        facts::socket(&*self.inner.find(server)?, family, kind)
    }

    /// All processes inside.
    pub fn processes(&self, server: &ServerId) -> Result<Vec<Process>> {
        let server = self.inner.find(server)?;
        inside::processes(&server, launch::first_id(&self.inner, server.record.slot))
    }

    /// Where TCP is listened to inside.
    pub fn listening(&self, server: &ServerId) -> Result<Vec<SocketAddr>> {
        inside::listening(&*self.inner.find(server)?)
    }

    /// What it wrote into these places, as far as the bounds reach. A place that is not there is left out.
    pub fn written(&self, server: &ServerId, places: &[Place], bounds: Bounds) -> Result<Vec<Written>> {
        written::written(&self.inner, &*self.inner.find(server)?, places, bounds)
    }

    /// TCP connections inside to or from elsewhere, as far as somebody looked.
    pub fn connections(&self, server: &ServerId) -> Result<u64> {
        inside::connections(&*self.inner.find(server)?)
    }

    /// Where a server's files are on this host, if there is such a server.
    pub fn files(&self, server: &ServerId) -> Option<Files> {
        self.inner.find(server).ok().map(|server| server.files.clone())
    }

    /// The two files of a server's log, while they are there: they may outlive everything else of it.
    pub fn spool(&self, server: &ServerId) -> Option<[std::path::PathBuf; 2]> {
        Some(self.inner.files_of(server).spool()).filter(|paths| paths[0].exists())
    }

    /// Calls `listener` whenever a server was launched, has ended or was removed.
    pub fn on_change(&self, listener: OnChange) {
        self.inner.watch.listen(listener);
    }

    /// How many places are ready for launches.
    pub fn berths_ready(&self) -> usize {
        self.inner.pool.ready()
    }

    /// The slots of servers.
    pub fn slots(&self) -> BTreeSet<u16> {
        self.inner.servers().values().map(|server| server.record.slot).collect()
    }

    /// The network, where servers have one.
    pub fn network(&self) -> Option<&network::Network> {
        self.inner.network.as_deref()
    }

    /// The volumes of this host.
    pub fn volumes(&self) -> volumes::VolumesOf<'_> {
        volumes::VolumesOf(&self.inner)
    }

    /// Whether servers can be given what a fleet binds a shared directory to, and if not, why.
    pub fn check_shared(&self, directory: &SharedDirectory) -> Result<()> {
        Ok(self.inner.shared.check(directory)?)
    }

    /// Removes every server and everything that was made on this host. Nothing can be launched afterwards.
    pub fn purge(&self) -> Result<()> {
        let servers: Vec<_> = self.inner.servers().values().cloned().collect();
        self.inner.discard_ahead()?;
        servers.iter().try_for_each(|server| self.inner.destroy(server))?;
        self.inner.volumes.close();
        open::remove_everything(&self.inner)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Err(error) = self.inner.discard_ahead() {
            tracing::warn!(error = &error as &dyn std::error::Error, "could not remove a server that was made ahead");
        }
    }
}

fn check_generation(server: &Server, asked: u64) -> Result<()> {
    let known = server.record.generation;
    if asked < known {
        return Err(RuntimeError::Stale { server: server.record.server.clone(), asked, known });
    }
    Ok(())
}

fn see(server: &Server) -> Result<Observed> {
    Ok(Observed { record: server.record.clone(), phase: server.phase()? })
}
