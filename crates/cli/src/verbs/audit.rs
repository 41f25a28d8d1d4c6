//! `kiln audit`: every action with its reason, and whether the record of them holds.

use kiln_control::audit::{Entry, Log, Replayed};
use serde_json::{Value, json};

use super::Context;
use crate::{
    cli::{Audit, AuditReplay, AuditVerb, AuditVerify},
    exit::Exit,
    failure::Failure,
    parts::host::HostPlaces,
    ui::{good, table},
};

pub(super) fn run(context: &Context<'_>, arguments: &Audit) -> Result<Exit, Failure> {
    let log = Log::open(&HostPlaces::of(&context.state)?.state)?;
    match &arguments.verb {
        Some(AuditVerb::Verify(arguments)) => verify(context, &log, arguments),
        Some(AuditVerb::Replay(arguments)) => replay(context, &log, arguments),
        None => show(context, &log, arguments),
    }
}

fn show(context: &Context<'_>, log: &Log, arguments: &Audit) -> Result<Exit, Failure> {
    let group = arguments.group.as_ref().map(|group| group.as_str());
    let entries = log.entries(arguments.after, group, arguments.lines)?;
    let value = json!({ "entries": entries.iter().map(to_json).collect::<Vec<_>>() });
    context.ui.result(&value, || {
        if entries.is_empty() {
            return "nothing that was asked for is in the audit log".to_owned();
        }
        let lines: Vec<_> = entries.iter().map(line).collect();
        table::render(&["NUMBER", "AT", "ACTION", "WHAT", "REASON"], &lines)
    });
    Ok(Exit::Ok)
}

fn line(entry: &Entry) -> Vec<String> {
    let at = entry.at.get(..19).unwrap_or(&entry.at).replace('T', " ");
    let what = entry.server.as_ref().or(entry.group.as_ref()).cloned().unwrap_or_default();
    vec![entry.number.to_string(), at, entry.action.clone(), what, entry.reason.clone()]
}

/// An entry for programs: its inputs are an object.
fn to_json(entry: &Entry) -> Value {
    let inputs = serde_json::from_str(&entry.inputs).unwrap_or_else(|_| json!(entry.inputs));
    let mut value = json!(entry);
    value["inputs"] = inputs;
    value
}

fn verify(context: &Context<'_>, log: &Log, arguments: &AuditVerify) -> Result<Exit, Failure> {
    let verified = log.verify(arguments.head.as_ref())?;
    let head = verified.head.as_ref().map(ToString::to_string);
    let value = json!({ "entries": verified.entries, "first": verified.first, "head": head });
    context.ui.result(&value, || {
        if verified.entries == 0 {
            return "the audit log has no entries: nothing was done here yet".to_owned();
        }
        let head = head.as_ref().map(|head| format!("\nhead {head}")).unwrap_or_default();
        format!("{} {} entries, from {} on, are as they were written{head}", good(), verified.entries, verified.first)
    });
    Ok(Exit::Ok)
}

fn replay(context: &Context<'_>, log: &Log, arguments: &AuditReplay) -> Result<Exit, Failure> {
    let group = arguments.group.as_ref().map(|group| group.as_str());
    let Replayed { same, incomplete } = log.replay(arguments.after, group)?;
    context.ui.result(&json!({ "same": same, "incomplete": incomplete }), || {
        let older = match incomplete {
            0 => String::new(),
            _ => {
                format!("\n{incomplete} were written by an older Kiln, which did not keep all that they were made from")
            }
        };
        format!("{} {same} decisions about numbers of servers, made again, came out the same{older}", good())
    });
    Ok(Exit::Ok)
}
