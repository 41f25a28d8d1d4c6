//! `kiln logs`: what the services of a server or a group wrote, and what they sent to `/dev/log`, by time.

mod spool;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kiln_api::{Client, ClientError, ErrorCode, Event, host::ServerDetails};
use kiln_boot::spool::Stream;
use kiln_model::syslog;
use serde_json::json;

use self::spool::{Line, Spool};
use super::Context;
use crate::{cli::Logs, exit::Exit, failure::Failure, ui};

/// Pause between two looks at the files when following.
const PAUSE: Duration = Duration::from_millis(100);
/// Servers are looked for after so many pauses, and when the daemon tells of one.
const LOOK: u32 = 10;

pub(super) async fn run(context: &Context<'_>, arguments: &Logs) -> Result<Exit, Failure> {
    let client = Client::new(&context.state);
    // Before the servers are looked for: one that starts meanwhile is told of.
    let told = if arguments.follow { told_of_servers(&client).await? } else { Arc::default() };
    let (mut spools, mut held) = (BTreeMap::new(), Vec::new());
    let of_group = find(&client, &arguments.target, &mut spools).await?;
    show(context, arguments, &mut spools, &mut held, u64::MAX)?;
    if !arguments.follow {
        return Ok(Exit::Ok);
    }
    // Until the caller has seen enough and interrupts, or the server is gone.
    for round in 1_u32.. {
        // What was written before this moment, by whomever, is there to be read a pause later: it is shown in its order.
        let now = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(u64::MAX);
        tokio::time::sleep(PAUSE).await;
        if told.swap(false, Ordering::Relaxed) || round % LOOK == 0 {
            find(&client, &arguments.target, &mut spools).await?;
        }
        show(context, arguments, &mut spools, &mut held, now)?;
        spools.retain(|_, spool| !spool.ended);
        if spools.is_empty() && held.is_empty() && !of_group {
            return Ok(Exit::Ok);
        }
    }
    Ok(Exit::Ok)
}

/// Becomes true whenever the daemon tells of a server.
async fn told_of_servers(client: &Client) -> Result<Arc<AtomicBool>, Failure> {
    let (mut events, told) = (client.events().await?, Arc::new(AtomicBool::new(false)));
    let tell = Arc::clone(&told);
    tokio::spawn(async move {
        while let Ok(Some(happened)) = events.next_happened().await {
            if matches!(happened.event, Event::Server { .. }) {
                tell.store(true, Ordering::Relaxed);
            }
        }
    });
    Ok(told)
}

/// The spools of the servers that are meant; those known already stay as far as they were read. Whether a group is meant.
async fn find(client: &Client, target: &str, spools: &mut BTreeMap<String, Spool>) -> Result<bool, Failure> {
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
    spools.iter_mut().for_each(|(id, spool)| spool.ended = !wanted.contains(id));
    for id in wanted.into_iter().filter(|id| !spools.contains_key(id)).collect::<Vec<_>>() {
        let Ok(server) = id.parse() else { continue };
        let details: ServerDetails = match client.server(&server).await {
            // It went meanwhile.
            Err(ClientError::Refused(error)) if error.code == ErrorCode::NotFound => continue,
            other => other?,
        };
        if let Some(spool) = Spool::new(details.log) {
            spools.insert(id, spool);
        }
    }
    Ok(group.is_some())
}

/// Shows what is new and was written until then, in the order of time; the rest is held.
fn show(
    context: &Context<'_>,
    arguments: &Logs,
    spools: &mut BTreeMap<String, Spool>,
    held: &mut Vec<(String, Line)>,
    until: u64,
) -> Result<(), Failure> {
    for (server, spool) in spools.iter_mut() {
        let spooled = spool.read()?;
        if spooled.lost > 0 {
            context.ui.warn(&format!("{} lines of {server} are gone: they were overwritten", spooled.lost));
        }
        held.extend(spooled.lines.into_iter().map(|line| (server.clone(), line)));
    }
    held.sort_by(|(a, one), (b, other)| (one.nanos, a, one.sequence).cmp(&(other.nanos, b, other.sequence)));
    let due = held.partition_point(|(_, line)| line.nanos <= until);
    let wanted = |line: &Line| arguments.service.as_ref().is_none_or(|service| *service == by(line));
    held.drain(..due).filter(|(_, line)| wanted(line)).for_each(|(server, line)| print(context, &server, &line));
    Ok(())
}

/// The service that wrote a line, or what the sender of a message calls itself.
fn by(line: &Line) -> &str {
    match line.stream {
        Stream::Syslog => syslog::parse(&line.bytes).tag.unwrap_or("syslog"),
        _ => &line.service,
    }
}

fn print(context: &Context<'_>, server: &str, line: &Line) {
    let stream = match line.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::Init => "init",
        Stream::Syslog => return message(context, server, line),
    };
    let text = String::from_utf8_lossy(&line.bytes);
    if context.ui.json() {
        let time = time(line);
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

/// A message sent to `/dev/log`.
fn message(context: &Context<'_>, server: &str, line: &Line) {
    let message = syslog::parse(&line.bytes);
    let (text, tag) = (String::from_utf8_lossy(message.text), by(line));
    if context.ui.json() {
        return context.ui.line(&json!({
            "server": server,
            "service": line.service,
            "stream": "syslog",
            "time": time(line),
            "priority": message.priority.to_string(),
            "tag": message.tag,
            "pid": message.pid,
            "text": text,
        }));
    }
    let pid = message.pid.map(|pid| format!("[{pid}]")).unwrap_or_default();
    let prefix = ui::dim(&format!("{server} {tag}{pid} {}", message.priority));
    text.lines().for_each(|text| context.ui.out(&format!("{prefix} {text}")));
}

fn time(line: &Line) -> Option<String> {
    jiff::Timestamp::from_nanosecond(line.nanos.into()).map(|time| time.to_string()).ok()
}
