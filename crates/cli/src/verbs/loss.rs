//! `kiln loss [SERVER|GROUP]`: what would be gone with servers.

use jiff::Timestamp;
use kiln_api::{
    Client,
    loss::{FileLoss, GroupLoss, LossReport, PlaceLoss, ServerLoss},
};
use kiln_model::loss::{about, counted};

use super::Context;
use crate::{
    cli::Loss,
    exit::Exit,
    failure::Failure,
    ui::{bad, dim, good},
};

pub(super) async fn run(context: &Context<'_>, arguments: &Loss) -> Result<Exit, Failure> {
    let report = Client::new(&context.state).loss(arguments.target.as_deref()).await?;
    context.ui.result(&report, || text(&report, Timestamp::now()));
    Ok(Exit::Ok)
}

/// What `--accept-loss` says.
pub(super) fn accepted(accept: bool) -> kiln_api::request::Loss {
    if accept { kiln_api::request::Loss::Accept } else { kiln_api::request::Loss::Refuse }
}

fn text(report: &LossReport, now: Timestamp) -> String {
    let servers =
        |group: &GroupLoss| group.servers.iter().flat_map(|server| self::server(group, server, now)).collect();
    let lines: Vec<String> = report.groups.iter().flat_map(|group| -> Vec<String> { servers(group) }).collect();
    if lines.is_empty() { "no server runs: nothing can be lost\n".to_owned() } else { lines.join("\n") + "\n" }
}

fn server(group: &GroupLoss, server: &ServerLoss, now: Timestamp) -> Vec<String> {
    let mark = if server.above.is_empty() { good() } else { bad() };
    let mut lines = vec![format!("{mark} {} {}", server.id, dim(&server.state))];
    let mut say = |line: String| lines.push(format!("    {line}"));
    server
        .places
        .iter()
        .filter(|place| place.files > 0 || place.at_least)
        .flat_map(|p| self::place(p, now))
        .for_each(&mut say);
    if server.files == 0 && server.unknown.is_none() {
        say("no files outside volumes".to_owned());
    }
    server.unknown.iter().for_each(|why| say(format!("what it wrote is not known: {why}")));
    say(logs(group, server));
    server.in_flight.iter().for_each(|count| say(format!("{} through the gateway", counted(*count, "request"))));
    server.connections.iter().for_each(|count| say(counted(*count, "open TCP connection")));
    server.above.iter().for_each(|above| say(format!("more than may be lost: {above}")));
    lines
}

fn logs(group: &GroupLoss, server: &ServerLoss) -> String {
    match (&group.collector, server.lines) {
        (Some(to), Some(lines)) => format!("{} that {to} has not acknowledged", counted(lines, "log line")),
        // Nobody could have them: that is no loss that a limit could stop.
        _ => "its log lines are kept on this host only, until the server is removed".to_owned(),
    }
}

fn place(place: &PlaceLoss, now: Timestamp) -> Vec<String> {
    let least = if place.at_least { "at least " } else { "" };
    let time = |at: &Option<String>| at.as_deref().map_or_else(|| "at no known time".to_owned(), |at| ago(at, now));
    let counts = if place.kind == "scratch" { ", which counts for no limit" } else { "" };
    let found = format!(
        "{least}{}, {} in {} ({}{counts})",
        counted(place.files, "file"),
        about(place.bytes),
        place.path,
        place.kind
    );
    let ages = format!("changed {} at first, {} at last", time(&place.oldest), time(&place.newest));
    let mut lines = vec![format!("{found} {}", dim(&ages))];
    if place.at_least {
        lines.push(format!("  not all was seen; its memory holds {} in all", about(place.held)));
    }
    let named = |file: &FileLoss| format!("  {:>10}  {}  {}", about(file.bytes), file.path, dim(&time(&file.changed)));
    lines.extend(place.largest.iter().map(named));
    lines
}

/// Whole seconds, minutes, hours or days.
fn ago(at: &str, now: Timestamp) -> String {
    let Ok(at) = at.parse::<Timestamp>() else { return at.to_owned() };
    let seconds = now.duration_since(at).as_secs();
    match seconds {
        ..0 => "in the future".to_owned(),
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_what_would_be_lost_is_shown() {
        let file = FileLoss {
            path: "/var/lib/app/cache".into(),
            bytes: 70 << 20,
            changed: Some("2026-01-01T00:00:00Z".into()),
        };
        let place = PlaceLoss {
            path: "/var/lib/app".into(),
            kind: "tmpfs".into(),
            files: 3,
            bytes: 80 << 20,
            held: 90 << 20,
            oldest: Some("2025-12-25T00:00:00Z".into()),
            newest: Some("2026-01-01T00:00:00Z".into()),
            largest: vec![file],
            at_least: true,
        };
        let scratch = PlaceLoss {
            kind: "scratch".into(),
            path: "/tmp".into(),
            at_least: false,
            files: 1,
            bytes: 12,
            largest: vec![],
            ..place.clone()
        };
        let busy = ServerLoss {
            id: "web-abcdef".into(),
            state: "ready".into(),
            places: vec![place, scratch],
            files: 3,
            bytes: 90 << 20,
            lines: Some(1),
            in_flight: Some(2),
            connections: Some(4),
            above: vec!["1 log line that no collector has acknowledged".into()],
            unknown: None,
        };
        let quiet = ServerLoss {
            id: "web-ghijkl".into(),
            places: vec![],
            files: 0,
            bytes: 0,
            lines: None,
            in_flight: None,
            connections: None,
            above: vec![],
            ..busy.clone()
        };
        let group = |collector: Option<&str>, server| GroupLoss {
            name: "web".into(),
            limit_logs: 0,
            limit_data: 64 << 20,
            collector: collector.map(str::to_owned),
            servers: vec![server],
        };
        let report = LossReport { groups: vec![group(Some("relp://logs:2514"), busy), group(None, quiet)] };
        let text = text(&report, "2026-01-01T00:03:00Z".parse().unwrap());
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
        assert_eq!(
            self::text(&LossReport { groups: vec![] }, Timestamp::UNIX_EPOCH),
            "no server runs: nothing can be lost\n"
        );
    }
}
