//! Where packages come from: the keys of `[base]` that say so, and `[base.repository.NAME]`.
//!
//! A Debian or Ubuntu base is made from its archive. An image that somebody made before says itself which suite it is, and what is
//! installed over it comes from the archive of that suite; the same keys change it in the same way.

use super::{DebianBase, Distribution, FileKind, check, text::Context};
use crate::{
    diagnostic::shown,
    text::{Table, Value},
};

pub(crate) mod repository;

pub use repository::{Layout, Repository};

/// The keys of `[base]` that name archives.
pub(super) const KEYS: [&str; 5] = ["mirror", "security_mirror", "components", "keyring", "repository"];
/// A keyring longer than this (bytes) is refused.
const MAX_KEYRING: u64 = 4 << 20;

/// What a recipe says of the archives that packages come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Without a trailing `/`; [`Distribution::mirror`] where nothing is said.
    pub mirror: Option<String>,
    /// Where security updates come from.
    pub security: Security,
    /// [`Distribution::components`] where nothing is said.
    pub components: Option<Vec<String>>,
    /// OpenPGP keyring file, relative to the recipe, in place of the keys shipped with Kiln.
    pub keyring: Option<String>,
    /// Further repositories, by name.
    pub repositories: Vec<Repository>,
}

/// Where security updates come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Security {
    /// [`Distribution::security_mirror`].
    #[default]
    Usual,
    /// This archive, without a trailing `/`.
    At(String),
    /// There are none.
    Off,
}

impl Sources {
    /// The archives of a suite.
    pub fn of(&self, distribution: Distribution, suite: String, packages: Vec<String>) -> DebianBase {
        let usual = || distribution.components().iter().map(|component| (*component).to_owned()).collect();
        DebianBase {
            distribution,
            suite,
            packages,
            mirror: self.mirror.clone().unwrap_or_else(|| distribution.mirror().to_owned()),
            security_mirror: match &self.security {
                Security::Usual => Some(distribution.security_mirror().to_owned()),
                Security::At(address) => Some(address.clone()),
                Security::Off => None,
            },
            components: self.components.clone().unwrap_or_else(usual),
            keyring: self.keyring.clone(),
            repositories: self.repositories.clone(),
        }
    }
}

pub(super) fn read(table: &Table<'_>, context: &Context<'_>) -> Option<Sources> {
    let mirror = table.get("mirror").map_or(Some(None), |v| address(&v).map(Some));
    let security = match table.get("security_mirror") {
        None => Some(Security::Usual),
        Some(value) if value.is_false() => Some(Security::Off),
        Some(value) => address(&value).map(Security::At),
    };
    let components = table.get("components").map_or(Some(None), |v| components(&v).map(Some));
    let keyring = table.get("keyring").map_or(Some(None), |v| keyring(&v, context, KEYRING).map(Some));
    let repositories = table.get("repository").map_or(Some(Vec::new()), |v| repository::all(&v, context));
    Some(Sources {
        mirror: mirror?,
        security: security?,
        components: components?,
        keyring: keyring?,
        repositories: repositories?,
    })
}

fn address(value: &Value<'_>) -> Option<String> {
    let text = value.checked("\"http://deb.debian.org/debian\"", check::address)?;
    Some(text.trim_end_matches('/').to_owned())
}

fn components(value: &Value<'_>) -> Option<Vec<String>> {
    let example = "[\"main\", \"contrib\"]";
    let items = value.list(example)?;
    if items.is_empty() {
        return value
            .place
            .report("an archive without components has no packages", format!("write `components = {example}`"));
    }
    let word = |text: &str| {
        let good = !text.is_empty()
            && text
                .split('/')
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        if good { Ok(()) } else { Err(format!("`{}` is not a component of an archive", shown(text))) }
    };
    let words: Vec<_> = items.iter().map(|item| item.checked(example, word)).collect();
    words.into_iter().collect()
}

/// What to say of a file of keys.
struct KeyWords {
    example: &'static str,
    missing: &'static str,
}
const KEYRING: KeyWords = KeyWords {
    example: "\"keys/archive.gpg\"",
    missing: "add the keyring, or remove `keyring` to use the archive keys shipped with Kiln",
};

fn keyring(value: &Value<'_>, context: &Context<'_>, words: KeyWords) -> Option<String> {
    let path = value.checked(words.example, check::recipe_path)?;
    match context.files.kind(&path) {
        Ok(Some(FileKind::File)) => {}
        Ok(Some(_)) => return value.place.report(format!("`{path}` is not a file"), "name the OpenPGP keyring itself"),
        Ok(None) => {
            return value.place.report(format!("there is no file `{path}` beside the recipe"), words.missing);
        }
        Err(problem) => {
            return value
                .place
                .report(format!("`{path}` cannot be used: {problem}"), "put the keyring into the recipe's directory");
        }
    }
    match context.files.read(&path, MAX_KEYRING) {
        Ok(_) => Some(path),
        Err(problem) => value
            .place
            .report(format!("`{path}` cannot be used: {problem}"), "a keyring is an OpenPGP file of at most 4 MiB"),
    }
}
