//! Configuration values on their way to a server. Secrets are in clear here and in what is handed to the server, nowhere
//! else.

use std::collections::BTreeMap;

use kiln_model::{
    FrozenConfig,
    config::{ConfigKey, ConfigValue, Frozen, Secrets, binding_variables},
    id::BindingName,
    manifest::Binding,
};
use serde_json::{Map, Value, json};

use crate::plan::Input;

/// What stands for the group of a test server.
pub const TEST_GROUP: &str = "test";

/// A value that a server needs is not at hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The frozen configuration names a secret that the launch was not given.
    #[error(
        "the secret `{0}` is not at hand; give the value again, for it may have been removed from the secrets of this host"
    )]
    Secret(String),
}

/// A configuration with its secrets.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The frozen configuration.
    pub config: &'a FrozenConfig,
    /// Its secrets.
    pub secrets: &'a Secrets,
}

impl<'a> Values<'a> {
    /// The value of a key in clear; none where it has none.
    pub fn get(&self, key: &ConfigKey) -> Result<Option<&'a ConfigValue>, ValueError> {
        self.config.values.get(key).map(|frozen| self.clear(key.as_str(), frozen)).transpose()
    }

    /// The value as the environment holds it: texts as they are, everything else as JSON.
    pub fn text(&self, key: &ConfigKey) -> Result<Option<String>, ValueError> {
        Ok(self.get(key)?.map(ConfigValue::to_text))
    }

    /// The variables of every binding.
    pub fn binding_variables(
        &self,
        needed: &BTreeMap<BindingName, Binding>,
    ) -> Result<BTreeMap<String, String>, ValueError> {
        let mut variables = BTreeMap::new();
        for (name, fields) in &self.config.bindings {
            let Some(binding) = needed.get(name) else { continue };
            let clear = fields
                .iter()
                .map(|(key, frozen)| Ok((key.clone(), self.clear(&format!("{name}.{key}"), frozen)?.clone())));
            variables.extend(binding_variables(name, &binding.kind, &clear.collect::<Result<_, ValueError>>()?));
        }
        Ok(variables)
    }

    /// Every value, as an object.
    pub fn all(&self) -> Result<Map<String, Value>, ValueError> {
        self.object("", self.config.values.iter())
    }

    /// The fields of every binding, as objects.
    pub fn bindings(&self) -> Result<Map<String, Value>, ValueError> {
        let object = |(name, fields): (&'a _, &'a BTreeMap<ConfigKey, Frozen>)| {
            let name = BindingName::to_string(name);
            let fields = self.object(&format!("{name}."), fields.iter())?;
            Ok((name, Value::Object(fields)))
        };
        self.config.bindings.iter().map(object).collect()
    }

    fn object(
        &self,
        prefix: &str,
        values: impl Iterator<Item = (&'a ConfigKey, &'a Frozen)>,
    ) -> Result<Map<String, Value>, ValueError> {
        values
            .map(|(key, frozen)| Ok((key.to_string(), json!(self.clear(&format!("{prefix}{key}"), frozen)?))))
            .collect()
    }

    fn clear(&self, name: &str, frozen: &'a Frozen) -> Result<&'a ConfigValue, ValueError> {
        match frozen {
            Frozen::Value(value) => Ok(value),
            Frozen::Secret(hash) => self.secrets.0.get(hash).ok_or_else(|| ValueError::Secret(name.to_owned())),
        }
    }
}

/// What templates can name. Bindings can be named with `_` for `-`, as a template's names have no `-`.
pub(crate) fn context(input: &Input<'_>) -> Result<Value, ValueError> {
    let bindings: Map<String, Value> =
        input.values.bindings()?.into_iter().map(|(name, fields)| (name.replace('-', "_"), fields)).collect();
    Ok(json!({
        "config": input.values.all()?,
        "binding": bindings,
        "server": {
            "id": input.server,
            "group": input.group.map_or(TEST_GROUP, |group| group.as_str()),
            "address": input.address,
            "slot": input.slot,
        },
        "release": input.release.id().to_string(),
    }))
}

/// What is shown in place of a secret.
const MASK: &str = "••••••";
/// A part of a secret that is shorter than this many characters is not known as one.
const SHORTEST_PART: usize = 4;

/// A message without the secrets that it may quote.
pub fn masked(message: String, secrets: &Secrets) -> String {
    texts(secrets).fold(message, |message, text| {
        // As it stands, and as a message that shows control characters and quotes quotes it.
        let quoted = text.escape_debug().to_string();
        message.replace(text, MASK).replace(&quoted, MASK)
    })
}

/// A part of a longer text, without secrets and without those that were cut in half at its ends.
pub fn masked_part(part: &str, secrets: &Secrets) -> String {
    let mut part = masked(part.to_owned(), secrets);
    for secret in texts(secrets) {
        let cuts: Vec<usize> = secret.char_indices().map(|(at, _)| at).collect();
        let begun = cuts.iter().skip(SHORTEST_PART).rev().find(|cut| part.ends_with(&secret[..**cut]));
        if let Some(cut) = begun {
            part.truncate(part.len() - cut);
            part.push_str(MASK);
        }
        let ends = cuts.len().saturating_sub(SHORTEST_PART - 1);
        let ended = cuts[..ends].iter().skip(1).find(|cut| part.starts_with(&secret[**cut..]));
        if let Some(cut) = ended {
            part.replace_range(..secret.len() - cut, MASK);
        }
    }
    part
}

fn texts(secrets: &Secrets) -> impl Iterator<Item = &str> {
    secrets.0.values().filter_map(|value| match value {
        ConfigValue::Text(text) if !text.is_empty() => Some(text.as_str()),
        _ => None,
    })
}
