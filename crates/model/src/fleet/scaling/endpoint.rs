//! Where a number is asked for: `http://host[:port]/path`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

const LONGEST: usize = 2048;

/// An address of HTTP without encryption, a login or a fragment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query, with a leading `/`.
    pub path: String,
}

/// A text that is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Another scheme, or none.
    #[error("only addresses that begin with `http://` are asked")]
    Scheme,
    /// Far too long.
    #[error("it is longer than {LONGEST} characters")]
    Long,
    /// Spaces and the like.
    #[error("an address has no spaces, control characters or letters beyond ASCII: write `%20` and the like")]
    Characters,
    /// `user:password@` or `#…`.
    #[error("an address has no login and no fragment")]
    Parts,
    /// No host.
    #[error("it names no host")]
    Host,
    /// A port that is none.
    #[error("a port is a number from 1 to 65535")]
    Port,
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;
    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let rest = text.strip_prefix("http://").ok_or(InvalidEndpoint::Scheme)?;
        if text.len() > LONGEST {
            return Err(InvalidEndpoint::Long);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidEndpoint::Characters);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') || text.contains('#') {
            return Err(InvalidEndpoint::Parts);
        }
        let (host, port) = split(authority)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { host: host.to_owned(), port: port.map_or(Ok(80), number)?, path })
    }
}

/// Host and port; an IPv6 address stands in brackets.
fn split(authority: &str) -> Result<(&str, Option<&str>), InvalidEndpoint> {
    let (host, port) = match authority.strip_prefix('[').map(|inside| inside.split_once(']')) {
        Some(Some((host, rest))) if host.parse::<std::net::Ipv6Addr>().is_ok() => match rest.strip_prefix(':') {
            port @ Some(_) => (host, port),
            None if rest.is_empty() => (host, None),
            None => return Err(InvalidEndpoint::Host),
        },
        Some(_) => return Err(InvalidEndpoint::Host),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    let known = !host.is_empty() && host.bytes().all(plain);
    known.then_some((host, port)).ok_or(InvalidEndpoint::Host)
}

fn number(port: &str) -> Result<u16, InvalidEndpoint> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|port| digits && *port != 0).ok_or(InvalidEndpoint::Port)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, path } = self;
        match host.contains(':') {
            true => write!(f, "http://[{host}]:{port}{path}"),
            false => write!(f, "http://{host}:{port}{path}"),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = InvalidEndpoint;
    fn try_from(text: String) -> Result<Self, InvalidEndpoint> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_an_endpoint_is_read_into_its_parts_and_shown_again() {
        for (text, host, port, path) in [
            ("http://127.0.0.1:9090/metrics", "127.0.0.1", 9090, "/metrics"),
            ("http://queue.example", "queue.example", 80, "/"),
            ("http://queue?of=mail", "queue", 80, "/?of=mail"),
            ("http://[::1]:81/a?b=c", "::1", 81, "/a?b=c"),
        ] {
            let read: Endpoint = text.parse().unwrap();
            assert_eq!((read.host.as_str(), read.port, read.path.as_str()), (host, port, path));
            assert_eq!(read.to_string().parse::<Endpoint>().unwrap(), read);
        }
    }

    #[test]
    fn unit_what_is_no_endpoint_is_refused() {
        use InvalidEndpoint::{Characters, Host, Long, Parts, Port, Scheme};
        let long = format!("http://a/{}", "x".repeat(LONGEST));
        for (text, why) in [
            ("https://a/", Scheme),
            ("a:80/x", Scheme),
            (long.as_str(), Long),
            ("http://a/ b", Characters),
            ("http://a/\r\nX: y", Characters),
            ("http://me:secret@a/", Parts),
            ("http://a/#x", Parts),
            ("http:///x", Host),
            ("http://[::1", Host),
            ("http://[::1]x/", Host),
            ("http://[a]/", Host),
            ("http://a%b/", Host),
            ("http://a:0/", Port),
            ("http://a:+80/", Port),
            ("http://a:65536/", Port),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(why), "{text}");
        }
    }
}
