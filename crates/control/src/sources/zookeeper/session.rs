//! One session: begun, used, and lost without regret.

use std::{io, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use super::{
    super::{
        SourceError,
        dial::{Miss, Stream},
    },
    wire::{Incoming, Message, Reader, Writer, code, kind, number, send},
};

/// The session's time-out that is asked for, in milliseconds.
const SESSION_MS: i32 = 15_000;
/// Closing is a courtesy.
const CLOSE_LIMIT: Duration = Duration::from_millis(200);

/// What a path holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// There is no such node.
    Missing,
    /// Its data.
    Data(Vec<u8>),
}

/// A session and its connection.
pub(super) struct Session {
    stream: Box<dyn Stream>,
    incoming: Incoming,
    timeout: Duration,
    requests: i32,
    /// A watch fired while an answer was waited for.
    fired: bool,
}

/// The head of an answer, and what follows it.
struct Answer {
    number: i32,
    code: i32,
    body: Vec<u8>,
}

impl Session {
    /// Asks for a new session. A server without a quorum closes the connection.
    pub(super) async fn open(stream: Box<dyn Stream>) -> Result<Self, Miss> {
        let (incoming, timeout) = (Incoming::default(), Duration::ZERO);
        let mut session = Self { stream, incoming, timeout, requests: 0, fired: false };
        let hello = Writer::default().int(0).long(0).int(SESSION_MS).long(0).bytes(&[0; 16]).flag(false);
        send(session.stream.as_mut(), hello).await?;
        let Message::Whole(body) = session.incoming.next(&mut session.stream).await? else {
            return Err(Miss::Next("its first message is too long: this is not ZooKeeper".to_owned()));
        };
        let mut reader = Reader(&body);
        let (_version, granted, id) = (reader.int()?, reader.int()?, reader.long()?);
        if id == 0 || granted <= 0 {
            return Err(Miss::Next("it gave no session".to_owned()));
        }
        session.timeout = Duration::from_millis(granted.unsigned_abs().into());
        Ok(session)
    }

    /// Adds the identity `user:password` of scheme `digest`. The server believes any password here; whether it is right shows
    /// when a node is read.
    pub(super) async fn authenticate(&mut self, login: &str, what: &str) -> Result<(), Miss> {
        let message =
            Writer::default().int(number::AUTH).int(kind::AUTH).int(0).bytes(b"digest").bytes(login.as_bytes());
        send(self.stream.as_mut(), message).await?;
        let answer = self.answer(number::AUTH, what).await?;
        self.check(answer.code, what)
    }

    /// Reads a node, and sets a watch on it if asked to. A missing node is watched too: its creation fires.
    pub(super) async fn get(&mut self, path: &str, watch: bool, what: &str) -> Result<Node, Miss> {
        let answer = self.request(kind::GET_DATA, path, watch, what).await?;
        if answer.code != code::NO_NODE {
            self.check(answer.code, what)?;
            return Ok(Node::Data(Reader(&answer.body).bytes()?.to_vec()));
        }
        if watch && self.request(kind::EXISTS, path, true, what).await?.code == code::OK {
            // It was created meanwhile.
            self.fired = true;
        }
        Ok(Node::Missing)
    }

    /// Returns when a watch has fired; sends pings until then. Fails when the connection or the session is lost.
    pub(super) async fn changed(&mut self) -> Result<(), Miss> {
        let mut heard = Instant::now();
        while !self.fired {
            let ping = Instant::now() + self.timeout / 3;
            match timeout_at(ping, self.incoming.next(&mut self.stream)).await {
                Ok(message) => {
                    self.note(&whole(message?)?)?;
                    heard = Instant::now();
                }
                Err(_) if heard.elapsed() > self.timeout * 2 / 3 => {
                    return Err(Miss::Next("it stopped answering".to_owned()));
                }
                Err(_) => self.ping().await?,
            }
        }
        self.fired = false;
        Ok(())
    }

    /// Ends the session, so that the server need not wait for its time-out.
    pub(super) async fn close(mut self) {
        let message = Writer::default().int(self.next_number()).int(kind::CLOSE);
        let closed = async {
            send(self.stream.as_mut(), message).await?;
            self.incoming.next(&mut self.stream).await
        };
        if let Ok(Err(error)) = timeout(CLOSE_LIMIT, closed).await {
            tracing::trace!(%error, "a session was not closed in order");
        }
    }

    async fn ping(&mut self) -> io::Result<()> {
        let message = Writer::default().int(number::PING).int(kind::PING);
        match timeout(self.timeout / 3, send(self.stream.as_mut(), message)).await {
            Ok(sent) => sent,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn request(&mut self, kind: i32, path: &str, watch: bool, what: &str) -> Result<Answer, Miss> {
        let number = self.next_number();
        let message = Writer::default().int(number).int(kind).bytes(path.as_bytes()).flag(watch);
        send(self.stream.as_mut(), message).await?;
        self.answer(number, what).await
    }

    /// The answer to a request; other messages on the way are noted.
    async fn answer(&mut self, number: i32, what: &str) -> Result<Answer, Miss> {
        loop {
            let body = match self.incoming.next(&mut self.stream).await? {
                Message::Whole(body) => body,
                Message::TooLong(bytes) => {
                    return Err(Miss::Final(SourceError::TooLarge { what: what.to_owned(), bytes }));
                }
            };
            let answer = self.note(&body)?;
            if answer.number == number {
                return Ok(answer);
            }
        }
    }

    fn note(&mut self, message: &[u8]) -> Result<Answer, Miss> {
        let mut reader = Reader(message);
        let (number, _transaction, code) = (reader.int()?, reader.long()?, reader.int()?);
        if number == number::NOTIFICATION {
            // Also one that says that the session's state has changed: the node is read again in any case.
            self.fired = true;
        }
        if code == code::SESSION_EXPIRED {
            return Err(Miss::Next("the session has expired".to_owned()));
        }
        Ok(Answer { number, code, body: reader.0.to_vec() })
    }

    fn check(&self, code: i32, what: &str) -> Result<(), Miss> {
        let what = what.to_owned();
        let refused = |reason: &str| SourceError::Unauthorised { what: what.clone(), reason: reason.to_owned() };
        match code {
            code::OK => Ok(()),
            code::NO_AUTH => Err(Miss::Final(refused("the node's access list does not let this user read it"))),
            code::AUTH_FAILED => Err(Miss::Final(refused("the server does not take this login"))),
            other => Err(Miss::Final(SourceError::Broken { what, reason: format!("it answered with error {other}") })),
        }
    }

    fn next_number(&mut self) -> i32 {
        self.requests = self.requests % i32::MAX + 1;
        self.requests
    }
}

fn whole(message: Message) -> Result<Vec<u8>, Miss> {
    match message {
        Message::Whole(body) => Ok(body),
        Message::TooLong(_) => Err(Miss::Next("it sent a message that is too long".to_owned())),
    }
}
