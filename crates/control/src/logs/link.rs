//! One connection to a collector: how lines are framed for it, and when they count as arrived.
//!
//! Over RELP a line has arrived when the collector says so; over the others, when the kernel has taken it. Every wait has its
//! limit: a connection that is not there after [`CONNECT`] is none.

use std::{io::ErrorKind, path::Path, time::Duration};

use kiln_model::fleet::{LogsPolicy, Transport};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::relp;
use crate::sources::tls;

/// For a good-bye.
const CLOSE: Duration = Duration::from_secs(1);
/// For a connection, its encryption and its greeting.
const CONNECT: Duration = Duration::from_secs(10);
/// So much is kept of what a collector said and that is no whole frame yet.
const MAX_HEARD: usize = 64 << 10;

/// A connection, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Heard {
    /// So many bytes of what was given were taken.
    Written(usize),
    /// All that was taken is on its way.
    Flushed,
    /// Commands that the collector answered, and whether with success.
    Answers(Vec<(u32, bool)>),
}

/// A connection.
pub(super) enum Link {
    Udp(UdpSocket),
    Stream { read: ReadHalf<Box<dyn Stream>>, write: WriteHalf<Box<dyn Stream>>, relp: bool, heard: Vec<u8> },
}

/// Connects, or says why not.
pub(super) async fn connect(policy: LogsPolicy) -> Result<Link, String> {
    match timeout(CONNECT, try_connect(&policy)).await {
        Ok(link) => link,
        Err(_) => Err(format!("no connection within {} s", CONNECT.as_secs())),
    }
}

async fn try_connect(policy: &LogsPolicy) -> Result<Link, String> {
    let (host, port) = (policy.to.host.as_str(), policy.to.port);
    let failed = |error: std::io::Error| error.to_string();
    if policy.to.transport == Transport::Udp {
        return udp(host, port).await.map(Link::Udp).map_err(failed);
    }
    let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let stream: Box<dyn Stream> = match policy.to.transport {
        Transport::Tls => {
            let config = tls::config(&policy.tls, Path::new("/")).await;
            let config = config.map_err(|error| kiln_api::error::chain(&error))?;
            Box::new(tls::encrypt(config, host, stream).await.map_err(failed)?)
        }
        _ => Box::new(stream),
    };
    let (read, write) = split(stream);
    let relp = policy.to.transport == Transport::Relp;
    let mut link = Link::Stream { read, write, relp, heard: Vec::new() };
    if relp {
        link.open().await?;
    }
    Ok(link)
}

async fn udp(host: &str, port: u16) -> std::io::Result<UdpSocket> {
    let mut last = std::io::Error::from(ErrorKind::NotFound);
    for address in tokio::net::lookup_host((host, port)).await? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        match socket.connect(address).await {
            Ok(()) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Link {
    /// Whether the collector says what has arrived.
    pub fn acknowledges(&self) -> bool {
        matches!(self, Self::Stream { relp: true, .. })
    }

    /// Appends a line as it travels.
    pub fn frame(&self, to: &mut Vec<u8>, txnr: u32, line: &[u8]) {
        match self {
            Self::Udp(_) => to.extend_from_slice(line),
            Self::Stream { relp: true, .. } => relp::write(to, txnr, "syslog", line),
            Self::Stream { .. } => {
                to.extend_from_slice(line.len().to_string().as_bytes());
                to.push(b' ');
                to.extend_from_slice(line);
            }
        }
    }

    /// Goes on with writing and reading, whatever is possible first. `first` is the length of the first line. Can be dropped
    /// at any time.
    pub async fn go_on(&mut self, out: &[u8], first: usize, flush: bool) -> Result<Heard, String> {
        match self {
            Self::Udp(socket) => datagram(socket, out, first).await.map_err(|error| error.to_string()),
            Self::Stream { read, write, heard, .. } => {
                let mut buffer = [0; 8192];
                let written = async {
                    match (out.is_empty(), flush) {
                        (false, _) => write.write(out).await.map(Heard::Written),
                        (true, true) => write.flush().await.map(|()| Heard::Flushed),
                        (true, false) => std::future::pending().await,
                    }
                };
                let read = tokio::select! {
                    read = read.read(&mut buffer) => read,
                    written = written => return written.map_err(|error| error.to_string()),
                };
                match read {
                    Ok(0) => Err("it closed the connection".to_owned()),
                    Ok(count) => {
                        heard.extend_from_slice(&buffer[..count]);
                        self.answers()
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
        }
    }

    fn answers(&mut self) -> Result<Heard, String> {
        let Self::Stream { relp, heard, .. } = self else { return Ok(Heard::Flushed) };
        if !*relp {
            // Nobody asked it anything.
            heard.clear();
            return Ok(Heard::Answers(Vec::new()));
        }
        let (mut answers, mut used) = (Vec::new(), 0);
        loop {
            match relp::parse(&heard[used..]) {
                relp::Parsed::Frame(frame, size) => {
                    match frame.command {
                        "rsp" => answers.push((frame.txnr, relp::code(frame.data) == Some(200))),
                        // What it said before counts first; then the connection ends.
                        "serverclose" if !answers.is_empty() => break,
                        "serverclose" => return Err("it is shutting down".to_owned()),
                        _ => return Err("it says what is no RELP".to_owned()),
                    }
                    used += size;
                }
                relp::Parsed::Partial if heard.len() - used <= MAX_HEARD => break,
                relp::Parsed::Partial => return Err("its answer has no end".to_owned()),
                relp::Parsed::Broken(what) => return Err(format!("it says what is no RELP: {what}")),
            }
        }
        heard.drain(..used);
        Ok(Heard::Answers(answers))
    }

    /// Says good-bye, where that is the custom. What was sent stays sent, whether it is heard or not.
    pub async fn close(self, txnr: u32) {
        let Self::Stream { mut write, relp, .. } = self else { return };
        let mut bye = Vec::new();
        if relp {
            relp::write(&mut bye, txnr, "close", b"");
        }
        let said = async {
            write.write_all(&bye).await?;
            write.shutdown().await
        };
        // A collector that is gone hears nothing.
        drop(timeout(CLOSE, said).await);
    }

    /// RELP's greeting: command 1.
    async fn open(&mut self) -> Result<(), String> {
        let mut hello = Vec::new();
        relp::write(&mut hello, 1, "open", relp::OFFER.as_bytes());
        let mut out = hello.as_slice();
        loop {
            match self.go_on(out, out.len(), false).await? {
                Heard::Written(count) => out = &out[count..],
                Heard::Answers(answers) => match answers.first() {
                    Some((1, true)) => return Ok(()),
                    Some(_) => return Err("it refuses the session".to_owned()),
                    None => {}
                },
                Heard::Flushed => {}
            }
        }
    }
}

/// Sends one line; an answer to an earlier one says that nobody listens.
async fn datagram(socket: &UdpSocket, out: &[u8], first: usize) -> std::io::Result<Heard> {
    let mut buffer = [0; 64];
    let sent = async {
        match out.is_empty() {
            true => std::future::pending().await,
            false => socket.send(&out[..first]).await,
        }
    };
    tokio::select! {
        biased;
        heard = socket.recv(&mut buffer) => heard.map(|_| Heard::Answers(Vec::new())),
        sent = sent => sent.map(|_| Heard::Written(first)),
    }
}
