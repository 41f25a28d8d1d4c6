//! What a recipe may want to declare, seen while its image was tested: what services wrote where it is lost with the server, and where
//! they tried to write and could not.
//!
//! These are hints for whoever writes the recipe. They depend on what the tests did and when somebody looked, so no verdict hangs on them
//! and no report has them.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use kiln_api::Event;
use kiln_engine::{Engine, Observed};
use kiln_model::{
    ImageManifest,
    config::Secrets,
    loss::{self, Bounds, PlaceKind, Written, about, counted},
};
use kiln_runtime::values::masked_part;

use super::Subject;
use crate::logs::{Lines, spool::Reader};

/// A test server is looked into so far: it is about to be stopped.
const LOOK: Bounds = Bounds { entries: 100_000, time: Duration::from_millis(500), largest: 0 };
const PATIENCE: Duration = Duration::from_secs(2);
/// Less in the scratch of a server is not worth a word.
const SCRATCH: u64 = 1 << 20;
/// So many directories that could not be written are named.
const REFUSED: usize = 10;

/// What there is to propose. Nobody learns why somebody could not look: the tests have said more.
pub(super) async fn look(engine: &dyn Engine, server: &Observed, subject: &Subject) -> Vec<Event> {
    let places = loss::all(&subject.manifest);
    let written = crate::loss::written(engine, &server.server, &places, LOOK, PATIENCE).await.unwrap_or_default();
    let paths = engine.inside().and_then(|inside| inside.spool(&server.server));
    let refused = match paths.and_then(|paths| paths.try_into().ok()) {
        Some(paths) => tokio::task::spawn_blocking(move || refused(paths)).await.unwrap_or_default(),
        None => BTreeSet::new(),
    };
    let undeclared = refused.iter().filter(|directory| !is_declared(directory, &subject.manifest));
    let refused = undeclared.map(|directory| could_not(subject, directory));
    written.iter().filter_map(|written| wrote(subject, written)).chain(refused).collect()
}

fn wrote(subject: &Subject, written: &Written) -> Option<Event> {
    let path = &written.place.path;
    let what = match written.place.kind {
        PlaceKind::Scratch if written.bytes < SCRATCH || path == "/run" => return None,
        _ if written.files == 0 => return None,
        PlaceKind::Scratch => "that is memory, and lost with each server",
        PlaceKind::Tmpfs | PlaceKind::Ephemeral => "it is lost with each server",
    };
    let least = if written.whole { "" } else { "at least " };
    let (files, bytes) = (counted(written.files, "file"), about(written.bytes));
    let reason = format!(
        "your services wrote {least}{files}, {bytes}, under {path}: {what}. If it is data: \"{path}\" = {{ volume = \"data\" }}"
    );
    Some(proposal(subject, path, (written.files, written.bytes), reason))
}

fn could_not(subject: &Subject, directory: &str) -> Event {
    let reason = format!(
        "a service tried to write under {directory}, where nothing can be written. If it must: \"{directory}\" = {{ tmpfs = \"64MiB\" \
         }}, or {{ volume = \"data\" }} if it is to stay"
    );
    proposal(subject, directory, (0, 0), reason)
}

fn proposal(subject: &Subject, path: &str, (files, bytes): (u64, u64), reason: String) -> Event {
    let (image, path) = (subject.image.to_string(), shown(path, &subject.secrets));
    Event::Proposal { image, path, files, bytes, reason: shown(&reason, &subject.secrets) }
}

fn shown(text: &str, secrets: &Secrets) -> String {
    masked_part(text, secrets)
}

fn is_declared(directory: &str, manifest: &ImageManifest) -> bool {
    let within = |top: &str| directory.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    manifest.writable.iter().any(|writable| within(&writable.path)) || loss::SCRATCH.iter().any(|path| within(path))
}

/// The directories that services say they could not write to, from what they have said so far.
fn refused(paths: [PathBuf; 2]) -> BTreeSet<String> {
    let mut directories = BTreeSet::new();
    let (mut reader, mut lines) = (Reader::new(paths, None), Lines::default());
    let mut note = |line: &[u8]| {
        if directories.len() < REFUSED
            && let Some(directory) = loss::refused_directory(&String::from_utf8_lossy(line))
        {
            directories.insert(directory.to_owned());
        }
    };
    while reader.read(|_, frame| lines.feed(frame, |line| note(line.bytes))).is_ok_and(|batch| !batch.end) {}
    lines.flush(|line| note(line.bytes));
    directories
}
