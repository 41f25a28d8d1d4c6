//! The same work on many things, a few at a time, until one fails.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// Transfers at the same time.
pub(crate) const TRANSFERS: usize = 4;

/// Does the work on each item, on at most so many threads. After a failure nothing more is begun.
pub(crate) fn each<T: Sync, E: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = work(item) {
                        next.store(items.len(), Ordering::Relaxed);
                        failure.lock().expect("no holder panics").get_or_insert(error);
                    }
                }
            });
        }
    });
    failure.into_inner().expect("no holder panics").map_or(Ok(()), Err)
}
