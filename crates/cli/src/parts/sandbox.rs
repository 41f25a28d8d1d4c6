//! The build sandbox of `image`, which is the one of `runtime`. The two crates do not know each other, so the same shapes
//! exist twice and are turned into each other here.

use std::{
    error::Error,
    os::fd::{BorrowedFd, OwnedFd},
};

use kiln_image::sandbox as image;
use kiln_runtime::sandbox as runtime;

use super::host::HostPlaces;
use crate::failure::Failure;

/// Runs the steps of a bake.
pub(crate) struct StepSandbox(runtime::Sandbox);

impl StepSandbox {
    /// The sandbox of a state directory; the network is made where a step needs one.
    pub fn open(places: &HostPlaces, needs_network: bool) -> Result<Self, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::NotRoot { action: "run the steps of a recipe apart from the host" });
        }
        let mut options = runtime::SandboxOptions::new(&places.run, &places.id);
        if needs_network {
            options.network = places.network()?;
        }
        runtime::Sandbox::open(options).map(Self).map_err(|error| Failure::host("prepare the build sandbox", error))
    }
}

impl image::Sandbox for StepSandbox {
    fn run(
        &self,
        job: image::Job,
        output: &mut dyn FnMut(image::Stream, &[u8]),
    ) -> Result<image::Outcome, image::SandboxError> {
        let action = format!("run {}", job.command.first().map_or("a command", String::as_str));
        let mut pass = |stream, bytes: &[u8]| output(from_stream(stream), bytes);
        let outcome = self.0.run(to_job(job), &mut pass);
        outcome.map(from_outcome).map_err(|error| image::SandboxError { action, source: Box::new(error) })
    }
}

fn to_job(job: image::Job) -> runtime::Job {
    runtime::Job {
        root: runtime::SandboxRoot {
            lower: job.root.lower.into_iter().map(to_lower).collect(),
            upper: job.root.upper,
            work: job.root.work,
        },
        command: job.command,
        environment: job.environment,
        working_directory: job.working_directory,
        network: match job.network {
            image::Network::Off => runtime::Network::Off,
            image::Network::On => runtime::Network::On,
        },
        binds: job.binds.into_iter().map(to_bind).collect(),
        trees: job.trees.into_iter().map(to_shown).collect(),
        user: job.user.map(|user| runtime::User { uid: user.uid, gid: user.gid, groups: user.groups }),
        tmp: match job.tmp {
            image::Tmp::Memory => runtime::Tmp::Memory,
            image::Tmp::Tree => runtime::Tmp::Tree,
        },
        memory: job.memory.into_iter().map(to_memory).collect(),
        hostname: job.hostname,
        time_limit: job.time_limit,
        interactive: job.interactive,
    }
}

/// A tree of the store, given to the sandbox.
#[derive(Debug)]
struct StoreTree(Box<dyn image::Lower>);

impl runtime::Lower for StoreTree {
    fn mount(&self, users: BorrowedFd<'_>) -> Result<OwnedFd, Box<dyn Error + Send + Sync>> {
        self.0.mount(Some(users))
    }
}

fn to_lower(tree: Box<dyn image::Lower>) -> Box<dyn runtime::Lower> {
    Box::new(StoreTree(tree))
}

fn to_bind(bind: image::Bind) -> runtime::Bind {
    runtime::Bind { source: bind.source, target: bind.target, writable: bind.writable }
}

fn to_shown(shown: image::Shown) -> runtime::Shown {
    runtime::Shown { tree: to_lower(shown.tree), target: shown.target }
}

fn to_memory(memory: image::Memory) -> runtime::Memory {
    runtime::Memory { target: memory.target, size: memory.size }
}

fn from_stream(stream: runtime::Stream) -> image::Stream {
    match stream {
        runtime::Stream::Stdout => image::Stream::Stdout,
        runtime::Stream::Stderr => image::Stream::Stderr,
    }
}

fn from_outcome(outcome: runtime::Outcome) -> image::Outcome {
    match outcome {
        runtime::Outcome::Exited(code) => image::Outcome::Exited(code),
        runtime::Outcome::Signalled(signal) => image::Outcome::Signalled(signal),
        runtime::Outcome::TimedOut => image::Outcome::TimedOut,
    }
}
