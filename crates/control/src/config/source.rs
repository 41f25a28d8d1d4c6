//! Where values come from.

use std::{path::Path, sync::Arc};

use kiln_model::config::{ConfigSource, ConfigValue};
use tokio::sync::Semaphore;

use crate::sources;

/// A source did not give a value.
#[derive(Debug, thiserror::Error)]
#[error("could not read {what}")]
pub struct SourceError {
    /// Which source, in words without anything secret.
    pub what: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Asks where values come from.
#[async_trait::async_trait]
pub trait Sources: Send + Sync + 'static {
    /// What a source says now. Relative paths, and commands, start in `directory`. A text from outside is a text here; freezing
    /// reads it as what the key wants.
    async fn resolve(&self, source: &ConfigSource, directory: &Path) -> Result<ConfigValue, SourceError>;
}

/// So many sources are asked at a time: a registry takes only so many connections from one host (ZooKeeper 60).
const AT_A_TIME: usize = 16;

/// The files and commands of this host, and the registries it reaches.
#[derive(Debug, Clone)]
pub struct HostSources(Arc<Semaphore>);

impl Default for HostSources {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

#[async_trait::async_trait]
impl Sources for HostSources {
    async fn resolve(&self, source: &ConfigSource, directory: &Path) -> Result<ConfigValue, SourceError> {
        if let ConfigSource::Literal(value) = source {
            return Ok(value.clone());
        }
        let _turn = self.0.acquire().await;
        let failed = |error| SourceError { what: sources::described(source), source: error };
        match sources::ask(source, directory).await {
            Ok(Some(text)) => Ok(ConfigValue::Text(text)),
            Ok(None) => Err(failed("the caller puts the variables of its environment in their place".into())),
            Err(error) => Err(failed(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn host_values_come_as_texts_and_failures_with_their_reason() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), "5\n").unwrap();
        let ask = async |source: ConfigSource| HostSources::default().resolve(&source, directory.path()).await;
        assert_eq!(ask(ConfigSource::File("a".into())).await.unwrap(), ConfigValue::Text("5".into()));
        assert_eq!(ask(ConfigSource::Literal(ConfigValue::Integer(5))).await.unwrap(), ConfigValue::Integer(5));
        let command = ["/bin/cat", "a"].map(str::to_owned).to_vec();
        assert_eq!(ask(ConfigSource::Command(command)).await.unwrap(), ConfigValue::Text("5".into()));
        let error = ask(ConfigSource::File("none".into())).await.unwrap_err();
        assert_eq!(error.to_string(), "could not read the file none");
        assert!(kiln_api::error::chain(&error).contains("No such file"), "{error:?}");
        assert!(ask(ConfigSource::Env("A".into())).await.is_err());
    }
}
