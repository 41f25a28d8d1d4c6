//! A new connection to a server, and what happens to a server that does not take one.

use std::{io, sync::Arc, time::Duration};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::net::TcpStream;

use super::pool::Sender;
use crate::{live::LiveRoute, options::Limits, upstream::Upstream, worker::Connection};

/// A server that was found dead is tried again after this, and then at up to [`PROBE_MOST`].
const PROBE_FIRST: Duration = Duration::from_millis(50);
const PROBE_MOST: Duration = Duration::from_secs(1);
/// A peer that vanished without a word is noticed after about 90 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The server did not take the connection, and counts as down until it does, or the table says otherwise.
pub struct Refused;

/// Sets what every socket has: no delay for small writes, and a way to notice a dead peer.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    Ok(sockopt::set_tcp_keepcnt(stream, 3)?)
}

async fn dial(upstream: &Upstream, limits: &Limits) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(limits.connect_timeout, TcpStream::connect(upstream.address)).await??;
    prepare(&stream)?;
    Ok(stream)
}

/// Opens a connection. A server that leaves the table meanwhile is not waited for: one that died without a word, its address
/// gone with it, would cost the whole time limit.
pub async fn open(connection: &Connection, upstream: &Arc<Upstream>) -> Result<TcpStream, Refused> {
    let dialled = tokio::select! {
        dialled = dial(upstream, connection.limits()) => dialled,
        () = upstream.left() => return Err(Refused),
    };
    dialled.map_err(|error| {
        if is_local(&error) {
            tracing::error!(%error, "a server could not be asked for want of resources");
        } else if upstream.mark_down() {
            tracing::warn!(server = %upstream.server, address = %upstream.address, %error, "a server is down");
            tokio::spawn(probe(upstream.clone(), connection.route.clone(), *connection.limits()));
        }
        Refused
    })
}

/// Whether the fault is this host's: no descriptors, ports or memory left.
fn is_local(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let local = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| local.iter().any(|errno| errno.raw_os_error() == code))
}

/// Tries until the server takes a connection or gets nothing more anyway.
async fn probe(upstream: Arc<Upstream>, route: Arc<LiveRoute>, limits: Limits) {
    let mut pause = PROBE_FIRST;
    loop {
        tokio::time::sleep(pause).await;
        if upstream.is_draining() || upstream.is_available() {
            return;
        }
        if dial(&upstream, &limits).await.is_ok() {
            upstream.mark_up();
            tracing::info!(server = %upstream.server, "a server is back");
            return route.wake();
        }
        pause = (pause * 2).min(PROBE_MOST);
    }
}

/// Opens a connection for HTTP. Its task ends with it, or when the server is cut.
pub async fn open_http(connection: &Connection, upstream: &Arc<Upstream>) -> Result<Sender, Refused> {
    let stream = open(connection, upstream).await?;
    let (sender, task) = http1::Builder::new()
        .max_buf_size(connection.limits().header_size.max(8 << 10))
        .max_header_size(connection.limits().header_size)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Refused)?;
    upstream.spawn(async move {
        if let Err(error) = task.with_upgrades().await {
            tracing::debug!(%error, "a connection to a server ended");
        }
    });
    Ok(sender)
}
