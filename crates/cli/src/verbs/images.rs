//! `kiln images`: the images of this host.

use std::collections::BTreeMap;

use kiln_image::{ImageRecord, Store};
use kiln_model::ByteSize;
use serde_json::{Value, json};

use super::Context;
use crate::{
    exit::Exit,
    failure::Failure,
    parts::host::HostPlaces,
    ui::{self, table},
};

pub(super) fn run(context: &Context<'_>) -> Result<Exit, Failure> {
    let store = Store::open(&HostPlaces::of(&context.state)?.store())?;
    let images = store.images()?;
    let mut channels = BTreeMap::new();
    for image in &images {
        channels.insert(image.digest, channels_of(&store, image)?);
    }
    let value = json!({ "images": images.iter().map(|i| to_json(i, &channels[&i.digest])).collect::<Vec<_>>() });
    context.ui.result(&value, || {
        let lines: Vec<_> = images.iter().map(|image| line(image, &channels[&image.digest])).collect();
        table::render(&["NAME", "IMAGE", "CHANNELS", "SIZE", "BAKED"], &lines)
    });
    Ok(Exit::Ok)
}

/// The channels that point to an image.
pub(super) fn channels_of(store: &Store, image: &ImageRecord) -> Result<Vec<String>, Failure> {
    let channels = store.channels(&image.name)?;
    let ours = channels.into_iter().filter(|(_, digest)| *digest == image.digest);
    Ok(ours.map(|(channel, _)| channel.to_string()).collect())
}

/// An image for programs.
pub(super) fn to_json(image: &ImageRecord, channels: &[String]) -> Value {
    json!({
        "image": image.digest.to_string(),
        "name": image.name.as_str(),
        "channels": channels,
        "suite": image.suite.to_string(),
        "created_at": image.created_at.to_string(),
        "size": image.size,
        "fetched_from": image.fetched_from,
        "layers": image.layers.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn line(image: &ImageRecord, channels: &[String]) -> Vec<String> {
    vec![
        image.name.to_string(),
        ui::short(&image.digest.to_string()).to_owned(),
        channels.join(","),
        size(image.size),
        image.created_at.strftime("%F %T").to_string(),
    ]
}

/// Bytes for people: in whole mebibytes.
pub(super) fn size(bytes: u64) -> String {
    ByteSize::mib(bytes.div_ceil(1 << 20)).to_string()
}
