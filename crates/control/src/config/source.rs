//! Where values come from.

use std::path::Path;

use kiln_model::config::{ConfigSource, ConfigValue};

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

/// The files and commands of this host, and the registries it reaches.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostSources;

#[async_trait::async_trait]
impl Sources for HostSources {
    async fn resolve(&self, source: &ConfigSource, directory: &Path) -> Result<ConfigValue, SourceError> {
        if let ConfigSource::Literal(value) = source {
            return Ok(value.clone());
        }
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
        let ask = async |source: ConfigSource| HostSources.resolve(&source, directory.path()).await;
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
