//! Which variables have which values where: `ARG`s and `ENV`s of one stage.

use std::collections::BTreeMap;

use super::{ExpandError, Instruction, Kind, Word};
use crate::oci;

/// Arguments that need no `ARG`, and that neither a key nor an image holds.
pub const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What `FROM`s see without an `ARG`, and stages with one that has no default.
pub(super) fn platform() -> BTreeMap<String, String> {
    let architecture = oci::architecture();
    let both = |name: &str| [("TARGET", name), ("BUILD", name)].map(|(a, b)| format!("{a}{b}"));
    let values = [
        ("PLATFORM", format!("linux/{architecture}")),
        ("OS", "linux".to_owned()),
        ("ARCH", architecture.to_owned()),
        ("VARIANT", String::new()),
    ];
    values.into_iter().flat_map(|(name, value)| both(name).map(|name| (name, value.clone()))).collect()
}

/// The variables of a stage, as far as it has come.
#[derive(Debug, Clone)]
pub struct Scope {
    /// What the recipe says.
    given: BTreeMap<String, String>,
    /// `ARG`s before the first `FROM`, and the platform's.
    globals: BTreeMap<String, String>,
    /// `ARG`s of the stage that have a value.
    arguments: BTreeMap<String, String>,
    /// `ENV`, in the order in which an image lists it.
    environment: Vec<(String, String)>,
}

impl Scope {
    /// The scope before the first `FROM`, behind all of its `ARG`s.
    pub(super) fn global(
        globals: &[Instruction],
        given: &BTreeMap<String, String>,
    ) -> Result<Self, (usize, ExpandError)> {
        let mut scope =
            Self { given: given.clone(), globals: platform(), arguments: platform(), environment: Vec::new() };
        for (index, instruction) in globals.iter().enumerate() {
            if let Kind::Arg(list) = &instruction.kind {
                scope.declare(list).map_err(|error| (index, error))?;
            }
        }
        scope.globals = scope.arguments.clone();
        Ok(scope)
    }

    /// A stage's, over an image with these variables.
    pub fn stage(&self, environment: Vec<(String, String)>) -> Self {
        Self { arguments: BTreeMap::new(), environment, ..self.clone() }
    }

    /// The value of a variable: `ENV` goes before `ARG`.
    pub fn value(&self, name: &str) -> Option<String> {
        let set = self.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        set.or_else(|| self.arguments.get(name)).cloned()
    }

    /// The value of a word.
    pub fn expand(&self, word: &Word) -> Result<String, ExpandError> {
        word.expand(&|name| self.value(name))
    }

    /// An `ARG`. All values are put together before the first one counts.
    pub fn declare(&mut self, list: &[(String, Option<Word>)]) -> Result<(), ExpandError> {
        let mut values = Vec::new();
        for (name, usual) in list {
            let usual = usual.as_ref().map(|word| self.expand(word)).transpose()?;
            let value = self.given.get(name).cloned().or(usual).or_else(|| self.globals.get(name).cloned());
            values.push((name.clone(), value));
        }
        for (name, value) in values {
            match value {
                Some(value) => drop(self.arguments.insert(name, value)),
                None => drop(self.arguments.remove(&name)),
            }
        }
        Ok(())
    }

    /// An `ENV`. All values are put together before the first one counts.
    pub fn set(&mut self, list: &[(Word, Word)]) -> Result<(), ExpandError> {
        let pairs: Result<Vec<_>, ExpandError> =
            list.iter().map(|(name, value)| Ok((self.expand(name)?, self.expand(value)?))).collect();
        for (name, value) in pairs? {
            match self.environment.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = value,
                None => self.environment.push((name, value)),
            }
        }
        match self.environment.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() {
            size if size > 8 * super::MAX_VALUE => Err(ExpandError::TooLong),
            _ => Ok(()),
        }
    }

    /// The variables that the image has.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The variables that a command sees: `ARG`s below `ENV`s.
    pub fn of_commands(&self) -> BTreeMap<String, String> {
        let own = self.arguments.iter().map(|(name, value)| (name.clone(), value.clone()));
        own.chain(self.environment.iter().cloned()).collect()
    }

    /// Proxies that the recipe says: for commands only.
    pub fn proxies(&self) -> impl Iterator<Item = (&String, &String)> {
        self.given.iter().filter(|(name, _)| PROXIES.contains(&name.as_str()))
    }
}
