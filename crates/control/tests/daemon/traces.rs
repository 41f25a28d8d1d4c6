//! Traces of real launches, received as a collector receives them and decoded with the protocol's own definitions.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    bench::{Bench, assert_ok, until},
    child::TRACES,
    receiver::{Receiver, Reply},
};

/// Every span that came, by its id.
fn spans(receiver: &Receiver) -> BTreeMap<String, Value> {
    let bodies = receiver.came().into_iter().map(|came| serde_json::from_str::<Value>(&came.body).unwrap());
    let spans = bodies.flat_map(|body| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone());
    spans.map(|span| (text(&span, "spanId"), span)).collect()
}

fn text(span: &Value, key: &str) -> String {
    span[key].as_str().unwrap_or_default().to_owned()
}

fn time(span: &Value, key: &str) -> u64 {
    text(span, key).parse().unwrap()
}

fn took(span: &Value) -> u64 {
    time(span, "endTimeUnixNano") - time(span, "startTimeUnixNano")
}

/// How many spans a receiver with the protocol's definitions sees.
fn decoded(receiver: &Receiver) -> usize {
    let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let mut python = Command::new("/usr/bin/python3");
    python.arg(definitions.join("check.py")).arg(&definitions).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.spawn().unwrap();
    let mut bodies = python.stdin.take().unwrap();
    receiver.came().iter().for_each(|came| writeln!(bodies, "{}", came.body).unwrap());
    drop(bodies);
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "the receiver of OTLP refused a body: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_rollout_is_seen_by_a_collector_as_one_trace_down_to_the_steps_of_each_launch() {
    let receiver = Receiver::new(Reply::new("200 OK"));
    let mut bench = Bench::new().await;
    fs::write(bench.directory.path().join(TRACES), &receiver.url).unwrap();
    bench.kill_and_restart().await;
    let image = bench.image("one", "hello", |_, _| ());
    assert_ok(&bench.test(image).await.0);
    assert_ok(&bench.apply(image).await.0);
    let root = || spans(&receiver).into_values().find(|span| span["name"] == "rollout");
    until("the trace has come", async || root().is_some()).await;
    let (root, spans) = (root().unwrap(), spans(&receiver));
    for span in spans.values().filter(|span| span["spanId"] != root["spanId"]) {
        assert_eq!(span["traceId"], root["traceId"], "{span:#}");
        let parent = spans.get(&text(span, "parentSpanId")).unwrap_or_else(|| panic!("no parent: {span:#}"));
        let inside = time(parent, "startTimeUnixNano") <= time(span, "startTimeUnixNano")
            && time(span, "endTimeUnixNano") <= time(parent, "endTimeUnixNano");
        assert!(inside, "{span:#} is not inside {parent:#}");
    }
    let below = |id: &Value| {
        let mut found: Vec<&Value> = spans.values().filter(|span| span["parentSpanId"] == *id).collect();
        found.sort_by_key(|span| (time(span, "startTimeUnixNano"), time(span, "endTimeUnixNano")));
        found
    };
    let launches: Vec<&Value> = spans.values().filter(|span| span["name"] == "launch").collect();
    assert_eq!(launches.len(), 3);
    for launch in launches {
        let parts = below(&launch["spanId"]);
        assert_eq!(parts.iter().map(|part| &part["name"]).collect::<Vec<_>>(), ["queue", "start", "readiness"]);
        assert_eq!(parts.iter().map(|part| took(part)).sum::<u64>(), took(launch), "the parts add up to the launch");
        let steps = below(&parts[1]["spanId"]);
        let names: Vec<&str> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
        for name in ["berth", "record", "limits", "root", "network", "files", "pid-1", "record-again"] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
        let sum: u64 = steps.iter().map(|step| took(step)).sum();
        assert!(sum <= took(parts[1]) && sum * 2 > took(parts[1]), "{sum} ns of {} are explained", took(parts[1]));
    }
    assert_eq!(decoded(&receiver), spans.len());
    receiver.answers(Reply::new("400 Bad Request"));
    let two = bench.image("two", "hello again", |_, _| ());
    assert_ok(&bench.test(two).await.0);
    assert_ok(&bench.apply(two).await.0);
    let log = || fs::read_to_string(bench.directory.path().join("state/daemon.log")).unwrap();
    until("it is said", async || log().contains("does not take spans")).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(log().matches("does not take spans").count(), 1, "it is said once");
    bench.purge().await;
}
