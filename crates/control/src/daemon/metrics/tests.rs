use std::collections::BTreeSet;

use super::*;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

fn server(state: &str, release: &str, ready_ms: Option<u64>) -> Event {
    Event::Server {
        group: "web".into(),
        server: "web-1".into(),
        state: state.into(),
        release: release.into(),
        address: None,
        ready: ready_ms.map(Duration::from_millis),
        reason: None,
        drill: false,
        spare: false,
    }
}

fn rollout(state: &str, desired: u32) -> Event {
    let (group, state) = ("web".into(), state.into());
    Event::Rollout { group, state, from: None, to: "sha256:1".into(), updated: 0, desired, reason: String::new() }
}

fn lines(metrics: &Metrics) -> Vec<String> {
    let text = page(metrics, &Status { groups: Vec::new(), drills: Vec::new() }, None, &[]);
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn has(metrics: &Metrics, line: &str) {
    let lines = lines(metrics);
    assert!(lines.iter().any(|seen| seen == line), "{line} is not in {lines:#?}");
}

#[test]
fn unit_what_happens_is_counted_and_timed() {
    let metrics = Metrics::default();
    metrics.note(&rollout("running", 3), at(0));
    metrics.note(&server("starting", "sha256:abc", None), at(1));
    metrics.note(&server("ready", "sha256:abc", Some(4)), at(5));
    metrics.note(&rollout("done", 3), at(80));
    has(&metrics, r#"kiln_launches_total{group="web"} 1"#);
    has(&metrics, r#"kiln_ready_seconds_bucket{group="web",release="abc",le="0.002"} 0"#);
    has(&metrics, r#"kiln_ready_seconds_bucket{group="web",release="abc",le="0.005"} 1"#);
    has(&metrics, r#"kiln_ready_seconds_bucket{group="web",release="abc",le="+Inf"} 1"#);
    has(&metrics, r#"kiln_ready_seconds_sum{group="web",release="abc"} 0.004"#);
    has(&metrics, r#"kiln_rollouts_total{group="web",result="done"} 1"#);
    has(&metrics, r#"kiln_rollout_seconds_sum{group="web"} 0.08"#);
    metrics.note(&server("failed", "sha256:abc", None), at(1000));
    metrics.note(&server("ready", "sha256:abc", Some(4)), at(1030));
    has(&metrics, r#"kiln_failures_total{group="web"} 1"#);
    has(&metrics, r#"kiln_heal_seconds_sum{group="web"} 0.03"#);
    metrics.note(&rollout("running", 5), at(2000));
    has(&metrics, r#"kiln_scalings_total{group="web",direction="out"} 1"#);
    metrics.note(&server("failed", "sha256:abc", None), at(2001));
    metrics.note(&server("ready", "sha256:abc", Some(4)), at(2002));
    has(&metrics, r#"kiln_heal_seconds_count{group="web"} 1"#);
}

#[test]
fn unit_drills_are_counted_apart_from_failures() {
    let metrics = Metrics::default();
    let killed = |server: Event| match server {
        Event::Server { group, server, state, release, address, ready, reason, spare, .. } => {
            Event::Server { group, server, state, release, address, ready, reason, drill: true, spare }
        }
        other => other,
    };
    let drill = |state: &str, what: &str, group: Option<&str>| Event::Drill {
        drill: Box::new(Drill {
            what: what.into(),
            group: group.map(str::to_owned),
            at: String::new(),
            reason: String::new(),
            state: state.into(),
            servers: Vec::new(),
            ready: (state != "running").then_some(Duration::from_millis(30)),
            failed: Some(0),
            lost: Some(0),
            lines: 0,
            missed: Vec::new(),
        }),
    };
    metrics.note(&drill("running", "group", Some("web")), at(0));
    metrics.note(&killed(server("failed", "sha256:abc", None)), at(1));
    metrics.note(&server("ready", "sha256:abc", Some(4)), at(30));
    metrics.note(&drill("met", "group", Some("web")), at(30));
    metrics.note(&drill("missed", "gateway", None), at(40));
    has(&metrics, r#"kiln_drilled_servers_total{group="web"} 1"#);
    has(&metrics, r#"kiln_drills_total{target="web",result="met"} 1"#);
    has(&metrics, r#"kiln_drills_total{target="(gateway)",result="missed"} 1"#);
    has(&metrics, r#"kiln_drill_ready_seconds_sum{target="web"} 0.03"#);
    let lines = lines(&metrics);
    let counted = |name: &str| lines.iter().any(|line| line.starts_with(name));
    assert!(!counted("kiln_failures_total") && !counted("kiln_heal_seconds_count"), "{lines:#?}");
}

#[test]
fn unit_the_page_does_not_grow_with_every_release() {
    let metrics = Metrics::default();
    (0..RELEASES * 3).for_each(|n| metrics.note(&server("ready", &format!("sha256:{n}"), Some(1)), at(0)));
    let counts = lines(&metrics).iter().filter(|line| line.starts_with("kiln_ready_seconds_count")).count();
    assert_eq!(counts, RELEASES);
}

#[test]
fn unit_names_cannot_break_out_of_their_quotes() {
    assert_eq!(escaped("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
}

/// Names of metrics in a text: `kiln_` and what follows, without what a histogram adds to them.
fn names(text: &str) -> BTreeSet<String> {
    let ends = |c: char| !c.is_ascii_lowercase() && c != '_';
    let found = text.match_indices("kiln_").map(|(at, _)| text[at..].split(ends).next().unwrap_or_default());
    let plain = |name: &str| {
        let added = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        added.unwrap_or(name).to_owned()
    };
    found.map(plain).collect()
}

#[test]
fn unit_the_dashboard_and_its_page_in_the_docs_know_the_metrics_that_there_are() {
    let page = page(&Metrics::default(), &Status { groups: Vec::new(), drills: Vec::new() }, None, &[]);
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let there: BTreeSet<String> = families.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
    let drawn = names(include_str!("../../../../../docs/grafana/kiln.json"));
    let missing: Vec<_> = drawn.difference(&there).collect();
    assert!(missing.is_empty(), "the dashboard draws what is not there: {missing:?}");
    let but: Vec<_> = there.difference(&drawn).filter(|name| *name != "kiln_info").collect();
    assert!(but.is_empty(), "the dashboard draws all but {but:?}");
    let described = names(include_str!("../../../../../docs/observing.md"));
    assert_eq!(described.intersection(&there).count(), there.len(), "{described:?}");
}

#[test]
fn unit_spares_are_counted_apart() {
    let metrics = Metrics::default();
    let ended = match server("failed", "sha256:1", None) {
        Event::Server { group, server, state, release, address, ready, reason, drill, .. } => {
            Event::Server { group, server, state, release, address, ready, reason, drill, spare: true }
        }
        other => other,
    };
    metrics.note(&ended, at(0));
    assert!(!lines(&metrics).iter().any(|line| line.starts_with("kiln_failures_total")));
}
