//! Entries of what is done without the daemon.

use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use super::AuditError;
use crate::db::{Aside, Batch, Record};

/// Appends an entry to the log of a state directory, whether a daemon runs there or not. It is on disk when this returns.
pub fn note(state_dir: &Path, action: &'static str, inputs: Value, reason: &str) -> Result<(), AuditError> {
    let record = Record { at: Timestamp::now(), action, group: None, server: None, inputs, reason: reason.to_owned() };
    let mut batch = Batch::default();
    batch.record(record);
    Ok(Aside::open(state_dir)?.write(&batch)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::Log;

    #[test]
    fn host_entries_of_several_programs_make_one_chain() {
        let directory = tempfile::tempdir().unwrap();
        let add =
            |number: u32| note(directory.path(), "pull", json!({"number": number}), "somebody asked for it").unwrap();
        add(0);
        std::thread::scope(|scope| {
            (0..4).for_each(|thread| drop(scope.spawn(move || (0..10).for_each(|n| add(thread * 10 + n)))));
        });
        let log = Log::open(directory.path()).unwrap();
        assert_eq!(log.verify(None).unwrap().entries, 41);
        assert_eq!(log.entries(0, None, 1).unwrap()[0].action, "pull");
    }

    #[test]
    fn host_an_older_state_file_is_left_to_the_daemon_that_works_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kiln.db");
        rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 0).unwrap();
        let lock = crate::daemon::StateLock::take(directory.path()).unwrap();
        let refused = note(directory.path(), "pull", json!({}), "").unwrap_err();
        assert!(kiln_api::error::chain(&refused).contains("restart it"), "{refused:?}");
        drop(lock);
        note(directory.path(), "pull", json!({}), "").unwrap();
    }
}
