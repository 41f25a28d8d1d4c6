//! `kiln logs`: what the services of a server or a group wrote.

mod spool;

use std::{collections::BTreeMap, time::Duration};

use kiln_api::{Client, host::ServerDetails};
use kiln_boot::spool::Stream;
use serde_json::json;

use self::spool::{Line, Spool};
use super::Context;
use crate::{cli::Logs, exit::Exit, failure::Failure, ui};

/// Pause between two looks at the files when following.
const PAUSE: Duration = Duration::from_millis(100);
/// New servers of a group are looked for after so many pauses.
const LOOK: u32 = 10;

pub(super) async fn run(context: &Context<'_>, arguments: &Logs) -> Result<Exit, Failure> {
    let client = Client::new(&context.state);
    let mut spools = BTreeMap::new();
    find(&client, &arguments.target, &mut spools).await?;
    show(context, arguments, &mut spools)?;
    if !arguments.follow {
        return Ok(Exit::Ok);
    }
    // Until the caller has seen enough and interrupts.
    for round in 1_u32.. {
        tokio::time::sleep(PAUSE).await;
        if round % LOOK == 0 {
            find(&client, &arguments.target, &mut spools).await?;
        }
        show(context, arguments, &mut spools)?;
    }
    Ok(Exit::Ok)
}

/// The spools of the servers that are meant; those known already stay as far as they were read.
async fn find(client: &Client, target: &str, spools: &mut BTreeMap<String, Spool>) -> Result<(), Failure> {
    let status = client.status().await?;
    let group = status.groups.iter().find(|group| group.name == target);
    let servers = status.groups.iter().flat_map(|group| &group.servers);
    let wanted: Vec<_> = match group {
        Some(group) => group.servers.iter().map(|server| server.id.clone()).collect(),
        None => servers.filter(|server| server.id == target).map(|server| server.id.clone()).collect(),
    };
    if wanted.is_empty() && group.is_none() && spools.is_empty() {
        return Err(Failure::Unknown { kind: "server or group", name: target.to_owned() });
    }
    for id in wanted.into_iter().filter(|id| !spools.contains_key(id)).collect::<Vec<_>>() {
        let Ok(server) = id.parse() else { continue };
        let details: ServerDetails = client.server(&server).await?;
        spools.insert(id, Spool::new(details.log));
    }
    Ok(())
}

/// Shows what is new, in the order of time.
fn show(context: &Context<'_>, arguments: &Logs, spools: &mut BTreeMap<String, Spool>) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for (server, spool) in spools.iter_mut() {
        lines.extend(spool.read()?.into_iter().map(|line| (server.clone(), line)));
    }
    lines.sort_by_key(|(_, line)| (line.nanos, line.sequence));
    let wanted = |line: &Line| arguments.service.as_ref().is_none_or(|service| *service == line.service);
    lines.iter().filter(|(_, line)| wanted(line)).for_each(|(server, line)| print(context, server, line));
    Ok(())
}

fn print(context: &Context<'_>, server: &str, line: &Line) {
    let stream = match line.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::Init => "init",
    };
    let text = String::from_utf8_lossy(&line.bytes);
    if context.ui.json() {
        let time = jiff::Timestamp::from_nanosecond(line.nanos.into()).map(|time| time.to_string()).ok();
        let service = &line.service;
        return context
            .ui
            .line(&json!({ "server": server, "service": service, "stream": stream, "time": time, "text": text }));
    }
    let prefix = ui::dim(&format!("{server} {}", line.service));
    for text in text.lines() {
        let text = if line.stream == Stream::Init { ui::dim(text) } else { text.to_owned() };
        context.ui.out(&format!("{prefix} {text}"));
    }
}
