//! A decision of [`scale`] with all that it was made from, so that it can be made again: the audit log keeps it.

use serde::{Deserialize, Serialize};

use super::{Load, ScaleDecision, ScaleMemory, scale};
use crate::fleet::Scaling;

/// What one change of a group's number of servers was decided from, and what was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScaleInputs {
    /// So many servers were wanted.
    pub from: u32,
    /// So many are wanted from then on.
    pub to: u32,
    /// What was read.
    pub load: Load,
    /// The rules as they were.
    pub rules: Scaling,
    /// What was remembered; none in what a Kiln wrote that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ScaleMemory>,
}

impl ScaleInputs {
    /// The same decision, made again; none where not all that it was made from is there.
    pub fn again(&self) -> Option<ScaleDecision> {
        let mut memory = self.memory.clone()?;
        Some(scale(&self.rules, &mut memory, self.from, &self.load))
    }
}
