//! One client's HTTP connection.
//!
//! ```text
//! headers   what is removed from and added to a head, and which heads are refused
//! forward   a request to a server and back, once more where that is safe
//! connect   a new connection to a server
//! pool      unused connections to a server, per worker
//! body      bodies in both directions; the end of a response's body gives the connection back
//! tunnel    after `101 Switching Protocols`
//! ```

pub mod body;
pub mod connect;
mod forward;
mod headers;
pub mod pool;
mod tunnel;

use std::{convert::Infallible, sync::Arc};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{watch::Watched, worker::Connection};

/// Serves one client until it leaves or breaks a limit.
pub async fn serve(connection: Arc<Connection>, stream: TcpStream) {
    let client = match headers::Client::new(&connection, &stream) {
        Ok(client) => Arc::new(client),
        Err(error) => return tracing::debug!(%error, "a client left at once"),
    };
    let io = TokioIo::new(Watched::new(stream, connection.watch.clone()));
    let limits = *connection.limits();
    let service = service_fn(move |request| {
        let (connection, client) = (connection.clone(), client.clone());
        async move { Ok::<_, Infallible>(forward::forward(&connection, &client, request).await) }
    });
    let served = http1::Builder::new()
        .max_buf_size(limits.header_size.max(8 << 10))
        .max_header_size(limits.header_size)
        .header_read_timeout(None)
        .serve_connection(io, service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a client's connection ended");
    }
}
