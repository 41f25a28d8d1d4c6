//! ZooKeeper: one node's data, read once or watched.
//!
//! Kiln only reads, so it speaks the few messages that reading needs ([`wire`], [`session`]) and no more (decisions/0060). A
//! session lost or expired is nothing to repair: the next one begins anew, reads the node again and sets its watch again, and a
//! change made meanwhile shows as another value.

mod session;
mod wire;

use std::{path::Path, time::Duration};

use kiln_model::config::Registry;

use self::session::{Node, Session};
use super::{
    LIMIT, SourceError,
    dial::{self, Miss},
    password, text,
};

const KIND: &str = "zookeeper";

pub(super) async fn read(registry: &Registry, directory: &Path, limit: Duration) -> Result<String, SourceError> {
    let (session, node) = open(registry, directory, limit, Watch::No).await?;
    session.close().await;
    value(registry, node)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    No,
    Yes,
}

/// A node under watch: tells its value, then waits for it to change.
pub(super) struct Watcher<'a> {
    registry: &'a Registry,
    session: Session,
    node: Option<Node>,
}

impl<'a> Watcher<'a> {
    /// Begins a session; the node is under watch from here on, also while it is missing.
    pub(super) async fn begin(
        registry: &'a Registry,
        directory: &Path,
        limit: Duration,
    ) -> Result<Watcher<'a>, SourceError> {
        let (session, node) = open(registry, directory, limit, Watch::Yes).await?;
        Ok(Self { registry, session, node: Some(node) })
    }

    /// What the node holds now.
    pub(super) async fn next(&mut self) -> Result<String, SourceError> {
        let what = dial::what(KIND, self.registry);
        let node = match self.node.take() {
            Some(node) => node,
            None => {
                self.session.changed().await.map_err(|miss| settled(&what, miss))?;
                let read = self.session.get(self.registry.address.path(), true, &what);
                match tokio::time::timeout(LIMIT, read).await {
                    Ok(node) => node.map_err(|miss| settled(&what, miss))?,
                    Err(_) => return Err(SourceError::Silent { what, limit: LIMIT }),
                }
            }
        };
        value(self.registry, node)
    }
}

fn settled(what: &str, miss: Miss) -> SourceError {
    match miss {
        Miss::Final(error) => error,
        Miss::Next(reason) => SourceError::Down { what: what.to_owned(), reason },
        Miss::Tls(reason) => SourceError::Tls { what: what.to_owned(), reason },
    }
}

fn value(registry: &Registry, node: Node) -> Result<String, SourceError> {
    let what = dial::what(KIND, registry);
    match node {
        Node::Missing => Err(SourceError::Missing { what }),
        Node::Data(bytes) => text(&what, bytes),
    }
}

async fn open(
    registry: &Registry,
    directory: &Path,
    limit: Duration,
    watch: Watch,
) -> Result<(Session, Node), SourceError> {
    let what = dial::what(KIND, registry);
    let login = match &registry.login {
        Some(login) => Some(format!("{}:{}", login.user, password(&login.password, directory).await?)),
        None => None,
    };
    let path = registry.address.path();
    let (what, login) = (&what, login.as_deref());
    dial::each(KIND, registry, directory, limit, |stream| async move {
        let mut session = Session::open(stream).await?;
        if let Some(login) = login {
            session.authenticate(login, what).await?;
        }
        let node = session.get(path, watch == Watch::Yes, what).await?;
        Ok((session, node))
    })
    .await
}
