//! goss files, beside the real goss on a server of the same image: every result is the same.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_model::{
    ImageManifest,
    evidence::Verdict,
    goss::{Sources, Vars},
    manifest::Service,
    suite::{Test, TestKind},
};

use crate::{
    bench::{Bench, failure, outcome, shell, web},
    certificates,
};

const ALL: &str = include_str!("goss/all.yaml");
const MORE: &str = include_str!("goss/more.yaml");
const NAMES: &str = include_str!("goss/names.pl");
const TLS: &str = include_str!("goss/tls.yaml");
const PROXY: &str = include_str!("goss/proxy.pl");
const VARS: &str = "color: red\n";

/// Debian 13's goss, which `cargo xtask test` fetches.
fn real() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/goss");
    assert!(path.exists(), "{} is not there: `cargo xtask test` fetches it", path.display());
    path
}

fn sources(files: &[(&str, &str)]) -> Sources {
    Sources {
        file: files[0].0.to_owned(),
        files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect(),
        vars: Some(Vars { file: "vars.yaml".into(), text: VARS.into() }),
        environment: BTreeMap::from([("OS".into(), "busybox".into())]),
    }
}

fn goss(name: &str, within: Duration, files: &[(&str, &str)]) -> Test {
    Test { name: name.to_owned(), within, kind: TestKind::Goss(sources(files)) }
}

fn manifest() -> ImageManifest {
    let mut manifest = web();
    let mut names = shell("exec /bin/perl /etc/names.pl");
    names.user = "root".into();
    manifest.services.insert("names".parse().unwrap(), names);
    manifest
}

fn bench() -> Bench {
    let bench = Bench::new();
    let root = bench.root();
    bench.program(&real(), "/bin/goss");
    bench.program(Path::new("/usr/bin/dpkg-query"), "/bin/dpkg-query");
    bench.program(Path::new("/usr/bin/perl"), "/bin/perl");
    for (path, text) in [
        ("etc/goss/all.yaml", ALL),
        ("etc/goss/more/more.yaml", MORE),
        ("etc/goss/vars.yaml", VARS),
        ("etc/names.pl", NAMES),
        ("www/sub/index.html", "deep\n"),
    ] {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::os::unix::fs::symlink(".", root.join("etc/link")).unwrap();
    bench
}

/// What the real goss says of a file in /etc/goss, by its own names.
async fn said_by_goss(bench: &Bench, manifest: ImageManifest, file: &str) -> BTreeMap<String, String> {
    let command =
        format!("sleep 1; cd /etc/goss && OS=busybox exec goss -g {file} --vars vars.yaml validate --format json");
    let ran = bench.inside(manifest, &["/bin/sh", "-c", &command]).await;
    let text = String::from_utf8_lossy(&ran.stdout);
    let json: serde_json::Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text} {}", String::from_utf8_lossy(&ran.stderr)));
    let result = |result: &serde_json::Value| {
        let field = |name: &str| result[name].as_str().unwrap_or_else(|| panic!("{name} of {result}")).to_owned();
        let verdict = ["passed", "failed", "skipped"][result["result"].as_u64().unwrap() as usize];
        (format!("{}: {}: {}", field("resource-type"), field("resource-id"), field("property")), verdict.to_owned())
    };
    json["results"].as_array().unwrap().iter().map(result).collect()
}

/// Every result of these files is the one that goss has. So many passed, failed, and were skipped.
async fn same_as_goss(bench: &Bench, manifest: ImageManifest, files: &[(&str, &str)]) -> [usize; 3] {
    let real = said_by_goss(bench, manifest.clone(), files[0].0).await;
    let run = bench.run(manifest, vec![goss("goss", Duration::from_secs(2), files)]).await;
    let ours: BTreeMap<String, (String, String)> = run
        .report
        .tests
        .iter()
        .filter_map(|test| {
            let own = test.name.strip_prefix("goss / ")?;
            let verdict = match test.verdict {
                Verdict::Passed => "passed",
                Verdict::Failed => "failed",
                Verdict::Skipped => "skipped",
            };
            Some((own.to_owned(), (verdict.to_owned(), test.message.clone().unwrap_or_default())))
        })
        .collect();
    let mut differences = Vec::new();
    for name in real.keys().chain(ours.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (theirs, own) = (real.get(name), ours.get(name));
        if theirs != own.map(|(verdict, _)| verdict) {
            differences.push(format!("{name}: goss {theirs:?}, Kiln {own:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    ["passed", "failed", "skipped"].map(|verdict| real.values().filter(|seen| *seen == verdict).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn root_every_result_is_the_one_that_goss_has() {
    let files = [("all.yaml", ALL), ("more/more.yaml", MORE)];
    let [passed, failed, skipped] = same_as_goss(&bench(), manifest(), &files).await;
    assert!(passed > 100 && failed > 30 && skipped > 10, "{passed} {failed} {skipped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_encrypted_and_proxied_requests_have_the_results_that_goss_has() {
    let bench = bench();
    bench.program(Path::new("/usr/bin/openssl"), "/bin/openssl");
    let tls = bench.root().join("etc/tls");
    std::fs::create_dir_all(&tls).unwrap();
    certificates::make(&tls, "web");
    certificates::make(&tls, "other");
    std::fs::write(bench.root().join("etc/goss/tls.yaml"), TLS).unwrap();
    std::fs::write(bench.root().join("etc/proxy.pl"), PROXY).unwrap();
    let mut manifest = web();
    let serve = |port: u16, more: &str| {
        format!(
            "cd /www && OPENSSL_CONF=/dev/null exec openssl s_server -accept {port} -WWW -quiet \
             -cert /etc/tls/web.pem -key /etc/tls/web.key {more}"
        )
    };
    for (name, script) in [
        ("tls", serve(8443, "")),
        ("clients", serve(8444, "-CAfile /etc/tls/web-ca.pem -Verify 1 -verify_return_error")),
        ("proxy", "exec /bin/perl /etc/proxy.pl".to_owned()),
    ] {
        let service = Service { user: "root".into(), ..shell(&script) };
        manifest.services.insert(name.parse().unwrap(), service);
    }
    let counts = same_as_goss(&bench, manifest, &[("tls.yaml", TLS)]).await;
    assert!(counts[0] >= 9 && counts[1] >= 7, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_check_that_fails_says_what_was_seen_and_a_skipped_one_fails_nothing() {
    let bench = Bench::new();
    let text = "file:\n  /www/index.html:\n    title: the page\n    exists: true\n    mode: '0600'\n    contents: [burns, works]\n\
                service:\n  main: {enabled: true, running: true}\nport:\n  tcp:99: {listening: true, skip: true}\n\
                command:\n  late: {exec: 'test -e /tmp/late || { sleep 0.2; touch /tmp/late; exit 1; }', exit-status: 0}\n";
    let run = bench.run(web(), vec![goss("g", Duration::from_millis(1200), &[("goss.yaml", text)])]).await;
    let seen = failure(&run.report, "g / File: /www/index.html: mode");
    assert_eq!(seen, "the page: expected mode to be \"0600\", saw \"0644\"");
    let seen = failure(&run.report, "g / File: /www/index.html: contents");
    assert!(seen.contains("to have the patterns burns, saw") && seen.contains("It works"), "{seen}");
    for name in ["Service: main: enabled", "Service: main: running", "Command: late: exit-status"] {
        assert_eq!(outcome(&run.report, &format!("g / {name}")).verdict, Verdict::Passed, "{name}");
    }
    assert_eq!(outcome(&run.report, "g / Port: tcp:99: listening").verdict, Verdict::Skipped);
    assert_eq!(outcome(&run.report, "kiln/second-boot").verdict, Verdict::Passed);
    let good = "port:\n  tcp:99: {listening: true, skip: true}\n";
    let run = bench.run(web(), vec![goss("g", Duration::from_millis(1200), &[("goss.yaml", good)])]).await;
    assert_eq!(run.report.verdict, Verdict::Passed, "{:#?}", run.report.tests);
}

/// Fifty resources that hold on a server with busybox and a web server.
fn fifty() -> String {
    let mut text = String::from("file:\n");
    for applet in ["ls", "cat", "cp", "mv", "rm", "ln", "id", "ps", "grep", "sed", "awk", "tar", "gzip", "find", "sort"]
    {
        text.push_str(&format!("  /bin/{applet}: {{exists: true, filetype: symlink, linked-to: busybox}}\n"));
    }
    text.push_str("  /etc/passwd: {exists: true, mode: '0644', owner: root, contents: ['web:x:33', '!nobody']}\n");
    text.push_str("  /www/index.html: {exists: true, contents: [works]}\n");
    text.push_str("package:\n  busybox: {installed: true, versions: ['1:1.35.0-4']}\n");
    (0..4).for_each(|n| text.push_str(&format!("  absent{n}: {{installed: false}}\n")));
    text.push_str("user:\n  web: {exists: true, uid: 33, groups: [web], home: /www}\n  root: {exists: true, uid: 0}\n");
    text.push_str("group:\n  web: {exists: true, gid: 33}\n  root: {exists: true, gid: 0}\n");
    text.push_str("port:\n  tcp6:8080: {listening: true}\n");
    (81..86).for_each(|port| text.push_str(&format!("  tcp:{port}: {{listening: false}}\n")));
    text.push_str("process:\n  httpd: {running: true}\n  nginx: {running: false}\n");
    text.push_str("command:\n");
    (0..6).for_each(|n| text.push_str(&format!("  echo {n}: {{exit-status: 0, stdout: ['{n}']}}\n")));
    text.push_str("kernel-param:\n  kernel.ostype: {value: Linux}\n  net.ipv4.ip_forward: {value: {le: 1}}\n");
    text.push_str("mount:\n  /proc: {exists: true, filesystem: proc}\n  /tmp: {exists: true, filesystem: tmpfs}\n");
    text.push_str("interface:\n  lo: {exists: true, mtu: 65536}\n");
    text.push_str("addr:\n  tcp://127.0.0.1:8080: {reachable: true}\n  tcp://127.0.0.1:81: {reachable: false}\n");
    text.push_str(
        "http:\n  http://127.0.0.1:8080/: {status: 200, body: [works]}\n  http://127.0.0.1:8080/no: {status: 404}\n",
    );
    text.push_str("matching:\n  same: {content: a, matches: a}\n");
    text
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark: `cargo xtask bench goss`"]
async fn perf_fifty_resources() {
    const ROUNDS: usize = 15;
    let bench = bench();
    let text = fifty();
    std::fs::write(bench.root().join("etc/goss/fifty.yaml"), &text).unwrap();
    let test = || vec![goss("goss", Duration::from_secs(10), &[("fifty.yaml", &text)])];
    assert_eq!(sources(&[("fifty.yaml", &text)]).read().unwrap().len(), 50);
    let command = ["goss", "-g", "/etc/goss/fifty.yaml", "validate", "--format", "silent"];
    let theirs = bench.times(manifest(), &command, ROUNDS).await;
    let mut ours = Vec::new();
    for _ in 0..ROUNDS {
        ours.push(bench.time_of_tests(manifest(), test()).await);
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1000.0
    };
    println!("PERF kiln_ms {:.3} goss_ms {:.3}", median(ours), median(theirs));
}
