//! The state file for who only reads, while the daemon may be writing it. Where nothing was ever written it is empty.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{DbError, schema};

/// Opens the state file of a state directory.
pub(crate) fn for_reading(state_dir: &Path) -> Result<Connection, DbError> {
    let path = state_dir.join("kiln.db");
    let failed = |source| DbError::Open { path: path.display().to_string(), source };
    // What cannot be looked for may be there.
    if !path.try_exists().unwrap_or(true) {
        let mut empty = Connection::open_in_memory().map_err(failed)?;
        schema::prepare(&mut empty)?;
        return Ok(empty);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(&path, flags).map_err(failed)
}
