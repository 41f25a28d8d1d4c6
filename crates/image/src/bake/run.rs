//! The `run` step: a command in the sandbox over an overlay of the parent's tree.

use std::{
    error::Error,
    os::fd::{BorrowedFd, OwnedFd},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kiln_model::{Digest, duration, recipe::Step};

use super::{BakeError, BakeEvent, chain::Chain, key::Key, secrets};
use crate::{
    layer::{
        Layer,
        scan::{self, Clamp, Leftovers},
    },
    sandbox::{Job, Lower, Network, Outcome, SandboxRoot, Stream, Tmp},
    store::{Store, Work},
};

/// What every command of a bake finds in its environment, beside `SOURCE_DATE_EPOCH`.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("HOME", "/root"),
    ("LC_ALL", "C.UTF-8"),
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
];
/// The end of a failed step's output that its error shows, bytes.
const TAIL: usize = 8 << 10;
/// A step that fails with less than this much room left (bytes) failed for want of it.
const ROOM: u64 = 4 << 20;

/// A `run` step.
pub(super) struct Run<'a> {
    pub(super) step: &'a Step,
    pub(super) command: &'a [String],
}

/// What a step made.
pub(super) struct Made {
    pub(super) layer: Layer,
    pub(super) warnings: Vec<String>,
    /// Holds the layer's files until they are stored.
    pub(super) work: Work,
}

impl Run<'_> {
    pub(super) fn key(&self, parent: &Digest) -> Digest {
        let environment = self.step.environment.iter().flat_map(|(name, value)| [name, value]);
        Key::new("run", Some(parent))
            .parts(self.command)
            .parts(environment)
            .part(&self.step.working_directory)
            .part([u8::from(self.step.network)])
            .done()
    }

    /// Runs the command over the tree with this metadata image.
    pub(super) fn layer(&self, chain: &Chain<'_>, lower: &str) -> Result<Made, BakeError> {
        let work = Work::new(chain.store)?;
        let clamp = clamp(chain.epoch);
        let mut tail = Tail::default();
        let job = self.job(chain, lower, &work);
        let outcome = chain.sandbox.run(job, &mut |stream, bytes| {
            tail.push(bytes);
            (chain.events)(BakeEvent::Output { stream, bytes: bytes.to_vec() });
        });
        let failed = |source| BakeError::Sandbox { step: self.step.name.clone(), source };
        match outcome.map_err(failed)? {
            Outcome::Exited(0) => {
                let mut made = made(&self.step.name, work, clamp, Leftovers::Drop)?;
                made.warnings.extend(secrets::found(&made.layer));
                Ok(made)
            }
            outcome => {
                let error = failure(&self.step.name, self.step.time_limit, outcome, &work, tail);
                shell(self.step, chain, || self.job(chain, lower, &work))?;
                Err(error)
            }
        }
    }

    fn job(&self, chain: &Chain<'_>, lower: &str, work: &Work) -> Job {
        Job { command: self.command.to_vec(), ..job(self.step, chain, lower, work) }
    }
}

/// A step's job that runs nothing yet: over the tree, with its variables, its network and its time.
pub(super) fn job(step: &Step, chain: &Chain<'_>, lower: &str, work: &Work) -> Job {
    Job {
        root: root(chain, lower, work),
        command: Vec::new(),
        environment: environment(chain.epoch, chain.environment.iter().chain(&step.environment)),
        working_directory: step.working_directory.clone(),
        network: if step.network { Network::On } else { Network::Off },
        binds: Vec::new(),
        trees: Vec::new(),
        user: None,
        tmp: Tmp::Memory,
        memory: Vec::new(),
        hostname: chain.manner.hostname.to_owned(),
        time_limit: step.time_limit,
        interactive: false,
    }
}

/// Opens a shell where a step failed, if that was asked for.
pub(super) fn shell(step: &Step, chain: &Chain<'_>, job: impl FnOnce() -> Job) -> Result<(), BakeError> {
    if !chain.request.shell_on_failure {
        return Ok(());
    }
    let shell = Job {
        command: vec!["/bin/sh".to_owned(), "-i".to_owned()],
        time_limit: Duration::from_secs(86_400),
        interactive: true,
        ..job()
    };
    let failed = |source| BakeError::Sandbox { step: step.name.clone(), source };
    chain.sandbox.run(shell, &mut |_: Stream, _| {}).map_err(failed).map(drop)
}

/// What to say of a command that ended badly.
pub(super) fn failure(step: &str, limit: Duration, outcome: Outcome, work: &Work, tail: Tail) -> BakeError {
    let (step, output) = (step.to_owned(), tail.text());
    if full(work) || output.contains("No space left on device") {
        return BakeError::StepFull { step, directory: work.path().to_owned(), output };
    }
    BakeError::StepFailed { step, status: status(outcome, limit), output }
}

/// A tree of the store.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) store: Store,
    /// Its metadata image.
    pub(super) tree: String,
}

impl Lower for Stored {
    fn mount(&self, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Box<dyn Error + Send + Sync>> {
        Ok(self.store.mount_tree(&self.tree, userns)?)
    }
}

/// The tree as the sandbox shows it.
pub(super) fn root(chain: &Chain<'_>, lower: &str, work: &Work) -> SandboxRoot {
    let lower = Stored { store: chain.store.clone(), tree: lower.to_owned() };
    SandboxRoot { lower: vec![Box::new(lower)], upper: work.upper(), work: work.overlay_work() }
}

/// The whole environment of a command: the fixed part, overridden by the step's own.
pub(super) fn environment<'a>(
    epoch: i64,
    own: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Vec<(String, String)> {
    let fixed = ENVIRONMENT.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let epoch = ("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string());
    let own = own.into_iter().map(|(name, value)| (name.clone(), value.clone()));
    let all: std::collections::BTreeMap<_, _> = fixed.chain([epoch]).chain(own).collect();
    all.into_iter().collect()
}

pub(super) fn clamp(epoch: i64) -> Clamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Clamp { epoch, started: i64::try_from(now).unwrap_or(i64::MAX) }
}

/// Turns what is in the upper directory into a layer.
pub(super) fn made(step: &str, work: Work, clamp: Clamp, leftovers: Leftovers) -> Result<Made, BakeError> {
    let scanned = scan::upper(&work.upper(), clamp, leftovers)
        .map_err(|source| BakeError::Scan { step: step.to_owned(), source })?;
    Ok(Made { layer: scanned.layer, warnings: scanned.warnings, work })
}

/// How a command ended that should have ended well, in words.
pub(super) fn status(outcome: Outcome, limit: Duration) -> String {
    match outcome {
        Outcome::Exited(code) => format!("failed with exit code {code}"),
        Outcome::Signalled(signal) => format!("was killed by signal {signal}"),
        Outcome::TimedOut => format!("did not end within {}", duration::format(limit)),
    }
}

pub(super) fn full(work: &Work) -> bool {
    rustix::fs::statvfs(work.path()).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < ROOM)
}

/// The end of an output.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        if self.0.len() > 4 * TAIL {
            self.0.drain(..self.0.len() - TAIL);
        }
    }
    /// Whole lines, as far as there are any.
    pub(super) fn text(self) -> String {
        let cut = self.0.len().saturating_sub(TAIL);
        let start = match cut {
            0 => 0,
            cut => self.0[cut..].iter().position(|b| *b == b'\n').map_or(cut, |at| cut + at + 1),
        };
        String::from_utf8_lossy(&self.0[start..]).into_owned()
    }
}
