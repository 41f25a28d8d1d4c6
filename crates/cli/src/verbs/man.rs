//! `kiln man`: the manual page, as roff.

use clap::CommandFactory as _;

use super::Context;
use crate::{cli::Cli, exit::Exit, failure::Failure};

pub(super) fn run(context: &Context<'_>) -> Result<Exit, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Failure::Print)?;
    let page = String::from_utf8_lossy(&page);
    context.ui.result(&serde_json::json!({ "page": page }), || page.to_string());
    Ok(Exit::Ok)
}
