//! `kiln sbom`: the packages of an image, for scanners and auditors.

use std::fs;

use kiln_image::{Store, sbom::SbomFormat};
use serde_json::json;

use super::Context;
use crate::{
    cli::{Format, Sbom},
    delivering::resolve,
    exit::Exit,
    failure::Failure,
    parts::host::HostPlaces,
    ui,
};

pub(super) fn run(context: &Context<'_>, arguments: &Sbom) -> Result<Exit, Failure> {
    let store = Store::open(&HostPlaces::of(&context.state)?.store())?;
    let image = resolve(&store, &arguments.image)?;
    let format = match arguments.format {
        Format::Spdx => SbomFormat::Spdx,
        Format::Cyclonedx => SbomFormat::CycloneDx,
    };
    let sbom = store.sbom(&image.digest, format)?;
    sbom.unread.iter().for_each(|place| context.ui.warn(&format!("not in the list: {place}")));
    let Some(file) = &arguments.output else {
        // The document is for programs in every case.
        context.ui.out(&String::from_utf8_lossy(&sbom.bytes));
        return Ok(Exit::Ok);
    };
    let failed = |source| Failure::host(format!("write {}", file.display()), source);
    fs::write(file, &sbom.bytes).map_err(failed)?;
    let value = json!({
        "image": image.digest.to_string(),
        "format": format.to_string(),
        "packages": sbom.packages,
        "unread": sbom.unread,
        "bytes": sbom.bytes.len(),
    });
    let text = || format!("{} {} packages of {} in {}", ui::good(), sbom.packages, image.name, file.display());
    context.ui.result(&value, text);
    Ok(Exit::Ok)
}
