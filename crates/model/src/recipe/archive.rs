//! Where packages come from: the keys of `[base]` that say so, and `[base.repository.NAME]`.
//!
//! A Debian or Ubuntu base is made from its archive. An image that somebody made before says itself which suite it is, and what is
//! installed over it comes from the archive of that suite; the same keys change it in the same way.

use super::{DebianBase, Distribution, FileKind, check, text::Context};
use crate::{
    diagnostic::shown,
    id::RepositoryName,
    lock,
    text::{Entry, Keys, Table, Value},
};

/// The keys of `[base]` that name archives.
pub(super) const KEYS: [&str; 5] = ["mirror", "security_mirror", "components", "keyring", "repository"];
/// The keys of a repository.
pub(crate) const REPOSITORY: Keys = Keys { of: "a repository", valid: &["url", "suite", "components", "key"] };
const EXAMPLE: &str = "{ vendor = { url = \"https://packages.example.org/debian\", suite = \"bookworm\", components = [\"main\"], key = \"vendor.asc\" } }";
/// A keyring longer than this (bytes) is refused.
const MAX_KEYRING: u64 = 4 << 20;
const MAX_REPOSITORIES: usize = 32;

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

/// A repository of somebody else, beside the archives of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// What a lock calls it.
    pub name: RepositoryName,
    /// Its address, without a trailing `/`.
    pub url: String,
    /// Its suite below `dists/`.
    pub suite: String,
    /// Its components.
    pub components: Vec<String>,
    /// The OpenPGP file, relative to the recipe, of the keys that sign it. They count for nothing else.
    pub key: String,
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
    let repositories = table.get("repository").map_or(Some(Vec::new()), |v| repositories(&v, context));
    Some(Sources {
        mirror: mirror?,
        security: security?,
        components: components?,
        keyring: keyring?,
        repositories: repositories?,
    })
}

fn repositories(value: &Value<'_>, context: &Context<'_>) -> Option<Vec<Repository>> {
    let entries: Vec<_> = value.map(EXAMPLE)?.entries().collect();
    if entries.len() > MAX_REPOSITORIES {
        return value.place.report(
            format!("there are {} repositories", entries.len()),
            format!("at most {MAX_REPOSITORIES} are possible"),
        );
    }
    let all: Vec<_> = entries.iter().map(|entry| repository(entry, context)).collect();
    all.into_iter().collect()
}

fn repository(entry: &Entry<'_>, context: &Context<'_>) -> Option<Repository> {
    let name = name(entry);
    let table = entry.value.table(REPOSITORY, EXAMPLE)?;
    let example = "url = \"https://packages.example.org/debian\"";
    let url = table.required("url", example).and_then(|v| address(&v));
    let suite = table.required("suite", "suite = \"bookworm\"").and_then(|v| v.checked("\"bookworm\"", suite));
    let components = table.required("components", "components = [\"main\"]").and_then(|v| components(&v));
    let key = table.required("key", "key = \"vendor.asc\"").and_then(|v| keyring(&v, context, KEY));
    Some(Repository { name: name?, url: url?, suite: suite?, components: components?, key: key? })
}

fn name(entry: &Entry<'_>) -> Option<RepositoryName> {
    let help = "for example: `[base.repository.vendor]`";
    match entry.key.parse::<RepositoryName>() {
        Ok(name) if lock::RESERVED.contains(&name.as_str()) => {
            entry.place.report(format!("`{name}` is what a lock calls something else"), help)
        }
        Ok(name) => Some(name),
        Err(error) => entry.place.report(error.to_string(), help),
    }
}

fn suite(text: &str) -> Result<(), String> {
    let part = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._+~:".contains(&b);
        !part.is_empty() && part.bytes().all(plain) && !part.bytes().all(|b| b == b'.')
    };
    let good = text.len() <= 255 && text.split('/').all(part);
    if good { Ok(()) } else { Err(format!("`{}` is not a suite below `dists/`", shown(text))) }
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
const KEY: KeyWords = KeyWords {
    example: "\"vendor.asc\"",
    missing: "put the key there that the vendor publishes, armoured or binary, after comparing its fingerprint",
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
