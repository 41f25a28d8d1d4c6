//! Why a bake did not give an image.

use std::{io, path::PathBuf};

use super::lock::LockProblem;
use crate::{
    debian::{FetchError, install::InstallError},
    layer::{apply::ApplyError, scan::ScanError},
    sandbox::SandboxError,
    store::{StoreError, WorkError},
};

/// Why a bake did not give an image. Steps that were finished before stay in the store.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image that the recipe starts from is not there.
    #[error("the base image `{0}` is not in the store; bake or pull it first")]
    NoBaseImage(String),
    /// There is no lock to bake with.
    #[error(transparent)]
    Lock(Box<LockProblem>),
    /// The OCI image that the recipe starts from cannot be used.
    #[error("the base `{base}` cannot be used")]
    Oci {
        /// As the recipe names it.
        base: String,
        /// Why.
        #[source]
        source: Box<crate::oci::OciError>,
    },
    /// Packages could not be fetched.
    #[error("step `{step}` lacks packages")]
    Fetch {
        /// Its name.
        step: String,
        /// Why.
        #[source]
        source: Box<FetchError>,
    },
    /// Packages could not be installed.
    #[error("step `{step}` could not install its packages")]
    Install {
        /// Its name.
        step: String,
        /// Why.
        #[source]
        source: Box<InstallError>,
    },
    /// A step ended badly.
    #[error("step `{step}` {status}{}", shown(.output))]
    StepFailed {
        /// Its name.
        step: String,
        /// `failed with exit code 3`, `was killed by signal 9`, `did not end within 30m`.
        status: String,
        /// The end of its output.
        output: String,
    },
    /// A configuration tool ended badly.
    #[error("step `{step}` {status}{resources}{}", shown(.output))]
    Provision {
        /// Its name.
        step: String,
        /// `failed with exit code 2`, `did not end within 30m in its second run`.
        status: String,
        /// What failed, with its file and line, each on a line of its own.
        resources: String,
        /// The end of its output.
        output: String,
    },
    /// A configuration tool's second run changed something.
    #[error(
        "step `{step}` is not idempotent: {tool}, run again over its own result, changes{resources}
mend it, or write `idempotent = \"warn\"` or `false`"
    )]
    NotIdempotent {
        /// Its name.
        step: String,
        /// The tool.
        tool: &'static str,
        /// What changed, with its file and line, each on a line of its own.
        resources: String,
    },
    /// A configuration tool asks somebody.
    #[error(
        "step `{step}` asks a question, and nobody answers while an image is baked: {question}; give {tool} the answer as a variable"
    )]
    Asked {
        /// Its name.
        step: String,
        /// The tool.
        tool: &'static str,
        /// Where, and the question.
        question: String,
    },
    /// The image does not have the tool that it should bring.
    #[error("step `{step}` uses the {tool} of the image, which has none: install it in a step before this one")]
    NoTool {
        /// Its name.
        step: String,
        /// The tool.
        tool: &'static str,
    },
    /// A step filled the file system.
    #[error("step `{step}` filled the file system of {}{}", .directory.display(), shown(.output))]
    StepFull {
        /// Its name.
        step: String,
        /// Where steps write.
        directory: PathBuf,
        /// The end of its output.
        output: String,
    },
    /// The sandbox failed, not the step.
    #[error("step `{step}` could not be run")]
    Sandbox {
        /// Its name.
        step: String,
        /// Why.
        #[source]
        source: SandboxError,
    },
    /// What a step left cannot be a layer.
    #[error("step `{step}` left a tree that no image can hold")]
    Scan {
        /// Its name.
        step: String,
        /// Why.
        #[source]
        source: ScanError,
    },
    /// What a step made does not fit the tree it is put over.
    #[error("step `{step}` does not fit the tree before it")]
    Apply {
        /// Its name.
        step: String,
        /// Why.
        #[source]
        source: ApplyError,
    },
    /// A source of a `copy` step cannot be read.
    #[error("step `{step}` cannot read `{path}`")]
    Source {
        /// The step's name.
        step: String,
        /// The source, relative to the recipe.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What a step asks for contradicts the tree it is put over.
    #[error("step `{step}`: {reason}")]
    Step {
        /// Its name.
        step: String,
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// An instruction of a Containerfile cannot be carried out.
    #[error("{file}:{line}: `{instruction}`: {reason}")]
    Instruction {
        /// The file, relative to the recipe.
        file: String,
        /// Its line.
        line: usize,
        /// Its words.
        instruction: String,
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// A directory for the step could not be made or removed.
    #[error(transparent)]
    Work(#[from] WorkError),
}

impl From<LockProblem> for BakeError {
    fn from(problem: LockProblem) -> Self {
        Self::Lock(Box::new(problem))
    }
}

fn shown(output: &str) -> String {
    match output.trim_end() {
        "" => String::new(),
        output => format!("; the end of its output:\n{output}"),
    }
}
