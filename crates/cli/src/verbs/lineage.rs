//! `kiln lineage [IMAGE]`: what starts from what, and which running servers still hold an old base.

use std::collections::BTreeMap;

use kiln_api::{Client, ClientError};
use kiln_image::{Store, lineage::Kin};
use kiln_model::ImageDigest;
use serde_json::{Value, json};

use super::Context;
use crate::{cli::Lineage, delivering::resolve, exit::Exit, failure::Failure, parts::host::HostPlaces, ui};

/// Servers by the digest of their image.
type Servers = BTreeMap<String, Vec<String>>;

pub(super) async fn run(context: &Context<'_>, arguments: &Lineage) -> Result<Exit, Failure> {
    let store = Store::open(&HostPlaces::of(&context.state)?.store())?;
    let all = store.lineage()?;
    let servers = servers(context).await?;
    let shown: Vec<&Kin> = match &arguments.image {
        None => all.iter().collect(),
        Some(image) => {
            let image = resolve(&store, image)?.digest;
            let related = descendants(&all, image);
            let ancestors: Vec<_> = std::iter::successors(base_of(&all, image), |base| base_of(&all, *base)).collect();
            all.iter().filter(|kin| related.contains(&kin.image) || ancestors.contains(&kin.image)).collect()
        }
    };
    let value = json!({ "images": shown.iter().map(|kin| to_json(kin, &all, &servers)).collect::<Vec<_>>() });
    context.ui.result(&value, || text(&shown, &servers));
    Ok(Exit::Ok)
}

/// What runs, if a daemon says so.
async fn servers(context: &Context<'_>) -> Result<Servers, Failure> {
    let status = match Client::new(&context.state).status().await {
        Err(ClientError::NoDaemon { .. }) => return Ok(Servers::new()),
        answer => answer?,
    };
    let mut servers = Servers::new();
    for server in status.groups.into_iter().flat_map(|group| group.servers) {
        servers.entry(server.image).or_default().push(server.id);
    }
    Ok(servers)
}

fn base_of(all: &[Kin], image: ImageDigest) -> Option<ImageDigest> {
    all.iter().find(|kin| kin.image == image)?.base
}

/// An image and all that starts from it, whatever is between.
fn descendants(all: &[Kin], image: ImageDigest) -> Vec<ImageDigest> {
    let mut found = vec![image];
    let mut next = 0;
    while let Some(base) = found.get(next).copied() {
        found.extend(all.iter().filter(|kin| kin.base == Some(base)).map(|kin| kin.image));
        next += 1;
    }
    found
}

fn to_json(kin: &Kin, all: &[Kin], servers: &Servers) -> Value {
    let image = kin.image.to_string();
    let below: Vec<_> = descendants(all, kin.image).into_iter().skip(1).map(|image| image.to_string()).collect();
    json!({
        "image": image,
        "name": kin.name.as_str(),
        "base": kin.base.map(|base| base.to_string()),
        "from": kin.from,
        "newer_base": kin.newer_base.map(|newer| newer.to_string()),
        "descendants": below,
        "servers": servers.get(&image).cloned().unwrap_or_default(),
    })
}

/// A tree; what holds an old base is marked, with the servers that run it.
fn text(shown: &[&Kin], servers: &Servers) -> String {
    let is_shown = |image: ImageDigest| shown.iter().any(|kin| kin.image == image);
    let mut lines = Vec::new();
    for root in shown.iter().filter(|kin| kin.base.is_none_or(|base| !is_shown(base))) {
        branch(root, 0, shown, servers, &mut lines);
    }
    if lines.is_empty() { "there are no images; `kiln bake` makes one".to_owned() } else { lines.join("\n") }
}

fn branch(kin: &Kin, depth: usize, shown: &[&Kin], servers: &Servers, lines: &mut Vec<String>) {
    let from = if depth == 0 { format!(" {}", ui::dim(&kin.from)) } else { String::new() };
    let newer = kin.newer_base.map(|newer| format!(" {} old base, now {}", ui::careful(), newer.short()));
    let running = servers.get(&kin.image.to_string()).map(|servers| format!("  runs: {}", servers.join(", ")));
    let (indent, name, image) = ("  ".repeat(depth), ui::strong(kin.name.as_str()), kin.image.short());
    let (newer, running) = (newer.unwrap_or_default(), running.unwrap_or_default());
    lines.push(format!("{indent}{name} {image}{from}{newer}{running}"));
    for child in shown.iter().filter(|child| child.base == Some(kin.image)) {
        branch(child, depth + 1, shown, servers, lines);
    }
}
