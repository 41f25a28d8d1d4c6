//! Telling again and again what a source says, until the teller is dropped.
//!
//! ZooKeeper tells by itself; etcd and files are asked every [`POLL`] (decisions/0061). A source that fails is asked again after
//! [`FIRST_PAUSE`], then after twice as long each time, at most [`LONGEST_PAUSE`]: a registry that is away for long is not
//! flooded when it comes back.

use std::{path::Path, time::Duration};

use kiln_model::config::{ConfigSource, Registry};
use tokio::time::sleep;

use super::{LIMIT, SourceError, ask, zookeeper};

/// etcd and files are asked so often.
const POLL: Duration = Duration::from_secs(2);
/// After the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Between two attempts, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What a source said: its value, or why it has none now.
pub type Watched = Result<String, SourceError>;

/// Tells what the source says now and each time it may have changed. Goes on for ever; for a source that cannot be watched
/// (what the fleet holds itself, commands) it tells nothing.
pub async fn watch(source: &ConfigSource, directory: &Path, tell: impl Fn(Watched) + Send + Sync) {
    let mut pause = FIRST_PAUSE;
    loop {
        let failed = match source {
            ConfigSource::Zookeeper(registry) => node(registry, directory, &tell, &mut pause).await,
            ConfigSource::Etcd(_) | ConfigSource::File(_) => poll(source, directory, &tell, &mut pause).await,
            ConfigSource::Literal(_) | ConfigSource::Env(_) | ConfigSource::Command(_) => std::future::pending().await,
        };
        tell(Err(failed));
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Asks until it fails.
async fn poll(
    source: &ConfigSource,
    directory: &Path,
    tell: &(impl Fn(Watched) + Send + Sync),
    pause: &mut Duration,
) -> SourceError {
    loop {
        match ask(source, directory).await {
            Ok(Some(value)) => tell(Ok(value)),
            Ok(None) => {}
            Err(error) => return error,
        }
        *pause = FIRST_PAUSE;
        sleep(POLL).await;
    }
}

/// Watches in one session until that is lost. A node that is missing or holds no value is watched on.
async fn node(
    registry: &Registry,
    directory: &Path,
    tell: &(impl Fn(Watched) + Send + Sync),
    pause: &mut Duration,
) -> SourceError {
    let mut watcher = match zookeeper::Watcher::begin(registry, directory, LIMIT).await {
        Ok(watcher) => watcher,
        Err(error) => return error,
    };
    loop {
        match watcher.next().await {
            Ok(value) => {
                *pause = FIRST_PAUSE;
                tell(Ok(value));
            }
            Err(error @ (SourceError::Missing { .. } | SourceError::NotText { .. })) => tell(Err(error)),
            Err(error) => return error,
        }
    }
}
