//! One plain TCP connection: a server is chosen once, then bytes pass in both directions until both sides end.

use std::sync::Arc;

use tokio::{io::copy_bidirectional_with_sizes, net::TcpStream, sync::oneshot, time::Instant};

use crate::{
    http::connect::{self, Refused},
    upstream::Lease,
    watch::Phase,
    worker::Connection,
};

/// Bytes held per direction.
const BUFFER: usize = 64 << 10;

/// Serves one client. Without a server within the queue's limits the connection is closed.
pub async fn serve(connection: Arc<Connection>, client: TcpStream) {
    connection.watch.enter(Phase::Tunnel);
    if let Err(error) = connect::prepare(&client) {
        return tracing::debug!(%error, "a client left at once");
    }
    match reach(&connection).await {
        Some((lease, server)) => pass(lease, client, server).await,
        None => {
            connection.route.fail();
            tracing::debug!(group = %connection.route.group, "no server is ready for a connection");
        }
    }
}

/// A connection to a server: each available one is tried once, then whichever becomes available.
async fn reach(connection: &Connection) -> Option<(Lease, TcpStream)> {
    let deadline = Instant::now() + connection.route.patience(connection.limits());
    let mut refused = Vec::new();
    loop {
        let lease = match connection.route.pick(&connection.worker.turn, &refused) {
            Some(lease) => lease,
            None => connection.route.wait(&connection.worker.turn, connection.limits(), deadline).await.ok()?,
        };
        match connect::open(connection, lease.upstream()).await {
            Ok(server) => return Some((lease, server)),
            Err(Refused) if Instant::now() >= deadline => return None,
            Err(Refused) => refused.push(lease.upstream().address),
        }
    }
}

/// Copies in a task that a drain can cut, and waits for its end.
async fn pass(lease: Lease, mut client: TcpStream, mut server: TcpStream) {
    lease.served();
    let (ended, end) = oneshot::channel::<()>();
    let upstream = lease.upstream().clone();
    upstream.spawn(async move {
        let _held = (lease, ended);
        if let Err(error) = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await {
            tracing::debug!(%error, "a connection broke");
        }
    });
    end.await.unwrap_or_default();
}
