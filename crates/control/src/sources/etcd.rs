//! etcd: one key, through the JSON gateway of its version 3 API over HTTP/1.1.

use std::{path::Path, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use kiln_model::config::Registry;
use serde::Deserialize;
use serde_json::json;

use super::{
    MAX_BYTES, SourceError,
    dial::{self, Miss, Stream},
    password, text,
};

const KIND: &str = "etcd";
/// A value of [`MAX_BYTES`] in base64, and what stands around it.
const MAX_ANSWER: usize = MAX_BYTES / 3 * 4 + (16 << 10);
/// Codes of gRPC (status codes of its specification).
const PERMISSION_DENIED: i64 = 7;
const UNAVAILABLE: i64 = 14;
const UNAUTHENTICATED: i64 = 16;
const INVALID_ARGUMENT: i64 = 3;

pub(super) async fn read(registry: &Registry, directory: &Path, limit: Duration) -> Result<String, SourceError> {
    let what = dial::what(KIND, registry);
    let login = match &registry.login {
        Some(login) => Some((login.user.as_str(), password(&login.password, directory).await?)),
        None => None,
    };
    let (ask, login) = (&Ask { what: &what, key: registry.address.path() }, login.as_ref());
    let bytes = dial::each(what.clone(), registry, directory, limit, |stream| async move {
        let mut connection = Connection::open(stream).await?;
        let token = match login {
            Some((user, password)) => Some(ask.authenticate(&mut connection, user, password).await?),
            None => None,
        };
        ask.range(&mut connection, token.as_deref()).await
    })
    .await?;
    text(&what, bytes)
}

/// A connection and the task that drives it.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<hyper::Result<()>>,
}

impl Connection {
    async fn open(stream: Box<dyn Stream>) -> Result<Self, Miss> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Its errors reach us through the answers.
        Ok(Self { sender, driver: tokio::spawn(connection) })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn broken(error: hyper::Error) -> Miss {
    let closed = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
    Miss::Next(match closed {
        true => "it closed the connection without an answer".to_owned(),
        false => kiln_api::error::chain(&error),
    })
}

struct Ask<'a> {
    what: &'a str,
    key: &'a str,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Deserialize)]
struct KeyValue {
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

impl Ask<'_> {
    async fn authenticate(&self, connection: &mut Connection, user: &str, password: &str) -> Result<String, Miss> {
        let login = json!({ "name": user, "password": password });
        let answer: Token = self.post(connection, "/v3/auth/authenticate", login, None).await?;
        Ok(answer.token)
    }

    async fn range(&self, connection: &mut Connection, token: Option<&str>) -> Result<Vec<u8>, Miss> {
        let key = json!({ "key": BASE64_STANDARD.encode(self.key) });
        let answer: Range = self.post(connection, "/v3/kv/range", key, token).await?;
        let Some(found) = answer.kvs.into_iter().next() else {
            return Err(Miss::Final(SourceError::Missing { what: self.what.to_owned() }));
        };
        BASE64_STANDARD.decode(found.value).map_err(|_| self.not_etcd("its value is not base64"))
    }

    async fn post<T: for<'de> Deserialize<'de>>(
        &self,
        connection: &mut Connection,
        path: &str,
        body: serde_json::Value,
        token: Option<&str>,
    ) -> Result<T, Miss> {
        let mut request = Request::post(path).header("host", "etcd").header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string())));
        let request = request.map_err(|_| self.not_etcd("its token cannot be sent in a header"))?;
        let (head, body) = connection.sender.send_request(request).await.map_err(broken)?.into_parts();
        let bytes = self.collect(body).await?;
        if head.status != StatusCode::OK {
            return Err(self.refused(head.status, &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|_| self.not_etcd("its answer is not the JSON that was expected"))
    }

    async fn collect(&self, mut body: Incoming) -> Result<Vec<u8>, Miss> {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            bytes.extend_from_slice(frame.map_err(broken)?.data_ref().map_or(&[][..], |data| data));
            if bytes.len() > MAX_ANSWER {
                let bytes = bytes.len() as u64 / 4 * 3;
                return Err(Miss::Final(SourceError::TooLarge { what: self.what.to_owned(), bytes }));
            }
        }
        Ok(bytes)
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Miss {
        let Ok(refusal) = serde_json::from_slice::<Refusal>(body) else {
            return self.not_etcd(&format!("it answered with status {status}"));
        };
        let reason: String = refusal.message.chars().filter(|c| !c.is_control()).take(200).collect();
        let about_login = reason.contains("authentic") || reason.contains("user name");
        match refusal.code {
            PERMISSION_DENIED | UNAUTHENTICATED => self.unauthorised(reason),
            INVALID_ARGUMENT if about_login => self.unauthorised(reason),
            UNAVAILABLE => Miss::Next(reason),
            _ => self.not_etcd(&format!("it answered with status {status}: {reason}")),
        }
    }

    fn unauthorised(&self, reason: String) -> Miss {
        Miss::Final(SourceError::Unauthorised { what: self.what.to_owned(), reason })
    }

    fn not_etcd(&self, reason: &str) -> Miss {
        Miss::Final(SourceError::Broken { what: self.what.to_owned(), reason: reason.to_owned() })
    }
}
