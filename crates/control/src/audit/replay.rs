//! Makes the decisions about numbers of servers again, from what their entries say they were made from.

use kiln_model::plan::ScaleInputs;
use rusqlite::params;

use super::{AuditError, Entry, Log};

/// Decisions that came out as they stand in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// So many.
    pub same: u64,
    /// So many that an older Kiln wrote, without all that is needed.
    pub incomplete: u64,
}

impl Log {
    /// Makes every decision after an entry again, of one group or of all. Fails at the first that comes out otherwise.
    pub fn replay(&self, after: i64, group: Option<&str>) -> Result<Replayed, AuditError> {
        let sql = "SELECT * FROM audit_log WHERE number > ?1 AND (?2 IS NULL OR group_name = ?2) AND action = 'scale' \
                   ORDER BY number";
        let unread = |source| self.unread(source);
        let mut statement = self.connection.prepare(sql).map_err(unread)?;
        let entries = statement.query_map(params![after, group], Entry::of_row).map_err(unread)?;
        let mut replayed = Replayed::default();
        for entry in entries {
            replayed.take(&entry.map_err(unread)?)?;
        }
        Ok(replayed)
    }
}

impl Replayed {
    fn take(&mut self, entry: &Entry) -> Result<(), AuditError> {
        let otherwise = |again: String| Err(AuditError::Otherwise { number: entry.number, again });
        let Ok(inputs) = serde_json::from_str::<ScaleInputs>(&entry.inputs) else {
            return otherwise("cannot be made from what the entry says".to_owned());
        };
        match inputs.again() {
            None => self.incomplete += 1,
            Some(again) if (again.count, &again.why) == (inputs.to, &entry.reason) => self.same += 1,
            Some(again) => return otherwise(format!("is {} servers: {}", again.count, again.why)),
        }
        Ok(())
    }
}
