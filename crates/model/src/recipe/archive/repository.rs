//! `[base.repository.NAME]`: a repository of somebody else.
//!
//! `suite` says as in apt's `sources.list` how its files lie: a name is a suite below `dists/`, with components; a path that ends
//! with `/` is a flat repository, which has none.

use std::fmt;

use super::{KeyWords, address, components, keyring};
use crate::{
    diagnostic::shown,
    id::RepositoryName,
    lock,
    recipe::text::Context,
    text::{Entry, Keys, Table, Value},
};

/// The keys of a repository.
pub(crate) const KEYS: Keys = Keys { of: "a repository", valid: &["url", "suite", "components", "key"] };
const EXAMPLE: &str = "{ vendor = { url = \"https://packages.example.org/debian\", suite = \"bookworm\", components = [\"main\"], key = \"vendor.asc\" } }";
const KEY: KeyWords = KeyWords {
    example: "\"vendor.asc\"",
    missing: "put the key there that the vendor publishes, armoured or binary, after comparing its fingerprint",
};
const MAX_REPOSITORIES: usize = 32;

/// A repository of somebody else, beside the archives of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// What a lock calls it.
    pub name: RepositoryName,
    /// Its address, without a trailing `/`.
    pub url: String,
    /// How its files lie there.
    pub layout: Layout,
    /// The OpenPGP file, relative to the recipe, of the keys that sign it. They count for nothing else.
    pub key: String,
}

/// How the files of a repository lie below its address. Its text is what apt's `sources.list` has after the address: `bookworm`, `/`,
/// `stable/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Below `dists/`, with an index for each component.
    Suite {
        /// Its name there.
        suite: String,
        /// Its components.
        components: Vec<String>,
    },
    /// One directory with one index for all.
    Flat {
        /// Its path below the address, ending with `/`; empty for the address itself.
        directory: String,
    },
}

impl Layout {
    /// The directory of the release file, below the address, ending with `/`; empty for the address itself.
    pub fn directory(&self) -> String {
        match self {
            Self::Suite { suite, .. } => format!("dists/{suite}/"),
            Self::Flat { directory } => directory.clone(),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suite { suite, .. } => f.write_str(suite),
            Self::Flat { directory } if directory.is_empty() => f.write_str("/"),
            Self::Flat { directory } => f.write_str(directory),
        }
    }
}

pub(super) fn all(value: &Value<'_>, context: &Context<'_>) -> Option<Vec<Repository>> {
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
    let table = entry.value.table(KEYS, EXAMPLE)?;
    let example = "url = \"https://packages.example.org/debian\"";
    let url = table.required("url", example).and_then(|v| address(&v));
    let layout = layout(&table);
    let key = table.required("key", "key = \"vendor.asc\"").and_then(|v| keyring(&v, context, KEY));
    Some(Repository { name: name?, url: url?, layout: layout?, key: key? })
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

fn layout(table: &Table<'_>) -> Option<Layout> {
    let value = table.required("suite", "suite = \"bookworm\"");
    match value.as_ref().and_then(Value::as_text).filter(|text| text.ends_with('/')) {
        None => {
            let suite = value.and_then(|v| v.checked("\"bookworm\"", suite));
            let components = table.required("components", "components = [\"main\"]").and_then(|v| components(&v));
            Some(Layout::Suite { suite: suite?, components: components? })
        }
        Some(text) => {
            let path = value.and_then(|v| v.checked("\"stable/\"", directory));
            if let Some(components) = table.get("components") {
                return components.place.report(
                    format!("`suite = \"{}\"` is a flat repository, and flat ones have no components", shown(text)),
                    "leave `components` out; a suite below `dists/` is written without the `/` at its end",
                );
            }
            path.map(|path| Layout::Flat {
                directory: path.trim_start_matches("./").trim_start_matches('/').to_owned(),
            })
        }
    }
}

fn suite(text: &str) -> Result<(), String> {
    match is_path(text) {
        true => Ok(()),
        false => Err(format!("`{}` is not a suite below `dists/`", shown(text))),
    }
}

/// apt takes `/` and `./` both for the address itself.
fn directory(text: &str) -> Result<(), String> {
    if text.contains("$(ARCH)") {
        return Err("apt fills in `$(ARCH)`, and images are for amd64: write `amd64` in its place".to_owned());
    }
    match ["/", "./"].contains(&text) || text.strip_suffix('/').is_some_and(is_path) {
        true => Ok(()),
        false => Err(format!("`{}` is not the path of a flat repository below its address", shown(text))),
    }
}

fn is_path(text: &str) -> bool {
    let part = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._+~:".contains(&b);
        !part.is_empty() && part.bytes().all(plain) && !part.bytes().all(|b| b == b'.')
    };
    text.len() <= 255 && text.split('/').all(part)
}
