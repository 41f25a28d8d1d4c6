//! From values as they were found to a frozen configuration: checked, normalised, secrets set apart.

use std::{collections::BTreeMap, fmt};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{ConfigKey, ConfigSchema, ConfigValue, Delivery, Frozen, FrozenConfig, KeySpec, SecretHash, Secrets};
use crate::{
    digest::Digest,
    id::BindingName,
    manifest::{Binding, ImageManifest, is_loopback},
    text::suggest,
};

type Values = BTreeMap<ConfigKey, ConfigValue>;

/// Values as they were found: literals of a fleet, and the texts of everything that had to be asked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RawConfig {
    /// Environment variables of every service.
    pub environment: BTreeMap<String, String>,
    /// Values of the image's keys.
    pub values: Values,
    /// Fields of its bindings.
    pub bindings: BTreeMap<BindingName, Values>,
}

/// It may hold secrets: only names are shown.
impl fmt::Debug for RawConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.values.keys().map(ConfigKey::as_str).collect::<Vec<_>>();
        f.debug_struct("RawConfig").field("values", &names).finish_non_exhaustive()
    }
}

/// The key of a state directory for the hashes of secrets. It shows nothing.
#[derive(Clone)]
pub struct HashKey([u8; 32]);

impl HashKey {
    /// A key of 32 random bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// HMAC-SHA-256 (RFC 2104) of the secret's place and its value's JSON: two keys with the same secret have two hashes.
    pub fn hash(&self, place: &str, value: &ConfigValue) -> SecretHash {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(b"kiln-secret-v1\0");
        mac.update(place.as_bytes());
        mac.update(b"\0");
        mac.update(&serde_json::to_vec(value).expect("a value always serialises"));
        let bytes: [u8; 32] = mac.finalize().into_bytes().into();
        SecretHash(Digest::from_bytes(bytes))
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(…)")
    }
}

/// What freezing gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Froze {
    /// The configuration of the release.
    pub config: FrozenConfig,
    /// The secrets that it names.
    pub secrets: Secrets,
    /// The values of live keys, which are not part of the release.
    pub live: Values,
}

/// What is wrong with the value of a key. No value is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", described(.binding.as_ref(), .key, .kind))]
pub struct ConfigProblem {
    /// The binding whose field it is; none for a key of the image.
    pub binding: Option<BindingName>,
    /// The key.
    pub key: ConfigKey,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What can be wrong with the value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProblemKind {
    /// The image has no such key.
    Unknown {
        /// What was probably meant.
        meant: Option<String>,
    },
    /// The image has no such binding.
    NoBinding,
    /// The key has no value and no default.
    Missing {
        /// What the value must be.
        wanted: String,
    },
    /// The binding leads to the loopback, which is the server itself there.
    Loopback,
    /// The value does not fit.
    Unfit {
        /// What the value must be.
        wanted: String,
    },
}

fn described(binding: Option<&BindingName>, key: &ConfigKey, kind: &ProblemKind) -> String {
    let name = place(binding, key);
    match kind {
        ProblemKind::Unknown { meant: Some(meant) } => {
            format!("the image has no configuration key `{name}`; did you mean `{meant}`?")
        }
        ProblemKind::Unknown { meant: None } => format!("the image has no configuration key `{name}`"),
        ProblemKind::NoBinding => format!("the image has no service binding for `{name}`"),
        ProblemKind::Missing { wanted } => format!("`{name}` has no value: it must be {wanted}"),
        ProblemKind::Loopback => format!(
            "`{name}` must be an address that is reached from outside: inside a server, this one is the server itself"
        ),
        ProblemKind::Unfit { wanted } => format!("`{name}` must be {wanted}"),
    }
}

fn place(binding: Option<&BindingName>, key: &ConfigKey) -> String {
    binding.map_or_else(|| key.to_string(), |binding| format!("{binding}.{key}"))
}

impl ConfigSchema {
    /// What is wrong with giving a key this value, if anything is.
    pub fn problem(&self, key: &ConfigKey, value: Option<&ConfigValue>) -> Option<ProblemKind> {
        let Some(spec) = self.0.get(key) else {
            let valid: Vec<&str> = self.0.keys().map(ConfigKey::as_str).collect();
            let meant = suggest(key.as_str(), &valid).map(str::to_owned);
            return Some(ProblemKind::Unknown { meant });
        };
        let unfit = value.and_then(|value| spec.kind.fit(value).err());
        unfit.map(|unfit| ProblemKind::Unfit { wanted: unfit.0 })
    }

    /// The keys that must be given a value.
    pub fn required(&self) -> impl Iterator<Item = (&ConfigKey, &KeySpec)> {
        self.0.iter().filter(|(_, spec)| spec.is_required())
    }
}

impl KeySpec {
    /// Whether a fleet must give a value.
    pub fn is_required(&self) -> bool {
        self.default.is_none() && !self.optional
    }
}

/// Checks and freezes values for an image. Everything that is wrong is told.
pub fn freeze(manifest: &ImageManifest, raw: &RawConfig, key: &HashKey) -> Result<Froze, Vec<ConfigProblem>> {
    let mut work = Work { key, froze: Froze::default(), problems: Vec::new() };
    work.froze.config.environment = raw.environment.clone();
    work.froze.config.values = work.all(None, &manifest.config, &raw.values);
    for (name, binding) in &manifest.bindings {
        work.binding(name, binding, raw.bindings.get(name));
    }
    let unknown = raw.bindings.iter().filter(|(name, _)| !manifest.bindings.contains_key(*name));
    for (name, field) in unknown.flat_map(|(name, fields)| fields.keys().map(move |field| (name, field))) {
        work.wrong(Some(name), field, ProblemKind::NoBinding);
    }
    if work.problems.is_empty() { Ok(work.froze) } else { Err(work.problems) }
}

struct Work<'a> {
    key: &'a HashKey,
    froze: Froze,
    problems: Vec<ConfigProblem>,
}

impl Work<'_> {
    fn binding(&mut self, name: &BindingName, binding: &Binding, given: Option<&Values>) {
        let nothing = Values::new();
        let fields = self.all(Some(name), &binding.fields, given.unwrap_or(&nothing));
        let to_itself = |(key, value): &(&ConfigKey, &Frozen)| {
            let text = if let Frozen::Value(ConfigValue::Text(text)) = value { text } else { "" };
            key.as_str() == "host" && is_loopback(text)
        };
        if let Some((key, _)) = fields.iter().find(to_itself) {
            self.wrong(Some(name), key, ProblemKind::Loopback);
        }
        self.froze.config.bindings.insert(name.clone(), fields);
    }

    fn all(
        &mut self,
        binding: Option<&BindingName>,
        schema: &ConfigSchema,
        given: &Values,
    ) -> BTreeMap<ConfigKey, Frozen> {
        for key in given.keys().filter(|key| !schema.0.contains_key(*key)) {
            let kind = schema.problem(key, None).expect("the schema does not have the key");
            self.wrong(binding, key, kind);
        }
        let mut frozen = BTreeMap::new();
        for (key, spec) in &schema.0 {
            let Some(value) = given.get(key).or(spec.default.as_ref()) else {
                if spec.is_required() {
                    self.wrong(binding, key, ProblemKind::Missing { wanted: spec.kind.wanted() });
                }
                continue;
            };
            match spec.kind.read(value) {
                Ok(value) => {
                    frozen.extend(self.put(binding, key, spec.delivery, value).map(|value| (key.clone(), value)))
                }
                Err(unfit) => self.wrong(binding, key, ProblemKind::Unfit { wanted: unfit.0 }),
            }
        }
        frozen
    }

    fn put(
        &mut self,
        binding: Option<&BindingName>,
        key: &ConfigKey,
        delivery: Delivery,
        value: ConfigValue,
    ) -> Option<Frozen> {
        match delivery {
            Delivery::Open => Some(Frozen::Value(value)),
            Delivery::Secret => {
                let hash = self.key.hash(&place(binding, key), &value);
                self.froze.secrets.0.insert(hash.clone(), value);
                Some(Frozen::Secret(hash))
            }
            Delivery::Live => {
                self.froze.live.insert(key.clone(), value);
                None
            }
        }
    }

    fn wrong(&mut self, binding: Option<&BindingName>, key: &ConfigKey, kind: ProblemKind) {
        self.problems.push(ConfigProblem { binding: binding.cloned(), key: key.clone(), kind });
    }
}
