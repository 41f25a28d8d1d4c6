//! Where servers run: the contract every engine keeps.
//!
//! An engine is told what should exist and may be asked again after any answer was lost: every call is idempotent by
//! (server id, generation). `observe` always returns the full set of what is ours. Engines store no state of their own
//! beyond what they need to find their servers again.
#![forbid(unsafe_code)]

pub mod local;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use kiln_model::{
    ByteSize, GroupName, ImageDigest, ImageManifest, ReleaseId, ServerId, ServiceName, VerifiedRelease, VolumeId,
    config::Secrets,
    fleet::Limits,
    id::SnapshotName,
    loss::{Bounds, Place, Written},
    shared::{self, SharedDirectory},
    volume::{Attachment, Filesystem, SnapshotId},
};

pub use kiln_runtime::Times;

/// Counts the launches of one server id; a request with an older one is refused.
pub type Generation = u64;

/// What a server is launched with, beside its release.
#[derive(Debug, Clone)]
pub struct LaunchSpec {
    /// The server.
    pub server: ServerId,
    /// Counts up; an older one is refused.
    pub generation: Generation,
    /// The server's group; none for a test server.
    pub group: Option<GroupName>,
    /// Its slot in the group, where that has volumes.
    pub slot: Option<u32>,
    /// The image's services and writable paths.
    pub manifest: Arc<ImageManifest>,
    /// Limits of the server.
    pub limits: Limits,
    /// The secrets of its configuration.
    pub secrets: Arc<Secrets>,
    /// The volumes it is given, one for each that its image needs.
    pub volumes: Vec<Attachment>,
    /// The shared directories it is given, one for each that its image needs.
    pub shared: Vec<shared::Attachment>,
    /// Where it is noted when which step of the launch was done.
    pub times: Times,
}

/// Where a server is in its life, as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Asked for; not running yet (clouds take their time), or staged.
    Pending,
    /// PID 1 runs.
    Running,
    /// Asked to stop.
    Stopping,
    /// PID 1 is gone; what remains waits for `destroy`.
    Exited {
        /// What is known of the end.
        reason: String,
        /// Whether it was killed from outside, which says nothing about its release.
        killed: bool,
    },
}

/// State of one service, as PID 1 reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStatus {
    /// The service.
    pub name: ServiceName,
    /// Whether its process runs, or (for a task) has ended well.
    pub up: bool,
    /// How often it was started.
    pub starts: u32,
    /// How it last ended, if it did.
    pub last_exit: Option<String>,
}

/// What an engine sees of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The server.
    pub server: ServerId,
    /// Its generation.
    pub generation: Generation,
    /// Its release.
    pub release: ReleaseId,
    /// Its image.
    pub image: ImageDigest,
    /// Its group; none for a test server.
    pub group: Option<GroupName>,
    /// Where it is in its life.
    pub phase: Phase,
    /// Where its ports can be reached from the gateway.
    pub address: Option<Ipv4Addr>,
    /// PID 1 on this host, where there is one.
    pub pid: Option<u32>,
    /// When it was launched, Unix milliseconds.
    pub started_at_ms: i64,
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopOutcome {
    /// All services ended within their grace.
    Clean,
    /// Something had to be killed.
    Killed,
    /// It was not running.
    AlreadyGone,
}

/// Why an engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A newer generation of this server is known.
    #[error("server {server} has generation {known}, which is newer than {asked}")]
    Stale {
        /// The server.
        server: ServerId,
        /// The generation asked for.
        asked: Generation,
        /// The generation known.
        known: Generation,
    },
    /// No such server.
    #[error("there is no server {server}")]
    Unknown {
        /// The server asked for.
        server: ServerId,
    },
    /// The image is not here.
    #[error("image {image} is not in this host's store")]
    NoImage {
        /// The image asked for.
        image: ImageDigest,
    },
    /// A resource of the host is used up (addresses, processes, memory, disk).
    #[error("the host has no {resource} left")]
    Exhausted {
        /// What is used up.
        resource: &'static str,
    },
    /// The engine lacks this ability.
    #[error("this engine cannot {ability}")]
    Unsupported {
        /// What was asked.
        ability: &'static str,
    },
    /// An operation failed.
    #[error("could not {action}")]
    Failed {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Wakes a reconciler early. Carries no truth: whoever is woken calls `observe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Something about this server changed.
    Server(ServerId),
}

/// Where servers run.
#[async_trait::async_trait]
pub trait Engine: Send + Sync + 'static {
    /// `local`, `incus`, …
    fn name(&self) -> &'static str;
    /// Brings an image to where servers start from it. Idempotent.
    async fn prepare(&self, image: ImageDigest) -> Result<(), EngineError>;
    /// Starts a server of a verified release and returns when PID 1 runs. A repeated call returns the same server. A
    /// test server ([`kiln_model::trust::Purpose::Test`]) is kept on an isolated network.
    async fn launch(&self, release: &VerifiedRelease, spec: &LaunchSpec) -> Result<Observed, EngineError>;
    /// How many servers that start at once it makes the best of.
    fn starts_at_once(&self) -> usize;
    /// Everything of ours that exists, always the full set.
    async fn observe(&self) -> Result<Vec<Observed>, EngineError>;
    /// Those of these servers that exist: what [`Self::observe`] says of them, for whoever need not see all.
    async fn observe_some(&self, servers: &BTreeSet<ServerId>) -> Result<Vec<Observed>, EngineError> {
        let mut seen = self.observe().await?;
        seen.retain(|seen| servers.contains(&seen.server));
        Ok(seen)
    }
    /// Asks PID 1 to stop all services, each within its grace, and returns when it is gone; kills at `limit`.
    async fn stop(
        &self,
        server: &ServerId,
        generation: Generation,
        limit: Duration,
    ) -> Result<StopOutcome, EngineError>;
    /// Removes the server and all it used, running or not. Idempotent: an unknown server is a success.
    async fn destroy(&self, server: &ServerId, generation: Generation) -> Result<(), EngineError>;
    /// Lets go of an image that no server uses. Idempotent.
    async fn forget(&self, image: ImageDigest) -> Result<(), EngineError>;
    /// Hints about changes.
    fn hints(&self) -> tokio::sync::broadcast::Receiver<Hint>;
    /// The ability to make servers ahead.
    fn staging(&self) -> Option<&dyn Staging> {
        None
    }
    /// The ability to hold servers that are ready.
    fn holding(&self) -> Option<&dyn Holding> {
        None
    }
    /// The ability to keep data that outlives servers.
    fn volumes(&self) -> Option<&dyn Volumes> {
        None
    }
    /// The ability to give servers directories that others see too.
    fn shared(&self) -> Option<&dyn SharedDirectories> {
        None
    }
    /// The ability to tell what servers use of the host.
    fn meters(&self) -> Option<&dyn Meters> {
        None
    }
    /// The ability to end a server as a crash of it would.
    fn killing(&self) -> Option<&dyn Killing> {
        None
    }
    /// The ability to look and act inside a server, through its PID 1.
    fn inside(&self) -> Option<&dyn Inside> {
        None
    }
    /// The ability to see what a program inside would see, without one.
    fn facts(&self) -> Option<&dyn Facts> {
        None
    }
}

/// What there is of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedVolume {
    /// The volume.
    pub volume: VolumeId,
    /// Its size.
    pub size: ByteSize,
    /// What it takes, as far as that is known; shared content is counted in full.
    pub used: ByteSize,
    /// Its file system.
    pub filesystem: Filesystem,
    /// The number of its latest attachment.
    pub fence: Generation,
    /// Its snapshots.
    pub snapshots: Vec<SnapshotName>,
}

/// Making servers ahead. Optional ability of an engine.
///
/// What is staged has everything of a server but its volumes and its services, which have never run. `observe` shows it as
/// [`Phase::Pending`], and as [`Phase::Exited`] once it has ended. It may be lost with the process that asked for it.
#[async_trait::async_trait]
pub trait Staging: Send + Sync {
    /// Makes a server up to the point where its services start; `launch` goes on from there, if the release is the same and
    /// nothing was written into it meanwhile, and makes another in its place otherwise. `destroy` removes it. Idempotent.
    async fn stage(&self, release: &VerifiedRelease, spec: &LaunchSpec) -> Result<Observed, EngineError>;
}

/// Holding servers that are ready and serve nobody yet. Optional ability of an engine, beside [`Staging`].
///
/// Such a server has no volumes. It is made and started, is watched until it is ready, and is frozen then; `launch` lets it go on. It may
/// be lost with the process that asked for it, and is never found as a server that runs by one that comes after.
#[async_trait::async_trait]
pub trait Holding: Send + Sync {
    /// Makes a server and starts its services, of which `launch` knows nothing yet. `observe` shows it as [`Phase::Running`].
    /// Idempotent.
    async fn warm(&self, release: &VerifiedRelease, spec: &LaunchSpec) -> Result<Observed, EngineError>;
    /// Lets it stand still, with all it has. `launch` lets it go on, if the release is the same and nothing happened to it meanwhile,
    /// and makes another in its place otherwise. `stop` and `destroy` end it. Idempotent.
    async fn freeze(&self, server: &ServerId, generation: Generation) -> Result<(), EngineError>;
}

/// Keeping data that outlives servers. Optional ability of an engine.
///
/// Servers get their volumes when they are launched ([`LaunchSpec::volumes`]), each with a *fence*: a number that grows with every
/// attachment of the volume. An engine refuses an older number, and takes the volume from whoever has it with an older one,
/// without that one's help. Every call is idempotent.
#[async_trait::async_trait]
pub trait Volumes: Send + Sync {
    /// Makes an empty volume.
    async fn create(&self, volume: &VolumeId, size: ByteSize, filesystem: Filesystem) -> Result<(), EngineError>;
    /// Takes a snapshot in which nothing is half-written, also while a server has the volume.
    async fn snapshot(&self, snapshot: &SnapshotId) -> Result<(), EngineError>;
    /// Makes a volume that begins with what a snapshot has.
    async fn clone_of(&self, from: &SnapshotId, volume: &VolumeId) -> Result<(), EngineError>;
    /// Makes a volume larger, also while a server has it.
    async fn grow(&self, volume: &VolumeId, size: ByteSize) -> Result<(), EngineError>;
    /// Removes a volume with its snapshots. One that a server has is refused.
    async fn remove(&self, volume: &VolumeId) -> Result<(), EngineError>;
    /// Removes a snapshot.
    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<(), EngineError>;
    /// Writes a snapshot to a file of this host.
    async fn export(&self, snapshot: &SnapshotId, file: &std::path::Path) -> Result<(), EngineError>;
    /// Makes a volume from such a file.
    async fn import(&self, file: &std::path::Path, volume: &VolumeId) -> Result<(), EngineError>;
    /// Every volume of ours that exists, always the full set.
    async fn observe(&self) -> Result<Vec<ObservedVolume>, EngineError>;
}

/// Giving servers directories that others see too ([`LaunchSpec::shared`]). Optional ability of an engine.
#[async_trait::async_trait]
pub trait SharedDirectories: Send + Sync {
    /// Whether servers can be given what a fleet binds; fails with what is wrong, within a time of its own.
    async fn check(&self, directory: &SharedDirectory) -> Result<(), EngineError>;
}

/// Telling what servers use of the host, seen from outside. Optional ability of an engine.
#[async_trait::async_trait]
pub trait Meters: Send + Sync {
    /// Processor time that each server of a group has used since its launch. A server of which it is not known is left out.
    async fn processor_time(&self, group: &GroupName) -> Result<BTreeMap<ServerId, Duration>, EngineError>;
}

/// Ending a server as a crash of it would, to see what becomes of it: for recovery drills. Optional ability of an engine.
#[async_trait::async_trait]
pub trait Killing: Send + Sync {
    /// Kills PID 1. Nothing inside is asked to end, and what is left is seen by `observe` and waits for `destroy`, as after any
    /// other death from outside. One that does not run any more is a success.
    async fn kill(&self, server: &ServerId, generation: Generation) -> Result<(), EngineError>;
}

/// A command's end inside a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// Exit code; 128 + signal where it was killed.
    pub exit: i32,
    /// Standard output, cut at the limit asked for.
    pub stdout: Vec<u8>,
    /// Standard error, cut at the limit asked for.
    pub stderr: Vec<u8>,
}

/// A file inside a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    /// `st_mode` with the type bits.
    pub mode: u32,
    /// Owner inside the server.
    pub uid: u32,
    /// Group inside the server.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
}

/// A process inside a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Pid inside the server.
    pub pid: u32,
    /// User inside the server.
    pub uid: u32,
    /// File name of the program (`comm`, or the name of the executable where longer).
    pub program: String,
}

/// Looking and acting inside a server. Optional ability of an engine.
#[async_trait::async_trait]
pub trait Inside: Send + Sync {
    /// What PID 1 says of the services.
    async fn services(&self, server: &ServerId) -> Result<Vec<ServiceStatus>, EngineError>;
    /// Runs a command as a user (name or number) and waits for its end, at most `limit`. Outputs are cut at `max_bytes` each.
    async fn exec(
        &self,
        server: &ServerId,
        command: &[String],
        user: &str,
        limit: Duration,
        max_bytes: usize,
    ) -> Result<ExecResult, EngineError>;
    /// Status of a path, symbolic links followed inside the server's root; none if absent.
    async fn stat(&self, server: &ServerId, path: &str) -> Result<Option<FileStatus>, EngineError>;
    /// The first `max_bytes` of a file; none if absent.
    async fn read(&self, server: &ServerId, path: &str, max_bytes: usize) -> Result<Option<Vec<u8>>, EngineError>;
    /// All processes.
    async fn processes(&self, server: &ServerId) -> Result<Vec<Process>, EngineError>;
    /// Where TCP is listened to, over IPv4 and IPv6.
    async fn listening(&self, server: &ServerId) -> Result<Vec<SocketAddr>, EngineError>;
    /// What it wrote into these places, as far as the bounds reach. A place that is not there is left out; a server that does
    /// not run has lost it already and is unknown.
    async fn written(&self, server: &ServerId, places: &[Place], bounds: Bounds) -> Result<Vec<Written>, EngineError>;
    /// TCP connections inside to or from elsewhere, as far as somebody looked.
    async fn connections(&self, server: &ServerId) -> Result<u64, EngineError>;
    /// Opens the control connection for an interactive command; what goes over it is the engine's own protocol. Returns a
    /// path that a local program connects to, where there is one.
    fn control_socket(&self, server: &ServerId) -> Option<std::path::PathBuf>;
    /// The spool files of a server's log, where it is on this host.
    fn spool(&self, server: &ServerId) -> Option<Vec<std::path::PathBuf>>;
}

/// A network interface inside a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Its addresses with the length of their network prefix.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A kind of socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A stream.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Seeing what a program inside a server would see, without running one. Optional ability of an engine.
#[async_trait::async_trait]
pub trait Facts: Send + Sync {
    /// Status of a path and, where that is a symbolic link, what it says; a link at its end is not followed. None if absent.
    async fn link(&self, server: &ServerId, path: &str) -> Result<Option<(FileStatus, Option<String>)>, EngineError>;
    /// How many hundredths of the blocks of the file system at a path are used; none if the path is absent.
    async fn usage(&self, server: &ServerId, path: &str) -> Result<Option<u32>, EngineError>;
    /// The value of a kernel parameter (`net.core.somaxconn`); none if there is no such one.
    async fn kernel_parameter(&self, server: &ServerId, name: &str) -> Result<Option<String>, EngineError>;
    /// All network interfaces.
    async fn interfaces(&self, server: &ServerId) -> Result<Vec<Interface>, EngineError>;
    /// A socket of the server's network for an address of this family, not connected.
    async fn socket(&self, server: &ServerId, family: IpAddr, transport: Transport) -> Result<OwnedFd, EngineError>;
}
