//! Heads: what the gateway removes and adds, and which requests it refuses.
//!
//! Removed in both directions: `Connection` and what it names, `Keep-Alive`, `Proxy-Connection`, `TE`,
//! `Transfer-Encoding` and `Upgrade` (RFC 9110 section 7.6.1); framing and connections are each side's own. An upgrade
//! is passed on. From requests also `Expect`, which the gateway answers itself when a server is found.
//!
//! Set on requests: `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`. What the client claims in them, and in
//! `Forwarded` and `X-Real-IP`, is removed, unless it is a trusted proxy: then its address is appended to
//! `X-Forwarded-For`, and the others stay as they are.

use std::io;

use hyper::{
    HeaderMap, Method, StatusCode, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
    },
    http::{request, uri::PathAndQuery},
};
use tokio::net::TcpStream;

use super::connect;
use crate::worker::Connection;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What is the same for all requests of a client connection.
pub struct Client {
    address: HeaderValue,
    trusted: bool,
    /// Host of requests that need none (HTTP/1.0): the address the client reached.
    local: HeaderValue,
}

impl Client {
    pub fn new(connection: &Connection, stream: &TcpStream) -> io::Result<Self> {
        connect::prepare(stream)?;
        let local = stream.local_addr()?;
        let local = std::net::SocketAddr::new(local.ip().to_canonical(), local.port());
        let ip = connection.peer.ip();
        let value = |text: String| HeaderValue::from_maybe_shared(text).map_err(io::Error::other);
        Ok(Self {
            address: value(ip.to_string())?,
            trusted: connection.workers.trusted_proxies.iter().any(|proxy| proxy.contains(ip)),
            local: value(local.to_string())?,
        })
    }
}

/// What a request asks of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    Response,
    /// To speak something else afterwards.
    Upgrade,
}

/// A request that no server gets to see.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad(pub StatusCode, pub &'static str);

/// Makes a client's head into the one for a server.
pub fn prepare(head: &mut request::Parts, client: &Client) -> Result<Wants, Bad> {
    if head.method == Method::CONNECT {
        return Err(Bad(StatusCode::NOT_IMPLEMENTED, "CONNECT is for proxies"));
    }
    let host = take_host(head, client)?;
    let wants = if asks_upgrade(&head.headers) { Wants::Upgrade } else { Wants::Response };
    remove_hop_by_hop(&mut head.headers, wants);
    head.headers.remove(EXPECT);
    forwarded(&mut head.headers, client, host);
    head.version = Version::HTTP_11;
    Ok(wants)
}

/// The one host a request is for (RFC 9112 section 3.2). Its place is the header, also when the target named it.
fn take_host(head: &mut request::Parts, client: &Client) -> Result<HeaderValue, Bad> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (first, second) = (hosts.next().cloned(), hosts.next());
    if second.is_some() {
        return Err(Bad(StatusCode::BAD_REQUEST, "more than one Host"));
    }
    if let Some(authority) = head.uri.authority() {
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::from_str(host).map_err(|_| Bad(StatusCode::BAD_REQUEST, "no valid target"))?;
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
        head.headers.insert(HOST, host.clone());
        return Ok(host);
    }
    match first {
        Some(host) => Ok(host),
        None if head.version == Version::HTTP_10 => {
            head.headers.insert(HOST, client.local.clone());
            Ok(client.local.clone())
        }
        None => Err(Bad(StatusCode::BAD_REQUEST, "no Host")),
    }
}

fn asks_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && connection_names(headers).any(|name| name.eq_ignore_ascii_case("upgrade"))
}

fn connection_names(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim)
}

/// Removes what is between two neighbours only.
pub fn remove_hop_by_hop(headers: &mut HeaderMap, wants: Wants) {
    if headers.contains_key(CONNECTION) {
        remove_named(headers);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    match wants {
        Wants::Upgrade => drop(headers.insert(CONNECTION, HeaderValue::from_static("upgrade"))),
        Wants::Response => drop(headers.remove(UPGRADE)),
    }
}

/// Removes `Connection` and what it names; a name that the message cannot do without is no connection option.
fn remove_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_names(headers)
        .filter(|name| !["keep-alive", "close", "upgrade"].iter().any(|usual| usual.eq_ignore_ascii_case(name)))
        .filter_map(|name| name.parse().ok())
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

fn forwarded(headers: &mut HeaderMap, client: &Client, host: HeaderValue) {
    if client.trusted {
        let for_all = appended(headers, &client.address);
        headers.insert(FORWARDED_FOR, for_all);
        headers.entry(FORWARDED_HOST).or_insert(host);
        headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
        return;
    }
    headers.remove(FORWARDED);
    headers.remove(REAL_IP);
    headers.insert(FORWARDED_FOR, client.address.clone());
    headers.insert(FORWARDED_HOST, host);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
}

fn appended(headers: &HeaderMap, address: &HeaderValue) -> HeaderValue {
    let mut all = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        all.extend_from_slice(value.as_bytes());
        all.extend_from_slice(b", ");
    }
    all.extend_from_slice(address.as_bytes());
    HeaderValue::from_bytes(&all).unwrap_or_else(|_| address.clone())
}

/// Whether asking twice is asking once (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn client(trusted: bool) -> Client {
        let value = HeaderValue::from_static;
        Client { address: value("192.0.2.7"), trusted, local: value("198.51.100.1:80") }
    }

    fn prepared(request: hyper::http::request::Builder, trusted: bool) -> (Result<Wants, Bad>, request::Parts) {
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        (prepare(&mut head, &client(trusted)), head)
    }

    #[test]
    fn what_is_between_neighbours_is_removed() {
        let request = Request::get("/")
            .header("host", "a")
            .header("connection", "close, X-Secret, host")
            .header("x-secret", "1")
            .header("keep-alive", "1")
            .header("te", "trailers")
            .header("transfer-encoding", "chunked")
            .header("upgrade", "h2c");
        let (wants, head) = prepared(request, false);
        assert_eq!(wants, Ok(Wants::Response));
        let left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
    }

    #[test]
    fn a_client_s_claims_are_replaced_and_a_proxy_s_appended() {
        let request = || {
            Request::get("/")
                .header("host", "a")
                .header("x-forwarded-for", "203.0.113.1")
                .header("x-forwarded-for", "203.0.113.2")
                .header("x-forwarded-proto", "https")
                .header("x-real-ip", "203.0.113.1")
                .header("forwarded", "for=203.0.113.1")
        };
        let (_, head) = prepared(request(), false);
        assert_eq!(head.headers.get_all(FORWARDED_FOR).iter().collect::<Vec<_>>(), ["192.0.2.7"]);
        assert_eq!(head.headers[FORWARDED_PROTO], "http");
        assert!(!head.headers.contains_key(REAL_IP) && !head.headers.contains_key(FORWARDED));
        let (_, head) = prepared(request(), true);
        assert_eq!(head.headers[FORWARDED_FOR], "203.0.113.1, 203.0.113.2, 192.0.2.7");
        assert_eq!(head.headers[FORWARDED_PROTO], "https");
    }

    #[test]
    fn an_upgrade_is_passed_on() {
        let request = Request::get("/")
            .header("host", "a")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "websocket");
        let (wants, head) = prepared(request, false);
        assert_eq!(wants, Ok(Wants::Upgrade));
        assert_eq!(
            (&head.headers[CONNECTION], &head.headers[UPGRADE]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
    }

    #[test]
    fn a_request_is_for_one_host() {
        assert!(prepared(Request::get("/"), false).0.is_err());
        assert!(prepared(Request::get("/").header("host", "a").header("host", "b"), false).0.is_err());
        let (wants, head) = prepared(Request::get("/").version(Version::HTTP_10), false);
        assert_eq!((wants, &head.headers[HOST]), (Ok(Wants::Response), &client(false).local));
        let (_, head) = prepared(Request::get("http://u:p@b:81/x?y").header("host", "a"), false);
        assert_eq!((head.headers[HOST].to_str().unwrap(), head.uri.to_string().as_str()), ("b:81", "/x?y"));
        assert!(prepared(Request::connect("a:1"), false).0.is_err());
    }
}
