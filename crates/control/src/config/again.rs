//! Freezing a group's values again, after one of its sources has changed.
//!
//! What was seen of the sources under watch is taken, and so are the fleet's own values. Nothing else is asked: what a command
//! said stays as it was frozen, so that only a change which somebody watches makes a new configuration.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use kiln_model::{
    BindingName, FrozenConfig, ImageManifest,
    config::{ConfigKey, ConfigSource, ConfigValue, Froze, Frozen, RawConfig},
};

use super::{ConfigError, Freezer, Origins};
use crate::sources::keeper::Place;

/// What a group's values are frozen from again.
#[derive(Debug, Clone, Copy)]
pub struct Again<'a> {
    /// Where they come from.
    pub origins: &'a Origins,
    /// What was seen of the sources under watch.
    pub seen: &'a BTreeMap<Place, String>,
    /// The configuration that the group has now.
    pub before: &'a FrozenConfig,
    /// The image that the group has now.
    pub manifest: &'a ImageManifest,
}

impl Freezer {
    /// Freezes again. Secrets are on disk when this returns.
    pub async fn freeze_again(&self, again: Again<'_>) -> Result<Froze, ConfigError> {
        let before = self.before(again.before).await?;
        let value = async |binding: Option<&BindingName>, key: &ConfigKey, source: &ConfigSource| {
            let place = Place { binding: binding.cloned(), key: key.clone() };
            let value = match (again.seen.get(&place), source, before.get(&place)) {
                (Some(seen), ..) => ConfigValue::Text(seen.clone()),
                (None, ConfigSource::Literal(value), _) | (None, _, Some(value)) => value.clone(),
                (None, source, None) => {
                    let asked = self.sources.resolve(source, &again.origins.directory).await;
                    asked.map_err(|source| ConfigError::Source { key: place.to_string(), source })?
                }
            };
            Ok::<_, ConfigError>((key.clone(), value))
        };
        let values = again.origins.config.iter().map(|(key, source)| value(None, key, source));
        let bindings = again.origins.bindings.iter().map(|(name, fields)| {
            let fields = fields.iter().map(|(key, source)| value(Some(name), key, source)).collect::<Vec<_>>();
            async move { Ok::<_, ConfigError>((name.clone(), try_join_all(fields).await?.into_iter().collect())) }
        });
        let raw = RawConfig {
            environment: again.before.environment.clone(),
            values: try_join_all(values).await?.into_iter().collect(),
            bindings: try_join_all(bindings).await?.into_iter().collect(),
        };
        self.fix(again.manifest, &raw).await
    }

    /// The values of a configuration, opened.
    async fn before(&self, config: &FrozenConfig) -> Result<BTreeMap<Place, ConfigValue>, ConfigError> {
        let (store, named) = (self.secrets.clone(), config.clone());
        let opened = tokio::task::spawn_blocking(move || store.of(&named)).await;
        let secrets = opened.expect("reading secrets does not panic")?;
        let own = config.values.iter().map(|(key, value)| (Place { binding: None, key: key.clone() }, value));
        let fields = config.bindings.iter().flat_map(|(name, fields)| {
            fields.iter().map(|(key, value)| (Place { binding: Some(name.clone()), key: key.clone() }, value))
        });
        let open = |value: &Frozen| match value {
            Frozen::Value(value) => Some(value.clone()),
            Frozen::Secret(hash) => secrets.0.get(hash).cloned(),
        };
        Ok(own.chain(fields).filter_map(|(place, value)| Some((place, open(value)?))).collect())
    }
}
