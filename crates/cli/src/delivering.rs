//! What the verbs that send and fetch images share.

use std::{path::Path, sync::Mutex};

use kiln_control::{
    audit,
    keys::Keys,
    moves::{self, Move},
};
use kiln_image::{
    ImageRecord, Store,
    delivery::{DeliveryError, DeliveryEvent, Received},
};
use kiln_model::{ChannelName, ImageDigest, fleet::ImageRef};
use serde_json::{Value, json};

use crate::{
    exit::Exit,
    failure::Failure,
    ui::{self, Task, Ui},
};

/// The image that a reference names.
pub(crate) fn resolve(store: &Store, image: &ImageRef) -> Result<ImageRecord, Failure> {
    let unknown = || Failure::Unknown { kind: "image", name: image.to_string() };
    store.resolve(image)?.ok_or_else(unknown)
}

/// Shows the events of a transfer, which come from several threads.
pub(crate) struct Shown<'a> {
    ui: &'a Ui,
    verb: &'static str,
    task: Mutex<Task>,
}

impl<'a> Shown<'a> {
    /// `verb`: `pushing`.
    pub fn new(ui: &'a Ui, verb: &'static str) -> Self {
        Self { ui, verb, task: Mutex::new(ui.task(verb)) }
    }

    /// Shows one.
    pub fn event(&self, event: DeliveryEvent) {
        let task = self.task.lock().expect("no holder panics");
        match event {
            DeliveryEvent::Transfer { bytes, total } => task.progress(self.verb, bytes, total),
            DeliveryEvent::Unpack { layer, count } => task.say(&format!("reading layer {layer} of {count}")),
            DeliveryEvent::Warning(text) => self.ui.warn(&text),
        }
    }
}

/// Why an image did not arrive.
pub(crate) fn failed(subject: String, what: String) -> impl FnOnce(DeliveryError) -> Failure {
    |source| Failure::Delivery { subject, what, source: Box::new(source) }
}

/// How an image came.
pub(crate) struct Arrival<'a> {
    /// The state directory.
    pub state: &'a Path,
    /// `pull` or `load`.
    pub how: &'static str,
    /// Where from.
    pub from: String,
    /// The channel that is to point to it.
    pub channel: Option<&'a ChannelName>,
}

impl Arrival<'_> {
    /// Enters it in the audit log, and points the channel to it.
    fn settle(&self, store: &Store, received: &Received) -> Result<(), Failure> {
        let inputs = json!({ "image": received.image, "name": received.name, "from": self.from });
        audit::note(self.state, self.how, inputs, "somebody asked for it")?;
        let Some(channel) = self.channel else { return Ok(()) };
        let image = format!("{}@{}", received.name, received.image);
        if Keys::open(self.state)?.channels()?.0.contains_key(channel) {
            return Err(Failure::Ruled { channel: channel.clone(), image });
        }
        let before = store.channels(&received.name)?.get(channel).copied();
        if before != Some(received.image) {
            moves::note(self.state, &self.moved(received, channel, before))?;
        }
        Ok(store.set_channel(&received.name, channel, &received.image)?)
    }

    fn moved(&self, received: &Received, channel: &ChannelName, before: Option<ImageDigest>) -> Move {
        Move {
            at: jiff::Timestamp::now(),
            name: received.name.clone(),
            channel: channel.clone(),
            image: received.image,
            before,
            who: "somebody who may write the state directory".to_owned(),
            how: self.how.to_owned(),
            reason: format!("it came from {}", self.from),
            evidence: Value::Null,
            difference: Value::Null,
        }
    }
}

/// Names an image that came, where that is wanted, and prints what came.
pub(crate) fn received(store: &Store, received: &Received, arrival: &Arrival<'_>, ui: &Ui) -> Result<Exit, Failure> {
    arrival.settle(store, received)?;
    let channel = arrival.channel;
    ui.result(&to_json(received, channel), || {
        let (name, image) = (&received.name, received.image.to_string());
        let came = match received.new_layers {
            0 => "everything was here".to_owned(),
            new => format!("{new} of {} layers, {} bytes", received.layers, received.bytes),
        };
        let next = match channel {
            Some(channel) => format!("{name}@{channel} is it: name that in a fleet, and `kiln apply`"),
            None => format!(
                "No channel was moved: name `{name}@{image}` in a fleet, or point one to it with `kiln promote {name}@{image} --to stable`"
            ),
        };
        format!("{name}@{image}\n{} {came}; {} reports\n{}", ui::good(), received.reports, ui::dim(&next))
    });
    Ok(Exit::Ok)
}

fn to_json(received: &Received, channel: Option<&ChannelName>) -> Value {
    json!({
        "image": received.image.to_string(),
        "name": received.name.as_str(),
        "channel": channel.map(ChannelName::as_str),
        "layers": received.layers,
        "new_layers": received.new_layers,
        "bytes": received.bytes,
        "reports": received.reports,
        "suites": received.suites,
        "provenance": received.provenance,
        "sboms": received.sboms,
    })
}
