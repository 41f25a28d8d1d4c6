//! `kiln.lock`: the exact packages of a bake, so that the same recipe gives the same image on any machine.
//!
//! The lock names what was resolved, not where it is downloaded from: another mirror of the same archive gives the same
//! bytes. One [`LockedSet`] stands for the packages of `[base]` and one for each `packages` step, in the recipe's order;
//! a lock whose `wanted` lists are not the recipe's is stale ([`Lock::fits`]). The text form is TOML with one package a
//! line, in a stable order, so that a refreshed lock reads well in a review.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    recipe::{Base, ContainerfileBase, Recipe, Repository, StepKind, check_recipe_path, provision::ToolFrom},
    text::quoted,
};

/// The version this program writes and the only one it reads.
pub const VERSION: u32 = 1;
/// A lock file longer than this (bytes) is refused.
pub const MAX_BYTES: usize = 16 << 20;
/// A lock with more OCI images than this is refused.
pub const MAX_IMAGES: usize = 1000;
/// A lock with more packages than this is refused.
pub const MAX_PACKAGES: usize = 20_000;
/// The [`LockedPackage::archive`] of a file beside the recipe.
pub const FILE: &str = "file";
/// What the archives of a base are called.
const OWN: [&str; 3] = ["main", "updates", "security"];
/// What no repository of a recipe can be called.
pub(crate) const RESERVED: [&str; 4] = ["main", "updates", "security", FILE];

/// The exact packages of a bake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Format: [`VERSION`].
    pub version: u32,
    /// Code name of the suite that packages come from.
    #[serde(default)]
    pub suite: Option<String>,
    /// The image of this host that the packages are installed over: what they need beside it was resolved for this one.
    #[serde(default)]
    pub over: Option<Digest>,
    /// The OCI image the recipe starts from.
    #[serde(default)]
    pub oci: Option<LockedOci>,
    /// The OCI images that the recipe's Containerfile names.
    #[serde(default, rename = "image")]
    pub images: Vec<LockedOci>,
    /// The archive states that were resolved against, in order of preference.
    #[serde(default, rename = "archive")]
    pub archives: Vec<LockedArchive>,
    /// The packages of `[base]`, then those of each `packages` step in the recipe's order.
    #[serde(default, rename = "set")]
    pub sets: Vec<LockedSet>,
    /// The packages of each configuration tool that steps use, beside nothing: they never become part of an image.
    #[serde(default, rename = "tool")]
    pub tools: Vec<LockedSet>,
}

/// What an OCI base was resolved to. An image in a file or directory is locked as well: it may be written anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedOci {
    /// The recipe's words for it.
    pub source: String,
    /// The manifest, of this platform where the image is for several.
    pub manifest: Digest,
}

/// The state of one archive suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedArchive {
    /// `main` (the recipe's `mirror`), `updates` (`mirror` as well), `security` (its `security_mirror`), or the name of one of the
    /// recipe's repositories.
    pub name: String,
    /// The suite below `dists/`: `bookworm`, `bookworm-updates`, `bookworm-security`; of a flat repository its path, ending with `/`.
    pub suite: String,
    /// `Date` of the release file.
    pub date: jiff::Timestamp,
    /// SHA-256 of InRelease; of Release where that is signed beside itself.
    pub in_release: Digest,
}

/// What one list of wanted packages was resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedSet {
    /// The recipe's list as written.
    pub wanted: Vec<String>,
    /// Every package that is installed for it, in the order in which they are unpacked.
    #[serde(default)]
    pub packages: Vec<LockedPackage>,
}

/// One package, exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its full version.
    pub version: String,
    /// `amd64`, `all`.
    pub architecture: String,
    /// The [`LockedArchive::name`] it comes from, or [`FILE`].
    pub archive: String,
    /// Path below the archive's address, or beside the recipe.
    pub filename: String,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
}

/// Why a text is not a usable lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It is too long.
    #[error("the lock is {bytes} bytes long; at most {MAX_BYTES} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is not a lock.
    #[error("the lock cannot be read")]
    Syntax(#[source] Box<toml::de::Error>),
    /// A later Kiln wrote it.
    #[error("the lock has version {found}; this Kiln reads version {VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// A value no Kiln writes.
    #[error("the lock's {what} is `{value}`: {rule}")]
    Value {
        /// What the value is for.
        what: &'static str,
        /// The value, shortened to 80 characters.
        value: String,
        /// The rule it breaks.
        rule: &'static str,
    },
}

/// A lock that does not belong to the recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// Another base.
    #[error("the lock is for {locked}, the recipe starts from {wanted}")]
    Base {
        /// In the lock.
        locked: String,
        /// In the recipe.
        wanted: String,
    },
    /// Another number of package lists.
    #[error("the lock holds {locked} package lists, the recipe has {wanted}")]
    Lists {
        /// In the lock.
        locked: usize,
        /// In the recipe.
        wanted: usize,
    },
    /// Other repositories.
    #[error("the lock was made with the repositories [{locked}], the recipe has [{wanted}]")]
    Repositories {
        /// In the lock: name and suite of each.
        locked: String,
        /// In the recipe.
        wanted: String,
    },
    /// A package's file is another one now.
    #[error("`{path}` has changed: the lock was made with {locked}, the file is {found} now")]
    File {
        /// Beside the recipe.
        path: String,
        /// In the lock: bytes and SHA-256.
        locked: String,
        /// What is there.
        found: String,
    },
    /// Other packages.
    #[error("the lock was made for the packages [{locked}], the recipe wants [{wanted}]")]
    Packages {
        /// In the lock.
        locked: String,
        /// In the recipe.
        wanted: String,
    },
    /// A configuration tool that is not in the lock.
    #[error("the lock does not have the tool that a step needs [{wanted}]")]
    Tool {
        /// In the recipe.
        wanted: String,
    },
}

impl Lock {
    /// Reads a lock, refusing unknown keys, other versions and values that no Kiln writes.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        if text.len() > MAX_BYTES {
            return Err(LockError::TooLong { bytes: text.len() });
        }
        let lock: Self = toml::from_str(text).map_err(|e| LockError::Syntax(Box::new(e)))?;
        if lock.version != VERSION {
            return Err(LockError::Version { found: lock.version });
        }
        lock.check()?;
        Ok(lock)
    }

    /// The text form, ending with a line feed.
    pub fn render(&self) -> String {
        let mut out = String::from(
            "# Written by `kiln lock`. Keep it under version control; `kiln lock --update` refreshes it.\n",
        );
        line(&mut out, &[("version", self.version.to_string())]);
        if let Some(suite) = &self.suite {
            line(&mut out, &[("suite", quoted(suite))]);
        }
        if let Some(over) = &self.over {
            line(&mut out, &[("over", quoted(&over.to_string()))]);
        }
        if let Some(oci) = &self.oci {
            out.push_str("\n[oci]\n");
            line(&mut out, &[("source", quoted(&oci.source)), ("manifest", quoted(&oci.manifest.to_string()))]);
        }
        for image in &self.images {
            out.push_str("\n[[image]]\n");
            line(&mut out, &[("source", quoted(&image.source)), ("manifest", quoted(&image.manifest.to_string()))]);
        }
        for archive in &self.archives {
            out.push_str("\n[[archive]]\n");
            line(
                &mut out,
                &[
                    ("name", quoted(&archive.name)),
                    ("suite", quoted(&archive.suite)),
                    ("date", quoted(&archive.date.to_string())),
                    ("in_release", quoted(&archive.in_release.to_string())),
                ],
            );
        }
        let named = |name, sets| std::iter::repeat(name).zip(sets);
        for (name, set) in named("set", &self.sets).chain(named("tool", &self.tools)) {
            let wanted: Vec<_> = set.wanted.iter().map(|w| quoted(w)).collect();
            let packages: String = set.packages.iter().map(|p| format!("  {},\n", p.render())).collect();
            write!(out, "\n[[{name}]]\nwanted = [{}]\npackages = [\n{packages}]\n", wanted.join(", "))
                .expect("writing to a String cannot fail");
        }
        out
    }

    /// Whether this lock is the recipe's: same base, same wanted lists.
    pub fn fits(&self, recipe: &Recipe) -> Result<(), Stale> {
        let (locked, wanted_base) = match &recipe.base {
            Base::Debian(base) => (self.suite.clone(), Some(base.suite.clone())),
            Base::Oci(base) => (self.oci.as_ref().map(|oci| oci.source.clone()), Some(base.source.to_string())),
            Base::Containerfile(base) => return self.fits_images(base),
            // Which one it is now, only the store knows.
            Base::Image(_) => (None, None),
        };
        let other = matches!(recipe.base, Base::Debian(_)) && (self.oci.is_some() || self.over.is_some());
        if locked != wanted_base || other {
            let shown = |base: Option<String>| base.unwrap_or("nothing".to_owned());
            let locked = self.oci.as_ref().map(|oci| oci.source.clone()).or(locked);
            return Err(Stale::Base { locked: shown(locked), wanted: shown(wanted_base) });
        }
        let wanted = wanted(recipe);
        if wanted.len() != self.sets.len() {
            return Err(Stale::Lists { locked: self.sets.len(), wanted: wanted.len() });
        }
        if let Some((set, wanted)) = self.sets.iter().zip(&wanted).find(|(set, wanted)| set.wanted != **wanted) {
            return Err(Stale::Packages { locked: set.wanted.join(", "), wanted: wanted.join(", ") });
        }
        if !wanted.is_empty() {
            self.fits_repositories(repositories(recipe))?;
        }
        match wanted_tools(recipe).into_iter().find(|wanted| self.tool(wanted).is_none()) {
            None => Ok(()),
            Some(wanted) => Err(Stale::Tool { wanted: wanted.join(", ") }),
        }
    }

    /// The packages of a configuration tool.
    pub fn tool(&self, wanted: &[&str]) -> Option<&LockedSet> {
        self.tools.iter().find(|set| set.wanted == wanted)
    }

    fn fits_repositories(&self, wanted: &[Repository]) -> Result<(), Stale> {
        let locked = self.archives.iter().filter(|archive| !archive.is_of_base());
        let locked: Vec<_> = locked.map(|archive| format!("{} {}", archive.name, archive.suite)).collect();
        let wanted: Vec<_> = wanted.iter().map(|wanted| format!("{} {}", wanted.name, wanted.layout)).collect();
        match locked == wanted {
            true => Ok(()),
            false => Err(Stale::Repositories { locked: locked.join(", "), wanted: wanted.join(", ") }),
        }
    }

    /// The packages that are files beside the recipe.
    pub fn files(&self) -> impl Iterator<Item = &LockedPackage> {
        self.sets.iter().flat_map(|set| &set.packages).filter(|package| package.is_file())
    }

    /// Whether the images are those that the Containerfile names.
    fn fits_images(&self, base: &ContainerfileBase) -> Result<(), Stale> {
        let wanted: Vec<_> = base.plan.images().iter().map(ToString::to_string).collect();
        let locked: Vec<_> = self.images.iter().map(|image| image.source.clone()).collect();
        let shown = |images: &[String]| if images.is_empty() { "no image".to_owned() } else { images.join(", ") };
        match wanted == locked && self.suite.is_none() && self.oci.is_none() {
            true => Ok(()),
            false => Err(Stale::Base { locked: shown(&locked), wanted: shown(&wanted) }),
        }
    }

    fn check(&self) -> Result<(), LockError> {
        let packages = || self.sets.iter().chain(&self.tools).flat_map(|set| &set.packages);
        let count = packages().count();
        if count > MAX_PACKAGES {
            return Err(bad("number of packages", &count.to_string(), "at most 20000 are read"));
        }
        if self.images.len() > MAX_IMAGES {
            return Err(bad("number of images", &self.images.len().to_string(), "at most 1000 are read"));
        }
        for package in packages() {
            package.check()?;
            if !package.is_file() && !self.archives.iter().any(|archive| archive.name == package.archive) {
                return Err(bad("package archive", &package.archive, "no [[archive]] has this name"));
            }
        }
        Ok(())
    }
}

impl LockedArchive {
    /// Whether it is an archive of the base, and no repository of the recipe.
    pub fn is_of_base(&self) -> bool {
        OWN.contains(&self.name.as_str())
    }
}

impl LockedPackage {
    /// Whether it is a file beside the recipe.
    pub fn is_file(&self) -> bool {
        self.archive == FILE
    }

    fn check(&self) -> Result<(), LockError> {
        let plain = |text: &str, extra: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
        };
        if !plain(&self.name, "+-.") {
            return Err(bad("package name", &self.name, "a Debian package name is made of a-z, 0-9, +, - and ."));
        }
        if !plain(&self.version, "+-.:~") {
            return Err(bad(
                "package version",
                &self.version,
                "a Debian version is made of a-z, 0-9, +, -, ., : and ~",
            ));
        }
        if !plain(&self.architecture, "-") {
            return Err(bad("package architecture", &self.architecture, "an architecture is made of a-z, 0-9 and -"));
        }
        if self.is_file() {
            return check_recipe_path(&self.filename).map_err(|_| {
                bad("package file", &self.filename, "a file beside the recipe has a relative path without `..`")
            });
        }
        let path = plain(&self.filename, "/+-.:~_%") && !self.filename.starts_with('/');
        if !path || self.filename.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(bad("package file", &self.filename, "a path below the archive has no `..` and no leading `/`"));
        }
        Ok(())
    }

    fn render(&self) -> String {
        format!(
            "{{ name = {}, version = {}, architecture = {}, archive = {}, filename = {}, size = {}, sha256 = {} }}",
            quoted(&self.name),
            quoted(&self.version),
            quoted(&self.architecture),
            quoted(&self.archive),
            quoted(&self.filename),
            self.size,
            quoted(&self.sha256.to_string()),
        )
    }
}

fn repositories(recipe: &Recipe) -> &[Repository] {
    match &recipe.base {
        Base::Debian(base) => &base.repositories,
        Base::Image(_) | Base::Oci(_) | Base::Containerfile(_) => &recipe.sources.repositories,
    }
}

/// The package lists of a recipe that a lock must hold, in order: that of `[base]` (Debian bases only), then those of
/// the `packages` steps.
pub fn wanted(recipe: &Recipe) -> Vec<&[String]> {
    let base = match &recipe.base {
        Base::Debian(base) => Some(base.packages.as_slice()),
        Base::Image(_) | Base::Oci(_) | Base::Containerfile(_) => None,
    };
    let steps = recipe.steps.iter().filter_map(|step| match &step.kind {
        StepKind::Packages { names } => Some(names.as_slice()),
        StepKind::Copy { .. } | StepKind::Run { .. } | StepKind::Remove { .. } | StepKind::Provision(_) => None,
    });
    base.into_iter().chain(steps).collect()
}

/// The packages of each configuration tool that Kiln bakes for steps of this recipe, each tool once.
pub fn wanted_tools(recipe: &Recipe) -> Vec<&'static [&'static str]> {
    let mut found = Vec::new();
    for step in &recipe.steps {
        match &step.kind {
            StepKind::Provision(provision) if provision.from == ToolFrom::Archive => {
                let wanted = provision.tool.packages();
                if !found.contains(&wanted) {
                    found.push(wanted);
                }
            }
            _ => {}
        }
    }
    found
}

fn bad(what: &'static str, value: &str, rule: &'static str) -> LockError {
    LockError::Value { what, value: value.chars().take(80).collect(), rule }
}

fn line(out: &mut String, pairs: &[(&str, String)]) {
    for (key, value) in pairs {
        writeln!(out, "{key} = {value}").expect("writing to a String cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str) -> LockedPackage {
        LockedPackage {
            name: name.into(),
            version: "1:2.0~rc1+b1-1".into(),
            architecture: "amd64".into(),
            archive: "main".into(),
            filename: format!("pool/main/{name}_2.0_amd64.deb"),
            size: 12,
            sha256: Digest::of(name.as_bytes()),
        }
    }

    fn lock() -> Lock {
        Lock {
            version: VERSION,
            suite: Some("bookworm".into()),
            over: None,
            oci: None,
            images: Vec::new(),
            archives: vec![LockedArchive {
                name: "main".into(),
                suite: "bookworm".into(),
                date: jiff::Timestamp::UNIX_EPOCH,
                in_release: Digest::of(b"in release"),
            }],
            sets: vec![LockedSet { wanted: vec!["nginx".into()], packages: vec![package("nginx"), package("libc6")] }],
            tools: vec![],
        }
    }

    #[test]
    fn unit_text_form_is_stable_and_round_trips() {
        let text = lock().render();
        insta::assert_snapshot!(text);
        assert_eq!(Lock::parse(&text).expect("own text is readable"), lock());
    }

    #[test]
    fn unit_a_file_is_locked_with_its_path_whatever_that_is() {
        let mut lock = lock();
        let file = LockedPackage { archive: FILE.into(), filename: "a b/ünï \"1\".deb".into(), ..package("app") };
        lock.sets[0].packages.push(file.clone());
        let read = Lock::parse(&lock.render()).expect("own text is readable");
        assert_eq!((read.files().collect::<Vec<_>>(), &read), (vec![&file], &lock));
        for path in ["../app.deb", "/app.deb", "a\u{7}.deb"] {
            let away = LockedPackage { filename: path.into(), ..file.clone() };
            lock.sets[0].packages = vec![away];
            assert!(Lock::parse(&lock.render()).is_err(), "{path} is accepted");
        }
    }

    #[test]
    fn unit_what_no_kiln_writes_is_refused() {
        let text = lock().render();
        for (from, to) in [
            ("version = 1", "version = 2"),
            ("pool/main/nginx", "../../etc/nginx"),
            ("pool/main/nginx", "/etc/nginx"),
            ("name = \"nginx\"", "name = \"ng inx\""),
            ("archive = \"main\"", "archive = \"elsewhere\""),
            ("suite = \"bookworm\"", "suite = \"bookworm\"\nsurprise = 1"),
            ("sha256:", "sha1:"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from} is in the text");
            assert!(Lock::parse(&changed).is_err(), "{to} is accepted");
        }
        assert!(matches!(Lock::parse(&" ".repeat(MAX_BYTES + 1)), Err(LockError::TooLong { .. })));
    }
}
