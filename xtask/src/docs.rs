//! What is generated from the code, and kept in the repository so that it can be read without building.

use std::{fs, process::Command};

use crate::{
    Outcome,
    command::{self, build_kiln, cargo, output, root},
};

/// Writes everything. The tests of each crate fail when what is kept is not current.
pub fn run() -> Outcome {
    command::run(cargo().args(["run", "--quiet", "--package", "kiln-model", "--example", "schemas", "--", "schema"]))?;
    let openapi = output(cargo().args(["run", "--quiet", "--package", "kiln-api", "--example", "openapi"]))?;
    fs::write(root().join("schema/api.openapi.json"), openapi.stdout)?;
    command_line()
}

/// Man pages and the reference of the command line, both from the arguments' doc comments.
fn command_line() -> Outcome {
    let kiln = build_kiln(false)?;
    let (man, reference) = (root().join("docs/man"), root().join("docs/cli.md"));
    fs::create_dir_all(&man)?;
    command::run(Command::new(&kiln).args(["docs", "--man"]).arg(&man).arg("--reference").arg(&reference))
}
