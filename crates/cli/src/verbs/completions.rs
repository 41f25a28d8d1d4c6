//! `kiln completions SHELL`.

use clap::CommandFactory as _;

use super::Context;
use crate::{
    cli::{Cli, Completions},
    exit::Exit,
    failure::Failure,
};

pub(super) fn run(context: &Context<'_>, arguments: &Completions) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "kiln", &mut text);
    let text = String::from_utf8_lossy(&text);
    context
        .ui
        .result(&serde_json::json!({ "shell": arguments.shell.to_string(), "script": text }), || text.to_string());
    Ok(Exit::Ok)
}
