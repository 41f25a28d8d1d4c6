//! The one front door of the project: `cargo xtask …`.
//!
//! It depends on little, so that it is there in seconds on a fresh machine, and calls `cargo` for the rest.
#![forbid(unsafe_code)]

mod bench;
mod command;
mod demo;
mod docs;
mod fuzz;
mod layers;
mod lines;
mod spec;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, shows, tests and measures Kiln.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Builds Kiln and runs its main job: `kiln up examples/hello`, then once more with a changed page.
    Demo(demo::Options),
    /// Runs every test: the workspace's, the documentation's, and the examples with real servers.
    Test(test::Options),
    /// Measures Kiln beside its peers, in one run, and writes bench/results.md.
    Bench(bench::Options),
    /// Feeds every parser of bytes from outside with what nobody would write (libFuzzer, stable toolchain).
    Fuzz(fuzz::Options),
    /// Checks which crate uses which, where unsafe code may stand, and how long files are.
    CheckLayers,
    /// Checks that every test named in SPECIFICATION.md exists.
    CheckSpec,
    /// Writes what is generated: schemas, the OpenAPI document, man pages, the command line reference.
    Docs,
}

/// What went wrong, in words for the person who called.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Demo(options) => demo::run(&options),
        Verb::Test(options) => test::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Fuzz(options) => fuzz::run_all(&options),
        Verb::CheckLayers => layers::run(),
        Verb::CheckSpec => spec::run(),
        Verb::Docs => docs::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
