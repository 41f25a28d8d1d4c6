//! Bodies, in both directions, passed on as they come.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::pool::Sender;
use crate::{upstream::Lease, watch::Phase, worker::Connection};

/// What goes to a server.
pub enum RequestBody {
    Empty,
    Client(Incoming),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Client(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.size_hint(),
        }
    }
}

/// What goes to a client.
pub enum ResponseBody {
    /// Words of the gateway itself.
    Own(Option<Bytes>),
    /// A server's response.
    Server(ServerBody),
}

impl ResponseBody {
    pub fn empty() -> Self {
        Self::Own(None)
    }

    pub fn text(text: String) -> Self {
        Self::Own(Some(Bytes::from(text)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Server(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Server(body) => body.first.is_none() && body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |t| t.len() as u64)),
            Self::Server(body) => body.size_hint(),
        }
    }
}

/// The body of a server's response. Its end, and nothing earlier, ends the request: the lease is given back, and the
/// connection to the server with it when it is fit for another request.
pub struct ServerBody {
    /// What was read of it before its head was passed on.
    first: Option<Bytes>,
    incoming: Incoming,
    complete: bool,
    sender: Option<Sender>,
    lease: Option<Lease>,
    connection: Arc<Connection>,
}

impl ServerBody {
    pub fn new(
        first: Option<Bytes>,
        incoming: Incoming,
        sender: Sender,
        lease: Lease,
        connection: Arc<Connection>,
    ) -> Self {
        connection.watch.enter(Phase::Response);
        Self { first, incoming, complete: false, sender: Some(sender), lease: Some(lease), connection }
    }

    fn size_hint(&self) -> SizeHint {
        let (first, mut rest) = (self.first.as_ref().map_or(0, |first| first.len() as u64), self.incoming.size_hint());
        if let Some(upper) = rest.upper() {
            rest.set_upper(upper + first);
        }
        rest.set_lower(rest.lower() + first);
        rest
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match polled {
            Poll::Ready(None) => self.complete = true,
            Poll::Ready(Some(Err(_))) => self.connection.route.fail(),
            _ => {}
        }
        polled
    }
}

impl Drop for ServerBody {
    fn drop(&mut self) {
        self.connection.watch.enter(Phase::Idle);
        let complete = self.complete || self.incoming.is_end_stream();
        if let (Some(sender), Some(lease), true) = (self.sender.take(), self.lease.take(), complete) {
            lease.upstream().pool.give_back(&self.connection, sender, lease.upstream());
        }
    }
}
