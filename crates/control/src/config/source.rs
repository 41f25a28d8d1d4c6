//! Where values come from.

use std::path::Path;

use kiln_model::config::{ConfigSource, ConfigValue};

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

/// The files and commands of this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostSources;

#[async_trait::async_trait]
impl Sources for HostSources {
    async fn resolve(&self, source: &ConfigSource, directory: &Path) -> Result<ConfigValue, SourceError> {
        let failed = |what: &str, source| SourceError { what: what.to_owned(), source };
        match source {
            ConfigSource::Literal(value) => Ok(value.clone()),
            ConfigSource::Env(name) => {
                Err(failed(&format!("the variable {name}"), "the caller resolves its own environment".into()))
            }
            ConfigSource::File(path) => {
                let what = format!("the file {path}");
                let bytes = tokio::fs::read(directory.join(path)).await.map_err(|e| failed(&what, e.into()))?;
                text(bytes).map_err(|e| failed(&what, e.into()))
            }
            ConfigSource::Command(command) => {
                let program = command.first().map_or("", String::as_str);
                let what = format!("the command {program}");
                let run = tokio::process::Command::new(program).args(command.iter().skip(1)).current_dir(directory).output();
                let output = run.await.map_err(|e| failed(&what, e.into()))?;
                if !output.status.success() {
                    return Err(failed(&what, format!("it ended with {}", output.status).into()));
                }
                text(output.stdout).map_err(|e| failed(&what, e.into()))
            }
            ConfigSource::Zookeeper(of) | ConfigSource::Etcd(of) => {
                Err(failed(&format!("the registry {}", of.address.servers()), "registries are not supported".into()))
            }
        }
    }
}

/// One newline at the end is left out.
fn text(bytes: Vec<u8>) -> Result<ConfigValue, std::string::FromUtf8Error> {
    let mut text = String::from_utf8(bytes)?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(ConfigValue::Text(text))
}
