//! What the verbs that send and fetch images share.

use std::sync::Mutex;

use kiln_image::{
    ImageRecord, Store,
    delivery::{DeliveryError, DeliveryEvent, Received},
};
use kiln_model::{ChannelName, fleet::ImageRef};
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

/// Names an image that came, where that is wanted, and prints what came.
pub(crate) fn received(
    store: &Store,
    received: &Received,
    channel: Option<&ChannelName>,
    ui: &Ui,
) -> Result<Exit, Failure> {
    if let Some(channel) = channel {
        store.set_channel(&received.name, channel, &received.image)?;
    }
    ui.result(&to_json(received, channel), || {
        let (name, image) = (&received.name, received.image.to_string());
        let came = match received.new_layers {
            0 => "everything was here".to_owned(),
            new => format!("{new} of {} layers, {} bytes", received.layers, received.bytes),
        };
        format!("{name}@{image}\n{} {came}; {} reports", ui::good(), received.reports)
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
