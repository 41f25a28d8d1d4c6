//! The status for people.

use kiln_api::{
    recovery::Drill,
    status::{
        GroupStatus, LiveStatus, LogsStatus, RefusedStatus, RolloutStatus, ScalingStatus, ServerStatus, SharedStatus,
        SourcesStatus, SparesStatus, Status,
    },
    volume::VolumeStatus,
};

use crate::ui::{self, table};

/// Every group with its servers.
pub(super) fn render(status: &Status) -> String {
    if status.groups.is_empty() {
        return "nothing runs; `kiln up DIR` starts something\n".to_owned();
    }
    let groups = status.groups.iter().map(group).collect::<Vec<_>>().join("\n");
    let drills: String = status.drills.iter().map(drill).collect();
    groups + if drills.is_empty() { "" } else { "\n" } + &drills
}

/// The last drill: when, what, the figures, and what was not met.
fn drill(drill: &Drill) -> String {
    let text = super::super::drill::text(drill).replace('\n', "\n  ");
    format!("  {text} {}\n", ui::dim(&drill.at))
}

fn group(group: &GroupStatus) -> String {
    let ready = format!("{}/{} ready", group.ready, group.desired);
    let mark = if group.ready >= group.desired { ui::good() } else { ui::bad() };
    let mut text = format!(
        "{mark} {}  {ready}  release {}  image {}  {}\n",
        ui::strong(&group.name),
        ui::short(&group.release),
        ui::short(&group.image),
        group.endpoints.join(" "),
    );
    text.extend(group.rollout.as_ref().map(rollout));
    text.extend(group.spares.as_ref().map(spares));
    text.extend(group.live.as_ref().map(live));
    text.extend(group.scaling.as_ref().map(scaling));
    text.extend(group.logs.as_ref().map(logs));
    text.extend(group.shared.iter().map(shared));
    text.extend(group.healing.as_ref().map(|healing| format!("  {}\n", healing.reason)));
    text.extend(group.drill.as_ref().map(drill));
    text.extend(group.sources.as_ref().map(sources));
    text.extend(group.refused.iter().map(refused));
    text.extend(volumes(&group.volumes));
    if !group.servers.is_empty() {
        let lines: Vec<_> = group.servers.iter().map(server).collect();
        let servers = table::render(&["SERVER", "STATE", "RELEASE", "ADDRESS", "PID", "READY AFTER", ""], &lines);
        text.extend(servers.lines().map(|line| format!("  {line}\n")));
    }
    text
}

fn volumes(volumes: &[VolumeStatus]) -> Option<String> {
    let lines: Vec<_> = volumes.iter().map(super::super::volume::line).collect();
    (!lines.is_empty()).then(|| {
        let table = table::render(&super::super::volume::HEADING, &lines);
        table.lines().map(|line| format!("  {line}\n")).collect()
    })
}

fn spares(spares: &SparesStatus) -> String {
    let SparesStatus { wanted, held, ready } = spares;
    let ready = if *ready > 0 { format!(", {ready} ready") } else { String::new() };
    format!("  spares {held} of {wanted}{ready}\n")
}

fn scaling(scaling: &ScalingStatus) -> String {
    let ScalingStatus { min, max, reason, .. } = scaling;
    format!("  from {min} to {max} servers: {reason}\n")
}

fn rollout(rollout: &RolloutStatus) -> String {
    let from = rollout.from.as_deref().map_or_else(|| "nothing".to_owned(), |release| ui::short(release).to_owned());
    let (to, updated) = (ui::short(&rollout.to), rollout.updated);
    format!("  rollout {}: {from} → {to}, {updated} updated: {}\n", rollout.state, rollout.reason)
}

/// A line for the group, and one for each source that is not as it should be.
fn sources(sources: &SourcesStatus) -> String {
    let mut text = format!("  sources {} (on change: {}): {}\n", sources.state, sources.on_change, sources.reason);
    for value in sources.values.iter().filter(|value| value.state != "fresh") {
        let reason = value.reason.as_deref().unwrap_or(&value.source);
        text += &format!("    {} {} since {}: {reason}\n", value.key, value.state, value.since);
    }
    text
}

fn live(live: &LiveStatus) -> String {
    let set = if live.set == 0 { String::new() } else { format!(", {} of them set by hand", live.set) };
    format!("  {} live keys{set}, version {}\n", live.keys, live.version)
}

/// Where its log lines go, and what is not as it should be with them.
fn logs(logs: &LogsStatus) -> String {
    let LogsStatus { to, away, since, waiting, lost, .. } = logs;
    let away = away.as_ref().zip(since.as_ref()).map(|(reason, since)| format!(", away since {since}: {reason}"));
    let waiting = (*waiting > 0).then(|| format!(", {waiting} lines wait"));
    let lost = (*lost > 0).then(|| format!(", {lost} lines lost"));
    format!("  logs to {to}{}{}{}\n", away.unwrap_or_default(), waiting.unwrap_or_default(), lost.unwrap_or_default())
}

/// A directory on another machine, and why it cannot be used.
fn shared(shared: &SharedStatus) -> String {
    let SharedStatus { name, place, away, since } = shared;
    let away = away.as_ref().zip(since.as_ref());
    let away = away.map(|(reason, since)| format!(", away since {since}, so no server is ready: {reason}"));
    format!("  shared {name}: {place}{}\n", away.unwrap_or_default())
}

fn refused(refused: &RefusedStatus) -> String {
    let (release, servers) = (ui::short(&refused.release), refused.servers.join(", "));
    let running = if servers.is_empty() { String::new() } else { format!("\n    running on: {servers}") };
    format!(
        "  {} release {release} can not be launched ({}): {}{running}\n",
        ui::careful(),
        refused.code,
        refused.reason
    )
}

fn server(server: &ServerStatus) -> Vec<String> {
    let none = || "-".to_owned();
    vec![
        server.id.clone(),
        server.state.clone(),
        ui::short(&server.release).to_owned(),
        server.address.clone().unwrap_or_else(none),
        server.pid.map_or_else(none, |pid| pid.to_string()),
        server.ready.map_or_else(none, |after| ui::seconds(after.as_secs_f64())),
        match &server.reason {
            Some(reason) => reason.clone(),
            None if server.touched => "touched".to_owned(),
            None => String::new(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kiln_api::status::{HealingStatus, SourceStatus};

    use super::*;

    #[test]
    fn unit_a_group_in_the_middle_of_a_rollout() {
        let release = |c: char| format!("sha256:{}", c.to_string().repeat(64));
        let server = |id: &str, state: &str, ready: Option<Duration>| ServerStatus {
            slot: None,
            spare: false,
            id: id.into(),
            state: state.into(),
            release: release('b'),
            image: release('a'),
            address: Some("10.75.0.2".into()),
            pid: Some(4711),
            started_at: Some("2026-01-01T00:00:00Z".into()),
            ready,
            touched: ready.is_some(),
            reason: None,
        };
        let source = |key: &str, state: &str, reason: Option<&str>| SourceStatus {
            key: key.into(),
            source: "zookeeper zk1:2181 for /app".into(),
            state: state.into(),
            since: "2026-01-01T00:00:00Z".into(),
            reason: reason.map(str::to_owned),
        };
        let gateway = Drill {
            what: "gateway".into(),
            group: None,
            at: "2026-11-27T13:00:00Z".into(),
            reason: "somebody asked for it".into(),
            state: "met".into(),
            servers: Vec::new(),
            ready: Some(Duration::from_micros(41_300)),
            failed: Some(0),
            lost: Some(0),
            lines: 0,
            missed: Vec::new(),
        };
        let status = Status {
            drills: vec![gateway],
            groups: vec![GroupStatus {
                logs: Some(LogsStatus {
                    to: "relp://logs.example.org:2514".into(),
                    away: Some("Connection refused".into()),
                    since: Some("2026-01-01T00:00:00Z".into()),
                    sent: 10,
                    acknowledged: 9,
                    lost: 3,
                    waiting: 120,
                }),
                volumes: Vec::new(),
                shared: vec![SharedStatus {
                    name: "uploads".into(),
                    place: "nfs nas:/srv/uploads".into(),
                    away: Some("the NFS server of nas:/srv/uploads does not answer".into()),
                    since: Some("2026-11-02T10:00:00Z".into()),
                }],
                name: "web".into(),
                image: release('a'),
                config: release('c'),
                release: release('b'),
                desired: 2,
                ready: 1,
                rollout: Some(RolloutStatus {
                    from: None,
                    to: release('b'),
                    state: "running".into(),
                    reason: "the first release of the group".into(),
                    updated: 1,
                }),
                endpoints: vec!["http://127.0.0.1:8080".into()],
                spares: Some(SparesStatus { wanted: 2, held: 1, ready: 1 }),
                live: Some(LiveStatus { version: 3, keys: 2, set: 1 }),
                scaling: Some(ScalingStatus {
                    min: 2,
                    max: 20,
                    target: "200 requests/s".into(),
                    reason: "812.0 requests/s, of which each server is to carry 200; the number is right".into(),
                }),
                healing: Some(HealingStatus {
                    down: 9,
                    limit: 5,
                    waiting: 4,
                    until: "2026-11-27T12:10:00Z".into(),
                    reason: "healing has stopped: servers went down 9 times within 10m, 5 are healed; 4 of 20 are missing until 2026-11-27T12:10:00Z, or until somebody has looked and says `kiln heal web`".into(),
                }),
                drill: Some(Drill {
                    what: "group".into(),
                    group: Some("web".into()),
                    at: "2026-11-27T12:00:00Z".into(),
                    reason: "group web asks for one every 1d".into(),
                    state: "missed".into(),
                    servers: vec!["web-old".into()],
                    ready: Some(Duration::from_micros(231_400)),
                    failed: Some(0),
                    lost: Some(4096),
                    lines: 0,
                    missed: vec!["ready after 231.4 ms, 200ms are wanted".into()],
                }),
                sources: Some(SourcesStatus {
                    on_change: "rollout".into(),
                    state: "waiting".into(),
                    reason: "1 of 2 sources give no good value; what runs goes on".into(),
                    config: None,
                    values: vec![
                        source("greeting", "fresh", None),
                        source("limit", "away", Some("zookeeper zk1:2181: no server can be reached (refused)")),
                    ],
                }),
                servers: vec![
                    server("web-one", "ready", Some(Duration::from_micros(9120))),
                    server("web-two", "starting", None),
                ],
                refused: vec![RefusedStatus {
                    release: release('b'),
                    code: "revoked-key".into(),
                    reason: "the report is by key `ci`, which was revoked".into(),
                    servers: vec!["web-one".into(), "web-two".into()],
                }],
            }],
        };
        let text = anstream::adapter::strip_str(&render(&status)).to_string();
        insta::assert_snapshot!(text);
    }
}
