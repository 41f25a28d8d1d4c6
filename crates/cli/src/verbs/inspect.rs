//! `kiln inspect`: an image, or a server, in detail.

use base64::Engine as _;
use kiln_api::{Client, ClientError, ErrorCode};
use kiln_image::{ImageRecord, Store};
use kiln_model::{ServerId, evidence::Envelope, fleet::ImageRef};
use serde_json::{Value, json};

use super::{Context, images};
use crate::{cli::Inspect, exit::Exit, failure::Failure, parts::host::HostPlaces};

pub(super) async fn run(context: &Context<'_>, arguments: &Inspect) -> Result<Exit, Failure> {
    let found = match server(context, &arguments.what).await? {
        Some(server) => server,
        None => image(context, &arguments.what)?,
    };
    let text = serde_json::to_string_pretty(&found).expect("JSON always serialises");
    context.ui.result(&found, || text);
    Ok(Exit::Ok)
}

/// A server of this name; none where none runs or no daemon does.
async fn server(context: &Context<'_>, name: &str) -> Result<Option<Value>, Failure> {
    let Ok(id) = name.parse::<ServerId>() else { return Ok(None) };
    match Client::new(&context.state).server(&id).await {
        Ok(details) => Ok(Some(json!(details))),
        Err(ClientError::NoDaemon { .. }) => Ok(None),
        Err(ClientError::Refused(error)) if error.code == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn image(context: &Context<'_>, name: &str) -> Result<Value, Failure> {
    let unknown = || Failure::Unknown { kind: "image or server", name: name.to_owned() };
    let wanted: ImageRef = name.parse().map_err(|_| unknown())?;
    let store = Store::open(&HostPlaces::of(&context.state)?.store())?;
    let record = store.resolve(&wanted)?.ok_or_else(unknown)?;
    details(&store, &record)
}

fn details(store: &Store, record: &ImageRecord) -> Result<Value, Failure> {
    let mut value = images::to_json(record, &images::channels_of(store, record)?);
    value["manifest"] = json!(*record.manifest);
    value["tests"] = json!(store.suite(&record.suite)?.map(|suite| suite.tests));
    value["reports"] = store.reports(&record.digest)?.iter().map(signed).collect();
    value["approvals"] = store.approvals(&record.digest)?.iter().map(signed).collect();
    Ok(value)
}

/// What a statement says, and who signed it. Whether that is believed is decided at launch, or when a channel is moved.
fn signed(envelope: &Envelope) -> Value {
    let signed: Vec<_> = envelope.signatures.iter().map(|signature| signature.keyid.as_str()).collect();
    let payload = base64::engine::general_purpose::STANDARD.decode(&envelope.payload).unwrap_or_default();
    let statement: Option<Value> = serde_json::from_slice(&payload).ok();
    json!({ "signed_by": signed, "statement": statement })
}
