//! Appends to the audit log (`crate::audit`), and forgets what is old in a way that the log itself tells.

use jiff::Timestamp;
use kiln_model::{GroupName, ServerId};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde_json::{Value, json};

use crate::audit::{Entry, FORGOTTEN, GENESIS};

/// Entries are kept at least for this many later ones; a tenth more may be there.
const KEPT: i64 = 200_000;
const SLACK: i64 = KEPT / 10;

/// An entry to be.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub at: Timestamp,
    pub action: &'static str,
    pub group: Option<GroupName>,
    pub server: Option<ServerId>,
    pub inputs: Value,
    pub reason: String,
}

/// Appends one entry.
pub(super) fn append(transaction: &Transaction<'_>, record: &Record) -> rusqlite::Result<()> {
    let last = "SELECT number, hash FROM audit_log ORDER BY number DESC LIMIT 1";
    let last: Option<(i64, String)> =
        transaction.prepare_cached(last)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    // Also after the last entries were cut off the numbers go on, so that they stay missing.
    let used = "SELECT seq FROM sqlite_sequence WHERE name = 'audit_log'";
    let used: Option<i64> = transaction.prepare_cached(used)?.query_row([], |row| row.get(0)).optional()?;
    let (number, previous) = last.unwrap_or((0, GENESIS.to_owned()));
    let mut entry = Entry {
        number: number.max(used.unwrap_or(0)) + 1,
        at: record.at.to_string(),
        action: record.action.to_owned(),
        group: record.group.as_ref().map(ToString::to_string),
        server: record.server.as_ref().map(ToString::to_string),
        inputs: record.inputs.to_string(),
        reason: record.reason.clone(),
        previous,
        hash: String::new(),
    };
    entry.hash = entry.link();
    let sql = "INSERT INTO audit_log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let Entry { number, at, action, group, server, inputs, reason, previous, hash } = entry;
    transaction
        .prepare_cached(sql)?
        .execute(params![number, at, action, group, server, inputs, reason, previous, hash])
        .map(drop)
}

/// Removes entries of a great age, and appends one that says which, and the hash that the first one left refers to.
pub(super) fn forget(connection: &mut Connection, now: Timestamp) -> rusqlite::Result<()> {
    forget_beyond(connection, KEPT, SLACK, now)
}

fn forget_beyond(connection: &mut Connection, kept: i64, slack: i64, now: Timestamp) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let span = "SELECT coalesce(min(number), 0), coalesce(max(number), 0) FROM audit_log";
    let (first, last): (i64, i64) = transaction.query_row(span, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if last - first < kept + slack {
        return Ok(());
    }
    let through = last - kept;
    let hash: String =
        transaction.query_row("SELECT hash FROM audit_log WHERE number = ?1", [through], |row| row.get(0))?;
    transaction.execute_batch("DROP TRIGGER audit_log_is_whole")?;
    transaction.execute("DELETE FROM audit_log WHERE number <= ?1", [through])?;
    transaction.execute_batch(super::schema::AUDIT_LOG_IS_WHOLE)?;
    let inputs = json!({"through": through, "hash": hash});
    let reason = format!("entries up to {through} were removed because of their age");
    append(&transaction, &Record { at: now, action: FORGOTTEN, group: None, server: None, inputs, reason })?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: usize) -> Record {
        let inputs = json!({"number": number});
        Record { at: Timestamp::UNIX_EPOCH, action: "test", group: None, server: None, inputs, reason: "a test".into() }
    }

    /// A log with so many entries, in a directory.
    fn log(entries: usize) -> (tempfile::TempDir, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(directory.path().join("kiln.db")).unwrap();
        super::super::schema::prepare(&mut connection).unwrap();
        add(&mut connection, entries);
        (directory, connection)
    }

    fn add(connection: &mut Connection, entries: usize) {
        let transaction = connection.transaction().unwrap();
        (0..entries).for_each(|number| append(&transaction, &record(number)).unwrap());
        transaction.commit().unwrap();
    }

    fn verify(directory: &tempfile::TempDir) -> Result<crate::audit::Verified, String> {
        crate::audit::Log::open(directory.path()).unwrap().verify(None).map_err(|error| error.to_string())
    }

    /// What somebody does who can write the file.
    fn tamper(connection: &Connection, sql: &str) {
        connection.execute_batch("DROP TRIGGER audit_log_is_whole; DROP TRIGGER audit_log_stays;").unwrap();
        connection.execute_batch(sql).unwrap();
    }

    #[test]
    fn host_whoever_tampers_with_the_audit_log_is_found() {
        let changed = [
            ("UPDATE audit_log SET reason = 'another' WHERE number = 3", "entry 3: it was changed"),
            ("UPDATE audit_log SET inputs = '{}' WHERE number = 10", "entry 10: it was changed"),
            ("UPDATE audit_log SET at = '1970-01-02T00:00:00Z' WHERE number = 1", "entry 1: it was changed"),
            ("DELETE FROM audit_log WHERE number = 5", "entry 5: it is missing"),
            ("DELETE FROM audit_log WHERE number < 4", "entry 3: it and what was before it is missing"),
            ("DELETE FROM audit_log WHERE number > 7", "entry 8: it and what followed is missing"),
            ("UPDATE audit_log SET previous = hash WHERE number = 6", "entry 6: it does not follow"),
            (
                "DELETE FROM audit_log WHERE number = 5; UPDATE audit_log SET number = number - 1 WHERE number > 5",
                "entry 5",
            ),
        ];
        for (sql, expected) in changed {
            let (directory, connection) = log(10);
            assert_eq!(verify(&directory).unwrap().entries, 10);
            tamper(&connection, sql);
            let found = verify(&directory).unwrap_err();
            assert!(found.contains(expected), "{sql}: {found}");
        }
    }

    #[test]
    fn host_a_cut_tail_stays_missing_and_a_noted_head_finds_what_was_rewritten() {
        let (directory, mut connection) = log(10);
        let noted = verify(&directory).unwrap().head.unwrap();
        tamper(&connection, "DELETE FROM audit_log WHERE number > 7");
        add(&mut connection, 2);
        assert!(verify(&directory).unwrap_err().contains("entry 8: it is missing"));
        tamper_again(&connection);
        add(&mut connection, 10);
        let log = crate::audit::Log::open(directory.path()).unwrap();
        assert!(log.verify(None).is_ok(), "a whole chain that somebody made anew looks like any other");
        assert_eq!(noted.to_string().parse(), Ok(noted.clone()));
        let found = log.verify(Some(&noted)).map(drop).unwrap_err().to_string();
        assert!(found.contains("entry 10: it is not the one that was noted"), "{found}");
    }

    fn tamper_again(connection: &Connection) {
        connection.execute_batch("DELETE FROM audit_log; DELETE FROM sqlite_sequence").unwrap();
        connection.execute_batch("INSERT INTO sqlite_sequence VALUES ('audit_log', 0)").unwrap();
        let mut other = record(0);
        other.reason = "another past".into();
        let transaction = connection.unchecked_transaction().unwrap();
        append(&transaction, &other).unwrap();
        transaction.commit().unwrap();
    }

    #[test]
    fn host_the_audit_log_refuses_changes_and_tells_what_it_forgot() {
        let (directory, mut connection) = log(10);
        for sql in
            ["UPDATE audit_log SET reason = ''", "DELETE FROM audit_log", "DELETE FROM audit_log WHERE number = 1"]
        {
            let refused = connection.execute_batch(sql).unwrap_err().to_string();
            assert!(refused.contains("append-only"), "{refused}");
        }
        forget_beyond(&mut connection, 6, 4, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(verify(&directory).unwrap().first, 1, "not yet");
        add(&mut connection, 1);
        forget_beyond(&mut connection, 6, 4, Timestamp::UNIX_EPOCH).unwrap();
        let verified = verify(&directory).unwrap();
        assert_eq!((verified.first, verified.entries), (6, 7));
        assert!(connection.execute_batch("DELETE FROM audit_log").is_err(), "the trigger is there again");
    }
}
