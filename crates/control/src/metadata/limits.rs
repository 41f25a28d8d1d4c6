//! How much one server may ask, so that none keeps the others waiting.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// Connections of one server at a time.
pub(super) const PER_SERVER: u32 = 128;
/// Requests of one server that wait for live keys to change, at a time.
pub(super) const WAITING: u32 = 4;
/// Requests that a server that was quiet may make at once, and so many more each second.
const BURST: f64 = 2_000.0;
const PER_SECOND: f64 = 500.0;

struct Account {
    connections: u32,
    waiting: u32,
    left: f64,
    at: Instant,
}

/// What each server has used.
#[derive(Clone, Default)]
pub(super) struct Limits(Arc<Mutex<HashMap<Ipv4Addr, Account>>>);

/// One connection of a server as long as it is open, or one request as long as it waits.
pub(super) struct Place {
    limits: Limits,
    address: Ipv4Addr,
    of: fn(&mut Account) -> &mut u32,
}

impl Limits {
    fn with<T>(&self, address: Ipv4Addr, now: Instant, work: impl FnOnce(&mut Account) -> T) -> T {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() > 2048 {
            accounts.retain(|_, account| account.connections > 0 || account.left < BURST);
        }
        let account = accounts.entry(address).or_insert(Account { connections: 0, waiting: 0, left: BURST, at: now });
        account.left = (account.left + now.duration_since(account.at).as_secs_f64() * PER_SECOND).min(BURST);
        account.at = now;
        work(account)
    }

    /// A place for a connection, if the server has one left.
    pub(super) fn enter(&self, address: Ipv4Addr, now: Instant) -> Option<Place> {
        self.place(address, now, PER_SERVER, |account| &mut account.connections)
    }

    /// A place for a request that waits, if the server has one left.
    pub(super) fn may_wait(&self, address: Ipv4Addr, now: Instant) -> Option<Place> {
        self.place(address, now, WAITING, |account| &mut account.waiting)
    }

    fn place(&self, address: Ipv4Addr, now: Instant, most: u32, of: fn(&mut Account) -> &mut u32) -> Option<Place> {
        let free = self.with(address, now, |account| {
            let used = of(account);
            let free = *used < most;
            *used += u32::from(free);
            free
        });
        free.then(|| Place { limits: self.clone(), address, of })
    }

    /// Whether the server may ask once more now.
    pub(super) fn may_ask(&self, address: Ipv4Addr, now: Instant) -> bool {
        self.with(address, now, |account| {
            let may = account.left >= 1.0;
            account.left -= f64::from(u8::from(may));
            may
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limits.with(self.address, Instant::now(), |account| *(self.of)(account) -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn unit_one_server_uses_up_its_own_share_only() {
        let (limits, now) = (Limits::default(), Instant::now());
        let (one, two) = (Ipv4Addr::new(100, 64, 0, 2), Ipv4Addr::new(100, 64, 0, 3));
        let granted = (0..3000).filter(|_| limits.may_ask(one, now)).count();
        assert_eq!(granted, 2000);
        assert!(limits.may_ask(two, now));
        assert_eq!((0..3000).filter(|_| limits.may_ask(one, now + Duration::from_secs(1))).count(), 500);
        let places: Vec<_> = (0..200).filter_map(|_| limits.enter(one, now)).collect();
        assert_eq!(places.len(), 128);
        assert!(limits.enter(two, now).is_some());
        drop(places);
        assert!(limits.enter(one, now).is_some());
        let waiting: Vec<_> = (0..10).filter_map(|_| limits.may_wait(one, now)).collect();
        assert_eq!(waiting.len(), 4);
        assert!(limits.may_wait(two, now).is_some());
        drop(waiting);
        assert!(limits.may_wait(one, now).is_some());
    }
}
