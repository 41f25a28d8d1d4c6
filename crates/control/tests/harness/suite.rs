//! Every kind of test, passing and failing, on a server that works.

use std::{collections::BTreeMap, time::Duration};

use kiln_api::Event;
use kiln_model::{
    evidence::Verdict,
    suite::{Test, TestKind, TextMatch},
};

use crate::bench::{Bench, assert_passed, failure, outcome, test, web};

fn http(path: &str, status: u16, body: &str) -> TestKind {
    TestKind::Http {
        port: 8080,
        path: path.into(),
        method: "GET".into(),
        request_headers: BTreeMap::new(),
        status,
        headers: BTreeMap::from([("content-type".into(), TextMatch::Matches("^text/html".into()))]),
        body: vec![TextMatch::Contains(body.into())],
    }
}

fn command(script: &str, exit: i32, stdout: &str) -> TestKind {
    TestKind::Command {
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        user: "web".into(),
        exit,
        stdout: vec![TextMatch::Equals(stdout.into())],
        stderr: Vec::new(),
    }
}

fn file(path: &str, exists: bool, mode: Option<u32>, content: &str) -> TestKind {
    TestKind::File {
        path: path.into(),
        exists,
        mode,
        owner: exists.then(|| "root".into()),
        size: None,
        content: if exists { vec![TextMatch::Contains(content.into())] } else { Vec::new() },
    }
}

fn tcp(port: u16, expect: &str) -> TestKind {
    let send = Some("GET / HTTP/1.0\r\n\r\n".into());
    TestKind::Tcp { port, send, expect: Some(TextMatch::Contains(expect.into())) }
}

fn process(program: &str, count: u32) -> TestKind {
    TestKind::Process { program: program.into(), user: Some("web".into()), count }
}

fn user(uid: u32) -> TestKind {
    TestKind::User { name: "web".into(), uid: Some(uid), home: Some("/www".into()), shell: Some("/bin/sh".into()) }
}

fn package(version: &str) -> TestKind {
    TestKind::Package { name: "busybox".into(), installed: true, version: Some(version.into()) }
}

fn script(content: &str) -> TestKind {
    TestKind::Script {
        file: "check.sh".into(),
        content: format!("#!/bin/sh\n{content}\n"),
        arguments: vec!["one".into()],
        secrets: Default::default(),
    }
}

/// Not root, without capabilities and without a way to get any, and alone in its directory.
const POWERLESS: &str = r#"set -e
[ "$(id -u)" -ge 2113929216 ] && ! cat /etc/shadow 2>/dev/null
grep -q '^NoNewPrivs:.1$' /proc/self/status && grep -q '^CapEff:.0*$' /proc/self/status
grep -q '^CapBnd' /proc/self/status && ! touch /etc/kiln-script-test 2>/dev/null
[ "$(env | cut -d= -f1 | grep -vxE '_|PWD|OLDPWD|SHLVL' | sort | tr '\n' ' ')" = "HOME KILN_SERVER_ADDRESS LANG PATH " ]"#;

fn good() -> Vec<Test> {
    vec![
        test("page", http("/", 200, "It works")),
        test("tcp", tcp(8080, "200 OK")),
        test("command", command("id -u; exit 3", 3, "33\n")),
        test("file", file("/www/index.html", true, Some(0o644), "<h1>")),
        test("absent", file("/nothing", false, None, "")),
        test("process", process("httpd", 1)),
        test("port", TestKind::Port { port: 8080, listening: true }),
        test("no port", TestKind::Port { port: 22, listening: false }),
        test("user", user(33)),
        test("package", package("1:1.35.0-4")),
        test("powerless", script(POWERLESS)),
        test("script", script("test \"$1\" = one && exec 3<>/dev/null && test -n \"$KILN_SERVER_ADDRESS\"")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn root_every_kind_of_test_passes_on_a_server_that_works() {
    let bench = Bench::new();
    let run = bench.run(web(), good()).await;
    assert_passed(&run.report);
    assert_eq!(run.report.tests.len(), good().len() + 8);
    let order: Vec<&str> = run.report.tests.iter().map(|test| test.name.as_str()).take(3).collect();
    assert_eq!(order, ["page", "tcp", "command"]);
    let events = bench.events.lock().unwrap();
    let ended = events.iter().filter(|event| matches!(event, Event::Test { .. })).count();
    assert_eq!(ended, run.report.tests.len(), "every test is told once");
    let report = kiln_api::report::TestReport::from(&run.report);
    println!("{}", kiln_control::harness::human(&report, run.took.as_millis() as u64));
    println!("{} tests took {:?}, ready after {:?}", run.report.tests.len(), run.took, run.ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_failure_says_what_was_expected_and_what_was_seen() {
    let bench = Bench::new();
    let tests = vec![
        test("status", http("/nothing", 200, "")),
        test("body", http("/", 200, "It burns")),
        test("tcp", tcp(8080, "500")),
        test("closed", tcp(81, "")),
        test("exit", command("echo oh >&2; exit 4", 0, "")),
        test("stdout", command("echo no", 0, "yes\n")),
        test("mode", file("/www/index.html", true, Some(0o600), "")),
        test("absent", file("/nothing", true, None, "")),
        test("process", process("nginx", 1)),
        test("port", TestKind::Port { port: 81, listening: true }),
        test("user", user(34)),
        test("package", package("2")),
        test("script", script("echo too bad; exit 7")),
    ];
    let run = bench.run(web(), tests).await;
    assert_eq!(run.report.verdict, Verdict::Failed);
    let expected = [
        ("status", "expected GET /nothing to answer status 200, saw 404"),
        ("body", "expected the body to contain \"It burns\", saw \"<h1>It works</h1>\\n\""),
        ("tcp", "expected the answer to contain \"500\", saw \"HTTP/1."),
        ("closed", "could not connect to"),
        ("exit", "to exit with 0, saw 4 and \"oh\\n\""),
        ("stdout", "expected standard output to be \"yes\\n\", saw \"no\\n\""),
        ("mode", "expected /www/index.html to have mode 0600, saw 0644"),
        ("absent", "expected /nothing to be there, but it is absent"),
        ("process", "expected at least 1 of process nginx of user web, saw 0; running: httpd"),
        ("port", "expected a listener on port 81, saw listeners on: 8080"),
        ("user", "expected user web to have uid 34, saw 33"),
        ("package", "expected package busybox to have version 2, saw 1:1.35.0-4"),
        ("script", "check.sh exited with 7; its output: \"too bad\""),
    ];
    for (name, message) in expected {
        let seen = failure(&run.report, name);
        assert!(seen.contains(message) && seen.contains("(tried for 1200ms)"), "{name}: {seen}");
        assert!(outcome(&run.report, name).took < Duration::from_millis(4000), "{name}");
    }
    // The same failures on both boots: that is the same answer.
    assert_eq!(outcome(&run.report, "kiln/second-boot").verdict, Verdict::Passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_must_not_be_in_an_image_fails_its_conformance_tests() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    let root = bench.root();
    std::fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::create_dir_all(root.join("etc/ssh")).unwrap();
    std::fs::write(root.join("etc/ssh/ssh_host_ed25519_key"), "secret").unwrap();
    std::fs::create_dir_all(root.join("var/cache/apt/archives")).unwrap();
    std::fs::write(root.join("var/cache/apt/archives/x_1_all.deb"), "x").unwrap();
    std::fs::set_permissions(root.join("www"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let run = bench.run(web(), Vec::new()).await;
    let expected = [
        ("kiln/no-machine-id", "/etc/machine-id"),
        ("kiln/no-ssh-host-keys", "/etc/ssh/ssh_host_ed25519_key"),
        ("kiln/no-world-writable-directories", "/www"),
        ("kiln/no-package-caches", "/var/cache/apt/archives/x_1_all.deb"),
    ];
    for (name, path) in expected {
        assert!(failure(&run.report, name).contains(path), "{name}");
    }
    assert_eq!(outcome(&run.report, "kiln/read-only-root").verdict, Verdict::Passed);
}

/// What it says besides its verdict.
fn proposals(bench: &Bench) -> Vec<(String, u64, String)> {
    let events = bench.events.lock().unwrap();
    let proposal = |event: &Event| match event {
        Event::Proposal { path, files, reason, .. } => Some((path.clone(), *files, reason.clone())),
        _ => None,
    };
    events.iter().filter_map(proposal).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_a_service_wrote_or_could_not_write_is_proposed_and_no_verdict_depends_on_it() {
    let quiet = Bench::new();
    let run = quiet.run(web(), good()).await;
    assert_passed(&run.report);
    assert_eq!(proposals(&quiet), []);

    let bench = Bench::new();
    let mut manifest = web();
    let script = "head -c 3000000 /dev/zero > /root/big; echo x > /root/small; head -c 2000000 /dev/zero > /tmp/big; \
                  echo x > /etc/app.conf; mkdir /www/cache; echo x > /run/web.pid; \
                  trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";
    let mut writer = crate::bench::shell(script);
    writer.readiness = None;
    manifest.services.insert("writer".parse().unwrap(), writer);
    let kind = kiln_model::manifest::WritableKind::Tmpfs { size: kiln_model::ByteSize::mib(16) };
    manifest.writable =
        vec![kiln_model::manifest::Writable { path: "/root".into(), kind, user: "root".into(), mode: 0o755 }];
    // The writer may take its time: a test waits until it has come to its end.
    let tests = vec![test("written", file("/run/web.pid", true, None, "x")), test("page", http("/", 200, "It works"))];
    let run = bench.run(manifest, tests).await;
    assert_passed(&run.report);
    let seen = proposals(&bench);
    let paths: Vec<_> = seen.iter().map(|(path, files, _)| (path.as_str(), *files)).collect();
    assert_eq!(paths, [("/root", 2), ("/tmp", 1), ("/etc", 0), ("/www", 0)], "{seen:#?}");
    assert_eq!(
        seen[0].2,
        "your services wrote 2 files, 2.9 MiB, under /root: it is lost with each server. If it is data: \"/root\" = { volume = \
         \"data\" }"
    );
    assert!(seen[2].2.starts_with("a service tried to write under /etc, where nothing can be written."), "{seen:#?}");
    let report = format!("{:?}", run.report);
    assert!(!report.contains("your services wrote"), "{report}");
}
