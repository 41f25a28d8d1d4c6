//! `kiln diff`: what differs between two images.

use std::fmt::Display;

use kiln_image::{
    Store,
    diff::{Change, FileState, ImageDiff},
};
use serde_json::{Value, json};

use super::{Context, images::size};
use crate::{cli::Diff, delivering::resolve, exit::Exit, failure::Failure, parts::host::HostPlaces, ui};

/// So many files are shown to people; `--json` has all.
const SHOWN: usize = 200;

pub(super) fn run(context: &Context<'_>, arguments: &Diff) -> Result<Exit, Failure> {
    let store = Store::open(&HostPlaces::of(&context.state)?.store())?;
    let (before, after) = (resolve(&store, &arguments.before)?, resolve(&store, &arguments.after)?);
    let diff = store.diff(&before.digest, &after.digest)?;
    let value = json!({
        "before": before.digest.to_string(),
        "after": after.digest.to_string(),
        "size": { "before": diff.size.0, "after": diff.size.1 },
        "packages": diff.packages,
        "manifest": diff.manifest,
        "files": diff.files,
    });
    context.ui.result(&value, || text(&diff));
    Ok(Exit::Ok)
}

fn text(diff: &ImageDiff) -> String {
    if diff.is_empty() {
        return "no difference but times\n".to_owned();
    }
    let mut lines: Vec<String> = diff.packages.iter().map(|change| line(change, versions(change))).collect();
    lines.extend(diff.manifest.iter().map(|change| line(change, keys(change))));
    lines.extend(diff.files.iter().take(SHOWN).map(|change| line(change, file(change))));
    if diff.files.len() > SHOWN {
        lines.push(format!("… and {} more files; `--json` has them", diff.files.len() - SHOWN));
    }
    lines.push(format!("size {} → {}", size(diff.size.0), size(diff.size.1)));
    lines.join("\n")
}

fn line<T>(change: &Change<T>, how: String) -> String {
    let mark = match (&change.before, &change.after) {
        (None, _) => "+",
        (_, None) => "-",
        _ => "~",
    };
    format!("{mark} {} {} {}", change.what, ui::strong(&change.name), ui::dim(&how)).trim_end().to_owned()
}

fn versions(change: &Change<String>) -> String {
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("{before} → {after}"),
        (before, after) => before.as_ref().or(after.as_ref()).cloned().unwrap_or_default(),
    }
}

/// The keys that differ, with their values.
fn keys(change: &Change<Value>) -> String {
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (&change.before, &change.after) else {
        return String::new();
    };
    let all = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
    let differ = all.filter(|key| before.get(*key) != after.get(*key));
    let differ = differ.map(|key| format!("{key}: {} → {}", shown(before.get(key)), shown(after.get(key))));
    differ.collect::<Vec<_>>().join("; ")
}

fn file(change: &Change<FileState>) -> String {
    let (Some(before), Some(after)) = (&change.before, &change.after) else {
        let setuid = change.after.as_ref().is_some_and(|after| after.setuid);
        return if setuid { "SETUID".to_owned() } else { String::new() };
    };
    let mut how = Vec::new();
    differs(&mut how, "kind", &before.kind, &after.kind);
    differs(&mut how, "mode", &before.mode, &after.mode);
    differs(&mut how, "uid", &before.uid, &after.uid);
    differs(&mut how, "gid", &before.gid, &after.gid);
    differs(&mut how, "bytes", &before.size, &after.size);
    if before.content != after.content {
        how.push("content".to_owned());
    }
    if before.attributes != after.attributes {
        how.push("attributes".to_owned());
    }
    if after.setuid && !before.setuid {
        how.push("now SETUID".to_owned());
    }
    how.join(", ")
}

fn differs<T: PartialEq + Display>(how: &mut Vec<String>, what: &str, before: &T, after: &T) {
    if before != after {
        how.push(format!("{what} {before} → {after}"));
    }
}
