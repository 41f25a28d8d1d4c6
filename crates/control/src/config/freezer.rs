//! From what a fleet says of a group to the configuration that its release is tested and launched with.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use futures::future::try_join_all;
use kiln_model::{
    Group, ImageManifest,
    config::{
        ConfigKey, ConfigProblem, ConfigSchema, ConfigSource, ConfigValue, Delivery, Froze, Password, RawConfig, freeze,
    },
};

use super::{SecretStore, SecretsError, SourceError, Sources};

/// Why a group has no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A source did not give its value.
    #[error("the value of `{key}` could not be had")]
    Source {
        /// The key, with its binding's name before it.
        key: String,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// Values do not fit the image.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Problems(Vec<ConfigProblem>),
    /// Secrets could not be kept.
    #[error("the secrets could not be kept")]
    Secrets(#[from] SecretsError),
}

/// Freezes configurations.
pub struct Freezer {
    pub(super) sources: Arc<dyn Sources>,
    pub(super) secrets: Arc<SecretStore>,
}

impl Freezer {
    /// Over these sources; secrets go into this store.
    pub fn new(sources: Arc<dyn Sources>, secrets: Arc<SecretStore>) -> Self {
        Self { sources, secrets }
    }

    /// Asks every source of a group, at once, and freezes what they say for its image. Relative paths start in `directory`.
    /// Secrets are on disk when this returns.
    pub async fn freeze(
        &self,
        group: &Group,
        manifest: &ImageManifest,
        directory: &Path,
    ) -> Result<Froze, ConfigError> {
        let froze = self.preview(group, manifest, directory).await?;
        self.keep(&froze).await?;
        Ok(froze)
    }

    /// What [`Self::freeze`] would give. No secret is kept, so nothing can be launched with it.
    pub async fn preview(
        &self,
        group: &Group,
        manifest: &ImageManifest,
        directory: &Path,
    ) -> Result<Froze, ConfigError> {
        let bindings = group.bindings.iter().map(|(name, fields)| async move {
            Ok::<_, ConfigError>((name.clone(), self.ask(Some(name.as_str()), fields, directory).await?))
        });
        let raw = RawConfig {
            environment: group.environment.clone(),
            values: self.ask(None, &group.config, directory).await?,
            bindings: try_join_all(bindings).await?.into_iter().collect(),
        };
        freeze(manifest, &raw, self.secrets.hash_key()).map_err(ConfigError::Problems)
    }

    /// Checks values, and keeps the secrets among them.
    pub(super) async fn fix(&self, manifest: &ImageManifest, raw: &RawConfig) -> Result<Froze, ConfigError> {
        let froze = freeze(manifest, raw, self.secrets.hash_key()).map_err(ConfigError::Problems)?;
        self.keep(&froze).await?;
        Ok(froze)
    }

    async fn keep(&self, froze: &Froze) -> Result<(), SecretsError> {
        let (secrets, kept) = (self.secrets.clone(), froze.secrets.clone());
        let written = tokio::task::spawn_blocking(move || secrets.keep(&kept)).await;
        written.expect("keeping secrets does not panic")
    }

    async fn ask(
        &self,
        binding: Option<&str>,
        sources: &BTreeMap<ConfigKey, ConfigSource>,
        directory: &Path,
    ) -> Result<BTreeMap<ConfigKey, ConfigValue>, ConfigError> {
        let asked = sources.iter().map(|(key, source)| async move {
            let value = self.sources.resolve(source, directory).await;
            let name = || binding.map_or_else(|| key.to_string(), |binding| format!("{binding}.{key}"));
            value.map(|value| (key.clone(), value)).map_err(|source| ConfigError::Source { key: name(), source })
        });
        Ok(try_join_all(asked).await?.into_iter().collect())
    }
}

/// A group as it may be kept in clear: without secrets that the fleet holds itself, and without registries whose password it
/// holds. What they said is in the frozen configuration.
pub fn without_secrets(mut group: Group, manifest: &ImageManifest) -> Group {
    group.config.retain(|key, source| may_be_kept(&manifest.config, key, source));
    for (name, fields) in &mut group.bindings {
        let nothing = ConfigSchema::default();
        let schema = manifest.bindings.get(name).map_or(&nothing, |binding| &binding.fields);
        fields.retain(|key, source| may_be_kept(schema, key, source));
    }
    group
}

fn may_be_kept(schema: &ConfigSchema, key: &ConfigKey, source: &ConfigSource) -> bool {
    match source {
        ConfigSource::Literal(_) => schema.0.get(key).is_some_and(|spec| spec.delivery != Delivery::Secret),
        ConfigSource::Zookeeper(registry) | ConfigSource::Etcd(registry) => {
            !registry.login.as_ref().is_some_and(|login| matches!(login.password, Password::Text(_)))
        }
        ConfigSource::Env(_) | ConfigSource::File(_) | ConfigSource::Command(_) => true,
    }
}
