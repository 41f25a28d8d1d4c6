//! A thin client of the daemon over its Unix socket.
//!
//! Each call is one connection. Every wait has a limit: connecting and the head of an answer [`HEAD_LIMIT`], a short answer
//! as a whole [`CALL_LIMIT`], the pause between two lines of a stream [`PAUSE_LIMIT`] (the daemon sends an empty line every few
//! seconds while it works).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use kiln_model::{GroupName, ServerId};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use crate::{
    config::{ConfigDiff, ConfigDiffRequest, LiveDetails, LiveRequest},
    error::{ApiError, ErrorBody},
    event::{Event, Happened},
    host::{Collected, HostInventory, ImagesInUse, ServerDetails},
    identity::JwkSet,
    loss::LossReport,
    recovery::RecoveryRequest,
    request::{
        ApplyRequest, Done, DownRequest, HealRequest, Healed, PromoteRequest, Promoted, RebuildRequest, RevokeRequest,
        Revoked, RollbackRequest, TestRequest, TouchRequest,
    },
    status::Status,
    volume::{DrillRequest, VolumeDone, VolumeRequest, Volumes},
};

/// Longest wait for the head of an answer.
pub const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Longest time of a call that answers one JSON value.
pub const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Longest pause between two lines of a stream; the daemon sends an empty line every 5 s.
pub const PAUSE_LIMIT: Duration = Duration::from_secs(30);
/// A question is asked so often before a connection that breaks off is an error.
const ATTEMPTS: u32 = 5;
/// Pause between two of them.
const AGAIN: Duration = Duration::from_millis(50);
/// Longest JSON value or line that is read, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// Name of the daemon's socket in the state directory.
pub const SOCKET: &str = "kiln.sock";

/// Why a call had no good end.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("no daemon answers on {}", socket.display())]
    NoDaemon {
        /// The socket.
        socket: PathBuf,
        /// Why connecting failed.
        #[source]
        source: std::io::Error,
    },
    /// A limit was reached.
    #[error("the daemon did not answer {call} within {} s", limit.as_secs())]
    TimedOut {
        /// Method and path.
        call: String,
        /// The limit.
        limit: Duration,
    },
    /// The connection broke; whether the request was carried out is unknown (`kiln status` tells).
    #[error("the connection to the daemon broke while it answered {call}")]
    Broken {
        /// Method and path.
        call: String,
        /// What hyper says.
        #[source]
        source: hyper::Error,
    },
    /// A stream ended without a result.
    #[error("the daemon ended while it carried out {call}")]
    Ended {
        /// Method and path.
        call: String,
    },
    /// The answer is not what this version understands.
    #[error("the daemon's answer to {call} is not understood (are `kiln` and its daemon of one version?)")]
    Unclear {
        /// Method and path.
        call: String,
        /// What serde says.
        #[source]
        source: serde_json::Error,
    },
    /// The answer is larger than this client reads.
    #[error("the daemon's answer to {call} is larger than {MAX_BYTES} bytes")]
    TooLarge {
        /// Method and path.
        call: String,
    },
    /// The daemon says why not.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

impl ClientError {
    /// The exit code of a program that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(error) => error.code.exit_code(),
            Self::Unclear { .. } | Self::TooLarge { .. } => 70,
            _ => 5,
        }
    }
}

/// A client of the daemon of one state directory.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon of this state directory. Connects at the first call.
    pub fn new(state_dir: &Path) -> Self {
        Self { socket: state_dir.join(SOCKET) }
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.json("GET", "/v1/status", &()).await
    }
    /// `GET /v1/servers/{id}`.
    pub async fn server(&self, id: &ServerId) -> Result<ServerDetails, ClientError> {
        self.json("GET", &format!("/v1/servers/{id}"), &()).await
    }
    /// `GET /v1/loss`, or `GET /v1/loss/{id}` of a server or a group.
    pub async fn loss(&self, of: Option<&str>) -> Result<LossReport, ClientError> {
        let path = of.map_or_else(|| "/v1/loss".to_owned(), |of| format!("/v1/loss/{of}"));
        self.json("GET", &path, &()).await
    }
    /// `GET /v1/host`.
    pub async fn host(&self) -> Result<HostInventory, ClientError> {
        self.json("GET", "/v1/host", &()).await
    }
    /// `GET /v1/images`.
    pub async fn images_in_use(&self) -> Result<ImagesInUse, ClientError> {
        self.json("GET", "/v1/images", &()).await
    }
    /// `GET /v1/jwks`.
    pub async fn jwks(&self) -> Result<JwkSet, ClientError> {
        self.json("GET", "/v1/jwks", &()).await
    }
    /// `GET /v1/events`: from now on, until the stream is dropped.
    pub async fn events(&self) -> Result<EventStream, ClientError> {
        self.stream("GET", "/v1/events", &()).await
    }
    /// `GET /v1/events`: what is kept of the events after one, and then what happens, or not.
    pub async fn events_after(&self, id: u64, follow: Follow) -> Result<EventStream, ClientError> {
        let path = format!("/v1/events?after={id}&follow={}", follow == Follow::Yes);
        self.stream("GET", &path, &()).await
    }
    /// `POST /v1/test`.
    pub async fn test(&self, request: &TestRequest) -> Result<EventStream, ClientError> {
        self.stream("POST", "/v1/test", request).await
    }
    /// `POST /v1/apply`.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<EventStream, ClientError> {
        self.stream("POST", "/v1/apply", request).await
    }
    /// `POST /v1/rollback`.
    pub async fn rollback(&self, request: &RollbackRequest) -> Result<EventStream, ClientError> {
        self.stream("POST", "/v1/rollback", request).await
    }
    /// `POST /v1/rebuild`.
    pub async fn rebuild(&self, request: &RebuildRequest) -> Result<EventStream, ClientError> {
        self.stream("POST", "/v1/rebuild", request).await
    }
    /// `POST /v1/heal`.
    pub async fn heal(&self, request: &HealRequest) -> Result<Healed, ClientError> {
        self.json("POST", "/v1/heal", request).await
    }
    /// `POST /v1/recovery`.
    pub async fn recovery(&self, request: &RecoveryRequest) -> Result<EventStream, ClientError> {
        self.stream("POST", "/v1/recovery", request).await
    }
    /// `POST /v1/down`.
    pub async fn down(&self, request: &DownRequest) -> Result<EventStream, ClientError> {
        self.stream("POST", "/v1/down", request).await
    }
    /// `POST /v1/promote`.
    pub async fn promote(&self, request: &PromoteRequest) -> Result<Promoted, ClientError> {
        self.json("POST", "/v1/promote", request).await
    }
    /// `POST /v1/revoke`.
    pub async fn revoke(&self, request: &RevokeRequest) -> Result<Revoked, ClientError> {
        self.json("POST", "/v1/revoke", request).await
    }
    /// `POST /v1/config/diff`.
    pub async fn config_diff(&self, request: &ConfigDiffRequest) -> Result<ConfigDiff, ClientError> {
        self.json("POST", "/v1/config/diff", request).await
    }
    /// `POST /v1/live`.
    pub async fn set_live(&self, request: &LiveRequest) -> Result<LiveDetails, ClientError> {
        self.json("POST", "/v1/live", request).await
    }
    /// `GET /v1/live/{id}`.
    pub async fn live(&self, group: &GroupName) -> Result<LiveDetails, ClientError> {
        self.json("GET", &format!("/v1/live/{group}"), &()).await
    }
    /// `GET /v1/volumes`.
    pub async fn volumes(&self) -> Result<Volumes, ClientError> {
        self.json("GET", "/v1/volumes", &()).await
    }
    /// `POST /v1/volume`.
    pub async fn volume(&self, request: &VolumeRequest) -> Result<VolumeDone, ClientError> {
        self.json("POST", "/v1/volume", request).await
    }
    /// `POST /v1/drill`.
    pub async fn drill(&self, request: &DrillRequest) -> Result<EventStream, ClientError> {
        self.stream("POST", "/v1/drill", request).await
    }
    /// `POST /v1/gc`.
    pub async fn gc(&self) -> Result<Collected, ClientError> {
        self.json("POST", "/v1/gc", &()).await
    }
    /// `POST /v1/touch`.
    pub async fn touch(&self, request: &TouchRequest) -> Result<Done, ClientError> {
        self.json("POST", "/v1/touch", request).await
    }
    /// `POST /v1/shutdown`: the daemon ends; servers and traffic go on.
    pub async fn shutdown(&self) -> Result<Done, ClientError> {
        self.json("POST", "/v1/shutdown", &()).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let call = format!("{method} {path}");
        let whole = async {
            let response = self.send(method, path, body).await?;
            let bytes = collect(response.into_body(), &call).await?;
            serde_json::from_slice(&bytes).map_err(|source| ClientError::Unclear { call: call.clone(), source })
        };
        timeout(CALL_LIMIT, whole).await.map_err(|_| ClientError::TimedOut { call: call.clone(), limit: CALL_LIMIT })?
    }

    async fn stream(&self, method: &str, path: &str, body: &impl Serialize) -> Result<EventStream, ClientError> {
        let response = self.send(method, path, body).await?;
        Ok(EventStream { call: format!("{method} {path}"), body: response.into_body(), unread: Vec::new() })
    }

    /// Sends a request and returns the answer once its head is there and good.
    async fn send(&self, method: &str, path: &str, body: &impl Serialize) -> Result<Response<Incoming>, ClientError> {
        let call = format!("{method} {path}");
        let limit = |_| ClientError::TimedOut { call: call.clone(), limit: HEAD_LIMIT };
        let response = timeout(HEAD_LIMIT, self.exchange_again(&call, method, path, body)).await.map_err(limit)??;
        if response.status().is_success() {
            return Ok(response);
        }
        let bytes = timeout(HEAD_LIMIT, collect(response.into_body(), &call)).await.map_err(limit)??;
        let body: ErrorBody =
            serde_json::from_slice(&bytes).map_err(|source| ClientError::Unclear { call: call.clone(), source })?;
        Err(ClientError::Refused(body.error))
    }

    /// A question that broke off is asked again: the daemon may just have ended and another one begun.
    async fn exchange_again(
        &self,
        call: &str,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut tries = if method == "GET" { ATTEMPTS } else { 1 };
        loop {
            tries -= 1;
            match self.exchange(call, method, path, body).await {
                Err(ClientError::Broken { .. }) if tries > 0 => tokio::time::sleep(AGAIN).await,
                other => return other,
            }
        }
    }

    async fn exchange(
        &self,
        call: &str,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response<Incoming>, ClientError> {
        let broken = |source| ClientError::Broken { call: call.to_owned(), source };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::NoDaemon { socket: self.socket.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Errors of the connection reach the caller through the response; the task ends with the connection.
        tokio::spawn(connection);
        let bytes =
            if method == "GET" { Vec::new() } else { serde_json::to_vec(body).expect("requests always serialise") };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "kiln")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .expect("methods and paths of this file are valid");
        sender.send_request(request).await.map_err(broken)
    }
}

async fn collect(mut body: Incoming, call: &str) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| ClientError::Broken { call: call.to_owned(), source })?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if bytes.len() > MAX_BYTES {
            return Err(ClientError::TooLarge { call: call.to_owned() });
        }
    }
    Ok(bytes)
}

/// Whether a stream goes on with what happens from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// It does, until the reader leaves.
    Yes,
    /// It ends with what has happened.
    No,
}

/// A stream of events. Dropping it does not stop what was asked for.
#[derive(Debug)]
pub struct EventStream {
    call: String,
    body: Incoming,
    unread: Vec<u8>,
}

impl EventStream {
    /// The next event; none when the daemon has ended the stream. Kinds this version does not know are passed over.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        self.next_of().await
    }

    /// The next event of `GET /v1/events`, with its number and time.
    pub async fn next_happened(&mut self) -> Result<Option<Happened>, ClientError> {
        self.next_of().await
    }

    async fn next_of<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                if let Some(event) = self.parse(line.trim_ascii())? {
                    return Ok(Some(event));
                }
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// Passes every event to `seen` up to and including the result, and returns the result.
    pub async fn finish(mut self, mut seen: impl FnMut(&Event)) -> Result<Event, ClientError> {
        while let Some(event) = self.next().await? {
            seen(&event);
            if matches!(event, Event::Result { .. }) {
                return Ok(event);
            }
        }
        Err(ClientError::Ended { call: self.call })
    }

    async fn read(&mut self) -> Result<bool, ClientError> {
        let frame = timeout(PAUSE_LIMIT, self.body.frame())
            .await
            .map_err(|_| ClientError::TimedOut { call: self.call.clone(), limit: PAUSE_LIMIT })?;
        let Some(frame) = frame else { return Ok(false) };
        let frame = frame.map_err(|source| ClientError::Broken { call: self.call.clone(), source })?;
        self.unread.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if self.unread.len() > MAX_BYTES {
            return Err(ClientError::TooLarge { call: self.call.clone() });
        }
        Ok(true)
    }

    fn parse<T: DeserializeOwned>(&self, line: &[u8]) -> Result<Option<T>, ClientError> {
        if line.is_empty() {
            return Ok(None);
        }
        let unclear = |source| ClientError::Unclear { call: self.call.clone(), source };
        let value: serde_json::Value = serde_json::from_slice(line).map_err(unclear)?;
        match serde_json::from_value(value.clone()) {
            Ok(event) => Ok(Some(event)),
            Err(_) if value.get("event").is_some_and(|kind| !KNOWN.iter().any(|known| kind == known)) => Ok(None),
            Err(source) => Err(unclear(source)),
        }
    }
}

/// The kinds of event this version knows.
const KNOWN: [&str; 11] = [
    "suite_started",
    "test_server_ready",
    "test",
    "suite_finished",
    "matrix_finished",
    "channel",
    "step",
    "server",
    "rollout",
    "warning",
    "result",
];
