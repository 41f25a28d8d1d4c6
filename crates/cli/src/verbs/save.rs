//! `kiln save`: an image with its reports and its suite to a file.

use kiln_control::audit;
use kiln_image::{Store, delivery};
use serde_json::json;

use super::Context;
use crate::{
    cli::Save,
    delivering::{Shown, failed, resolve},
    exit::Exit,
    failure::Failure,
    parts::host::HostPlaces,
    ui,
};

pub(super) fn run(context: &Context<'_>, arguments: &Save) -> Result<Exit, Failure> {
    let places = HostPlaces::of(&context.state)?;
    let store = Store::open(&places.store())?;
    let image = resolve(&store, &arguments.image)?;
    let shown = Shown::new(context.ui, "saving");
    let file = arguments.file.display().to_string();
    let saved = delivery::save(&store, &image.digest, &arguments.file, &|event| shown.event(event))
        .map_err(failed(arguments.image.to_string(), format!("could not be saved to {file}")))?;
    drop(shown);
    let inputs = json!({ "image": saved.image, "name": saved.name, "file": file });
    audit::note(&places.state, "save", inputs, "somebody asked for it")?;
    let value = json!({
        "image": saved.image.to_string(),
        "name": saved.name.as_str(),
        "file": file,
        "bytes": saved.bytes,
        "reports": saved.reports,
    });
    context.ui.result(&value, || {
        let (name, image, bytes, reports) = (&saved.name, saved.image, saved.bytes, saved.reports);
        format!("{name}@{image}\n{} {file}: {bytes} bytes; {reports} reports", ui::good())
    });
    Ok(Exit::Ok)
}
