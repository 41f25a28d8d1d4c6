//! `kiln config set`: changes a live key of a running group.

use kiln_api::{Client, config::LiveRequest};

use super::{super::Context, one_line};
use crate::{cli::ConfigSet, exit::Exit, failure::Failure};

pub(super) async fn run(context: &Context<'_>, arguments: &ConfigSet) -> Result<Exit, Failure> {
    let ConfigSet { group, key, value, .. } = arguments;
    let request = LiveRequest { group: group.clone(), key: key.clone(), value: value.clone() };
    let live = Client::new(&context.state).set_live(&request).await?;
    context.ui.result(&live, || {
        let now = live.keys.iter().find(|known| known.key == key.as_str());
        let now = now.map_or_else(|| "no value".to_owned(), |known| one_line(&known.value));
        format!("{key} of group {group} is {now}, version {}", live.version)
    });
    Ok(Exit::Ok)
}
