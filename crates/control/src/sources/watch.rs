//! Telling again and again what sources say, until the teller is dropped.
//!
//! ZooKeeper tells by itself, all nodes of one registry in one session: a server takes 60 connections from a host unless it is
//! told otherwise. etcd and files are asked every [`POLL`] (decisions/0061). A source that fails is asked again after
//! [`FIRST_PAUSE`], then after twice as long each time, at most [`LONGEST_PAUSE`]: a registry that is away for long is not
//! flooded when it comes back.

use std::{collections::BTreeMap, path::Path, time::Duration};

use futures::future::join_all;
use kiln_model::config::{ConfigSource, Login, Registry, RegistryTls};
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

/// Nodes that one session reads: those of the same servers, asked by the same user over the same encryption.
type SessionOf<'a> = (String, Option<&'a Login>, Option<&'a RegistryTls>);

/// Tells what the sources say now and each time one of them may have changed. Goes on for ever; for a source that cannot be
/// watched (what the fleet holds itself, commands) it tells nothing.
pub async fn watch<K: Ord + Sync>(
    sources: &BTreeMap<K, ConfigSource>,
    directory: &Path,
    tell: impl Fn(&K, Watched) + Send + Sync,
) {
    let mut sessions: BTreeMap<SessionOf<'_>, Vec<(&K, &Registry)>> = BTreeMap::new();
    let mut asked = Vec::new();
    for (key, source) in sources {
        match source {
            ConfigSource::Zookeeper(registry) => {
                let session = (registry.address.servers(), registry.login.as_ref(), registry.tls.as_ref());
                sessions.entry(session).or_default().push((key, registry));
            }
            ConfigSource::Etcd(_) | ConfigSource::File(_) => asked.push((key, source)),
            ConfigSource::Literal(_) | ConfigSource::Env(_) | ConfigSource::Command(_) => {}
        }
    }
    let sessions = join_all(sessions.values().map(|nodes| in_session(nodes, directory, &tell)));
    let asked = join_all(asked.into_iter().map(|(key, source)| poll(key, source, directory, &tell)));
    tokio::join!(sessions, asked);
    std::future::pending().await
}

/// Watches nodes in one session after the other. One that is missing or holds no value is watched on.
async fn in_session<K>(nodes: &[(&K, &Registry)], directory: &Path, tell: &(impl Fn(&K, Watched) + Send + Sync)) {
    let mut pause = FIRST_PAUSE;
    loop {
        let lost = one_session(nodes, directory, tell, &mut pause).await;
        nodes.iter().for_each(|(key, _)| tell(key, Err(lost.clone())));
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn one_session<K>(
    nodes: &[(&K, &Registry)],
    directory: &Path,
    tell: &(impl Fn(&K, Watched) + Send + Sync),
    pause: &mut Duration,
) -> SourceError {
    let registries = nodes.iter().map(|(_, registry)| *registry).collect();
    let mut watcher = match zookeeper::Watcher::begin(registries, directory, LIMIT).await {
        Ok(watcher) => watcher,
        Err(error) => return error,
    };
    loop {
        let told = match watcher.next().await {
            Ok(told) => told,
            Err(error) => return error,
        };
        *pause = FIRST_PAUSE;
        nodes.iter().zip(told).for_each(|((key, _), told)| tell(key, told));
    }
}

/// Asks again and again.
async fn poll<K>(key: &K, source: &ConfigSource, directory: &Path, tell: &(impl Fn(&K, Watched) + Send + Sync)) {
    let mut pause = FIRST_PAUSE;
    loop {
        match ask(source, directory).await.transpose() {
            Some(Ok(value)) => {
                tell(key, Ok(value));
                pause = FIRST_PAUSE;
                sleep(POLL).await;
            }
            Some(Err(error)) => {
                tell(key, Err(error));
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            None => return,
        }
    }
}
