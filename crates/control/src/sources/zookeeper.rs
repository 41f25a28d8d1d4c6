//! ZooKeeper: a node's data, read once, or many nodes' data, watched in one session.
//!
//! Kiln only reads, so it speaks the few messages that reading needs ([`wire`], [`session`]) and no more (decisions/0060). A
//! session lost or expired is nothing to repair: the next one begins anew, reads the node again and sets its watch again, and a
//! change made meanwhile shows as another value.

mod session;
mod wire;

#[cfg(any(test, fuzzing))]
use std::io;
use std::{path::Path, time::Duration};

use kiln_model::config::Registry;
use tokio::time::timeout;

use self::session::{Node, Session};
use super::{
    LIMIT, SourceError, Watched,
    dial::{self, Miss},
    password, text,
};

const KIND: &str = "zookeeper";

/// Nodes that could not be read are tried again after this time: no watch is set on them.
const AGAIN: Duration = Duration::from_secs(15);

type Read = Result<Node, SourceError>;

pub(super) async fn read(registry: &Registry, directory: &Path, limit: Duration) -> Watched {
    let what = dial::what(KIND, registry);
    let (session, mut read) = open(&[registry], what, directory, limit, Watch::No).await?;
    session.close().await;
    value(registry, read.remove(0))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    No,
    Yes,
}

/// Nodes of one registry under watch: tells their values, then waits for any of them to change.
pub(super) struct Watcher<'a> {
    nodes: Vec<&'a Registry>,
    session: Session,
    read: Option<Vec<Read>>,
    /// Whether a node could not be read.
    unwatched: bool,
}

impl<'a> Watcher<'a> {
    /// Begins a session for nodes of the same servers, login and encryption. They are under watch from here on, also while they
    /// are missing.
    pub(super) async fn begin(
        nodes: Vec<&'a Registry>,
        directory: &Path,
        limit: Duration,
    ) -> Result<Watcher<'a>, SourceError> {
        let what = dial::servers(KIND, nodes[0]);
        let (session, read) = open(&nodes, what, directory, limit, Watch::Yes).await?;
        Ok(Self { nodes, session, read: Some(read), unwatched: false })
    }

    /// What the nodes hold now, in their order.
    pub(super) async fn next(&mut self) -> Result<Vec<Watched>, SourceError> {
        let read = match self.read.take() {
            Some(read) => read,
            None => self.read_again().await?,
        };
        self.unwatched = read.iter().any(Result::is_err);
        Ok(self.nodes.iter().zip(read).map(|(registry, read)| value(registry, read)).collect())
    }

    async fn read_again(&mut self) -> Result<Vec<Read>, SourceError> {
        let what = dial::servers(KIND, self.nodes[0]);
        let again = if self.unwatched { AGAIN } else { Duration::MAX };
        if let Ok(changed) = timeout(again, self.session.changed()).await {
            changed.map_err(|miss| settled(&what, miss))?;
        }
        match timeout(LIMIT, read_all(&mut self.session, &self.nodes, Watch::Yes)).await {
            Ok(read) => read.map_err(|miss| settled(&what, miss)),
            Err(_) => Err(SourceError::Silent { what, limit: LIMIT }),
        }
    }
}

fn settled(what: &str, miss: Miss) -> SourceError {
    match miss {
        Miss::Final(error) => error,
        Miss::Next(reason) => SourceError::Down { what: what.to_owned(), reason },
        Miss::Tls(reason) => SourceError::Tls { what: what.to_owned(), reason },
    }
}

fn value(registry: &Registry, read: Read) -> Watched {
    let what = dial::what(KIND, registry);
    match read? {
        Node::Missing => Err(SourceError::Missing { what }),
        Node::Data(bytes) => text(&what, bytes),
    }
}

async fn open(
    nodes: &[&Registry],
    what: String,
    directory: &Path,
    limit: Duration,
    watch: Watch,
) -> Result<(Session, Vec<Read>), SourceError> {
    let registry = nodes[0];
    let login = match &registry.login {
        Some(login) => Some(format!("{}:{}", login.user, password(&login.password, directory).await?)),
        None => None,
    };
    let (named, login) = (&what.clone(), login.as_deref());
    dial::each(what, registry, directory, limit, |stream| async move {
        let mut session = Session::open(stream).await?;
        if let Some(login) = login {
            session.authenticate(login, named).await?;
        }
        let read = read_all(&mut session, nodes, watch).await?;
        Ok((session, read))
    })
    .await
}

/// Reads every node. What is wrong with one of them is no reason to give up the session.
async fn read_all(session: &mut Session, nodes: &[&Registry], watch: Watch) -> Result<Vec<Read>, Miss> {
    let mut all = Vec::with_capacity(nodes.len());
    for registry in nodes {
        let what = dial::what(KIND, registry);
        match session.get(registry.address.path(), watch == Watch::Yes, &what).await {
            Ok(node) => all.push(Ok(node)),
            Err(Miss::Final(error)) => all.push(Err(error)),
            Err(miss) => return Err(miss),
        }
    }
    Ok(all)
}

/// A server that says these bytes, whatever it is asked.
#[cfg(any(test, fuzzing))]
pub(super) async fn fuzz(bytes: Vec<u8>) {
    let stream = tokio::io::join(io::Cursor::new(bytes), tokio::io::sink());
    let Ok(mut session) = Session::open(Box::new(stream)).await else { return };
    if session.get("/a", true, "a node").await.is_ok() && session.changed().await.is_ok() {
        session.close().await;
    }
}
