//! The probe on the host the tests run on.
#![allow(missing_docs)]

use std::path::Path;

use kiln_sys::{
    netlink::Connection,
    nftables,
    probe::{self, State},
};

#[test]
fn root_the_probe_finds_what_the_tests_need_and_leaves_nothing() {
    let look = || {
        let links = Connection::open().unwrap().links().unwrap().len();
        let tables = nftables::tables(&mut Connection::open_netfilter().unwrap()).unwrap();
        (links, tables.iter().filter(|table| *table == "kiln_probe").count())
    };
    let before = look().1;
    let start = std::time::Instant::now();
    let checks = probe::run(Path::new("/var/lib/kiln/not/there"));
    println!("{:?}", start.elapsed());
    for check in &checks {
        println!("{:?} {}: {} {:?}", check.state, check.name, check.found, check.effect);
        assert_eq!(check.effect.is_some(), check.state != State::Found, "{check:?}");
        assert_eq!(check.help.is_some(), check.state != State::Found, "{check:?}");
    }
    assert!(probe::usable(&checks));
    assert_eq!(look().1, before);
}

#[test]
fn root_a_read_only_or_missing_place_is_named() {
    let checks = probe::run(Path::new("/proc/1"));
    let place = checks.iter().find(|check| check.name == "state directory").unwrap();
    assert_eq!(place.state, State::Missing, "{place:?}");
    assert!(!probe::usable(&checks));
}
