//! The build sandbox: runs one command over an overlay of a tree, apart from the host.
//!
//! A command has its own user, process, mount, network, IPC, host name and control group namespaces. Its root is an
//! overlay whose layers are mapped with its user namespace: it is root inside, owns what it makes as root on disk, and
//! is nobody on the host. It keeps the capabilities that package managers need over its own files (see
//! [`CAPABILITIES`]) and none over the host, its mounts or its network.
//!
//! - Set-user-id programs work (`no_new_privs` is not set): the ids they can become are ids of the namespace, which the
//!   command as its root can become anyway, and recipes do run `su` and `sudo`. The bounding set and the system call
//!   filter hold for them as for everything else.
//! - `/proc`, `/dev`, `/sys`, `/run` and `/tmp` are file systems of their own, so nothing written there reaches the tree.
//! - Output passes through two pipes as it comes. A command that writes faster than it is read waits.
//! - Everything ends with the command: its processes with its process namespace, its mounts with its mount namespace,
//!   its network with its network namespace. When the caller is killed, the command dies with it; its control group,
//!   the only thing left then, is removed when its slot is used next.

use std::{
    fmt, fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kiln_sys::{
    SysError,
    cgroup::{self, Limits},
    confine::{self, Confinement},
    idmap, namespace,
    netlink::{Connection, NetlinkError, link},
    seccomp,
    shelf::Template,
    spawn::{NewNamespaces, Spawn, spawn_confined},
};

use crate::network::{Mode, Network as HostNetwork, NetworkError, prepare_namespace};

mod environment;
mod slot;
mod supervise;
mod terminal;
mod tree;

use environment::CStrings;
use slot::Slot;
use supervise::{Streams, Supervised};

/// First host id of the first build slot; each slot has [`idmap::IDS`].
const FIRST_ID: u32 = 0x7000_0000;

/// What the command may do to its own files and processes: chown (0), dac_override (1), fowner (3), fsetid (4),
/// kill (5), setgid (6), setuid (7), setpcap (8), net_bind_service (10), sys_chroot (18), audit_write (29), setfcap (31).
const CAPABILITIES: u64 =
    1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 29 | 1 << 31;

/// A read-only tree. An image's tree is itself an overlay, and a user namespace can be put on the layers of an overlay
/// but not on its mount, so the tree makes the mount for the user namespace that it is told.
pub trait Lower: fmt::Debug + Send + Sync {
    /// A detached mount, owners shifted by the user namespace (0 is root before that).
    fn mount(&self, users: BorrowedFd<'_>) -> Result<OwnedFd, Box<dyn std::error::Error + Send + Sync>>;
}

/// A mount of a file system that can shift owners itself.
impl Lower for Template {
    fn mount(&self, users: BorrowedFd<'_>) -> Result<OwnedFd, Box<dyn std::error::Error + Send + Sync>> {
        let copy = self.copy(Path::new(""))?;
        kiln_sys::mount::map_owners(copy.as_fd(), users)?;
        Ok(copy)
    }
}

/// Where a command sees its files.
#[derive(Debug)]
pub struct SandboxRoot {
    /// The parent's tree, top first.
    pub lower: Vec<Box<dyn Lower>>,
    /// Directory that receives every change, as an overlayfs upper directory; ownership as in the image.
    pub upper: PathBuf,
    /// Empty directory on the same file system as `upper`.
    pub work: PathBuf,
}

/// Network of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A loopback interface only.
    Off,
    /// An own address with a way out, the host's resolver, proxy variables and certificates.
    On,
}

/// A host path shown inside the sandbox, with the owners it has on the host.
#[derive(Debug, Clone)]
pub struct Bind {
    /// Path on the host: a file or directory.
    pub source: PathBuf,
    /// Absolute path inside, without symbolic links. Where the tree has nothing, what is made for it is not left in the tree.
    pub target: String,
    /// Whether the command may write there.
    pub writable: bool,
}

/// A tree shown inside, read-only, beside the root.
#[derive(Debug)]
pub struct Shown {
    /// The tree.
    pub tree: Box<dyn Lower>,
    /// Absolute path inside, below `/run`.
    pub target: String,
}

/// Somebody else than root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// What `/tmp` is for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tmp {
    /// Memory that ends with it.
    Memory,
    /// The tree's, so that what is left there is in the layer.
    Tree,
}

/// An empty file system in memory.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Absolute path inside.
    pub target: String,
    /// Bytes; half of the host's memory where nothing is said.
    pub size: Option<u64>,
}

/// One command to run over a tree.
#[derive(Debug)]
pub struct Job {
    /// The tree.
    pub root: SandboxRoot,
    /// Program (absolute) and arguments.
    pub command: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Absolute.
    pub working_directory: String,
    /// Network on or off.
    pub network: Network,
    /// Host paths to show.
    pub binds: Vec<Bind>,
    /// Other trees to show.
    pub trees: Vec<Shown>,
    /// Who runs the command; root of its own namespace where nobody is named.
    pub user: Option<User>,
    /// What `/tmp` is.
    pub tmp: Tmp,
    /// Memory to show, over what the tree has there.
    pub memory: Vec<Memory>,
    /// Host name seen inside.
    pub hostname: String,
    /// The command and all its processes are killed after this time.
    pub time_limit: Duration,
    /// Give the command the caller's terminal (for a shell in a broken tree).
    pub interactive: bool,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code.
    Exited(i32),
    /// Killed by this signal.
    Signalled(i32),
    /// Its time was over.
    TimedOut,
}

/// Which stream a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error, and what the sandbox itself has to say about a command it stopped.
    Stderr,
}

/// The sandbox itself failed; the command did not run or its end is unknown.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] SysError),
    /// The network could not be made.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The loopback interface could not be switched on.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The parent's tree could not be mounted.
    #[error("the parent's tree cannot be mounted")]
    Lower(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file of the run directory, the host or the tree.
    #[error("could not {action} {path}", path = path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A job that makes no sense.
    #[error("the job is not valid: {0}")]
    Job(&'static str),
    /// Every build slot is taken.
    #[error("{0} build steps run at the same time already; no more are allowed")]
    Busy(u16),
    /// A step needs the network, but there is no network.
    #[error("the step needs the network, and the sandbox was opened without one")]
    NoNetwork,
    /// The host's resolver cannot be reached from inside.
    #[error("the step needs the network, and {0}")]
    Resolver(String),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SandboxError {
    let path = path.to_owned();
    move |source| SandboxError::File { action, path, source }
}

/// What all commands together may use of the host.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Run directory of the state directory.
    pub run_dir: PathBuf,
    /// Eight hexadecimal digits that stand for the state directory.
    pub id: String,
    /// Network for commands that need it.
    pub network: Option<Arc<HostNetwork>>,
    /// Memory of one command in bytes, its `/tmp` included; by default three quarters of the host's.
    pub memory: Option<u64>,
    /// Processes and threads of one command.
    pub pids: u32,
}

impl SandboxOptions {
    /// The usual limits, without a network.
    pub fn new(run_dir: &Path, id: &str) -> Self {
        Self { run_dir: run_dir.to_owned(), id: id.to_owned(), network: None, memory: None, pids: 8192 }
    }
}

/// Runs commands apart from the host. Several may run at the same time, from several processes.
#[derive(Debug)]
pub struct Sandbox {
    options: SandboxOptions,
    groups: Option<cgroup::Host>,
    /// Network namespaces with nothing but loopback that no command is in at the moment. Making one, and the kernel's
    /// taking it apart, costs more than everything else about a short command.
    quiet: Mutex<Vec<OwnedFd>>,
}

impl Sandbox {
    /// Opens the sandbox of a state directory.
    pub fn open(options: SandboxOptions) -> Result<Self, SandboxError> {
        fs::create_dir_all(&options.run_dir).map_err(failed("create", &options.run_dir))?;
        Ok(Self { options, groups: cgroup::Host::detect().ok(), quiet: Mutex::default() })
    }

    /// Runs a command to its end and passes its output on as it comes. When this returns, nothing of it is left.
    pub fn run(&self, job: Job, output: &mut dyn FnMut(Stream, &[u8])) -> Result<Outcome, SandboxError> {
        check(&job)?;
        let slot = Slot::take(&self.options.run_dir)?;
        let network = self.network(&slot, job.network)?;
        let group = Group::make(self, &slot)?;
        let outcome = self.run_in(&job, &slot, &group, network.as_fd(), output);
        let released = self.release(&slot, &group, network, job.network);
        let outcome = outcome?;
        released?;
        Ok(outcome)
    }

    fn run_in(
        &self,
        job: &Job,
        slot: &Slot,
        group: &Group,
        network: BorrowedFd<'_>,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Outcome, SandboxError> {
        let users = idmap::user_namespace(idmap::Map { base: slot.first_id(), count: idmap::IDS })?;
        let environment = environment::prepare(job)?;
        for warning in &environment.warnings {
            output(Stream::Stderr, format!("kiln: {warning}\n").as_bytes());
        }
        let mut tree = tree::Tree::make(job, slot, users.as_fd(), &environment)?;
        let streams = match tree.terminal.take() {
            Some(master) => Streams::terminal(master)?,
            None => Streams::pipes()?,
        };
        let place = Place { group, users: users.as_fd(), network };
        let started = start(job, &tree, streams, &environment, &place);
        // The command has a copy of its own by now; letting go of ours takes a while, in which the command runs.
        let work = tree.let_go();
        let outcome = started.and_then(|supervised| supervised.run_to_the_end(job, group.0.as_ref(), output));
        work.reuse()?;
        outcome
    }

    /// A network namespace that belongs to the host, so that the command has no rights over it.
    fn network(&self, slot: &Slot, wanted: Network) -> Result<OwnedFd, SandboxError> {
        match (wanted, &self.options.network) {
            (Network::Off, _) => match self.quiet().pop() {
                Some(namespace) => Ok(namespace),
                None => quiet_network(),
            },
            (Network::On, Some(network)) => {
                let namespace = namespace::new_network()?;
                network.attach(slot.network_slot(), namespace.as_fd(), Mode::Build)?;
                Ok(namespace)
            }
            (Network::On, None) => Err(SandboxError::NoNetwork),
        }
    }

    fn quiet(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, slot: &Slot, group: &Group, namespace: OwnedFd, wanted: Network) -> Result<(), SandboxError> {
        match (wanted, &self.options.network) {
            (Network::On, Some(network)) => {
                network.detach(slot.network_slot())?;
            }
            _ => self.quiet().push(namespace),
        }
        group.remove()
    }
}

/// Where a command runs, besides its tree.
struct Place<'a> {
    group: &'a Group,
    users: BorrowedFd<'a>,
    network: BorrowedFd<'a>,
}

fn start(
    job: &Job,
    tree: &tree::Tree,
    streams: Streams,
    environment: &environment::Environment,
    place: &Place<'_>,
) -> Result<Supervised, SandboxError> {
    let entrance = place.group.0.as_ref().map(cgroup::Group::entrance).transpose()?;
    let groups_v1: Vec<_> = entrance.iter().flat_map(|entrance| &entrance.v1).map(AsFd::as_fd).collect();
    let arguments = CStrings::new(job.command.iter().map(String::as_str))?;
    let variables = CStrings::new(environment.variables.iter().map(String::as_str))?;
    let texts = CStrings::new([&*job.hostname, &*job.working_directory, &*job.command[0]])?;
    let [hostname, working_directory, program] = texts.three();
    let covers: Vec<_> = tree.covers.iter().map(|(path, mount)| (*path, mount.as_fd())).collect();
    let confinement = Confinement {
        root: &tree.root,
        read_only: tree::READ_ONLY,
        covers: &covers,
        hostname,
        working_directory,
        terminal: streams.are_terminal(),
        program,
        user: job.user.as_ref().map(|user| confine::User { uid: user.uid, gid: user.gid, groups: &user.groups }),
        capabilities: CAPABILITIES,
        filters: &seccomp::build_filter().programs,
    };
    let fds = streams.inside();
    let spawn = Spawn {
        program: tree.mounts.as_fd(),
        arguments: &arguments.all(),
        environment: &variables.all(),
        fds: &fds,
        cgroup: entrance.as_ref().and_then(|entrance| entrance.v2.as_ref()).map(AsFd::as_fd),
        cgroup_v1: &groups_v1,
        mounts: Some(tree.mounts.as_fd()),
        users: Some(place.users),
        network: Some(place.network),
        new: NewNamespaces::MOUNT
            | NewNamespaces::PID
            | NewNamespaces::IPC
            | NewNamespaces::UTS
            | NewNamespaces::CGROUP,
    };
    let process = spawn_confined(&spawn, &confinement)?;
    Ok(Supervised::new(process.pidfd, streams))
}

fn quiet_network() -> Result<OwnedFd, SandboxError> {
    let namespace = namespace::new_network()?;
    Connection::open_in(namespace.as_fd(), prepare_namespace)?.execute(vec![link::set_up(1)])?;
    Ok(namespace)
}

fn check(job: &Job) -> Result<(), SandboxError> {
    let absolute = |text: &str| text.starts_with('/');
    if !job.command.first().is_some_and(|program| absolute(program)) {
        return Err(SandboxError::Job("the program must be an absolute path"));
    }
    if !absolute(&job.working_directory) {
        return Err(SandboxError::Job("the working directory must be an absolute path"));
    }
    // The kernel's own file systems and devices are not the job's to cover.
    let kept = |target: &str| ["/proc", "/sys", "/dev"].iter().any(|kept| within(target, kept));
    let clean = |target: &str| {
        target.strip_prefix('/').is_some_and(|rest| {
            !rest.is_empty() && rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        })
    };
    let shown = job.binds.iter().map(|bind| &bind.target).chain(job.trees.iter().map(|shown| &shown.target));
    let mut targets = shown.chain(job.memory.iter().map(|memory| &memory.target));
    if !targets.all(|target| clean(target) && !kept(target)) {
        return Err(SandboxError::Job(
            "something cannot be shown in /proc, /sys, /dev, or at a path that is not plain",
        ));
    }
    Ok(())
}

fn within(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The control group of a slot; none where the host has no control groups.
struct Group(Option<cgroup::Group>);

impl Group {
    fn make(sandbox: &Sandbox, slot: &Slot) -> Result<Self, SandboxError> {
        let Some(host) = &sandbox.groups else { return Ok(Self(None)) };
        let group = Self(Some(host.group(&format!("kiln-build-{}-{}", sandbox.options.id, slot.number()))));
        // What a killed caller left.
        group.remove()?;
        if let Some(cgroup) = &group.0 {
            cgroup.create()?;
            cgroup.limit(&sandbox.limits(host))?;
        }
        Ok(group)
    }

    fn remove(&self) -> Result<(), SandboxError> {
        match &self.0 {
            Some(group) => Ok(group.remove(Duration::from_secs(10))?),
            None => Ok(()),
        }
    }
}

impl Sandbox {
    fn limits(&self, host: &cgroup::Host) -> Limits {
        let kept = host.controllers();
        let has = |name: &str| kept.iter().any(|controller| controller == name);
        let memory = self.options.memory.or_else(|| Some(total_memory()? / 4 * 3));
        Limits {
            memory: memory.filter(|_| has("memory")),
            cpu_millis: None,
            pids: Some(self.options.pids).filter(|_| has("pids")),
        }
    }
}

fn total_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}
