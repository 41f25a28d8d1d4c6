//! From a request to its answer.

use std::{convert::Infallible, net::Ipv4Addr, time::Instant};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Bytes, Incoming},
};

use super::{
    Metadata,
    identity::Identity,
    own,
    resident::Home,
    tree::{Found, USER_DATA, VERSIONS},
};

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_PATH: &str = "/latest/api/token";
/// The longest life of a token in seconds, as EC2 has it.
const MAX_TTL: i64 = 21_600;

pub(super) type Answer = Response<Full<Bytes>>;

/// Answers one request of the server at `from`.
pub(super) async fn respond(
    metadata: &Metadata,
    from: Ipv4Addr,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    Ok(answer(metadata, from, &request).await)
}

async fn answer(metadata: &Metadata, from: Ipv4Addr, request: &Request<Incoming>) -> Answer {
    if !metadata.limits.may_ask(from, Instant::now()) {
        return refused(StatusCode::TOO_MANY_REQUESTS);
    }
    // Looked up for each request: the server behind a connection may have been replaced.
    let Some(home) = metadata.residents.at(from) else { return refused(StatusCode::NOT_FOUND) };
    if !request.body().is_end_stream() {
        return refused(StatusCode::PAYLOAD_TOO_LARGE);
    }
    match (request.method(), request.uri().path()) {
        (&Method::PUT, TOKEN_PATH) => new_token(metadata, &home, request),
        (&Method::GET | &Method::HEAD, path) => {
            let token = request.headers().get(TOKEN).map(|token| token.as_bytes()).unwrap_or_default();
            let resident = &home.resident;
            if !metadata.tokens.holds(token, &resident.server, resident.generation, now_ms()) {
                return refused(StatusCode::UNAUTHORIZED);
            }
            match path.strip_prefix("/kiln/v1") {
                Some(path) => own::answer(metadata, &home, path, request.uri().query()).await,
                None => as_ec2(metadata, &home, path),
            }
        }
        _ => refused(StatusCode::METHOD_NOT_ALLOWED),
    }
}

/// A request that somebody forwarded does not get a token: it is not the server that asks.
fn new_token(metadata: &Metadata, home: &Home, request: &Request<Incoming>) -> Answer {
    if request.headers().contains_key("x-forwarded-for") {
        return refused(StatusCode::FORBIDDEN);
    }
    let ttl = request.headers().get(TOKEN_TTL).and_then(|ttl| ttl.to_str().ok()?.parse::<i64>().ok());
    let Some(ttl) = ttl.filter(|ttl| (1..=MAX_TTL).contains(ttl)) else { return refused(StatusCode::BAD_REQUEST) };
    let resident = &home.resident;
    let token = metadata.tokens.make(&resident.server, resident.generation, now_ms() + ttl * 1000);
    let mut answer = text(token);
    answer.headers_mut().insert(TOKEN_TTL, ttl.into());
    answer
}

fn as_ec2(metadata: &Metadata, home: &Home, path: &str) -> Answer {
    let path = path.trim_start_matches('/');
    if path.is_empty() {
        return text(VERSIONS.join("\n"));
    }
    let (version, path) = path.split_once('/').unwrap_or((path, ""));
    if !VERSIONS.contains(&version) {
        return refused(StatusCode::NOT_FOUND);
    }
    let found = match path.trim_end_matches('/') {
        "" => Some(text("dynamic\nmeta-data\nuser-data".to_owned())),
        "user-data" => user_data(metadata, home),
        "dynamic" => Some(text("instance-identity/".to_owned())),
        "dynamic/instance-identity" => Some(text("document\nsignature".to_owned())),
        "dynamic/instance-identity/document" => Some(text(Identity::document(&home.resident))),
        "dynamic/instance-identity/signature" => {
            Some(text(metadata.identity.document_signature(&Identity::document(&home.resident))))
        }
        _ => meta_data(home, path),
    };
    found.unwrap_or_else(|| refused(StatusCode::NOT_FOUND))
}

fn meta_data(home: &Home, path: &str) -> Option<Answer> {
    let path = path.strip_prefix("meta-data")?;
    let path = if path.is_empty() { "" } else { path.strip_prefix('/')? };
    home.tree.find(path).map(|found| match found {
        Found::Leaf(leaf) => text(leaf.to_owned()),
        Found::Directory(names) => text(names),
    })
}

fn user_data(metadata: &Metadata, home: &Home) -> Option<Answer> {
    let value = home.resident.value(USER_DATA)?;
    metadata.note_read(&home.resident, USER_DATA);
    Some(text(value.to_text()))
}

pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

pub(super) fn text(body: String) -> Answer {
    with_type(body, "text/plain; charset=utf-8")
}

pub(super) fn json(body: &impl serde::Serialize) -> Answer {
    with_type(serde_json::to_string(body).expect("plain data always serialises"), "application/json")
}

fn with_type(body: String, kind: &'static str) -> Answer {
    let answer = Response::builder().header("content-type", kind).header("cache-control", "no-store");
    answer.body(Full::new(Bytes::from(body))).expect("the headers are valid")
}

pub(super) fn refused(status: StatusCode) -> Answer {
    let words = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut answer = text(words);
    *answer.status_mut() = status;
    answer
}
