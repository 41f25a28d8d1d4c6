//! The tables, and how an older file becomes a current one.

use rusqlite::Connection;

use super::DbError;

/// Each entry brings the file from the version of its index to the next. Entries are never changed, only added.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE configs (
        digest TEXT PRIMARY KEY,
        body   TEXT NOT NULL
    ) STRICT;
    CREATE TABLE groups (
        name     TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,
        release  TEXT NOT NULL,
        spec     TEXT NOT NULL,
        evidence TEXT NOT NULL,
        progress TEXT,
        failures TEXT NOT NULL,
        ports    TEXT NOT NULL,
        removing INTEGER NOT NULL
    ) STRICT;
    -- Every release a group was ever asked to go to; `settled` counts up whenever the whole group has arrived on it.
    CREATE TABLE releases (
        group_name TEXT NOT NULL,
        id         TEXT NOT NULL,
        image      TEXT NOT NULL,
        config     TEXT NOT NULL REFERENCES configs (digest),
        suite      TEXT NOT NULL,
        settled    INTEGER,
        PRIMARY KEY (group_name, id)
    ) STRICT;
    CREATE TABLE servers (
        id          TEXT PRIMARY KEY,
        group_name  TEXT NOT NULL,
        generation  INTEGER NOT NULL,
        release     TEXT NOT NULL,
        limits      TEXT NOT NULL,
        state       TEXT NOT NULL,
        address     TEXT,
        pid         INTEGER,
        launched_at TEXT NOT NULL,
        ready_at    TEXT,
        ready_ms    INTEGER,
        in_traffic  INTEGER NOT NULL,
        rebuild     INTEGER NOT NULL,
        touched     INTEGER NOT NULL,
        reason      TEXT
    ) STRICT;
    CREATE INDEX servers_by_group ON servers (group_name);
    CREATE TABLE intentions (
        id         INTEGER PRIMARY KEY,
        group_name TEXT NOT NULL,
        server     TEXT NOT NULL,
        generation INTEGER NOT NULL,
        action     TEXT NOT NULL,
        why        TEXT NOT NULL,
        opened_at  TEXT NOT NULL,
        closed_at  TEXT,
        outcome    TEXT
    ) STRICT;
    CREATE INDEX intentions_open ON intentions (id) WHERE closed_at IS NULL;
    CREATE TABLE audit (
        id         INTEGER PRIMARY KEY,
        at         TEXT NOT NULL,
        group_name TEXT,
        server     TEXT,
        what       TEXT NOT NULL
    ) STRICT;
    CREATE TABLE counters (
        name  TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT;
",
    "
    ALTER TABLE servers RENAME COLUMN ready_ms TO ready_us;
    UPDATE servers SET ready_us = ready_us * 1000;
",
    // Where a group's values come from (a sealed secret), and the configuration that it was taken back from.
    "
    ALTER TABLE groups ADD COLUMN origins TEXT;
    ALTER TABLE groups ADD COLUMN declined TEXT;
",
    // Chained by hashes from here on. AUTOINCREMENT keeps the last number although the entry be removed.
    "
    ALTER TABLE audit RENAME TO audit_unchained;
    CREATE TABLE audit_log (
        number     INTEGER PRIMARY KEY AUTOINCREMENT,
        at         TEXT NOT NULL,
        action     TEXT NOT NULL,
        group_name TEXT,
        server     TEXT,
        inputs     TEXT NOT NULL,
        reason     TEXT NOT NULL,
        previous   TEXT NOT NULL,
        hash       TEXT NOT NULL
    ) STRICT;
    CREATE TRIGGER audit_log_stays BEFORE UPDATE ON audit_log
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
    CREATE TRIGGER audit_log_is_whole BEFORE DELETE ON audit_log
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
",
    // Live values of groups.
    "
    CREATE TABLE live (
        group_name TEXT PRIMARY KEY,
        version    INTEGER NOT NULL,
        fleet      TEXT NOT NULL,
        given      TEXT NOT NULL
    ) STRICT;
",
    // Every move of a channel, with what it was decided from.
    "
    CREATE TABLE moves (
        number     INTEGER PRIMARY KEY AUTOINCREMENT,
        at         TEXT NOT NULL,
        name       TEXT NOT NULL,
        channel    TEXT NOT NULL,
        image      TEXT NOT NULL,
        before     TEXT,
        who        TEXT NOT NULL,
        how        TEXT NOT NULL,
        reason     TEXT NOT NULL,
        evidence   TEXT NOT NULL,
        difference TEXT NOT NULL
    ) STRICT;
    CREATE INDEX moves_by_name ON moves (name, number);
",
    // Volumes, and the slots of the servers that have some.
    "
    CREATE TABLE volumes (
        id   TEXT PRIMARY KEY,
        body TEXT NOT NULL
    ) STRICT;
    ALTER TABLE servers ADD COLUMN slot INTEGER;
",
    // How far the log lines of servers have arrived at their collector.
    "
    CREATE TABLE arrived (
        server TEXT PRIMARY KEY,
        body   TEXT NOT NULL
    ) STRICT;
",
    // What the shared directories of servers are bound to.
    "
    ALTER TABLE servers ADD COLUMN shared TEXT NOT NULL DEFAULT '{}';
",
    // The last recovery drill of each group, of the gateway and of the daemon.
    "
    CREATE TABLE drills (
        target TEXT PRIMARY KEY,
        body   TEXT NOT NULL
    ) STRICT;
",
    // Servers that are held as spares.
    "
    ALTER TABLE servers ADD COLUMN spare INTEGER NOT NULL DEFAULT 0;
",
];

/// Refuses the removal of entries; laid aside only while old ones are forgotten (`chain`).
pub(super) const AUDIT_LOG_IS_WHOLE: &str = "CREATE TRIGGER audit_log_is_whole BEFORE DELETE ON audit_log
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;";

/// The journal, and what was audited before the log had a chain, are kept for this many entries.
const KEPT: i64 = 20_000;

/// Whether the file is as this Kiln writes it.
pub(super) fn is_current(connection: &Connection) -> Result<bool, DbError> {
    let failed = |source| DbError::Sqlite { action: "read", source };
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    Ok(found == MIGRATIONS.len() as i64)
}

/// Sets the file up for safe writing and brings it to the current version.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), DbError> {
    let failed = |source| DbError::Sqlite { action: "set up", source };
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let known = MIGRATIONS.len() as i64;
    if found > known || found < 0 {
        return Err(DbError::TooNew { found, known });
    }
    for (version, migration) in (1..).zip(MIGRATIONS).skip(found as usize) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(migration).map_err(failed)?;
        transaction.pragma_update(None, "user_version", version).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    forget(connection).map_err(failed)
}

/// Removes what is older than it is kept, but for the audit log.
pub(super) fn forget(connection: &Connection) -> rusqlite::Result<()> {
    for (table, over) in [("intentions", "closed_at IS NOT NULL"), ("audit_unchained", "true")] {
        let old = format!("DELETE FROM {table} WHERE {over} AND id <= (SELECT max(id) FROM {table}) - {KEPT}");
        connection.execute(&old, [])?;
    }
    Ok(())
}
