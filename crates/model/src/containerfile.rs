//! A Containerfile (Dockerfile): from its text to typed instructions.
//!
//! The format is the one that BuildKit reads (moby/buildkit `frontend/dockerfile/docs/reference.md`): parser directives, lines
//! that go on, comments between them, heredocs, flags, the shell and the exec form, variables. [`Containerfile::parse`] knows
//! everything that the text alone tells; [`Containerfile::plan`] also knows the arguments and which stage is wanted, and says
//! which stages are to be built and what they start from. What an instruction does to an image is the bake's affair.
//!
//! What Kiln cannot honour is named with its line, and never left out. Everything is bounded: the file, its instructions and
//! stages here, values of variables where they are put together ([`Word::expand`]).

mod copy;
mod expand;
mod flags;
mod found;
pub mod glob;
mod health;
pub mod ignore;
mod lines;
mod mount;
pub mod plan;
mod read;
mod run;
mod scope;
mod words;

#[cfg(test)]
mod tests;

use std::ops::Range;

pub use self::{
    copy::{Copy, CopySource, octal},
    expand::{ExpandError, MAX_VALUE, Word},
    health::Health,
    lines::Heredoc,
    mount::{Mount, MountKind, Sharing},
    plan::{Plan, Planned, StageBase},
    read::port,
    run::{Command, Run},
    scope::{PROXIES, Scope},
};
use crate::diagnostic::Diagnostics;

/// A file longer than this (bytes) is refused, its heredocs counted.
pub const MAX_BYTES: usize = 1 << 20;
/// A file has at most so many instructions.
pub const MAX_INSTRUCTIONS: usize = 2000;
/// A file has at most so many stages.
pub const MAX_STAGES: usize = 200;

/// A parsed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerfile {
    /// The file, as the person named it.
    pub file: String,
    /// Its text.
    pub text: String,
    /// `ARG`s before the first `FROM`.
    pub globals: Vec<Instruction>,
    /// In the order written.
    pub stages: Vec<Stage>,
}

/// One `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What it starts from.
    pub from: Word,
    /// `--platform`.
    pub platform: Option<Word>,
    /// `AS`, in small letters.
    pub name: Option<String>,
    /// The `FROM` itself.
    pub place: Place,
    /// In the order written.
    pub instructions: Vec<Instruction>,
}

/// Where something stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Bytes of the file.
    pub span: Range<usize>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Where it stands.
    pub place: Place,
    /// Its words on one line, for people.
    pub text: String,
    /// What it says.
    pub kind: Kind,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `ADD` and `COPY`.
    Copy(Box<Copy>),
    /// `RUN`
    Run(Box<Run>),
    /// `ENV`: names and values.
    Env(Vec<(Word, Word)>),
    /// `ARG`: names and what they are by default.
    Arg(Vec<(String, Option<Word>)>),
    /// `LABEL`
    Label(Vec<(Word, Word)>),
    /// `WORKDIR`
    Workdir(Word),
    /// `USER`
    User(Word),
    /// `SHELL`
    Shell(Vec<String>),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `CMD`
    Cmd(Command),
    /// `EXPOSE`: `80`, `80/udp`, `8000-8010`.
    Expose(Vec<Word>),
    /// `VOLUME`
    Volume(Vec<Word>),
    /// `HEALTHCHECK`
    Healthcheck(Box<Health>),
    /// `STOPSIGNAL`
    StopSignal(Word),
    /// `MAINTAINER`, which is deprecated.
    Maintainer(String),
}

impl Containerfile {
    /// Reads a file. `file` is how the person names it. Everything that is wrong is in the diagnostics.
    pub fn parse(text: &str, file: &str) -> Result<Self, Diagnostics> {
        read::read(text, file)
    }
}
