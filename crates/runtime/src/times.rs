//! When the steps of one launch were done, for whoever wants to know which of them took its time.
//!
//! A launch that nobody times notes nothing.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// So many steps of a launch are kept.
const MOST: usize = 64;

/// A step, and when it was done.
type Done = (&'static str, Instant);

/// What was done in a launch, and when. Clones note into the same.
#[derive(Debug, Clone, Default)]
pub struct Times(Option<Arc<Mutex<Vec<Done>>>>);

impl Times {
    /// Notes what comes.
    pub fn kept() -> Self {
        Self(Some(Arc::default()))
    }

    /// Notes that a step is done.
    pub fn note(&self, step: &'static str) {
        let Some(kept) = &self.0 else { return };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST {
            kept.push((step, Instant::now()));
        }
    }

    /// What was noted so far, in order.
    pub fn taken(&self) -> Vec<(&'static str, Instant)> {
        self.0.as_ref().map_or_else(Vec::new, |kept| kept.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_steps_are_kept_in_order_up_to_a_number_and_only_where_somebody_wants_them() {
        let untimed = Times::default();
        untimed.note("root");
        assert!(untimed.taken().is_empty());
        let times = Times::kept();
        let clone = times.clone();
        (0..MOST + 5).for_each(|_| clone.note("root"));
        let taken = times.taken();
        assert_eq!(taken.len(), MOST);
        assert!(taken.is_sorted_by_key(|(_, at)| *at));
    }
}
