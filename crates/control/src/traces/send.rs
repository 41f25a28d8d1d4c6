//! One request to a collector, on a connection of its own, within the collector's time. Of an answer only a little is read.

use std::{path::Path, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use kiln_model::config::RegistryTls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{otlp, settings::Collector};
use crate::sources::tls;

/// So much of an answer is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// So much of what a collector says is repeated, in characters.
const MAX_SAID: usize = 200;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The collector has the spans, but for so many, for this reason.
    Taken { rejected: u64, said: String },
    /// It may have them later, after this time if it said one.
    Later { why: String, after: Option<Duration> },
    /// It will never take these.
    Refused { why: String },
}

/// Sends a body. Returns within the collector's time.
pub(super) async fn post(collector: &Collector, body: Bytes) -> Answer {
    let limit = collector.timeout;
    let later = |why| Answer::Later { why, after: None };
    match timeout(limit, exchange(collector, body)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => later(why),
        Err(_) => later(format!("it did not answer within {} ms", limit.as_millis())),
    }
}

async fn exchange(collector: &Collector, body: Bytes) -> Result<Answer, String> {
    let stream = connect(collector).await?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| kiln_api::error::chain(&error))?;
    // Its errors reach us through the answer.
    let driver = AbortOnDrop(tokio::spawn(connection));
    let response = sender.send_request(request(collector, body)?).await;
    let answer = read(response.map_err(|error| kiln_api::error::chain(&error))?).await;
    drop(driver);
    Ok(answer)
}

async fn connect(collector: &Collector) -> Result<Box<dyn Stream>, String> {
    let stream = TcpStream::connect((collector.host.as_str(), collector.port)).await;
    let stream = stream.map_err(|error| format!("it cannot be reached: {error}"))?;
    if !collector.encrypted {
        return Ok(Box::new(stream));
    }
    let ca = collector.certificates.as_ref().map(|path| path.display().to_string());
    let config = tls::config(&RegistryTls { ca, identity: None }, Path::new("/")).await;
    let config = config.map_err(|error| kiln_api::error::chain(&error))?;
    let encrypted = tls::encrypt(config, &collector.host, stream).await;
    encrypted.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|error| error.to_string())
}

fn request(collector: &Collector, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
    let host = match collector.host.contains(':') {
        true => format!("[{}]:{}", collector.host, collector.port),
        false => format!("{}:{}", collector.host, collector.port),
    };
    let request = Request::post(&collector.path)
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close");
    let request = collector.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    request.body(Full::new(body)).map_err(|error| error.to_string())
}

/// What the status means is said by the protocol: <https://opentelemetry.io/docs/specs/otlp/#failures>.
async fn read(response: Response<Incoming>) -> Answer {
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    while body.len() < MAX_ANSWER {
        let Some(Ok(frame)) = incoming.frame().await else { break };
        body.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
    }
    body.truncate(MAX_ANSWER);
    if head.status.is_success() {
        let (rejected, said) = otlp::rejected(&body);
        return Answer::Taken { rejected, said: shown(&said) };
    }
    let why = match shown(&String::from_utf8_lossy(&body)) {
        said if said.is_empty() => format!("it answered {}", head.status),
        said => format!("it answered {}: {said}", head.status),
    };
    match head.status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            Answer::Later { why, after: after.map(Duration::from_secs) }
        }
        _ => Answer::Refused { why },
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SAID).collect()
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);
impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
