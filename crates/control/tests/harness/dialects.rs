//! Programs with tests of their own: TAP, JUnit XML, testinfra, as they should be and as they should not.

use std::{collections::BTreeMap, time::Duration};

use kiln_model::{
    evidence::{Report, TestOutcome, Verdict},
    suite::{Runner, Test, TestKind},
};

use crate::bench::{Bench, failure, outcome, web};

/// Long enough for pytest on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn inside(script: &str) -> Runner {
    Runner::Command { command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), user: "web".into() }
}

fn outside(script: &str) -> Runner {
    Runner::Script {
        file: "t.sh".into(),
        content: format!("#!/bin/sh\n{script}\n"),
        arguments: Vec::new(),
        secrets: Default::default(),
    }
}

fn tap(name: &str, run: Runner) -> Test {
    Test { name: name.to_owned(), within: LONG, kind: TestKind::Tap { run } }
}

fn junit(name: &str, run: Runner, report: &str) -> Test {
    Test { name: name.to_owned(), within: LONG, kind: TestKind::Junit { run, report: report.to_owned() } }
}

fn testinfra(name: &str, within: Duration, files: &[(&str, &str)]) -> Test {
    let kind = TestKind::Testinfra {
        file: files[0].0.to_owned(),
        files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect::<BTreeMap<_, _>>(),
        arguments: Vec::new(),
        secrets: Default::default(),
    };
    Test { name: name.to_owned(), within, kind }
}

/// The results of a test, without its name.
fn of<'a>(report: &'a Report, test: &str) -> Vec<(&'a str, Verdict)> {
    let own = |outcome: &'a TestOutcome| match outcome.name.strip_prefix(test)? {
        "" => Some(("", outcome.verdict)),
        rest => Some((rest.strip_prefix(" / ")?, outcome.verdict)),
    };
    report.tests.iter().filter_map(own).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_every_tap_point_is_a_result_inside_and_outside() {
    let bench = Bench::new();
    let points =
        "printf 'TAP version 14\\n1..4\\nok 1 - one\\nnot ok 2 - two\\nok 3 # skip no disk\\nnot ok 4 # TODO later\\n'";
    let where_it_is =
        "[ -n \"$KILN_SERVER_ADDRESS\" ] && echo 'ok - outside' || echo 'not ok - outside'; echo 1..1; echo noise >&2";
    let tests = vec![
        tap("in", inside(points)),
        tap("who", inside("echo 1..1; [ $(id -u) = 33 ] && echo ok 1 - web || echo not ok 1 - web")),
        tap("out", outside(where_it_is)),
        tap("no plan", inside("echo ok 1")),
        tap("exit", inside("echo 1..1; echo ok 1; echo 'something broke' >&2; exit 3")),
        tap("nothing", outside("exit 0")),
    ];
    let run = bench.run(web(), tests).await;
    let (yes, no, left_out) = (Verdict::Passed, Verdict::Failed, Verdict::Skipped);
    assert_eq!(of(&run.report, "in"), [("1 one", yes), ("2 two", no), ("3", left_out), ("4", left_out)]);
    assert_eq!(of(&run.report, "who"), [("1 web", yes)]);
    assert_eq!(of(&run.report, "out"), [("1 outside", yes)]);
    assert_eq!(of(&run.report, "no plan"), [("1", yes), ("", no)]);
    assert!(failure(&run.report, "exit").contains("exited with 3 and said \"something broke"), "{:#?}", run.report);
    assert!(failure(&run.report, "nothing").contains("neither a plan nor a test point"));
    assert_eq!(outcome(&run.report, "kiln/second-boot").verdict, yes);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_flood_of_tap_and_one_that_hangs_end() {
    let bench = Bench::new();
    let flood = "yes 'ok - x' | head -c 104857600";
    let hangs = |name: &str, run| Test { within: Duration::from_secs(2), ..tap(name, run) };
    let tests = vec![
        tap("in", inside(flood)),
        tap("out", outside(flood)),
        hangs("hangs in", inside("echo 1..1; sleep 1000")),
        hangs("hangs out", outside("echo 1..1; sleep 1000")),
    ];
    let run = bench.run(web(), tests).await;
    for name in ["in", "out"] {
        assert!(failure(&run.report, name).contains("more than 4194304 bytes"), "{name}");
    }
    for name in ["hangs in", "hangs out"] {
        assert!(outcome(&run.report, name).took < Duration::from_secs(10) && !failure(&run.report, name).is_empty());
    }
    assert!(failure(&run.report, "hangs out").contains("did not end within"), "{:#?}", run.report);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_every_junit_case_is_a_result_and_a_report_that_lies_about_itself_is_none() {
    let bench = Bench::new();
    let good = "<testsuite><testcase classname=\"web\" name=\"page\"/><testcase name=\"b\"><failure message=\"saw 2\"/></testcase>\
                <testcase name=\"c\"><skipped/></testcase></testsuite>";
    let write = |text: &str, path: &str| format!("cat > {path} <<'END'\n{text}\nEND\n");
    let bomb = "<!DOCTYPE x [<!ENTITY f SYSTEM \"file:///etc/shadow\">]><testsuite><testcase name=\"a\"><failure>&f;</failure></testcase></testsuite>";
    let tests = vec![
        junit("in", inside(&write(good, "/tmp/in.xml")), "/tmp/in.xml"),
        junit("out", outside(&(write(good, "report.xml") + "exit 1")), "report.xml"),
        junit("entities", inside(&write(bomb, "/tmp/bomb.xml")), "/tmp/bomb.xml"),
        junit("link", outside("ln -s /etc/shadow report.xml"), "report.xml"),
        junit("pipe", outside("mkfifo report.xml"), "report.xml"),
        junit("long", outside("yes '<testsuite>' | head -c 40000000 > report.xml"), "report.xml"),
        junit("none", inside("true"), "/tmp/none.xml"),
        junit(
            "green but failed",
            inside(&(write("<t><testcase name=\"a\"/></t>", "/tmp/g.xml") + "exit 2")),
            "/tmp/g.xml",
        ),
    ];
    let run = bench.run(web(), tests).await;
    for name in ["in", "out"] {
        let wanted = [("web.page", Verdict::Passed), ("b", Verdict::Failed), ("c", Verdict::Skipped)];
        assert_eq!(of(&run.report, name), wanted, "{name}");
        assert_eq!(failure(&run.report, &format!("{name} / b")), "saw 2");
    }
    assert!(failure(&run.report, "entities").contains("document type"));
    for name in ["link", "pipe", "none"] {
        assert!(failure(&run.report, name).contains("it wrote no JUnit file"), "{name}: {:#?}", run.report);
    }
    assert!(failure(&run.report, "long").contains("longer than 16777216 bytes"));
    assert_eq!(of(&run.report, "green but failed"), [("a", Verdict::Passed), ("", Verdict::Failed)]);
    let told = format!("{:?}", run.report);
    assert!(!told.contains("root:"), "a file of the host is in the report");
}

const WEB: &str = r#"
import os
import pytest
import socket

testinfra_hosts = ["ssh://somewhere-else"]

def test_page(host):
    page = host.file("/www/index.html")
    assert page.exists and page.mode == 0o644 and page.user == "root"
    assert page.contains("It works")

def test_user(host, wanted):
    assert host.user("web").uid == wanted

@pytest.mark.parametrize("name", ["sh", "ls"])
def test_programs(host, name):
    assert host.exists(name)

def test_command(host):
    ran = host.run("echo out; echo err >&2; exit 7")
    assert (ran.rc, ran.stdout, ran.stderr) == (7, "out\n", "err\n")

def test_fails(host):
    assert host.file("/www/index.html").contains("It burns")

@pytest.mark.skip(reason="not here")
def test_skipped(host):
    pass

def test_powerless():
    assert os.getuid() >= 0x7e000000
    with pytest.raises(PermissionError):
        open("/etc/shadow")
    assert os.environ["KILN_SERVER_ADDRESS"]

def test_nobody_is_believed():
    for bad in (b"", b"{", b'{"command": 1}', b'{"command": "id", "more": 1}', b"\xff" * 2_000_000):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(os.environ["KILN_SERVER_SOCKET"])
            try:
                stream.sendall(bad)
                stream.shutdown(socket.SHUT_WR)
                assert b"refused" in stream.makefile("rb").read()
            except (BrokenPipeError, ConnectionResetError):
                assert len(bad) > 1_000_000
"#;
const CONFTEST: &str = "import pytest\n\n@pytest.fixture\ndef wanted():\n    return 33\n";

#[tokio::test(flavor = "multi_thread")]
async fn root_testinfra_sees_the_server_and_every_test_is_a_result() {
    let bench = Bench::new();
    let hangs = "import time\n\ndef test_hangs(host):\n    time.sleep(1000)\n";
    let hangs_inside = "def test_hangs(host):\n    host.run('sleep 1000')\n";
    let tests = vec![
        testinfra("testinfra", LONG, &[("tests/test_web.py", WEB), ("tests/conftest.py", CONFTEST)]),
        testinfra("hangs", Duration::from_secs(4), &[("test_hangs.py", hangs)]),
        testinfra("hangs inside", Duration::from_secs(4), &[("test_hangs.py", hangs_inside)]),
        testinfra("broken", LONG, &[("test_broken.py", "def test_(:\n")]),
        testinfra("empty", LONG, &[("test_empty.py", "\n")]),
    ];
    let run = bench.run(web(), tests).await;
    let (yes, no) = (Verdict::Passed, Verdict::Failed);
    let class = "tests.test_web";
    let mut own: Vec<(String, Verdict)> = of(&run.report, "testinfra")
        .iter()
        .map(|(name, verdict)| (name.replace(&format!("{class}."), ""), *verdict))
        .collect();
    let wanted = [
        ("test_page", yes),
        ("test_user", yes),
        ("test_programs[sh]", yes),
        ("test_programs[ls]", yes),
        ("test_command", yes),
        ("test_fails", no),
        ("test_skipped", Verdict::Skipped),
        ("test_powerless", yes),
        ("test_nobody_is_believed", yes),
    ];
    let mut wanted: Vec<_> = wanted.map(|(name, verdict)| (name.to_owned(), verdict)).to_vec();
    own.sort_by(|a, b| a.0.cmp(&b.0));
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(own, wanted, "{:#?}", run.report.tests);
    for name in ["hangs", "hangs inside"] {
        assert!(failure(&run.report, name).contains("did not end within"), "{name}: {}", failure(&run.report, name));
    }
    assert!(of(&run.report, "broken").iter().any(|(_, verdict)| *verdict == no), "{:#?}", run.report);
    assert!(failure(&run.report, "empty").contains("no test case"), "{:#?}", run.report);
    assert_eq!(outcome(&run.report, "kiln/second-boot").verdict, yes, "{:#?}", run.report.tests);
}
