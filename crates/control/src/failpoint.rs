//! Places where the daemon might be killed, so that a test can kill it at each of them.
//!
//! Injected, never compiled in or out: the daemon runs with [`NeverFails`]. A fail point that says "die" stops
//! every task of the core where it stands, as `kill -9` would; what has been asked of the engine goes on or not, as with
//! a real death.

/// Says whether the core dies at a place.
pub trait FailPoint: Send + Sync + 'static {
    /// Asked at every place, in the order in which they are reached. `place` is for messages: `launch: before journal`.
    fn dies_at(&self, place: &str) -> bool;
}

/// What the daemon runs with.
#[derive(Debug, Clone, Copy, Default)]
pub struct NeverFails;

impl FailPoint for NeverFails {
    fn dies_at(&self, _place: &str) -> bool {
        false
    }
}
