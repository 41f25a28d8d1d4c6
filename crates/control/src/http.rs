//! A tiny HTTP/1.1 client for `http` tests: one request per connection, redirects not followed, at
//! most [`MAX_BODY`] bytes of the body read.

use std::{collections::BTreeMap, net::SocketAddr};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// So much of a body is read; what comes after is left unread.
pub const MAX_BODY: usize = 1 << 20;

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Where to.
    pub address: SocketAddr,
    /// `GET`, `HEAD`, `POST`, …
    pub method: &'a str,
    /// Path and query with a leading `/`.
    pub path: &'a str,
    /// Headers; `host` is the address unless it is given here.
    pub headers: &'a BTreeMap<String, String>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers by lower-case name; values of a repeated header are joined by `, `.
    pub headers: BTreeMap<String, String>,
    /// The first [`MAX_BODY`] bytes of the body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection.
    #[error("could not connect to {address}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Method, path or headers cannot be sent.
    #[error("the request is not valid HTTP")]
    Invalid(#[source] hyper::http::Error),
    /// The answer is not HTTP or broke off.
    #[error("the answer broke off or is not HTTP")]
    Broken(#[source] hyper::Error),
}

/// Sends a request and reads the answer. Has no limit of time of its own: callers wrap it in one.
pub async fn ask(ask: Ask<'_>) -> Result<Answer, HttpError> {
    let request = request(ask)?;
    let connect = |source| HttpError::Connect { address: ask.address, source };
    let stream = TcpStream::connect(ask.address).await.map_err(connect)?;
    stream.set_nodelay(true).map_err(connect)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(HttpError::Broken)?;
    // Ends when `sender` and the body are dropped; its errors reach us through the response.
    let task = AbortOnDrop(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(HttpError::Broken)?;
    let answer = read(response).await.map_err(HttpError::Broken);
    drop(task);
    answer
}

fn request(ask: Ask<'_>) -> Result<Request<Full<Bytes>>, HttpError> {
    let mut builder = Request::builder().method(ask.method).uri(ask.path).header("connection", "close");
    if !ask.headers.keys().any(|name| name.eq_ignore_ascii_case("host")) {
        builder = builder.header("host", ask.address.to_string());
    }
    for (name, value) in ask.headers {
        builder = builder.header(name, value);
    }
    builder.body(Full::new(Bytes::new())).map_err(HttpError::Invalid)
}

async fn read(response: Response<Incoming>) -> Result<Answer, hyper::Error> {
    let (head, mut incoming) = response.into_parts();
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str().to_owned()).and_modify(|all| *all = format!("{all}, {value}")).or_insert(value);
    }
    let mut body = Vec::new();
    while body.len() < MAX_BODY {
        let Some(frame) = incoming.frame().await else { break };
        body.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
    }
    body.truncate(MAX_BODY);
    Ok(Answer { status: head.status.as_u16(), headers, body })
}

/// Ends a task with its owner.
pub(crate) struct AbortOnDrop<T>(pub(crate) tokio::task::JoinHandle<T>);
impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
