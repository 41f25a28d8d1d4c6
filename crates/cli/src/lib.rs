//! The program `kiln`: its command line, and the place where the parts are put together.
//!
//! ```text
//! cli        what can be asked (clap); doc comments are the help texts
//! verbs      one file for each verb: asks the parts, prints what comes back
//! failure    why a verb failed, for people and for programs; the only place that prints an error
//! exit       what exit codes mean
//! ui         where output goes: people or `--json`, colours, progress
//! baking     a bake as several verbs ask for it
//! project    a directory with image.toml and fleet.toml
//! parts      adapters: what one part wants of another
//! daemon     finding the daemon of a state directory, starting it
//! ```
//!
//! There are no rules here: what may be launched, planned or removed is decided below.
#![forbid(unsafe_code)]

mod baking;
pub mod cli;
mod daemon;
mod delivering;
pub mod exit;
pub mod failure;
mod parts;
pub mod project;
mod ui;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;

/// Runs the command line that the process was started with.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let ui = ui::Ui::new(&cli.global);
    match verbs::run(cli, &ui) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let exit = failure.exit();
            failure.print(&ui);
            exit.into()
        }
    }
}
