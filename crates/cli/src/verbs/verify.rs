//! `kiln verify`: reads everything an image refers to again and checks its digests.

use kiln_image::{ImageRecord, Store, store::Verification};
use serde_json::{Value, json};

use super::Context;
use crate::{
    cli::Verify,
    exit::Exit,
    failure::Failure,
    parts::host::HostPlaces,
    ui::{self, Ui},
};

pub(super) fn run(context: &Context<'_>, arguments: &Verify) -> Result<Exit, Failure> {
    let store = Store::open(&HostPlaces::of(&context.state)?.store())?;
    let images = match &arguments.image {
        None => store.images()?,
        Some(wanted) => {
            let unknown = || Failure::Unknown { kind: "image", name: wanted.to_string() };
            vec![store.resolve(wanted)?.ok_or_else(unknown)?]
        }
    };
    let mut damaged = None;
    let mut lines = Vec::new();
    for image in &images {
        let found = verify(&store, image, context.ui)?;
        lines.push(to_json(image, &found));
        if !found.is_sound() {
            damaged = Some(Failure::Damaged { image: image.digest.to_string(), count: found.damage.len() });
        }
    }
    if context.ui.json() {
        context.ui.line(&json!({ "images": lines }));
        return Ok(if damaged.is_some() { Exit::Failed } else { Exit::Ok });
    }
    damaged.map_or(Ok(Exit::Ok), Err)
}

fn verify(store: &Store, image: &ImageRecord, ui: &Ui) -> Result<Verification, Failure> {
    let name = format!("{} {}", image.name, ui::short(&image.digest.to_string()));
    let task = ui.task(&format!("reading {name}"));
    let found = store.verify(&image.digest, &|done, all| {
        task.say(&format!("reading {name}: {} %", done * 100 / all.max(1)));
    })?;
    drop(task);
    if ui.json() {
        return Ok(found);
    }
    let mark = if found.is_sound() { ui::good() } else { ui::bad() };
    ui.out(&format!("{mark} {name}: {} files, {}", found.files, super::images::size(found.bytes)));
    for damage in &found.damage {
        ui.out(&format!("    {}: {} ({})", damage.what, damage.problem, damage.stored.display()));
    }
    Ok(found)
}

fn to_json(image: &ImageRecord, found: &Verification) -> Value {
    let damage = found.damage.iter().map(|d| json!({ "what": d.what, "stored": d.stored, "problem": d.problem }));
    json!({
        "image": image.digest.to_string(),
        "name": image.name.as_str(),
        "sound": found.is_sound(),
        "files": found.files,
        "bytes": found.bytes,
        "damage": damage.collect::<Vec<_>>(),
    })
}
