//! The text of a service in a recipe.

use std::{collections::BTreeMap, fmt::Write as _};

use kiln_model::{
    duration,
    id::nearest,
    recipe::quoted,
    systemd::{Kept, Proposal},
};
use toml::Value;

use super::super::EnabledService;

/// `[service.NAME]`, and what a person must decide about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceText {
    /// What it is called in the recipe.
    pub name: String,
    /// Ends with a line feed.
    pub text: String,
    /// Each in a sentence.
    pub questions: Vec<String>,
}

/// What is proposed for a unit; none if its file could not be understood, or starts nothing.
pub fn service_text(service: &EnabledService, ports: &[u16]) -> Option<ServiceText> {
    let proposal = understood(service)?;
    let name = name(service);
    let questions = proposal.questions.iter().map(|question| format!("service {name}: {question}")).collect();
    let wanted = &proposal.service;
    let command = Value::from(wanted.command.iter().map(|word| Value::from(word.as_str())).collect::<Vec<_>>());
    // A comment ends with its line.
    let description: String = service.description.chars().filter(|c| !c.is_control()).collect();
    let mut text = format!("# {description} ({})\n[service.{name}]\ncommand = {command}\n", service.unit);
    if wanted.user != "root" {
        let _ = writeln!(text, "user = {}", quoted(&wanted.user));
    }
    if wanted.working_directory != "/" {
        let _ = writeln!(text, "working_directory = {}", quoted(&wanted.working_directory));
    }
    if !wanted.environment.is_empty() {
        let pairs = wanted.environment.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)));
        let _ = writeln!(text, "environment = {{ {} }}", pairs.collect::<Vec<_>>().join(", "));
    }
    if !ports.is_empty() {
        let _ = writeln!(text, "ports = {ports:?}");
    }
    let (signal, grace) = (quoted(&wanted.stop.signal), quoted(&duration::format(wanted.stop.grace)));
    let _ = writeln!(text, "stop = {{ signal = {signal}, grace = {grace} }}");
    Some(ServiceText { name, text, questions })
}

/// `[writable]` for what these services write, and what a person must decide about it; nothing where they write nothing.
pub fn writable_text<'s>(services: impl IntoIterator<Item = &'s EnabledService>) -> (String, Vec<String>) {
    let proposals = services.into_iter().filter_map(|service| service.proposal.as_ref());
    let with_owner = proposals.flat_map(|proposal| {
        let owner = &proposal.service.user;
        proposal.writable.iter().map(move |(path, kept)| (path.clone(), (*kept, owner.clone())))
    });
    let directories: BTreeMap<_, _> = with_owner.collect();
    let (mut text, mut questions) = (String::new(), Vec::new());
    if !directories.is_empty() {
        text.push_str("[writable]\n");
    }
    for (path, (kept, owner)) in directories {
        let user = if owner == "root" { String::new() } else { format!(", user = {}", quoted(&owner)) };
        let _ = writeln!(text, "{} = {{ ephemeral = \"1GiB\"{user} }}", key(&path));
        if kept == Kept::Perhaps {
            questions.push(format!("{path}: must what is in it outlive a server? Then make it a volume"));
        }
    }
    (text, questions)
}

/// A key in quotes: unlike a value it is one line, in which a text without control characters is written as in JSON.
fn key(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A proposal with a command.
pub(super) fn understood(service: &EnabledService) -> Option<&Proposal> {
    service.proposal.as_ref().filter(|proposal| !proposal.service.command.is_empty())
}

fn name(service: &EnabledService) -> String {
    nearest(service.unit.trim_end_matches(".service")).unwrap_or_else(|| "main".to_owned())
}
