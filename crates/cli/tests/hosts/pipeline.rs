//! The pipeline of `examples/shop`: the commands of its file, as they stand there, on hosts of their own with a real registry between.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use crate::{
    docker::DockerRegistry,
    host::{Host, page},
};

const WORKFLOW: &str = "../../examples/shop/.github/workflows/deploy.yml";

/// The commands of each job, in order: the lines below `run: |`, by their indentation.
fn jobs(workflow: &str) -> BTreeMap<String, String> {
    let (mut jobs, mut job, mut block): (BTreeMap<String, String>, String, Option<usize>) = Default::default();
    for line in workflow.split("\njobs:\n").nth(1).expect("jobs").lines() {
        let indent = line.len() - line.trim_start().len();
        if block.is_some_and(|outer| !line.trim().is_empty() && indent <= outer) {
            block = None;
        }
        match block {
            Some(_) => *jobs.entry(job.clone()).or_default() += &format!("{}\n", line.trim()),
            None if indent == 2 && line.ends_with(':') => job = line.trim().trim_end_matches(':').to_owned(),
            None if line.trim() == "run: |" => block = Some(indent),
            None => assert!(!line.contains("run:"), "a command that is not read: {line}"),
        }
    }
    jobs
}

/// The example as it is checked out on a runner, but small: with a base that is made in a moment, and a free port.
fn checkout(host: &Host) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
    for file in ["image.toml", "fleet.toml", "fleet.staging.toml", "fleet.production.toml", "page/index.html"] {
        let text = fs::read_to_string(example.join(file)).expect("a file of the example");
        let small = text
            .replace("debian = \"bookworm\"\npackages = [\"busybox\"]", "oci = \"oci:layout:small\"")
            .replace("listen = 8085", "listen = 0");
        host.write(&format!("shop/{file}"), &small);
    }
    assert!(fs::read_to_string(host.path("shop/image.toml")).expect("read").contains("oci:layout"), "another base");
}

/// Runs a job as a runner does: in its own directory, ended by the first command that fails. What it printed.
fn run(host: &Host, commands: &str, environment: &[(&str, &str)]) -> Result<String, String> {
    let program = Path::new(env!("CARGO_BIN_EXE_kiln")).parent().expect("a directory");
    let output = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", commands])
        .current_dir(host.path("shop"))
        .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", program.display()))
        .env("KILN_STATE", host.state())
        .env("HOME", host.path(""))
        .env("GITHUB_SHA", "0123abc")
        .env("GITHUB_OUTPUT", host.path("outputs"))
        .envs(environment.iter().copied())
        .output()
        .expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{}\n{}", text(&output.stdout), text(&output.stderr))),
    }
}

/// Puts the rules of a host where they count, with another time in staging.
fn rules(host: &Host, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop").join(file);
    let text = fs::read_to_string(path).expect("rules").replace("soak = \"24h\"", "soak = \"1s\"");
    host.write("state/kiln.toml", &text);
}

#[test]
fn root_the_pipeline_brings_one_digest_to_staging_and_to_production() {
    let jobs = jobs(&fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(WORKFLOW)).expect("the workflow"));
    assert_eq!(Vec::from_iter(jobs.keys()), ["build", "production", "proven", "staging"]);
    let (registry, build, staging, production) = (DockerRegistry::start(), Host::new(), Host::new(), Host::new());
    build.project("unused\n");
    for host in [&build, &staging, &production] {
        checkout(host);
    }
    // What whoever runs the hosts does once.
    for host in [&staging, &production] {
        host.believe("ci", &build);
        host.trust("[[rule]]\nimages = [\"shop\"]\nkeys = [\"ci\"]\n");
    }
    production.believe("staging-host", &staging);
    rules(&staging, "kiln.staging.toml");
    rules(&production, "kiln.production.toml");
    let alice = build.good(&["key", "make", "alice.pem"])["pem"].as_str().expect("a key").to_owned();
    production.write("alice.pub.pem", &alice);
    production.good(&["key", "add", "alice", "alice.pub.pem"]);

    let at = format!("{}/shop:0123abc", registry.address);
    let good = |host: &Host, job: &str, environment: &[(&str, &str)]| {
        run(host, &jobs[job], environment).unwrap_or_else(|said| panic!("{job}: {said}"))
    };
    // `steps.bake.outputs.image` is known to later steps of a job only; a shell reads it where a runner would.
    let output = "eval \"$(sed -n 's/^image=/IMAGE=/p' \"$GITHUB_OUTPUT\")\"\n";
    let commands = jobs["build"].replace("kiln push", &format!("{output}kiln push"));
    run(&build, &commands, &[("AT", &at)]).unwrap_or_else(|said| panic!("build: {said}"));
    let outputs = fs::read_to_string(build.path("outputs")).expect("what the job gave");
    let image = outputs.trim().strip_prefix("image=").expect("an image");
    let environment = [("AT", at.as_str()), ("IMAGE", image)];
    let said = good(&staging, "staging", &environment);
    assert!(said.contains("launch web"), "the plan is shown: {said}");
    let early = run(&production, &jobs["production"], &environment).expect_err("nobody has approved yet");
    assert!(early.contains("0 of 2 approvals are there") && !early.contains("launch"), "{early}");
    std::thread::sleep(std::time::Duration::from_secs(1));
    good(&staging, "proven", &environment);
    // As the comment in the file says.
    let approve = "kiln pull \"$AT\"; kiln approve \"$IMAGE\" --channel production --key ../alice.pem; kiln push \"$IMAGE\" \"$AT\"";
    run(&build, approve, &environment).unwrap_or_else(|said| panic!("{said}"));
    good(&production, "production", &environment);

    // The same digest in both, with the configuration of each.
    let digest = image.trim_start_matches("shop@");
    let group = |host: &Host| host.good(&["status"])["groups"][0].clone();
    let (there, live) = (group(&staging), group(&production));
    assert_eq!((&there["image"], &live["image"]), (&digest.into(), &digest.into()));
    assert_ne!(there["config"], live["config"]);
    assert_eq!((&there["ready"], &live["ready"]), (&1.into(), &2.into()));
    for group in [&there, &live] {
        let page = page(group["endpoints"][0].as_str().expect("an endpoint"));
        assert!(page.contains("The shop is open."), "{page}");
    }
    let history = production.good(&["history", "shop"])["moves"].clone();
    assert_eq!(history[0]["reason"], "commit 0123abc", "{history}");
    assert_eq!(history[0]["evidence"]["approvals"].as_object().map(serde_json::Map::len), Some(2), "{history}");
}
