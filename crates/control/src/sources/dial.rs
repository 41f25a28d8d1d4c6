//! Asking a registry's servers one after the other, until one gives an answer that counts.
//!
//! A server that cannot be reached, breaks off or stays silent is passed over, and the next one gets its share of the time that
//! is left. An answer that any of them would give (no such key, not authorised, too large) ends the search.

use std::{path::Path, sync::Arc, time::Duration};

use kiln_model::config::Registry;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{SourceError, tls};

/// A connection, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What is asked: kind, servers and key, for messages.
pub(super) fn what(kind: &str, registry: &Registry) -> String {
    format!("{kind} {}, key {}", registry.address.servers(), registry.address.path())
}

/// The servers that are asked, for messages that are about no key.
pub(super) fn servers(kind: &str, registry: &Registry) -> String {
    format!("{kind} {}", registry.address.servers())
}

/// Why one server gave no answer that counts.
pub(super) enum Miss {
    /// Another server may do better.
    Next(String),
    /// Encryption failed; another server may have the right certificate.
    Tls(String),
    /// Every server would say so.
    Final(SourceError),
}

impl From<std::io::Error> for Miss {
    fn from(error: std::io::Error) -> Self {
        let reason = match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "it closed the connection without an answer".to_owned(),
            _ => error.to_string(),
        };
        Self::Next(reason)
    }
}

/// Asks the servers in their order for what a message calls `what`.
pub(super) async fn each<T, F: Future<Output = Result<T, Miss>>>(
    what: String,
    registry: &Registry,
    directory: &Path,
    limit: Duration,
    ask: impl Fn(Box<dyn Stream>) -> F,
) -> Result<T, SourceError> {
    let end = Instant::now() + limit;
    let config = match &registry.tls {
        Some(tls) => Some(tls::config(tls, directory).await?),
        None => None,
    };
    let hosts = registry.address.hosts();
    let (mut seen, mut silent, mut broken) = (Vec::new(), false, None);
    for (index, (host, port)) in hosts.iter().enumerate() {
        let now = Instant::now();
        let share = end.saturating_duration_since(now) / (hosts.len() - index) as u32;
        let attempt = async { ask(connect(host, *port, config.clone()).await?).await };
        match timeout_at(now + share, attempt).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(Miss::Final(error))) => return Err(error),
            Ok(Err(Miss::Tls(reason))) => broken = Some(reason),
            Ok(Err(Miss::Next(reason))) => seen.push(format!("{host}:{port}: {reason}")),
            Err(_) => silent = true,
        }
    }
    Err(match (broken, silent) {
        (Some(reason), _) => SourceError::Tls { what, reason },
        (None, true) => SourceError::Silent { what, limit },
        (None, false) => SourceError::Down { what, reason: seen.join("; ") },
    })
}

async fn connect(host: &str, port: u16, config: Option<Arc<ClientConfig>>) -> Result<Box<dyn Stream>, Miss> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    match config {
        None => Ok(Box::new(stream)),
        Some(config) => match tls::encrypt(config, host, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(Miss::Tls(error.to_string())),
        },
    }
}
