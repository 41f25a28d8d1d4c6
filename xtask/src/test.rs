//! Every test: the workspace's, the documentation's, and the examples with real servers.

mod examples;
mod isolated;

use clap::Args;

use crate::{
    Outcome,
    command::{cargo, run as run_command, which},
    tools::{self, Missing},
};

/// Options of `test`.
#[derive(Args)]
pub struct Options {
    /// Install missing programs with apt-get (also done when CI=true).
    #[arg(long)]
    install: bool,
    /// Leave out the examples, which need root and the network.
    #[arg(long)]
    no_examples: bool,
    /// Run each test with this runner even if cargo-nextest is there.
    #[arg(long)]
    no_nextest: bool,
}

/// Runs all of them.
pub fn run(options: &Options) -> Outcome {
    tools::need(tools::TEST, Missing::from_flag(options.install))?;
    if which("cargo-nextest").is_some() && !options.no_nextest {
        run_command(cargo().args(["nextest", "run", "--workspace", "--no-fail-fast"]))?;
    } else {
        isolated::run()?;
    }
    run_command(cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    if options.no_examples {
        return Ok(());
    }
    examples::run()
}
