//! The state on disk: `kiln.db` in the state directory, SQLite in WAL mode, every commit on disk before it counts.
//!
//! One thread owns the connection. Writers send it a [`Batch`]; what waits while a commit is under way is committed
//! together in the next one, so many groups share one `fsync`. Reading happens once, at start ([`Db::load`]): from then
//! on each reconciler holds the truth about its group in memory and writes changes here before it acts on them.

mod aside;
mod batch;
mod chain;
mod load;
mod reading;
mod schema;

use std::{path::Path, sync::Arc, time::Duration};

pub(crate) use aside::Aside;
pub(crate) use batch::{Batch, Intention, IntentionId};
pub(crate) use chain::Record;
pub(crate) use load::{GroupRow, Loaded, PastRelease, ServerRow};
pub(crate) use reading::for_reading;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The file cannot be opened.
    #[error("could not open the state file {path}")]
    Open {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// It was written by a newer Kiln.
    #[error("the state file has schema version {found}, this Kiln knows versions up to {known}: use the newer Kiln")]
    TooNew {
        /// Its version.
        found: i64,
        /// The newest version known.
        known: i64,
    },
    /// SQLite failed; a full disk shows here.
    #[error("could not {action} the state file")]
    Sqlite {
        /// `read` or `write`.
        action: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A row does not hold what it should.
    #[error("the state file is damaged: {what} of {row}")]
    Damaged {
        /// The value.
        what: &'static str,
        /// The row.
        row: String,
    },
    /// Another version of Kiln works with it.
    #[error("the daemon that runs is of another version than this program: restart it")]
    Older(#[source] Box<crate::daemon::LockError>),
    /// The thread that writes is gone.
    #[error("the state file is closed")]
    Closed,
}

struct Write {
    batch: Arc<Batch>,
    done: oneshot::Sender<Result<(), DbError>>,
}

/// The state on disk. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Db {
    writes: mpsc::UnboundedSender<Write>,
}

impl Db {
    /// Opens or creates the file, brings its schema up to date and reads everything.
    pub(crate) fn open(path: &Path) -> Result<(Self, Loaded), DbError> {
        let failed = |source| DbError::Open { path: path.display().to_string(), source };
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
        schema::prepare(&mut connection)?;
        chain::forget(&mut connection, jiff::Timestamp::now()).map_err(failed)?;
        let loaded = load::everything(&connection)?;
        let (writes, queue) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("kiln-db".to_owned())
            .spawn(move || write_all(connection, queue))
            .map_err(|error| failed(rusqlite::Error::ToSqlConversionFailure(Box::new(error))))?;
        Ok((Self { writes }, loaded))
    }

    /// Writes a batch in one transaction and returns when it is on disk. Batches are written in the order given.
    pub(crate) async fn write(&self, batch: Arc<Batch>) -> Result<(), DbError> {
        if batch.is_empty() {
            return Ok(());
        }
        let (done, written) = oneshot::channel();
        self.writes.send(Write { batch, done }).map_err(|_| DbError::Closed)?;
        written.await.map_err(|_| DbError::Closed)?
    }
}

/// Looks for what is too old after so many rows, when nothing waits to be written ...
const TIDY_AFTER: usize = 20_000;
/// ... or after so many in any case.
const TIDY_AT_LAST: usize = 4 * TIDY_AFTER;

/// The writing thread: takes all that waits, commits it at once, answers, until nobody can write any more.
fn write_all(mut connection: Connection, mut queue: mpsc::UnboundedReceiver<Write>) {
    let mut written = 0;
    while let Some(first) = queue.blocking_recv() {
        let mut writes = vec![first];
        while let Ok(next) = queue.try_recv() {
            writes.push(next);
        }
        written += writes.iter().map(|write| write.batch.len()).sum::<usize>();
        match commit(&mut connection, &writes) {
            Ok(()) => writes.into_iter().for_each(|write| drop(write.done.send(Ok(())))),
            // One bad batch must not take the others with it.
            Err(_) if writes.len() > 1 => writes.into_iter().for_each(|write| {
                let result = commit(&mut connection, std::slice::from_ref(&write));
                drop(write.done.send(result));
            }),
            Err(error) => {
                if let Some(write) = writes.pop() {
                    drop(write.done.send(Err(error)));
                }
            }
        }
        if written >= TIDY_AT_LAST || (written >= TIDY_AFTER && queue.is_empty()) {
            written = 0;
            tidy(&mut connection);
        }
    }
}

/// Removes what is older than it is kept. It is tried again later where it cannot be done.
fn tidy(connection: &mut Connection) {
    let tidied = schema::forget(connection).and_then(|()| chain::forget(connection, jiff::Timestamp::now()));
    if let Err(error) = tidied {
        tracing::warn!(%error, "what is too old could not be removed from the state file");
    }
}

fn commit(connection: &mut Connection, writes: &[Write]) -> Result<(), DbError> {
    let failed = |source| DbError::Sqlite { action: "write", source };
    // At once: a verb without the daemon may write between a reading and a writing of this transaction.
    let behaviour = rusqlite::TransactionBehavior::Immediate;
    let transaction = connection.transaction_with_behavior(behaviour).map_err(failed)?;
    for write in writes {
        write.batch.write(&transaction).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}
