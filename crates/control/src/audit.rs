//! The audit log: every action, with its inputs and its reason, in the order in which they were decided.
//!
//! An entry's hash covers all of the entry and the hash of the one before. Whoever changes, removes or puts in an entry breaks the
//! chain there, and [`Log::verify`] says where; SQLite keeps the number of the last entry beside the table, so that a tail that
//! was cut off is missed. Whoever can write the file can rewrite everything from some entry on. That is found by whoever noted
//! the head of the log somewhere else ([`Head`]).
//!
//! The log is written in the transaction that makes an action true, before the action begins. What a verb does without the daemon
//! (keys, images that come and go) is no matter of the state file: it is entered by [`note`], for images and keys when it is done.

mod note;
mod replay;
mod verify;

pub use note::note;
pub use replay::Replayed;

use std::{fmt, path::Path, str::FromStr};

use kiln_model::Digest;
use rusqlite::{Connection, Row, params};
use serde::Serialize;

/// What the first entry has in place of the hash of the one before.
pub(crate) const GENESIS: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
/// The action of an entry that says which entries were removed because of their age.
pub(crate) const FORGOTTEN: &str = "forgotten";

/// Why the log could not be read, or cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It could not be read.
    #[error("could not read the audit log in {path}")]
    Read {
        /// The state file.
        path: String,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// It could not be opened.
    #[error("could not open the audit log")]
    Open(#[source] crate::db::DbError),
    /// It could not be written.
    #[error("could not enter what was done in the audit log")]
    Write(#[from] crate::db::DbError),
    /// Somebody changed it.
    #[error("the audit log was tampered with at entry {number}: {what}")]
    Broken {
        /// The entry at which the chain breaks.
        number: i64,
        /// How.
        what: &'static str,
    },
    /// A decision does not follow from what it is said to be made from.
    #[error("entry {number} does not follow from its inputs: made again, the decision {again}")]
    Otherwise {
        /// The entry.
        number: i64,
        /// What follows.
        again: String,
    },
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Counts from 1, without gaps.
    pub number: i64,
    /// When, RFC 3339.
    pub at: String,
    /// What: `apply`, `launch`, `drain`, `stop`, `destroy`, `rollback`, `exec`, …
    pub action: String,
    /// The group it concerns.
    pub group: Option<String>,
    /// The server it concerns.
    pub server: Option<String>,
    /// What it was decided from, JSON.
    pub inputs: String,
    /// Why, in words.
    pub reason: String,
    /// The hash of the entry before.
    pub previous: String,
    /// The hash of this one.
    pub hash: String,
}

impl Entry {
    /// What its hash must be.
    pub(crate) fn link(&self) -> String {
        let whole = (
            (&self.previous, self.number, &self.at, &self.action),
            (&self.group, &self.server, &self.inputs, &self.reason),
        );
        Digest::of(&serde_json::to_vec(&whole).expect("plain data always serialises")).to_string()
    }

    pub(crate) fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            number: row.get(0)?,
            at: row.get(1)?,
            action: row.get(2)?,
            group: row.get(3)?,
            server: row.get(4)?,
            inputs: row.get(5)?,
            reason: row.get(6)?,
            previous: row.get(7)?,
            hash: row.get(8)?,
        })
    }
}

/// An entry by its number and its hash, written `NUMBER:sha256:…`. Noted elsewhere, it holds the log up to it in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The entry.
    pub number: i64,
    /// Its hash.
    pub hash: String,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

/// Not a head of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the head of an audit log is written NUMBER:sha256:…, as `kiln audit verify` prints it")]
pub struct InvalidHead;

impl FromStr for Head {
    type Err = InvalidHead;

    fn from_str(text: &str) -> Result<Self, InvalidHead> {
        let (number, hash) = text.split_once(':').ok_or(InvalidHead)?;
        let hash: Digest = hash.parse().map_err(|_| InvalidHead)?;
        Ok(Self { number: number.parse().map_err(|_| InvalidHead)?, hash: hash.to_string() })
    }
}

/// A log whose chain holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many entries there are.
    pub entries: u64,
    /// The first that is kept; earlier ones were removed because of their age.
    pub first: i64,
    /// The last one; none in an empty log.
    pub head: Option<Head>,
}

/// The log of a state directory, for reading. The daemon may be writing it.
pub struct Log {
    connection: Connection,
    path: String,
}

impl Log {
    /// Opens the log of a state directory; where nothing was done yet it is empty.
    pub fn open(state_dir: &Path) -> Result<Self, AuditError> {
        let connection = crate::db::for_reading(state_dir).map_err(AuditError::Open)?;
        Ok(Self { connection, path: state_dir.join("kiln.db").display().to_string() })
    }

    /// The last so many entries after a number, of one group or of all, in order.
    pub fn entries(&self, after: i64, group: Option<&str>, most: u32) -> Result<Vec<Entry>, AuditError> {
        let sql = "SELECT * FROM audit_log WHERE number > ?1 AND (?2 IS NULL OR group_name = ?2) \
                   ORDER BY number DESC LIMIT ?3";
        let read = || {
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map(params![after, group, most], Entry::of_row)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let mut entries = read().map_err(|source| self.unread(source))?;
        entries.reverse();
        Ok(entries)
    }

    fn unread(&self, source: rusqlite::Error) -> AuditError {
        AuditError::Read { path: self.path.clone(), source }
    }
}
