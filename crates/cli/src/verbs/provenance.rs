//! `kiln provenance`: where an image comes from.

use kiln_control::{
    attest::{self, Origin},
    keys::Keys,
};
use kiln_image::Store;
use kiln_model::evidence::Attestation;
use serde_json::{Value, json};

use super::Context;
use crate::{
    cli::Provenance,
    delivering::resolve,
    exit::Exit,
    failure::{Failure, attest},
    parts::host::HostPlaces,
    ui,
};

pub(super) fn run(context: &Context<'_>, arguments: &Provenance) -> Result<Exit, Failure> {
    let places = HostPlaces::of(&context.state)?;
    let (store, keys) = (Store::open(&places.store())?, Keys::open(&places.state)?);
    let image = resolve(&store, &arguments.image)?;
    let origins = attest::origins(&store, &keys, &image.name, &image.digest).map_err(attest)?;
    if origins.is_empty() {
        return Err(Failure::Unknown { kind: "provenance of", name: arguments.image.to_string() });
    }
    let believed = origins.iter().any(|origin| origin.believed.is_some());
    let value = json!({
        "image": image.digest.to_string(),
        "verified": believed,
        "statements": origins.iter().map(to_json).collect::<Vec<_>>(),
    });
    context.ui.result(&value, || match arguments.verify {
        true => origins.iter().map(verdict).collect::<Vec<_>>().join("\n"),
        false => origins.iter().map(|origin| pretty(&origin.attestation)).collect::<Vec<_>>().join("\n"),
    });
    Ok(if arguments.verify && !believed { Exit::Refused } else { Exit::Ok })
}

fn to_json(origin: &Origin) -> Value {
    json!({ "signed_by": origin.believed, "doubt": origin.doubt, "statement": statement(&origin.attestation) })
}

fn statement(attestation: &Attestation) -> Value {
    serde_json::from_slice(&attestation.render()).expect("a statement is JSON")
}

fn pretty(attestation: &Attestation) -> String {
    serde_json::to_string_pretty(&statement(attestation)).expect("JSON is printed")
}

fn verdict(origin: &Origin) -> String {
    let inputs = origin.attestation.predicate["buildDefinition"]["resolvedDependencies"].as_array().map_or(0, Vec::len);
    let builder = origin.attestation.predicate["runDetails"]["builder"]["id"].as_str().unwrap_or("nobody");
    match (&origin.believed, &origin.doubt) {
        (Some(names), _) => {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            format!(
                "{} signed by {}: {inputs} inputs, baked by {}",
                ui::good(),
                names.join(", "),
                builder.escape_debug()
            )
        }
        (None, doubt) => format!("{} {}", ui::bad(), doubt.as_deref().unwrap_or("nobody is believed")),
    }
}
