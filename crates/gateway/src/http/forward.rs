//! A request to a server, and its response back.
//!
//! A request is sent again, to another server where there is one, when
//! - no connection could be made: its body was not touched;
//! - hyper hands it back unwritten: an unused connection was closed at that moment;
//! - it has an idempotent method and no body, and the connection ended before a response began, or before the end of a
//!   response of at most [`SMALL`] bytes, which is why such a one is read whole before its head is passed on. This at most
//!   [`MAX_SENDS`] times, so that a request that kills servers does not kill all of them.

use std::{future::poll_fn, net::SocketAddr, pin::Pin, sync::Arc, task::Poll};

use hyper::{
    Request, Response, StatusCode,
    body::{Body as _, Bytes, Incoming},
    header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    http::request,
    upgrade::OnUpgrade,
};
use tokio::time::Instant;

use super::{
    body::{RequestBody, ResponseBody, ServerBody},
    connect,
    headers::{self, Bad, Client, Wants},
    pool::Sender,
    tunnel,
};
use crate::{live::NoServer, upstream::Lease, watch::Phase, worker::Connection};

/// How often a request without effect may be sent.
const MAX_SENDS: u32 = 3;

/// A response of so many bytes is read whole first, where it could be asked for again.
const SMALL: u64 = 64 << 10;

/// Answers one request.
pub async fn forward(
    connection: &Arc<Connection>,
    client: &Client,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    connection.watch.enter(Phase::Request);
    let (mut head, body) = request.into_parts();
    let upgrade = head.extensions.remove::<OnUpgrade>();
    let mut response = match headers::prepare(&mut head, client) {
        Err(bad) => refuse(connection, bad),
        Ok(wants) => {
            let outcome = Exchange::new(connection, head, body, wants).run().await;
            respond(connection, outcome, upgrade, wants)
        }
    };
    if connection.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn respond(
    connection: &Arc<Connection>,
    outcome: Result<Answer, Bad>,
    upgrade: Option<OnUpgrade>,
    wants: Wants,
) -> Response<ResponseBody> {
    let Answer { mut response, first, sender, lease } = match outcome {
        Ok(answer) => answer,
        Err(bad) => return refuse(connection, bad),
    };
    lease.answered();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(upgrade), Wants::Upgrade) = (upgrade, wants) else {
            return refuse(connection, Bad(StatusCode::BAD_GATEWAY, "the server switched protocols unasked"));
        };
        headers::remove_hop_by_hop(response.headers_mut(), Wants::Upgrade);
        tunnel::start(connection.clone(), lease, upgrade, &mut response);
        return response.map(|_| ResponseBody::empty());
    }
    headers::remove_hop_by_hop(response.headers_mut(), Wants::Response);
    response.map(|body| ResponseBody::Server(ServerBody::new(first, body, sender, lease, connection.clone())))
}

/// A response of the gateway's own.
fn refuse(connection: &Connection, Bad(status, why): Bad) -> Response<ResponseBody> {
    connection.watch.enter(Phase::Idle);
    if matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT) {
        connection.route.fail();
    }
    let text = format!("{} {why}\n", status.as_u16());
    let mut response = Response::new(ResponseBody::text(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What a server answered, and what must be given back when the body ends.
struct Answer {
    response: Response<Incoming>,
    /// What was read of the body already.
    first: Option<Bytes>,
    sender: Sender,
    lease: Lease,
}

/// One request on its way to some server.
struct Exchange<'a> {
    connection: &'a Connection,
    /// The head, where sending it again is safe at any time before a response.
    again: Option<request::Parts>,
    /// Servers that did not take this request.
    avoid: Vec<SocketAddr>,
    /// How often a server may have seen it.
    sends: u32,
    /// Whether a connection has failed. After that only a new one tells whether its server is there.
    failed: bool,
    /// Set once no server is available.
    deadline: Option<Instant>,
    request: Option<Request<RequestBody>>,
}

/// What one try came to.
enum Try {
    Done(Box<Answer>),
    /// Nothing happened yet: another server.
    Again,
    Failed(Bad),
}

impl<'a> Exchange<'a> {
    fn new(connection: &'a Connection, head: request::Parts, body: Incoming, wants: Wants) -> Self {
        let empty = body.is_end_stream();
        let again = (empty && wants == Wants::Response && headers::is_idempotent(&head.method)).then(|| head.clone());
        let body = if empty { RequestBody::Empty } else { RequestBody::Client(body) };
        let request = Some(Request::from_parts(head, body));
        Self { connection, again, avoid: Vec::new(), sends: 0, failed: false, deadline: None, request }
    }

    async fn run(mut self) -> Result<Answer, Bad> {
        loop {
            let lease = self.lease().await?;
            match self.attempt(lease).await {
                Try::Done(answer) => return Ok(*answer),
                Try::Failed(bad) => return Err(bad),
                Try::Again => {}
            }
        }
    }

    /// A server; where none is available, the first that becomes so within the queue's limits.
    async fn lease(&mut self) -> Result<Lease, Bad> {
        let Connection { route, worker, .. } = self.connection;
        if let Some(lease) = route.pick(&worker.turn, &self.avoid) {
            return Ok(lease);
        }
        let limits = self.connection.limits();
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + route.patience(limits));
        self.avoid.clear();
        let waited = match Instant::now() < deadline {
            true => route.wait(&worker.turn, limits, deadline).await,
            false => Err(NoServer::Late),
        };
        // What the server takes begins now.
        self.connection.watch.enter(Phase::Request);
        waited.map_err(|none| Bad(StatusCode::SERVICE_UNAVAILABLE, words(none)))
    }

    async fn attempt(&mut self, lease: Lease) -> Try {
        let upstream = lease.upstream();
        let pooled = match self.failed {
            false => upstream.pool.take(self.connection.worker.index, self.connection.limits().pool_idle_timeout),
            true => None,
        };
        let reused = pooled.is_some();
        let sender = match pooled {
            Some(sender) => sender,
            None => match connect::open_http(self.connection, upstream).await {
                Ok(sender) => sender,
                Err(connect::Refused) => {
                    self.avoid.push(upstream.address);
                    return Try::Again;
                }
            },
        };
        self.send(lease, sender, reused).await
    }

    async fn send(&mut self, lease: Lease, mut sender: Sender, reused: bool) -> Try {
        let request = self.request.take().expect("put back before each try");
        let mut response = std::pin::pin!(sender.try_send_request(request));
        let outcome = poll_fn(|cx| match response.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => self.connection.watch.poll_expired(cx).map(|()| None),
        })
        .await;
        match outcome {
            Some(Ok(response)) => self.answer(response, sender, lease, reused).await,
            None => Try::Failed(Bad(StatusCode::GATEWAY_TIMEOUT, "the server took too long")),
            Some(Err(mut error)) => {
                let unsent = error.take_message();
                self.after_failure(&lease, reused, unsent, &error.into_error())
            }
        }
    }

    /// A response has begun. A small one that could be asked for again is taken whole, so that a server that dies in the middle of
    /// it is not noticed.
    async fn answer(&mut self, mut response: Response<Incoming>, sender: Sender, lease: Lease, reused: bool) -> Try {
        let small = response.body().size_hint().exact().is_some_and(|size| (1..=SMALL).contains(&size));
        if self.again.is_none() || !small {
            return Try::Done(Box::new(Answer { response, first: None, sender, lease }));
        }
        match self.whole(response.body_mut()).await {
            Some(Ok(first)) => Try::Done(Box::new(Answer { response, first: Some(first), sender, lease })),
            Some(Err(error)) => self.after_failure(&lease, reused, None, &error),
            None => Try::Failed(Bad(StatusCode::GATEWAY_TIMEOUT, "the server took too long")),
        }
    }

    /// A body of a known size; nothing if that takes too long.
    async fn whole(&self, body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
        let (mut first, mut more) = (Bytes::new(), Vec::new());
        loop {
            let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(Some(frame)),
                Poll::Pending => self.connection.watch.poll_expired(cx).map(|()| None),
            });
            match frame.await? {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if first.is_empty() => first = data,
                    Ok(data) => more.extend_from_slice(&data),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => return Some(Err(error)),
                None if more.is_empty() => return Some(Ok(first)),
                None => return Some(Ok([&first[..], &more].concat().into())),
            }
        }
    }

    fn after_failure(
        &mut self,
        lease: &Lease,
        reused: bool,
        unsent: Option<Request<RequestBody>>,
        error: &hyper::Error,
    ) -> Try {
        self.failed = true;
        self.sends += u32::from(unsent.is_none());
        if !reused {
            self.avoid.push(lease.upstream().address);
        }
        let retry = match &self.again {
            Some(head) if is_disconnect(error) => Some(Request::from_parts(head.clone(), RequestBody::Empty)),
            _ => None,
        };
        self.request = unsent.or(retry);
        if self.request.is_some() && self.sends < MAX_SENDS {
            return Try::Again;
        }
        tracing::debug!(server = %lease.upstream().server, %error, "a request failed");
        Try::Failed(Bad(StatusCode::BAD_GATEWAY, "the server did not answer"))
    }
}

fn words(none: NoServer) -> &'static str {
    match none {
        NoServer::Full => "no server is ready, and too many requests wait for one",
        NoServer::Late => "no server is ready",
    }
}

/// Whether the connection ended before a response, rather than with a response that is none.
fn is_disconnect(error: &hyper::Error) -> bool {
    !error.is_parse() && !error.is_user()
}
