//! The daemon's side of the control socket.
//!
//! Each call is a connection of its own, and all calls can be repeated: while the gateway is being restarted or handed
//! over a call waits and asks again, up to [`PATIENCE`], and its caller notices nothing.
//!
//! To let the ports survive the death of the gateway process, the daemon keeps duplicates of the listening sockets
//! ([`GatewayClient::take_listeners`], anew after each [`GatewayClient::set_routes`]) and gives them to the next process
//! ([`start`]): clients that come in between wait in the kernel's backlog instead of being refused.

use std::{
    io,
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use kiln_model::ServerId;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::Instant,
};

pub use crate::proto::{Asked, BackendStatus, Drained, Refusal, RouteStatus, Status};
use crate::{
    control::SOCKET,
    fds,
    proto::{MAX_LINE, Reply, Request},
    store::Kept,
    table::{Bound, Routes},
};

/// How long a call waits for a gateway to be there.
pub const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
/// How long an answer may take beyond what was asked for.
const ANSWER: Duration = Duration::from_secs(15);
/// The same for an earlier process, whose answer others wait for.
const ANSWER_OF_EARLIER: Duration = Duration::from_secs(2);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No gateway answers.
    #[error("no gateway answers on {}", .path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the last try came to.
        source: io::Error,
    },
    /// The gateway refused; nothing changed.
    #[error("the gateway refused")]
    Refused(#[from] Refusal),
    /// The gateway answered something else.
    #[error("the gateway's answer is not one to the request")]
    Unexpected,
}

/// Asks the gateway of a state directory.
#[derive(Debug, Clone)]
pub struct GatewayClient {
    socket: PathBuf,
    patience: Duration,
    answer: Duration,
}

/// Listening sockets, kept for the next gateway process.
#[derive(Debug, Default)]
pub struct Listeners(pub(crate) Vec<TcpListener>);

impl Listeners {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Duplicates, so that these can be kept while others are given away.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.iter().map(TcpListener::try_clone).collect::<io::Result<_>>().map(Self)
    }
}

impl GatewayClient {
    /// For the gateway of a state directory, running or not.
    pub fn new(state_dir: &Path) -> Self {
        Self { socket: state_dir.join(SOCKET), patience: PATIENCE, answer: ANSWER }
    }

    /// For the gateway of a state directory, which must be running or come up within [`PATIENCE`].
    pub async fn connect(state_dir: &Path) -> Result<Self, ClientError> {
        let client = Self::new(state_dir);
        client.status().await?;
        Ok(client)
    }

    /// One that waits for a gateway for another time.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(crate) fn of_socket(socket: PathBuf) -> Self {
        Self { socket, patience: Duration::ZERO, answer: ANSWER_OF_EARLIER }
    }

    /// Replaces the table. When this returns the table is on disk and in force. The same version with the same routes
    /// may be given again; an older version is refused. [`Status::version`] tells the one in force.
    pub async fn set_routes(&self, version: u64, routes: Routes) -> Result<Vec<Bound>, ClientError> {
        match self.ask(&Request::SetRoutes { version, routes: routes.routes }, self.answer).await? {
            Reply::Routed { bound, .. } => Ok(bound),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Sends a server nothing new, and returns when nothing is in flight there, or when the limit is over and the rest
    /// was cut. A server that is not in the table is drained at once.
    pub async fn drain(&self, server: &ServerId, limit: Duration) -> Result<Drained, ClientError> {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        match self.ask(&Request::Drain { server: server.clone(), limit_ms }, limit.saturating_add(self.answer)).await? {
            Reply::Drained(drained) => Ok(drained),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// What is served.
    pub async fn status(&self) -> Result<Status, ClientError> {
        match self.ask(&Request::Status {}, self.answer).await? {
            Reply::Status(status) => Ok(status),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Returns when a request begins to wait on a route that holds it, or after the limit. `after` is the number of the last
    /// answer.
    pub async fn asked(&self, after: u64, limit: Duration) -> Result<Asked, ClientError> {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        match self.ask(&Request::Asked { after, limit_ms }, limit.saturating_add(self.answer)).await? {
            Reply::Asked(asked) => Ok(asked),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Duplicates of the listening sockets in force.
    pub async fn take_listeners(&self) -> Result<Listeners, ClientError> {
        let stream = self.send(&Request::TakeListeners {}).await.map_err(|source| self.unreachable(source))?;
        let (_, listeners) = receive_sockets(stream).await.map_err(|source| self.unreachable(source))?;
        Ok(listeners)
    }

    /// Closes the ports; the process ends when what is in flight has finished, within its limit.
    pub async fn stop(&self) -> Result<(), ClientError> {
        match self.ask(&Request::Stop {}, self.answer).await? {
            Reply::Stopping {} => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        ClientError::Unreachable { path: self.socket.clone(), source }
    }

    async fn ask(&self, request: &Request, limit: Duration) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let failure = match self.ask_once(request, limit).await {
                Ok(Reply::Error(Refusal::HandingOver)) => Refusal::HandingOver.into(),
                Ok(Reply::Error(refusal)) => return Err(refusal.into()),
                Ok(reply) => return Ok(reply),
                Err(source) => self.unreachable(source),
            };
            if Instant::now() >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn send(&self, request: &Request) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        Ok(stream)
    }

    async fn ask_once(&self, request: &Request, limit: Duration) -> io::Result<Reply> {
        let answered = async {
            let stream = self.send(request).await?;
            read_reply(stream).await
        };
        tokio::time::timeout(limit, answered).await?
    }
}

async fn read_reply(stream: UnixStream) -> io::Result<Reply> {
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_LINE as u64)).read_until(b'\n', &mut line).await?;
    match line.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(serde_json::from_slice(&line)?),
    }
}

/// Reads a `listeners` reply and the sockets after it.
async fn receive_sockets(stream: UnixStream) -> io::Result<(Kept, Listeners)> {
    let stream = stream.into_std()?;
    let received = tokio::task::spawn_blocking(move || receive_sockets_from(&stream));
    received.await.map_err(io::Error::other)?
}

pub(crate) fn receive_sockets_from(stream: &StdStream) -> io::Result<(Kept, Listeners)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (kept, sockets) = fds::receive_line(stream, MAX_LINE, |line| match serde_json::from_slice(line)? {
        Reply::Listeners { version, routes, numbers, ports } => {
            Ok((ports.len(), Kept::new(version, Routes { routes }, numbers)))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer with sockets")),
    })?;
    Ok((kept, Listeners(sockets)))
}

/// Starts a gateway process that takes these sockets. The command is `kiln gateway … --inherit` or another program that
/// calls [`crate::run`] with [`crate::GatewayOptions::inherit`]; its standard input becomes the way for the sockets.
pub fn start(mut command: Command, listeners: &Listeners) -> io::Result<Child> {
    let (here, there) = StdStream::pair()?;
    let child = command.stdin(Stdio::from(OwnedFd::from(there))).spawn()?;
    crate::inherit::give(&here, listeners)?;
    Ok(child)
}
