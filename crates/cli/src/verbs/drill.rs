//! `kiln drill`: something is destroyed on purpose, and it is measured how it comes back.

use std::time::{Duration, Instant};

use kiln_api::{
    ApiError, Client, ClientError, ErrorCode,
    recovery::{Drill, RecoveryRequest},
};
use kiln_model::fleet::Toll;

use super::{Context, loss};
use crate::{
    cli::{DrillGroup, DrillTarget},
    daemon,
    exit::Exit,
    failure::Failure,
    ui::{self, events},
};

/// A daemon that something else starts again must answer within this time.
const BACK: Duration = Duration::from_secs(60);
/// Between two questions whether it does.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) async fn run(context: &Context<'_>, target: &DrillTarget) -> Result<Exit, Failure> {
    let client = Client::new(&context.state);
    let request = match target {
        DrillTarget::Group(group) => servers(group),
        DrillTarget::Gateway => RecoveryRequest::Gateway {},
        DrillTarget::Daemon => return of_the_daemon(context, &client).await,
    };
    let stream = client.recovery(&request).await?;
    events::follow(context.ui, stream).await?.finish(context.ui)
}

fn servers(arguments: &DrillGroup) -> RecoveryRequest {
    let toll = arguments.servers.map(Toll::Servers).or(arguments.share.map(Toll::Share));
    RecoveryRequest::Group { group: arguments.group.clone(), toll, loss: loss::accepted(arguments.accept_loss) }
}

/// The daemon ends in the middle of its answer. Where verbs start daemons, this one does.
async fn of_the_daemon(context: &Context<'_>, client: &Client) -> Result<Exit, Failure> {
    let before = client.host().await?.daemon;
    let stream = client.recovery(&RecoveryRequest::Daemon {}).await?;
    match events::follow(context.ui, stream).await {
        // It says why it did not.
        Ok(ended) => return ended.finish(context.ui),
        Err(Failure::Daemon(ClientError::Ended { .. } | ClientError::Broken { .. })) => {}
        Err(error) => return Err(error),
    }
    let client = match before.revival.as_str() {
        "verbs" => daemon::ensure(&context.state, context.ui).await?,
        _ => client.clone(),
    };
    let drill = back(&client).await?;
    let exit = if drill.state == "met" { Exit::Ok } else { Exit::Failed };
    context.ui.result(&drill, || text(&drill));
    Ok(exit)
}

/// What the next daemon says of the drill.
async fn back(client: &Client) -> Result<Drill, Failure> {
    let begun = Instant::now();
    loop {
        let drill = match client.status().await {
            Ok(status) => status.drills.into_iter().find(|drill| drill.what == "daemon" && drill.state != "running"),
            Err(ClientError::NoDaemon { .. } | ClientError::Broken { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        match drill {
            Some(drill) => return Ok(drill),
            None if begun.elapsed() > BACK => {
                let message = format!("no daemon answered within {} s of the drill", BACK.as_secs());
                let help = "servers and traffic go on; what is to start it again did not: `kiln daemon`";
                return Err(Failure::Ended(ApiError::new(ErrorCode::TimedOut, message).help(help)));
            }
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A line for the drill, and one for each objective that was not met.
pub(crate) fn text(drill: &Drill) -> String {
    let mark = match drill.state.as_str() {
        "met" => ui::good(),
        "running" => "·".to_owned(),
        _ => ui::bad(),
    };
    let servers = match drill.servers.len() {
        0 => String::new(),
        1 => ", 1 server".to_owned(),
        count => format!(", {count} servers"),
    };
    let mut line = format!("{mark} drill of {}{servers}: {}", drill.target(), figures(drill));
    line.extend(drill.missed.iter().map(|missed| format!("\n    {missed}")));
    line
}

/// `ready after 31.0 ms, 0 requests failed, 0 B lost`.
pub(super) fn figures(drill: &Drill) -> String {
    if drill.state == "running" {
        return "under way".to_owned();
    }
    let ready = drill.ready.map(|ready| format!("ready after {:.1} ms", ready.as_secs_f64() * 1e3));
    let failed = drill.failed.map_or_else(|| "requests not counted".to_owned(), |n| format!("{n} requests failed"));
    let lost = drill.lost.map(|lost| format!("{} lost", kiln_model::loss::about(lost)));
    let lost = lost.unwrap_or_else(|| "what was lost is not known".to_owned());
    let lines = (drill.lines > 0).then(|| format!("{} log lines under way", drill.lines));
    let parts = [Some(ready.unwrap_or_else(|| "not ready".to_owned())), Some(failed), Some(lost), lines];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_a_drill_is_shown_with_its_figures_and_what_was_not_met() {
        let met = Drill {
            what: "group".into(),
            group: Some("web".into()),
            at: "2026-01-01T00:00:00Z".into(),
            reason: "somebody asked for it".into(),
            state: "met".into(),
            servers: vec!["web-abcdef".into()],
            ready: Some(Duration::from_micros(31_400)),
            failed: Some(0),
            lost: Some(0),
            lines: 0,
            missed: Vec::new(),
        };
        let missed = Drill {
            what: "gateway".into(),
            group: None,
            state: "missed".into(),
            servers: Vec::new(),
            failed: None,
            lost: None,
            lines: 3,
            missed: vec!["group web: 3 requests failed, at most 0 may".into()],
            ..met.clone()
        };
        let shown = |drill: &Drill| anstream::adapter::strip_str(&text(drill)).to_string();
        assert_eq!(shown(&met), "✓ drill of group web, 1 server: ready after 31.4 ms, 0 requests failed, 0 B lost");
        assert_eq!(
            shown(&missed),
            "✗ drill of the gateway: ready after 31.4 ms, requests not counted, what was lost is not known, 3 log lines \
             under way\n    group web: 3 requests failed, at most 0 may"
        );
    }
}
