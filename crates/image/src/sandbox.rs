//! What the bake needs from the host to run a step apart from it. Implemented by the `runtime` crate's sandbox
//! (through an adapter where the programs are put together), so that this crate never touches the kernel's
//! isolation interfaces.

use std::{
    error::Error,
    fmt,
    os::fd::{BorrowedFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

/// A read-only tree. An image's tree is itself an overlay, whose mount no user namespace can be put on afterwards, so
/// the sandbox says which one when it wants the mount.
pub trait Lower: fmt::Debug + Send + Sync {
    /// A detached mount, owners shifted by the user namespace if there is one (0 is root before that).
    fn mount(&self, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Box<dyn Error + Send + Sync>>;
}

/// Where a step's programs see their files.
#[derive(Debug)]
pub struct SandboxRoot {
    /// The parent's tree, top first.
    pub lower: Vec<Box<dyn Lower>>,
    /// Directory that receives every change, as an overlayfs upper directory; ownership as in the image.
    pub upper: PathBuf,
    /// Empty directory on the same file system as `upper`.
    pub work: PathBuf,
}

/// Network of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A loopback interface only.
    Off,
    /// An own address with a way out, and the host's resolver; never the host's own interfaces or sockets.
    On,
}

/// A host path shown inside the sandbox.
#[derive(Debug, Clone)]
pub struct Bind {
    /// Path on the host: a file or directory.
    pub source: PathBuf,
    /// Absolute path inside, without symbolic links. Where the tree has nothing, what is made for it is not left in the tree.
    pub target: String,
    /// Always mounted read-only unless this is set.
    pub writable: bool,
}

/// A tree of the store shown inside, read-only, beside the root.
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
    /// The job and all its processes are killed after this time.
    pub time_limit: Duration,
    /// Give the job the caller's terminal (for a shell in a broken tree).
    pub interactive: bool,
}

/// How a job ended.
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
    /// Standard error.
    Stderr,
}

/// The sandbox itself failed; the job did not run or its end is unknown.
#[derive(Debug, thiserror::Error)]
#[error("the build sandbox failed while it tried to {action}")]
pub struct SandboxError {
    /// What was tried.
    pub action: String,
    /// Why it failed.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// Runs jobs apart from the host: own namespaces, no host files, no capabilities over the host. When `run` returns,
/// no process and no mount of the job is left, whatever it did.
pub trait Sandbox: Send + Sync {
    /// Runs the job to its end, passing on output as it comes.
    fn run(&self, job: Job, output: &mut dyn FnMut(Stream, &[u8])) -> Result<Outcome, SandboxError>;
}
