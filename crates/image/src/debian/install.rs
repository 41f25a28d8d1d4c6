//! Packages into a tree, unpacked and configured, as apt and dpkg would have left them.
//!
//! Every phase (see [`super::phases`]) is unpacked by Kiln in parallel and recorded in dpkg's database; then one script
//! runs over the tree that configures the phase and runs the `preinst` scripts of the next. dpkg itself configures, in
//! the tree: the order of `postinst` scripts, triggers and states are dpkg's own. Conffiles are put under their final
//! name with their hash in the status: dpkg takes a conffile whose `.dpkg-new` is not there as settled
//! (`deferred_configure_conffile` in dpkg's `src/main/configure.c`).

use std::{io, path::PathBuf};

mod blame;

use rayon::prelude::*;
use rustix::fs::Mode;

use self::blame::Blamed;
use super::{
    Event, Events, Script, Tree, cleanup, database,
    deb::{Deb, DebError},
    phases::{self, Cycle},
    root::Root,
    unpack::{UnpackError, unpack},
};

/// Why packages could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A package file.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// The packages' order.
    #[error(transparent)]
    Cycle(#[from] Cycle),
    /// Unpacking.
    #[error("cannot unpack the packages")]
    Unpack(#[from] UnpackError),
    /// The tree.
    #[error("cannot {action} in the tree")]
    Tree {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A package is there in another version: an image's packages are not replaced in a later step.
    #[error("package `{package}` {version} cannot be installed: version {installed} is there already")]
    OtherVersionInstalled {
        /// Name.
        package: String,
        /// Version to install.
        version: String,
        /// Version in the tree.
        installed: String,
    },
    /// A script of a package.
    #[error("the {script} script of package `{package}` failed{}", said(output))]
    MaintainerScript {
        /// The package.
        package: String,
        /// `preinst`, `postinst`, `trigger`.
        script: String,
        /// The last lines before it ended.
        output: String,
    },
    /// dpkg, or what a script was run with.
    #[error("cannot {name}")]
    Script {
        /// What ran.
        name: String,
        /// How it ended.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// dpkg ended well and still left packages that are not installed.
    #[error("packages are left unconfigured: {}", packages.join(", "))]
    Unfinished {
        /// Name and state.
        packages: Vec<String>,
    },
}

fn said(output: &str) -> String {
    match output {
        "" => "; it wrote nothing".to_owned(),
        output => format!("; the end of what it wrote:\n{output}"),
    }
}

/// How to install.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Seconds since 1970; given to the scripts as `SOURCE_DATE_EPOCH`, so that dates they write (the last change of a
    /// password, for one) do not depend on the day of the bake.
    pub source_date_epoch: i64,
}

/// Installs package files into a tree. Packages that are there in the same version are left out.
pub fn install(debs: &[PathBuf], tree: &dyn Tree, options: &Options, events: Events<'_>) -> Result<(), InstallError> {
    let debs = debs.par_iter().map(|path| Deb::open(path)).collect::<Result<Vec<_>, _>>()?;
    let root = open(tree)?;
    let installed = database::installed_in(&root).map_err(failed("read dpkg's status"))?;
    let fresh = installed.is_empty();
    let mut new = Vec::new();
    for deb in debs {
        match installed.iter().find(|there| there.name == deb.name()) {
            None => new.push(deb),
            Some(there) if there.version == deb.version() => {}
            Some(there) => {
                return Err(InstallError::OtherVersionInstalled {
                    package: deb.name().to_owned(),
                    version: deb.version().to_owned(),
                    installed: there.version.clone(),
                });
            }
        }
    }
    if fresh {
        prepare(&root).map_err(failed("prepare an empty base"))?;
    }
    let guard = forbid_services(&root).map_err(failed("write policy-rc.d"))?;
    drop(root);
    let phases = phases::plan(&new, fresh)?;
    let installer = Installer { tree, options, debs: &new, fresh, events };
    installer.run(&phases)?;
    let root = open(tree)?;
    if guard {
        root.remove(POLICY).map_err(failed("remove policy-rc.d"))?;
    }
    let unfinished = database::unfinished(&root).map_err(failed("read dpkg's status"))?;
    if !unfinished.is_empty() {
        let packages = unfinished.into_iter().map(|(name, state)| format!("{name} ({state})")).collect();
        return Err(InstallError::Unfinished { packages });
    }
    cleanup::clean(&root).map_err(failed("remove what the package tools leave behind"))
}

const POLICY: &str = "usr/sbin/policy-rc.d";

fn open(tree: &dyn Tree) -> Result<Root, InstallError> {
    tree.open().map(Root::new).map_err(failed("open the root directory"))
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> InstallError {
    move |source| InstallError::Tree { action, source }
}

/// Merged-/usr, as debootstrap sets it up for amd64, and an empty database.
fn prepare(root: &Root) -> io::Result<()> {
    rustix::fs::chmodat(root.fd(), ".", Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty())?;
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        root.make_directories(&format!("usr/{name}"))?;
        rustix::fs::symlinkat(format!("usr/{name}"), root.fd(), name)?;
    }
    database::create(root)
}

/// No service is started while an image is baked: `invoke-rc.d` asks this program. An image's own is left alone.
fn forbid_services(root: &Root) -> io::Result<bool> {
    if root.stat(POLICY)?.is_some() {
        return Ok(false);
    }
    root.make_directories("usr/sbin")?;
    root.write(POLICY, b"#!/bin/sh\nexit 101\n", 0o755)?;
    Ok(true)
}

struct Installer<'a> {
    tree: &'a dyn Tree,
    options: &'a Options,
    debs: &'a [Deb],
    fresh: bool,
    events: Events<'a>,
}

impl Installer<'_> {
    fn run(&self, phases: &[Vec<usize>]) -> Result<(), InstallError> {
        let mut pending = Vec::new();
        for (number, phase) in phases.iter().enumerate() {
            let first_ever = self.fresh && number == 0;
            let root = open(self.tree)?;
            for deb in self.with_preinst(phase) {
                database::write_before_unpacking(&root, deb).map_err(failed("write the files of preinst scripts"))?;
            }
            drop(root);
            if !first_ever {
                pending.extend(self.preinst_lines(phase));
                self.script(std::mem::take(&mut pending), phase.len())?;
            }
            self.unpack(phase)?;
            if first_ever {
                pending.extend(self.preinst_lines(phase));
                pending.extend(self.first_lines(phase));
            }
            // What comes after a script that failed would only hide what it said.
            pending.push("dpkg --abort-after=1 --configure -a".to_owned());
        }
        self.script(pending, phases.last().map_or(0, Vec::len))
    }

    fn unpack(&self, phase: &[usize]) -> Result<(), InstallError> {
        let root = open(self.tree)?;
        let debs: Vec<&Deb> = phase.iter().map(|at| &self.debs[*at]).collect();
        let rules = database::rules(&root, !self.fresh).map_err(failed("read dpkg's diversions"))?;
        let contents = unpack(&debs, &root, &rules, self.events)?;
        let unpacked: Vec<_> = debs.into_iter().zip(contents).collect();
        database::write_unpacked(&root, &unpacked).map_err(failed("write dpkg's database"))
    }

    fn with_preinst(&self, phase: &[usize]) -> impl Iterator<Item = &Deb> {
        phase.iter().map(|at| &self.debs[*at]).filter(|deb| deb.files.contains_key("preinst"))
    }

    fn preinst_lines(&self, phase: &[usize]) -> Vec<String> {
        let line = |deb: &Deb| format!("preinst {} {} {}", deb.name(), deb.architecture(), deb.info_name());
        let mut lines: Vec<String> = self.with_preinst(phase).map(line).collect();
        if !lines.is_empty() {
            lines.push("rmdir --ignore-fail-on-non-empty /var/lib/dpkg/tmp.kiln".to_owned());
        }
        lines
    }

    /// base-passwd makes the users that base-files' script names, before dpkg could know who needs whom.
    fn first_lines(&self, phase: &[usize]) -> Option<String> {
        let names = ["base-passwd", "base-files"];
        let there = |name: &&str| phase.iter().any(|at| self.debs[*at].name() == *name);
        let names: Vec<&str> = names.into_iter().filter(there).collect();
        (!names.is_empty()).then(|| format!("dpkg --force-depends --configure {}", names.join(" ")))
    }

    fn script(&self, lines: Vec<String>, packages: usize) -> Result<(), InstallError> {
        if lines.is_empty() {
            return Ok(());
        }
        (self.events)(Event::Configure { packages });
        let text = format!("{PREAMBLE}{}\n", lines.join("\n"));
        let name = "configure the packages".to_owned();
        let command = ["/bin/sh", "-c", &text].map(str::to_owned).to_vec();
        let script = Script { name: name.clone(), command, environment: environment(self.options) };
        self.tree.run(&script).map_err(|source| match blame::found(&source.to_string()) {
            Some(Blamed { package, script, output }) => InstallError::MaintainerScript { package, script, output },
            None => InstallError::Script { name, source },
        })
    }
}

/// What dpkg gives a `preinst` script: its package's control files in `tmp.ci`, and the variables of dpkg(1).
/// Both streams are one, so that what a script said stands before what dpkg says of it.
const PREAMBLE: &str = r#"set -eu
exec 2>&1
cd /
preinst() {
    mv "/var/lib/dpkg/tmp.kiln/$3" /var/lib/dpkg/tmp.ci
    DPKG_MAINTSCRIPT_PACKAGE=$1 DPKG_MAINTSCRIPT_ARCH=$2 DPKG_MAINTSCRIPT_NAME=preinst \
    DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_MAINTSCRIPT_DEBUG=0 DPKG_ROOT= DPKG_ADMINDIR=/var/lib/dpkg \
    /var/lib/dpkg/tmp.ci/preinst install </dev/null || {
        echo "the preinst script of package $1 failed" >&2
        exit 1
    }
    rm -r /var/lib/dpkg/tmp.ci
}
"#;

fn environment(options: &Options) -> Vec<(String, String)> {
    let epoch = options.source_date_epoch.to_string();
    [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("TERM", "dumb"),
        ("LC_ALL", "C"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("SOURCE_DATE_EPOCH", &epoch),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}
