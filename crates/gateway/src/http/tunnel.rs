//! After `101 Switching Protocols` (WebSocket and the like): bytes in both directions, until both sides end.

use std::sync::Arc;

use hyper::{Response, body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::{upstream::Lease, watch::Phase, worker::Connection};

/// Starts passing bytes as soon as both sides have switched. The lease and the client's connection are held until the
/// end, and a drain can cut it.
pub fn start(connection: Arc<Connection>, lease: Lease, client: OnUpgrade, response: &mut Response<Incoming>) {
    connection.watch.enter(Phase::Tunnel);
    let server = hyper::upgrade::on(response);
    let upstream = lease.upstream().clone();
    upstream.spawn(async move {
        let _held = (lease, connection);
        if let Err(error) = pass(client, server).await {
            tracing::debug!(%error, "an upgraded connection broke");
        }
    });
}

async fn pass(client: OnUpgrade, server: OnUpgrade) -> std::io::Result<()> {
    let (client, server) = tokio::try_join!(client, server).map_err(std::io::Error::other)?;
    copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await.map(|_| ())
}
