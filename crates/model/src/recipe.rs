//! A recipe, `image.toml`, after validation.
//!
//! [`Recipe`] is the parsed form: every path, name, size and duration has been checked and defaults are filled in. The
//! text form, its diagnostics and its JSON Schema live in the submodules.

pub(crate) mod archive;
pub(crate) mod base;
pub(crate) mod binding;
pub(crate) mod check;
pub(crate) mod command;
pub(crate) mod config;
mod containerfile_base;
pub mod descend;
pub(crate) mod file;
mod files;
mod oci_base;
mod packages;
pub mod provision;
pub(crate) mod service;
pub(crate) mod step;
pub(crate) mod test;
pub(crate) mod text;
pub(crate) mod writable;

use std::{collections::BTreeMap, time::Duration};

pub use self::{
    archive::{Layout, Repository, Security, Sources},
    containerfile_base::ContainerfileBase,
    files::{FileKind, FileProblem, RecipeFiles},
    oci_base::{ImportLimits, OciBase},
    packages::deb_file,
};
pub(crate) use self::{
    check::{argument, recipe_path as check_recipe_path, variable as check_variable},
    command::{environment as read_environment, named_variable as read_variable},
    service::PROTOCOLS,
};
pub use crate::text::quoted;
use crate::{digest::Digest, fleet::ImageRef, id::ImageName, manifest::ImageManifest, suite::Suite};

/// base, ordered steps, services, writable paths, tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// `name = "hello"`.
    pub name: ImageName,
    /// What the image starts from.
    pub base: Base,
    /// Where the packages come from that are installed over an image; those of a Debian base stand in it.
    pub sources: Sources,
    /// In the order written.
    pub steps: Vec<Step>,
    /// Services and writable paths.
    pub manifest: ImageManifest,
    /// The tests; the programs of `script` tests are loaded into it.
    pub suite: Suite,
    /// The SHA-256 of `image.toml`, as `sha256sum` says it.
    pub text: Digest,
}

/// What an image starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// A suite of Debian or Ubuntu.
    Debian(DebianBase),
    /// Another Kiln image.
    Image(ImageRef),
    /// An OCI image of somebody else.
    Oci(OciBase),
    /// What a Containerfile says.
    Containerfile(Box<ContainerfileBase>),
}

/// Whose archive a base comes from: both are made of Debian packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

impl Distribution {
    /// Whether a text may be the code name of a suite: it becomes part of addresses.
    pub fn is_code_name(text: &str) -> bool {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        text.len() <= 63 && text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(plain)
    }

    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian => "Debian",
            Self::Ubuntu => "Ubuntu",
        }
    }
    /// Its archive.
    pub fn mirror(self) -> &'static str {
        match self {
            Self::Debian => "http://deb.debian.org/debian",
            Self::Ubuntu => "http://archive.ubuntu.com/ubuntu",
        }
    }
    /// Its archive of security updates.
    pub fn security_mirror(self) -> &'static str {
        match self {
            Self::Debian => "http://deb.debian.org/debian-security",
            Self::Ubuntu => "http://security.ubuntu.com/ubuntu",
        }
    }
    /// The code names of its suites that are known.
    pub fn suites(self) -> &'static [&'static str] {
        match self {
            Self::Debian => &["bullseye", "bookworm", "trixie", "forky", "duke", "sid"],
            Self::Ubuntu => &["focal", "jammy", "noble", "oracular", "plucky", "questing", "resolute"],
        }
    }
    /// The components that anybody may use: of Ubuntu, most packages are in `universe`.
    pub fn components(self) -> &'static [&'static str] {
        match self {
            Self::Debian => &["main"],
            Self::Ubuntu => &["main", "universe"],
        }
    }
}

/// A suite of Debian or Ubuntu and the packages wanted from it, beside the essential ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianBase {
    /// Whose.
    pub distribution: Distribution,
    /// Code name: `bookworm`, `trixie`, `noble`.
    pub suite: String,
    /// `name`, `name=version`, or `./FILE.deb` ([`deb_file`]).
    pub packages: Vec<String>,
    /// Archive address without a trailing `/`; [`Distribution::mirror`] by default.
    pub mirror: String,
    /// Security archive; none leaves security updates out. [`Distribution::security_mirror`] by default.
    pub security_mirror: Option<String>,
    /// [`Distribution::components`] by default.
    pub components: Vec<String>,
    /// OpenPGP keyring file, relative to the recipe, in place of the keys shipped with Kiln.
    pub keyring: Option<String>,
    /// Further repositories, each with its own key.
    pub repositories: Vec<Repository>,
}

/// One step of a recipe: one layer of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// For people: the recipe's own words, or made from the step.
    pub name: String,
    /// What it does.
    pub kind: StepKind,
    /// Variables of `run` and of configuration tools.
    pub environment: BTreeMap<String, String>,
    /// Absolute directory of `run`.
    pub working_directory: String,
    /// Whether `run`, or a configuration tool, has a way out to the network.
    pub network: bool,
    /// The step is killed after this time. 30 minutes by default.
    pub time_limit: Duration,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKind {
    /// Copies a file, or a directory's content, of the recipe's directory into the image.
    Copy {
        /// Relative to the recipe, without `..`.
        from: String,
        /// Absolute. Ends with `/`: into this directory under its own name.
        to: String,
        /// User's name or number, with an optional `:group`. `root` by default.
        owner: String,
        /// Mode of files; directories get the search bits too. None keeps the source's execute bit (0644 or 0755).
        mode: Option<u32>,
    },
    /// Runs a command in the sandbox.
    Run {
        /// Program and arguments; one text in the recipe becomes `/bin/sh -euc TEXT`.
        command: Vec<String>,
    },
    /// Installs Debian packages, as locked.
    Packages {
        /// `name`, `name=version`, or `./FILE.deb` ([`deb_file`]).
        names: Vec<String>,
    },
    /// Removes paths.
    Remove {
        /// Absolute; the last part may hold `*`.
        paths: Vec<String>,
    },
    /// Has a configuration tool do what its own files say.
    Provision(provision::Provision),
}

impl StepKind {
    /// Whether programs of the recipe's choice run, which may have a way out to the network.
    pub fn runs_programs(&self) -> bool {
        matches!(self, Self::Run { .. } | Self::Provision(_))
    }
}
