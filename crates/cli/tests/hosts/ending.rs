//! A daemon that was told to end.

use kiln_control::daemon::StateLock;

use crate::host::Host;

#[test]
fn root_a_daemon_that_was_told_to_end_is_gone_when_the_verb_returns() {
    let host = Host::new();
    for turn in 0..20 {
        host.good(&["down", "--purge"]);
        let lock = StateLock::take(&host.state());
        assert!(lock.is_ok(), "turn {turn}: {lock:?}");
    }
}
