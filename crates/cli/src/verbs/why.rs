//! `kiln why`: which step, and which package, put a file into an image.

use kiln_image::{Store, why::Why};
use serde_json::json;

use super::Context;
use crate::{cli, delivering::resolve, exit::Exit, failure::Failure, parts::host::HostPlaces};

pub(super) fn run(context: &Context<'_>, arguments: &cli::Why) -> Result<Exit, Failure> {
    let store = Store::open(&HostPlaces::of(&context.state)?.store())?;
    let image = resolve(&store, &arguments.image)?;
    let name = || format!("{} in {}", arguments.path.display(), arguments.image);
    let why = store.why(&image.digest, &arguments.path)?;
    let why = why.ok_or_else(|| Failure::Unknown { kind: "file", name: name() })?;
    let value = json!({
        "path": why.entry.path,
        "mode": format!("{:04o}", why.entry.mode),
        "uid": why.entry.uid,
        "gid": why.entry.gid,
        "steps": why.steps,
        "package": why.package,
    });
    context.ui.result(&value, || text(&why));
    Ok(Exit::Ok)
}

fn text(why: &Why) -> String {
    let entry = &why.entry;
    let mut text = format!("{} (mode {:04o}, owner {}:{})\n", entry.path.display(), entry.mode, entry.uid, entry.gid);
    let mut steps = why.steps.iter();
    if let Some(last) = steps.next() {
        text += &format!("  put there by the step `{last}`\n");
    }
    text.extend(steps.map(|step| format!("  before that by the step `{step}`\n")));
    text.extend(why.package.iter().map(|package| format!("  of the package {package}\n")));
    text
}
