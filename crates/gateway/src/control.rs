//! The control socket: requests as lines, a reply for each, in order.
//!
//! Whoever can open the socket (mode 0600) may do everything. What is sent is bounded: a line's length, the number of
//! connections. A line that is not a request gets a reply that says so; a line that is too long ends the connection.

use std::{
    fs, io,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::{
    client::GatewayClient,
    fds,
    gateway::{Gateway, Stage},
    proto::{MAX_LINE, Refusal, Reply, Request},
    table::Routes,
};

/// Control connections at a time; more wait. A drain holds one for as long as it takes, so a table must find a place
/// beside the drains of a whole group.
const CONNECTIONS: usize = 1_024;
/// A request may take this long to arrive once it has begun, and a reply to be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// The name of the control socket of the gateway that accepts.
pub const SOCKET: &str = "gateway.sock";

/// The name of the socket on which one process can be asked from its begin to its end.
pub fn link_name(pid: u32) -> String {
    format!("gateway-{pid}.sock")
}

/// The processes of a state directory that answer on a socket of their own, except this one. Sockets of processes that
/// were killed are removed. By now this process is the one that accepts, so nothing here may end it.
pub async fn others(state_dir: &Path) -> Vec<GatewayClient> {
    let paths = links(state_dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "earlier gateways cannot be looked for");
        Vec::new()
    });
    let mut others = Vec::new();
    for path in paths {
        let other = GatewayClient::of_socket(path.clone());
        match other.status().await {
            Ok(_) => others.push(other),
            // It may just have ended, and removed its socket itself.
            Err(_) => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display(), "a dead socket cannot be removed");
                }
                _ => {}
            },
        }
    }
    others
}

fn links(state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let own = link_name(std::process::id());
    let mut links = Vec::new();
    for entry in fs::read_dir(state_dir)? {
        let (path, name) = entry.map(|e| (e.path(), e.file_name()))?;
        let name = name.to_string_lossy();
        if name != own.as_str() && name.starts_with("gateway-") && name.ends_with(".sock") {
            links.push(path);
        }
    }
    Ok(links)
}

/// Opens a socket under its name in one step: who connects finds the old one or the new one, never none.
pub fn open(state_dir: &Path, name: &str) -> io::Result<(UnixListener, PathBuf)> {
    let path = state_dir.join(name);
    let new = state_dir.join(format!("{name}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, &path)?;
    Ok((listener, path))
}

/// Answers on the socket until the task is dropped.
pub async fn serve(gateway: Arc<Gateway>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let gateway = gateway.clone();
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = converse(&gateway, stream).await {
                        tracing::debug!(%error, "a control connection broke");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a control connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Held while somebody has the sockets and has not yet said that it accepts.
struct HandingOver<'a>(&'a Gateway);

impl<'a> HandingOver<'a> {
    fn begin(gateway: &'a Gateway) -> Self {
        gateway.handing_over.fetch_add(1, SeqCst);
        Self(gateway)
    }
}

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        self.0.handing_over.fetch_sub(1, SeqCst);
    }
}

async fn converse(gateway: &Gateway, mut stream: UnixStream) -> io::Result<()> {
    let mut handing_over = None;
    while let Some(line) = read_line(&mut stream).await? {
        let request = match line {
            Line::Request(request) => request,
            Line::Bad(refusal) => {
                let fatal = refusal == Refusal::TooLong;
                write_reply(&mut stream, &Reply::Error(refusal)).await?;
                if fatal {
                    return Ok(());
                }
                continue;
            }
        };
        if request == (Request::HandOver {}) {
            handing_over.get_or_insert_with(|| HandingOver::begin(gateway));
        }
        if request == (Request::Retire {}) {
            handing_over = None;
        }
        stream = answer(gateway, stream, request).await?;
    }
    Ok(())
}

enum Line {
    Request(Request),
    Bad(Refusal),
}

/// The next line; `None` at the end of the stream.
async fn read_line(stream: &mut UnixStream) -> io::Result<Option<Line>> {
    stream.readable().await?;
    // A reader per line: clients wait for a reply before they send more, so nothing is left behind in its buffer.
    let mut reader = BufReader::new(stream.take(MAX_LINE as u64 + 1));
    let mut line = Vec::new();
    let read = reader.read_until(b'\n', &mut line);
    let length = tokio::time::timeout(PATIENCE, read).await??;
    if length == 0 {
        return Ok(None);
    }
    if length > MAX_LINE {
        return Ok(Some(Line::Bad(Refusal::TooLong)));
    }
    Ok(Some(match serde_json::from_slice(&line) {
        Ok(request) => Line::Request(request),
        Err(error) => Line::Bad(Refusal::Malformed { message: error.to_string() }),
    }))
}

async fn write_reply(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    tokio::time::timeout(PATIENCE, stream.write_all(&line)).await?
}

async fn answer(gateway: &Gateway, mut stream: UnixStream, request: Request) -> io::Result<UnixStream> {
    let reply = match request {
        Request::SetRoutes { version, routes } => {
            gateway.set_routes(version, Routes { routes }).await.unwrap_or_else(Reply::Error)
        }
        Request::Drain { server, limit_ms } => {
            Reply::Drained(gateway.drain(&server, Duration::from_millis(limit_ms)).await)
        }
        Request::Status {} => Reply::Status(gateway.status()),
        Request::Asked { after, limit_ms } => Reply::Asked(gateway.asked(after, Duration::from_millis(limit_ms)).await),
        Request::TakeListeners {} | Request::HandOver {} => {
            let (reply, sockets) = gateway.listeners()?;
            write_reply(&mut stream, &reply).await?;
            return send_sockets(stream, sockets).await;
        }
        Request::Retire {} => {
            gateway.retire();
            Reply::Retired {}
        }
        Request::Stop {} => {
            gateway.stop().await;
            Reply::Stopping {}
        }
    };
    write_reply(&mut stream, &reply).await?;
    Ok(stream)
}

/// Descriptors are sent with blocking calls, a few bytes, on a thread that may block.
async fn send_sockets(stream: UnixStream, sockets: Vec<TcpListener>) -> io::Result<UnixStream> {
    let stream = stream.into_std()?;
    let sent = tokio::task::spawn_blocking(move || {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        fds::send(&stream, &sockets)?;
        stream.set_nonblocking(true)?;
        Ok::<_, io::Error>(stream)
    });
    UnixStream::from_std(sent.await.map_err(io::Error::other)??)
}

/// Whether the process may end: nobody is connected any more.
pub fn is_finished(gateway: &Gateway) -> bool {
    gateway.stage() != Stage::Serving && gateway.workers.connections() == 0
}
