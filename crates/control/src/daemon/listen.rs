//! The daemon's socket: who may connect, how much they may hold, and ending without cutting an answer.

use std::{fs, io, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use kiln_api::client::SOCKET;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::timeout,
};

use super::{App, DaemonError, routes};

/// A request's head must be there within this time.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Connections at a time; further ones wait.
const CONNECTIONS: usize = 256;
/// Connections for metrics at a time, and how long one lives.
const OFFERED: usize = 16;
const LIFETIME: Duration = Duration::from_secs(60);
/// Answers under way when the daemon is asked to end may take this long.
const ENDING_LIMIT: Duration = Duration::from_secs(10);

/// Binds the socket. The caller holds the lock of the state directory, so an old socket belongs to nobody.
pub(super) fn bind(state_dir: &Path) -> Result<UnixListener, DaemonError> {
    let path = state_dir.join(SOCKET);
    let bound = || -> io::Result<UnixListener> {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // The directory has mode 0700, so nobody else reaches the socket before its mode is set.
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bound().map_err(|source| DaemonError::Listen { path: path.clone(), source })
}

/// Binds the address at which metrics are offered.
pub(super) async fn bind_metrics(address: SocketAddr) -> Result<TcpListener, DaemonError> {
    TcpListener::bind(address).await.map_err(|source| DaemonError::Offer { address, source })
}

/// Answers whoever asks for metrics, and nothing else, until it is dropped.
pub(super) async fn offer(app: Arc<App>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(OFFERED));
    let service = TowerToHyperService::new(routes::offered(app));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let connection = timeout(LIFETIME, connection(stream, service.clone()));
        tokio::spawn(async move {
            if let Ok(Err(error)) = connection.await {
                tracing::debug!(%error, "a connection for metrics broke");
            }
            drop(slot);
        });
    }
}

/// Removes the socket, so that the next caller sees at once that no daemon answers.
pub(super) fn remove(state_dir: &Path) {
    if let Err(error) = fs::remove_file(state_dir.join(SOCKET)) {
        tracing::debug!(%error, "could not remove the socket");
    }
}

/// Answers until the daemon is asked to end, then finishes the answers under way.
pub(super) async fn serve(app: Arc<App>, listener: UnixListener) -> Result<(), DaemonError> {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let service = TowerToHyperService::new(routes::router(app.clone()));
    let mut ending = app.ending();
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            _ended = ending.wait_for(|ending| *ending) => break,
            _signal = terminate.recv() => break,
            _signal = interrupt.recv() => break,
        };
        match stream {
            Ok((stream, _)) => {
                let connection = graceful.watch(connection(stream, service.clone()));
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection broke");
                    }
                    drop(slot);
                });
            }
            // Out of descriptors, most likely: wait for some to be closed.
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    app.end();
    if timeout(ENDING_LIMIT, graceful.shutdown()).await.is_err() {
        tracing::warn!("answers still under way are cut off; the work goes on at the next start");
    }
    Ok(())
}

type Service = TowerToHyperService<axum::Router>;

fn connection<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    service: Service,
) -> http1::Connection<TokioIo<S>, Service> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service)
}
