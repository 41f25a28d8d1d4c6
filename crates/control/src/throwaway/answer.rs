//! Whether an external service answers in its own protocol. Nothing is logged in to.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// The kinds of services whose protocol is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL.
    Postgresql,
    /// Redis.
    Redis,
}

impl Kind {
    /// The kind that a recipe calls so.
    pub fn named(word: &str) -> Option<Self> {
        [Self::Postgresql, Self::Redis].into_iter().find(|kind| kind.word() == word)
    }
    /// The kind's word in a recipe.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Redis => "redis",
        }
    }
    /// What is asked, and how a good answer begins.
    const fn question(self) -> (&'static [u8], &'static [&'static [u8]]) {
        match self {
            // SSLRequest (PostgreSQL, message formats): `S` or `N`, also before anybody has logged in.
            Self::Postgresql => (b"\0\0\0\x08\x04\xd2\x16\x2f", &[b"S", b"N"]),
            Self::Redis => (b"PING\r\n", &[b"+PONG", b"-NOAUTH"]),
        }
    }
}

/// Asks a service whether it is there; says what was seen where it does not answer well within `limit`. Blocks.
pub fn answers(kind: Kind, address: SocketAddr, limit: Duration) -> Result<(), String> {
    let (question, good) = kind.question();
    let seen = |error: std::io::Error| format!("{} at {address}: {error}", kind.word());
    let mut stream = TcpStream::connect_timeout(&address, limit).map_err(seen)?;
    stream.set_read_timeout(Some(limit)).and_then(|()| stream.set_write_timeout(Some(limit))).map_err(seen)?;
    stream.write_all(question).map_err(seen)?;
    let mut answer = [0; 16];
    let read = stream.read(&mut answer).map_err(seen)?;
    match good.iter().any(|start| answer[..read].starts_with(start)) {
        true => Ok(()),
        false => Err(format!("{} at {address} does not answer as one does", kind.word())),
    }
}
