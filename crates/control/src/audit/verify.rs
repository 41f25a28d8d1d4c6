//! Looks whether the chain holds.

use rusqlite::OptionalExtension as _;

use super::{AuditError, Entry, FORGOTTEN, GENESIS, Head, Log, Verified};

/// How far the chain was followed.
struct Chain {
    entries: u64,
    first: Option<(i64, String)>,
    last: Head,
    /// Whether an entry says that those before the first were removed because of their age.
    accounted: bool,
    /// Whether the entry that was noted elsewhere was met, unchanged.
    met: bool,
}

impl Log {
    /// Follows the chain from the first entry to the last. With a head that was noted elsewhere, the log must still hold it.
    pub fn verify(&self, noted: Option<&Head>) -> Result<Verified, AuditError> {
        // One transaction: what the daemon writes meanwhile is not half seen.
        let transaction = self.connection.unchecked_transaction().map_err(|source| self.unread(source))?;
        let chain = self.follow(noted)?;
        let last: Option<i64> = transaction
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'audit_log'", [], |row| row.get(0))
            .optional()
            .map_err(|source| self.unread(source))?;
        drop(transaction);
        let number = chain.last.number;
        if last.is_some_and(|last| last > number) {
            return Err(AuditError::Broken { number: number + 1, what: "it and what followed is missing" });
        }
        if let Some(noted) = noted.filter(|_| !chain.met) {
            return Err(AuditError::Broken { number: noted.number, what: "it is not the one that was noted" });
        }
        let first = chain.first.as_ref().map_or(1, |(number, _)| *number);
        if first > 1 && !chain.accounted {
            return Err(AuditError::Broken { number: first - 1, what: "it and what was before it is missing" });
        }
        Ok(Verified { entries: chain.entries, first, head: (chain.entries > 0).then_some(chain.last) })
    }

    fn follow(&self, noted: Option<&Head>) -> Result<Chain, AuditError> {
        let last = Head { number: 0, hash: GENESIS.to_owned() };
        let mut chain = Chain { entries: 0, first: None, last, accounted: false, met: false };
        let unread = |source| self.unread(source);
        let mut statement = self.connection.prepare("SELECT * FROM audit_log ORDER BY number").map_err(unread)?;
        let entries = statement.query_map([], Entry::of_row).map_err(unread)?;
        for entry in entries {
            chain.take(&entry.map_err(unread)?, noted)?;
        }
        Ok(chain)
    }
}

impl Chain {
    fn take(&mut self, entry: &Entry, noted: Option<&Head>) -> Result<(), AuditError> {
        let broken = |number, what| Err(AuditError::Broken { number, what });
        if self.first.is_some() || entry.number == 1 {
            if entry.number != self.last.number + 1 {
                return broken(self.last.number + 1, "it is missing");
            }
            if entry.previous != self.last.hash {
                return broken(entry.number, "it does not follow the one before");
            }
        }
        if entry.hash != entry.link() {
            return broken(entry.number, "it was changed");
        }
        let (_, before) = self.first.get_or_insert_with(|| (entry.number, entry.previous.clone()));
        self.accounted |= entry.action == FORGOTTEN && entry.inputs.contains(before.as_str());
        self.met |= noted.is_some_and(|noted| noted.number == entry.number && noted.hash == entry.hash);
        self.last = Head { number: entry.number, hash: entry.hash.clone() };
        self.entries += 1;
        Ok(())
    }
}
