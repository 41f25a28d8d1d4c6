//! The history of channels: every move, by whom, why, and with what it was decided from.
//!
//! A move is written before the channel is moved, in the same transaction as its entry in the audit log. So a crash leaves at worst a
//! move that was not made, and whoever asks again makes it. What the rules of channels ask of the past ([`Stay`]) is read from here.

use std::path::Path;

use jiff::Timestamp;
use kiln_model::{ChannelName, ImageDigest, ImageName, promotion::Stay};
use rusqlite::{Connection, Row, params};
use serde::Serialize;
use serde_json::{Value, json};

use crate::db::{Aside, Batch, DbError, Record};

/// A move of a channel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Move {
    /// When.
    pub at: Timestamp,
    /// The image's name.
    pub name: ImageName,
    /// The channel.
    pub channel: ChannelName,
    /// Where it points from then on.
    pub image: ImageDigest,
    /// Where it pointed before.
    pub before: Option<ImageDigest>,
    /// Who moved it: a key's name where the promotion is signed, else who they say they are.
    pub who: String,
    /// How: `promote`, `test`, `pull`, `load`.
    pub how: String,
    /// Why, in words.
    pub reason: String,
    /// What was found to be good ([`kiln_model::promotion::Granted`]).
    pub evidence: Value,
    /// What differs between the two images; null where there was none before.
    pub difference: Value,
}

impl Move {
    /// Its entry in the audit log.
    pub(crate) fn record(&self) -> Record {
        let inputs = json!({
            "image": self.image,
            "name": self.name,
            "channel": self.channel,
            "before": self.before,
            "who": self.who,
            "how": self.how,
            "evidence": self.evidence,
        });
        Record { at: self.at, action: "promote", group: None, server: None, inputs, reason: self.reason.clone() }
    }

    fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            at: parsed(row, 1)?,
            name: parsed(row, 2)?,
            channel: parsed(row, 3)?,
            image: parsed(row, 4)?,
            before: row.get::<_, Option<String>>(5)?.map(|_| parsed(row, 5)).transpose()?,
            who: row.get(6)?,
            how: row.get(7)?,
            reason: row.get(8)?,
            evidence: parsed(row, 9)?,
            difference: parsed(row, 10)?,
        })
    }
}

fn parsed<T: std::str::FromStr>(row: &Row<'_>, at: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let failed =
        |error: T::Err| rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(error));
    row.get::<_, String>(at)?.parse().map_err(failed)
}

/// Writes a move without the daemon.
pub fn note(state_dir: &Path, moved: &Move) -> Result<(), DbError> {
    let mut batch = Batch::default();
    batch.record(moved.record());
    batch.moved(moved.clone());
    Aside::open(state_dir)?.write(&batch)
}

/// The moves of a state directory, for reading. The daemon may be writing them.
pub struct Moves {
    connection: Connection,
}

impl Moves {
    /// Opens the state file of a state directory.
    pub fn open(state_dir: &Path) -> Result<Self, DbError> {
        Ok(Self { connection: crate::db::for_reading(state_dir)? })
    }

    /// The last so many moves of a name's channels, or of one of them, in order.
    pub fn of(&self, name: &ImageName, channel: Option<&ChannelName>, most: u32) -> Result<Vec<Move>, DbError> {
        let sql = "SELECT * FROM moves WHERE name = ?1 AND (?2 IS NULL OR channel = ?2) ORDER BY number DESC LIMIT ?3";
        let read = || {
            let mut statement = self.connection.prepare(sql)?;
            let channel = channel.map(ChannelName::as_str);
            let rows = statement.query_map(params![name.as_str(), channel, most], Move::of_row)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let mut moves = read().map_err(|source| DbError::Sqlite { action: "read", source })?;
        moves.reverse();
        Ok(moves)
    }

    /// When which channel of a name pointed to an image.
    pub fn stays(&self, name: &ImageName, image: &ImageDigest) -> Result<Vec<Stay>, DbError> {
        Ok(stays(&self.of(name, None, u32::MAX)?, image))
    }
}

/// A stay begins with a move to the image and ends with the channel's next move to another.
fn stays(moves: &[Move], image: &ImageDigest) -> Vec<Stay> {
    let mut stays: Vec<Stay> = Vec::new();
    for moved in moves {
        let open = stays.iter_mut().find(|stay| stay.channel == moved.channel && stay.until.is_none());
        match open {
            Some(stay) if moved.image != *image => stay.until = Some(moved.at),
            None if moved.image == *image => {
                stays.push(Stay { channel: moved.channel.clone(), from: moved.at, until: None });
            }
            _ => {}
        }
    }
    stays
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(seconds: i64, channel: &str, n: u8) -> Move {
        Move {
            at: Timestamp::from_second(seconds).unwrap(),
            name: "shop".parse().unwrap(),
            channel: channel.parse().unwrap(),
            image: image(n),
            before: None,
            who: "alice".into(),
            how: "promote".into(),
            reason: "a test".into(),
            evidence: json!({"suite": "x"}),
            difference: Value::Null,
        }
    }

    fn image(n: u8) -> ImageDigest {
        ImageDigest(kiln_model::Digest::of(&[n]))
    }

    #[test]
    fn host_moves_are_kept_with_their_reasons_and_stays_are_read_from_them() {
        let directory = tempfile::tempdir().unwrap();
        let all = [moved(10, "staging", 1), moved(15, "dev", 2), moved(20, "staging", 1), moved(30, "staging", 2)];
        all.iter().for_each(|moved| note(directory.path(), moved).unwrap());
        note(directory.path(), &moved(40, "staging", 1)).unwrap();
        let moves = Moves::open(directory.path()).unwrap();
        let name = "shop".parse().unwrap();
        assert_eq!(moves.of(&name, None, 4).unwrap()[..3], all[1..]);
        assert_eq!(moves.of(&name, Some(&"dev".parse().unwrap()), 9).unwrap(), all[1..2]);
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let stay = |from, until: Option<i64>| Stay {
            channel: "staging".parse().unwrap(),
            from: at(from),
            until: until.map(at),
        };
        assert_eq!(moves.stays(&name, &image(1)).unwrap(), [stay(10, Some(30)), stay(40, None)]);
        assert_eq!(crate::audit::Log::open(directory.path()).unwrap().verify(None).unwrap().entries, 5);
    }
}
