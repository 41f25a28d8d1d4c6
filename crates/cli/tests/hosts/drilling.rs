//! `kiln drill`: exit codes, and daemons that come back by the verb itself, by a supervisor, or by nobody.

use std::{process::Command, time::Duration};

use serde_json::Value;

use crate::host::Host;

/// A fleet that wants every drill to be good, in so many milliseconds.
fn fleet(ready_within: &str) -> String {
    format!(
        "[group.web]\nimage = \"shop\"\ncount = 3\npublish = [{{ listen = 0, port = 8080, protocol = \"http\" }}]\n\
         drill = {{ servers = 1, ready_within = \"{ready_within}\", failed = 0 }}\n"
    )
}

fn pid(host: &Host) -> u64 {
    host.good(&["status", "--host"])["daemon"]["pid"].as_u64().expect("a process")
}

#[test]
fn root_the_exit_code_of_a_drill_says_whether_the_objectives_were_met() {
    let host = Host::new();
    host.project("page\n");
    host.write("shop/fleet.toml", &fleet("10s"));
    host.good(&["up", "shop"]);
    host.good(&["drill", "group", "web"]);
    let status = host.good(&["status"]);
    let drill = &status["groups"][0]["drill"];
    assert_eq!((&drill["state"], &drill["failed"]), (&"met".into(), &0.into()), "{status}");
    assert_eq!(drill["servers"].as_array().map(Vec::len), Some(1));
    host.good(&["drill", "gateway"]);
    assert!(host.text(&["status"]).contains("drill of the gateway"), "{}", host.text(&["status"]));

    // Nothing is ready in a millisecond: 1, with the figures.
    host.write("shop/fleet.toml", &fleet("1ms"));
    host.good(&["up", "shop"]);
    let missed = host.kiln(&["drill", "group", "web"]);
    assert_eq!(missed.code, 1, "{:?} {}", missed.lines, missed.errors);
    let last = missed.lines.last().expect("a line");
    assert_eq!(last["error"]["code"], "objectives_missed", "{last}");
    assert_eq!(host.kiln(&["drill", "group", "nobody"]).code, 2);
    assert_eq!(host.kiln(&["drill", "group", "web", "--servers", "4"]).code, 1, "it has three");

    // The daemon was started by `up`: the drill's own verb starts the next one.
    host.write("shop/fleet.toml", &fleet("10s"));
    host.good(&["up", "shop"]);
    let before = pid(&host);
    let drill = host.good(&["drill", "daemon"]);
    assert_eq!((&drill["what"], &drill["state"], &drill["failed"]), (&"daemon".into(), &"met".into(), &0.into()));
    assert_ne!(pid(&host), before);
}

/// Ends with the test, also when that fails.
struct Daemon(std::process::Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            println!("{error}");
        }
    }
}

fn answers(host: &Host) {
    for _ in 0..500 {
        if host.kiln(&["status"]).code == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the daemon does not answer");
}

#[test]
fn root_a_daemon_that_nothing_starts_again_is_not_killed_and_one_that_is_supervised_comes_back() {
    let host = Host::new();
    let kiln = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.arg("--state").arg(host.state()).env_remove("KILN_STATE").env_remove("KILN_METRICS");
        command
    };
    let by_hand = Daemon(kiln().arg("daemon").spawn().expect("started"));
    answers(&host);
    let refused = host.kiln(&["drill", "daemon"]);
    assert_eq!(refused.code, 1, "{refused:?}", refused = (&refused.lines, &refused.errors));
    let said = refused.lines.last().map(Value::to_string).unwrap_or_default();
    assert!(said.contains("nothing would start the daemon again by itself") && said.contains("--supervised"), "{said}");
    assert_eq!(pid(&host), u64::from(by_hand.0.id()), "it lives");
    host.good(&["daemon", "--stop"]);
    drop(by_hand);

    // A supervisor as small as can be.
    let script = "trap 'kill $child; exit' TERM; while :; do \"$0\" --state \"$1\" daemon --supervised & child=$!; wait $child; done";
    let mut supervisor = Command::new("/bin/sh");
    supervisor.args(["-c", script]).arg(env!("CARGO_BIN_EXE_kiln")).arg(host.state()).env_remove("KILN_METRICS");
    let mut supervisor = Daemon(supervisor.spawn().expect("started"));
    answers(&host);
    let before = pid(&host);
    let drill = host.good(&["drill", "daemon"]);
    assert_eq!((&drill["what"], &drill["state"]), (&"daemon".into(), &"met".into()), "{drill}");
    assert_ne!(pid(&host), before);
    let child = pid(&host);
    let process = rustix::process::Pid::from_raw(supervisor.0.id().cast_signed()).expect("a pid");
    rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("told to end");
    supervisor.0.wait().expect("ended");
    for _ in 0..500 {
        if !std::path::Path::new(&format!("/proc/{child}")).exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the daemon outlives its supervisor");
}
