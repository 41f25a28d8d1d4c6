//! One attempt of a service's check, and what PID 1 says of a service: the same for a server under test, for a new one, and
//! for one that serves, so that what holds in a test holds later.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use kiln_api::error::chain;
use kiln_engine::{Engine, ServiceStatus};
use kiln_model::{ServerId, ServiceName, manifest::ServiceCheck};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// So much of an answer is read to find its status line.
const STATUS_LINE: usize = 512;
/// So much of what a command writes is kept.
const OUTPUT: usize = 4096;

/// Whose service is asked.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub engine: &'a dyn Engine,
    pub server: &'a ServerId,
    pub address: Option<Ipv4Addr>,
    /// Commands are run as this user.
    pub user: &'a str,
}

impl Asked<'_> {
    /// Whether the check holds now, or what was seen. A command is given up after `within`; whoever calls limits the rest.
    pub async fn attempt(&self, check: &ServiceCheck, within: Duration) -> Result<(), String> {
        match check {
            ServiceCheck::Tcp { port } => self.connect(*port).await.map(drop),
            ServiceCheck::Http { port, path } => match get(self.connect(*port).await?, path).await {
                Ok(Some(200..=399)) => Ok(()),
                Ok(Some(status)) => Err(format!("GET {path} answered status {status}")),
                Ok(None) => Err(format!("what GET {path} answered is not HTTP")),
                Err(error) => Err(format!("the answer to GET {path} broke off: {error}")),
            },
            ServiceCheck::Command { command } => self.run(command, within).await,
        }
    }

    async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let address = SocketAddr::from((self.address.ok_or("the server has no address")?, port));
        TcpStream::connect(address).await.map_err(|error| format!("could not connect to {address}: {error}"))
    }

    async fn run(&self, command: &[String], within: Duration) -> Result<(), String> {
        let inside = self.engine.inside().ok_or("this engine cannot run commands inside a server")?;
        let result = inside.exec(self.server, command, self.user, within, OUTPUT).await;
        let result = result.map_err(|error| chain(&error))?;
        let last_line = || String::from_utf8_lossy(&result.stderr).trim_end().lines().next_back().map(str::to_owned);
        match result.exit {
            0 => Ok(()),
            exit => Err(format!("`{}` exited with {exit}: {}", command.join(" "), last_line().unwrap_or_default())),
        }
    }
}

/// What PID 1 says of a service; none where it does not know it.
pub(crate) async fn status(
    engine: &dyn Engine,
    server: &ServerId,
    name: &ServiceName,
) -> Result<Option<ServiceStatus>, String> {
    let inside = engine.inside().ok_or("this engine does not tell how services are")?;
    let services = inside.services(server).await.map_err(|error| chain(&error))?;
    Ok(services.into_iter().find(|service| service.name == *name))
}

/// The status that a GET is answered with. Only the status line is read: a body may be as long as it likes.
async fn get(mut stream: TcpStream, path: &str) -> std::io::Result<Option<u16>> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: kiln\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(STATUS_LINE);
    while !answer.contains(&b'\n') && answer.len() < STATUS_LINE {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    Ok(status_of(&answer))
}

/// The status of an HTTP/1 answer (RFC 9112, section 4).
fn status_of(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    std::str::from_utf8(rest.get(2..5)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::status_of;

    #[test]
    fn only_a_status_line_has_a_status() {
        assert_eq!(status_of(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status_of(b"HTTP/1.0 500\r\n"), Some(500));
        for bad in ["", "HTTP/1.", "HTTP/2 200", "SSH-2.0", "HTTP/1.1 2x0 "] {
            assert_eq!(status_of(bad.as_bytes()), None, "{bad}");
        }
    }
}
