//! Connections: only of servers, only so many, only so long.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use kiln_runtime::network::Network;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
};

use super::Metadata;

/// Ports that are tried, from the first on. Below 1024, so that no unprivileged program of the host takes one while the daemon
/// is away, and reserved by IANA, so that hardly anything else wants one.
const PORTS: [u16; 7] = [254, 253, 252, 251, 250, 241, 240];
/// Connections waiting to be accepted: a whole fleet that asks at the same instant.
const BACKLOG: u32 = 4096;
/// Connections of all servers at a time.
const CONNECTIONS: usize = 4096;
/// A request's head must be there within this time, the first as any later one.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// A connection lives no longer.
const LIFETIME: Duration = Duration::from_secs(300);
/// A request's head is at most this long: request line, names and values.
const MAX_HEAD: usize = 8 << 10;
/// Routers on an answer's way: none, so that whatever a server forwards to others does not reach them.
const HOPS: u32 = 1;

/// The service could not be offered.
#[derive(Debug, thiserror::Error)]
#[error("could not offer metadata to servers at {address}")]
pub struct ListenError {
    /// The bridge's address.
    pub address: Ipv4Addr,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A socket at the bridge's address that servers are led to.
pub struct Listener {
    socket: std::net::TcpListener,
    pub(super) gateway: Ipv4Addr,
}

impl Listener {
    /// Listens for the servers of a network, and leads them there. Must be called in a tokio runtime.
    pub fn open(network: &Network) -> Result<Self, ListenError> {
        let gateway = network.subnet().gateway();
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ListenError { address: gateway, source };
        let bind = |port| bind(&network.names().bridge, SocketAddrV4::new(gateway, port)).map(|socket| (socket, port));
        let mut ports = PORTS.iter();
        let (socket, port) = loop {
            let port = ports.next().ok_or_else(|| failed("every port that is tried is taken".into()))?;
            match bind(*port) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                other => break other.map_err(|error| failed(error.into()))?,
            }
        };
        network.offer_metadata(port).map_err(|error| failed(error.into()))?;
        Ok(Self { socket, gateway })
    }
}

/// Bound to the bridge: a connection that comes in elsewhere, or from the host itself, is not for it.
fn bind(bridge: &str, address: SocketAddrV4) -> io::Result<std::net::TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind_device(Some(bridge.as_bytes()))?;
    socket.bind(SocketAddr::V4(address))?;
    let listener = socket.listen(BACKLOG)?.into_std()?;
    listener.set_ttl(HOPS)?;
    Ok(listener)
}

/// Answers until `ended` is true or its sender is gone.
pub(super) async fn serve(metadata: Arc<Metadata>, listener: Listener, mut ended: watch::Receiver<bool>) {
    let listener = match TcpListener::from_std(listener.socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "could not wait for servers that ask for metadata"),
    };
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ended = ended.wait_for(|ended| *ended) => return,
        };
        match accepted {
            Ok((stream, SocketAddr::V4(peer))) => {
                let metadata = metadata.clone();
                tokio::spawn(async move {
                    connection(metadata, stream, *peer.ip()).await;
                    drop(slot);
                });
            }
            Ok((_, SocketAddr::V6(_))) => {}
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection of a server");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(metadata: Arc<Metadata>, stream: TcpStream, from: Ipv4Addr) {
    let Some(_place) = metadata.limits.enter(from, Instant::now()) else { return };
    // Whoever has no server's address is not spoken to: build steps, for example.
    if metadata.residents.at(from).is_none() || stream.set_nodelay(true).is_err() {
        return;
    }
    debug_assert!(stream.peer_addr().is_ok_and(|peer| peer.ip() == IpAddr::V4(from)));
    let service = service_fn(|request| super::respond::respond(&metadata, from, request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD)
        .max_headers(32)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(LIFETIME, served).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, server = %from, "a server's connection broke"),
    }
}
