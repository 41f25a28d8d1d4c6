//! Every test: the workspace's, the documentation's, and the examples with real servers.

mod clients;
mod contract;
mod deb;
mod examples;
mod followed;
mod guest;
mod guestbook;
mod isolated;
mod project;
mod survey;
mod wiki;
mod written;

use clap::Args;

pub use written::psql;

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
    /// Leave out the guest: a plain Debian in an emulated machine.
    #[arg(long)]
    no_guest: bool,
    /// Only the guest, with the packages that an earlier run of the examples has downloaded.
    #[arg(long, conflicts_with_all = ["no_guest", "packages", "example"])]
    guest: bool,
    /// Only the tests of these crates; no documentation, no examples.
    #[arg(long = "package", short)]
    packages: Vec<String>,
    /// Only this example, or `clients`: cloud-init and the AWS SDK ask the metadata service.
    #[arg(long, conflicts_with_all = ["no_examples", "packages"])]
    example: Option<String>,
    /// Run each test with this runner even if cargo-nextest is there.
    #[arg(long)]
    no_nextest: bool,
}

/// Runs all of them.
pub fn run(options: &Options) -> Outcome {
    tools::need(tools::TEST, Missing::from_flag(options.install))?;
    tools::trixie::TEST.iter().try_for_each(tools::trixie::Foreign::fetch)?;
    tools::unpacked::TEST.iter().try_for_each(tools::unpacked::Unpacked::fetch)?;
    let chosen = chosen(&options.packages);
    if let Some(example) = &options.example {
        return examples::run(Some(example));
    }
    if options.guest {
        return guest::run(&examples::downloads());
    }
    if which("cargo-nextest").is_some() && !options.no_nextest {
        run_command(cargo().args(["nextest", "run", "--no-fail-fast"]).args(&chosen))?;
    } else {
        isolated::run(&chosen)?;
    }
    if !options.packages.is_empty() {
        return Ok(());
    }
    run_command(cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    if options.no_examples {
        return Ok(());
    }
    examples::run(None)?;
    if options.no_guest { Ok(()) } else { guest::run(&examples::downloads()) }
}

fn chosen(packages: &[String]) -> Vec<&str> {
    match packages {
        [] => vec!["--workspace"],
        some => some.iter().flat_map(|name| ["--package", name.as_str()]).collect(),
    }
}
