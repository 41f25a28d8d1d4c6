//! Writing to the state beside the daemon: what a verb does by itself is recorded in the same log.
//!
//! SQLite keeps the writers apart. A file of an older Kiln is brought up to date only while no daemon works with it, which the
//! lock of the state directory says.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, TransactionBehavior};

use super::{Batch, DbError, schema};
use crate::daemon::StateLock;

/// The state file, opened by a program that is not the daemon.
pub(crate) struct Aside {
    connection: Connection,
}

impl Aside {
    /// Opens the state file of a state directory; makes it if it is not there.
    pub fn open(state_dir: &Path) -> Result<Self, DbError> {
        let path = state_dir.join("kiln.db");
        let failed = |source| DbError::Open { path: path.display().to_string(), source };
        let mut connection = Connection::open(&path).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
        if !schema::is_current(&connection)? {
            let _lock = StateLock::take(state_dir).map_err(|error| DbError::Older(Box::new(error)))?;
            schema::prepare(&mut connection)?;
        }
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        Ok(Self { connection })
    }

    /// Writes a batch; it is on disk when this returns.
    pub fn write(&mut self, batch: &Batch) -> Result<(), DbError> {
        let failed = |source| DbError::Sqlite { action: "write", source };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        batch.write(&transaction).map_err(failed)?;
        transaction.commit().map_err(failed)
    }
}
