//! What the gateway can be told at start. Everything else comes with the table.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

/// How the gateway is started.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// Holds `gateway.sock`, `gateway.json` and `gateway.lock`.
    pub state_dir: PathBuf,
    /// Threads that serve traffic. One per processor, at most 8, unless said.
    pub workers: Option<usize>,
    /// Whether listening sockets are waiting on standard input, put there by [`crate::client::start`].
    pub inherit: bool,
    /// Proxies in front of the gateway whose `X-Forwarded-…` headers are believed and added to. None by default:
    /// what a client claims is replaced.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Sizes and times.
    pub limits: Limits,
}

impl GatewayOptions {
    /// The defaults for a state directory.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            workers: None,
            inherit: false,
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
        }
    }

    pub(crate) fn worker_count(&self) -> usize {
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.unwrap_or(available.min(8)).max(1)
    }
}

/// Sizes and times that bound what one client or one server can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's head, and of a response's head. 64 KiB by default. A head has at most 100 headers.
    pub header_size: usize,
    /// From the first byte of a request (or the connection's begin) to the end of its head. 10 s by default.
    pub header_timeout: Duration,
    /// A client connection without a request is closed after this. 75 s by default.
    pub idle_timeout: Duration,
    /// No response head, and no progress of the request's body, for this long: 504. 60 s by default.
    pub response_timeout: Duration,
    /// A response body that makes no progress for this long is cut. 5 min by default.
    pub stall_timeout: Duration,
    /// For one connection to one server. 1 s by default.
    pub connect_timeout: Duration,
    /// An unused connection to a server is kept for this. 30 s by default.
    pub pool_idle_timeout: Duration,
    /// Unused connections kept per server and worker. 128 by default.
    pub pool_size: usize,
    /// Without a ready server, a request or connection waits this long before it is refused. 1 s by default.
    pub queue_timeout: Duration,
    /// So many may wait per route; more are refused at once. 1024 by default.
    pub queue_size: usize,
    /// Client connections at a time. More wait in the kernel's backlog. 8000 by default (two descriptors each).
    pub connections: usize,
    /// After a hand-over, the old process closes a client connection that has been without a request for this. 5 s.
    pub retire_idle: Duration,
    /// After `stop`, what is in flight may finish within this. 10 s by default.
    pub stop_limit: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_size: 64 << 10,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            response_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(1),
            pool_idle_timeout: Duration::from_secs(30),
            pool_size: 128,
            queue_timeout: Duration::from_secs(1),
            queue_size: 1_024,
            connections: 8_000,
            retire_idle: Duration::from_secs(5),
            stop_limit: Duration::from_secs(10),
        }
    }
}

/// A network whose proxies are believed: `10.0.0.0/8`, `::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedProxy {
    /// IPv4 networks are kept as IPv4-mapped IPv6.
    network: u128,
    bits: u32,
}

/// A text that is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network: write an address, or an address and a prefix length, such as `10.0.0.0/8`")]
pub struct InvalidNetwork(String);

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

impl TrustedProxy {
    /// Whether the address is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = 128 - self.bits;
        shift == 128 || u128::from(mapped(address)) >> shift == self.network >> shift
    }
}

impl FromStr for TrustedProxy {
    type Err = InvalidNetwork;
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let bad = || InvalidNetwork(text.chars().take(80).collect());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(width), |p| p.parse::<u32>().map_err(|_| bad()))?;
        if prefix > width {
            return Err(bad());
        }
        Ok(Self { network: mapped(address).into(), bits: prefix + 128 - width })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        let net: TrustedProxy = "10.0.0.0/8".parse().unwrap();
        assert!(net.contains("10.9.8.7".parse().unwrap()));
        assert!(net.contains("::ffff:10.9.8.7".parse().unwrap()));
        assert!(!net.contains("11.0.0.1".parse().unwrap()));
        let all: TrustedProxy = "::/0".parse().unwrap();
        assert!(all.contains("fe80::1".parse().unwrap()));
        let one: TrustedProxy = "::1".parse().unwrap();
        assert!(one.contains("::1".parse().unwrap()) && !one.contains("::2".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "10.0.0.0/x", "ten"] {
            assert!(bad.parse::<TrustedProxy>().is_err(), "{bad}");
        }
    }
}
