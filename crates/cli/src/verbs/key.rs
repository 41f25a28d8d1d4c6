//! `kiln key`: whose reports this host believes.

use kiln_control::{
    audit,
    keys::{self, KeyEntry, KeyState, Keys},
};
use kiln_model::trust::Rules;
use serde_json::{Value, json};

use super::Context;
use crate::{
    cli::{Key, KeyVerb},
    exit::Exit,
    failure::Failure,
    parts::host::HostPlaces,
    ui::{self, Ui, table},
};

pub(super) fn run(context: &Context<'_>, arguments: &Key) -> Result<Exit, Failure> {
    let ui = context.ui;
    if let KeyVerb::Make(make) = &arguments.verb {
        let pem = keys::make_key(&make.file)?;
        ui.result(&json!({ "pem": pem }), || pem.clone());
        return Ok(Exit::Ok);
    }
    let state = HostPlaces::of(&context.state)?.state;
    let keys = Keys::open(&state)?;
    let note = |action, entry: &KeyEntry| {
        let inputs = json!({ "name": entry.name, "key": entry.id });
        audit::note(&state, action, inputs, "somebody asked for it")
    };
    match &arguments.verb {
        KeyVerb::List => list(&keys, ui)?,
        KeyVerb::Make(_) => unreachable!("a key is made without a state directory"),
        KeyVerb::Add(add) => {
            let added = keys.add(&add.name, &add.file)?;
            note("key-add", &added)?;
            changed(&added, "is believed from now on", ui);
        }
        KeyVerb::Rotate => {
            let (old, new) = keys.rotate()?;
            note("key-rotate", &new)?;
            rotated(&old, &new, ui);
        }
        KeyVerb::Revoke(revoke) => {
            let revoked = keys.revoke(&revoke.which)?;
            note("key-revoke", &revoked)?;
            changed(&revoked, "is believed no more", ui);
        }
        KeyVerb::Export(export) => {
            let pem = keys.export(export.name.as_ref())?;
            ui.result(&json!({ "pem": pem }), || pem.clone());
        }
    }
    Ok(Exit::Ok)
}

fn list(keys: &Keys, ui: &Ui) -> Result<(), Failure> {
    let (all, rules) = (keys.list()?, keys.rules()?);
    let images = |entry: &KeyEntry| images(entry, &rules);
    let value = json!({ "keys": all.iter().map(|key| to_json(key, &images(key))).collect::<Vec<_>>() });
    ui.result(&value, || {
        let lines: Vec<_> = all
            .iter()
            .map(|key| vec![key.name.to_string(), short(key), key.state.word().to_owned(), images(key).join(", ")])
            .collect();
        table::render(&["NAME", "ID", "STATE", "MAY SIGN FOR"], &lines)
    });
    Ok(())
}

/// The images that a key may sign for, by the rules.
fn images(entry: &KeyEntry, rules: &Rules) -> Vec<String> {
    match rules {
        _ if entry.state == KeyState::Revoked => Vec::new(),
        Rules::AnyKey => vec!["*".to_owned()],
        Rules::Listed(rules) => {
            let may = rules.iter().filter(|rule| rule.may_sign(&entry.name));
            may.flat_map(|rule| &rule.images).map(ToString::to_string).collect()
        }
    }
}

fn rotated(old: &KeyEntry, new: &KeyEntry, ui: &Ui) {
    ui.result(&json!({ "old": old.id, "new": new.id }), || {
        format!(
            "{} reports are signed with {} from now on; what {} signed is still believed.\n\
             Hosts that trust this one need the new key: `kiln key export` here, `kiln key add` there.",
            ui::good(),
            short(new),
            short(old)
        )
    });
}

fn changed(entry: &KeyEntry, how: &str, ui: &Ui) {
    ui.result(&to_json(entry, &[]), || format!("{} `{}` ({}) {how}", ui::good(), entry.name, short(entry)));
}

fn to_json(entry: &KeyEntry, images: &[String]) -> Value {
    json!({ "name": entry.name.as_str(), "id": entry.id, "state": entry.state.word(), "images": images })
}

fn short(entry: &KeyEntry) -> String {
    entry.id.chars().take(16).collect()
}
