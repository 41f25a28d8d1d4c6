//! Connections from inside a server's network, and what names mean there.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use kiln_engine::Transport;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::{Eyes, said};

/// So many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;

impl Eyes<'_> {
    /// As goss's dialer: what cannot be connected to is not reachable, whatever the reason.
    pub(super) async fn reachable(
        self,
        network: &str,
        address: &str,
        local: Option<&str>,
        limit: Duration,
    ) -> Result<bool, String> {
        let local = match local.filter(|local| !local.is_empty()) {
            None => None,
            Some(text) => Some(text.parse::<IpAddr>().map_err(|_| format!("`{text}` is not an address"))?),
        };
        let Some((host, port)) = split(address) else { return Ok(false) };
        let family = |ip: &IpAddr| match network {
            "tcp4" | "udp4" => ip.is_ipv4(),
            "tcp6" | "udp6" => ip.is_ipv6(),
            _ => true,
        };
        let tried = async {
            let addresses = self.resolve(&host).await.unwrap_or_default();
            for ip in addresses.into_iter().filter(family).take(MAX_ADDRESSES) {
                let to = SocketAddr::new(ip, port);
                let connected = match network {
                    "tcp" | "tcp4" | "tcp6" => self.tcp(to, local).await.is_ok(),
                    "udp" | "udp4" | "udp6" => self.udp(to, local).await.is_ok(),
                    _ => false,
                };
                if connected {
                    return true;
                }
            }
            false
        };
        Ok(tokio::time::timeout(limit, tried).await.unwrap_or(false))
    }

    /// A stream to a host and port by name.
    pub(super) async fn connect(self, host: &str, port: u16) -> Result<TcpStream, String> {
        let mut last = format!("`{host}` has no address");
        for ip in self.resolve(host).await?.into_iter().take(MAX_ADDRESSES) {
            match self.tcp(SocketAddr::new(ip, port), None).await {
                Ok(stream) => return Ok(stream),
                Err(reason) => last = format!("could not connect to {}: {reason}", SocketAddr::new(ip, port)),
            }
        }
        Err(last)
    }

    async fn socket(self, family: IpAddr, transport: Transport) -> Result<OwnedFd, String> {
        self.facts.socket(self.server, family, transport).await.map_err(said)
    }

    pub(super) async fn tcp(self, to: SocketAddr, from: Option<IpAddr>) -> Result<TcpStream, String> {
        let socket = self.socket(to.ip(), Transport::Tcp).await?;
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
        let words = |error: std::io::Error| error.to_string();
        if let Some(from) = from {
            socket.bind(SocketAddr::new(from, 0)).map_err(words)?;
        }
        socket.connect(to).await.map_err(words)
    }

    pub(super) async fn udp(self, to: SocketAddr, from: Option<IpAddr>) -> Result<UdpSocket, String> {
        let socket = self.socket(to.ip(), Transport::Udp).await?;
        let words = |error: std::io::Error| error.to_string();
        if let Some(from) = from {
            rustix::net::bind(&socket, &SocketAddr::new(from, 0)).map_err(|errno| words(errno.into()))?;
        }
        let socket = UdpSocket::from_std(std::net::UdpSocket::from(socket)).map_err(words)?;
        socket.connect(to).await.map_err(words)?;
        Ok(socket)
    }

    /// The addresses of a name, as programs inside would find them: an address itself, `/etc/hosts`, the name servers of
    /// `/etc/resolv.conf`.
    pub(super) async fn resolve(self, host: &str) -> Result<Vec<IpAddr>, String> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        let hosts = in_hosts(&self.text("/etc/hosts").await?, host);
        if !hosts.is_empty() {
            return Ok(hosts);
        }
        if host.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        self.look_up(host).await
    }
}

/// Host and port of `host:port` or `[address]:port`.
pub(super) fn split(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port.parse().ok()?))
}

/// The addresses of a name in the text of `/etc/hosts` (hosts(5)).
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name.trim_end_matches('.'))).then_some(address)
    };
    lines.filter_map(address).collect()
}
