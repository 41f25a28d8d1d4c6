//! What is generated from the code, and kept in the repository so that it can be read without building.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use crate::{
    Outcome,
    command::{self, build_kiln, cargo, output, root},
};

/// Writes everything. The tests of the crates fail when a schema that is kept is not current.
pub fn run() -> Outcome {
    command::run(cargo().args(["run", "--quiet", "--package", "kiln-model", "--example", "schemas", "--", "schema"]))?;
    let openapi = output(cargo().args(["run", "--quiet", "--package", "kiln-api", "--example", "openapi"]))?;
    fs::write(root().join("schema/api.openapi.json"), openapi.stdout)?;
    let kiln = build_kiln(false)?;
    let page = output(Command::new(&kiln).arg("man"))?;
    fs::write(root().join("docs/kiln.1"), page.stdout)?;
    Ok(fs::write(root().join("docs/cli.md"), reference(&kiln)?)?)
}

/// The help of every verb and of the verbs in it, which is the doc comments of their arguments.
fn reference(kiln: &Path) -> Outcome<String> {
    let top = help(kiln, &[])?;
    let mut page =
        format!("# Command line\n\nWritten by `cargo xtask docs` from the help texts.\n\n```text\n{top}```\n");
    for verb in verbs(&top) {
        add(&mut page, kiln, &[verb])?;
    }
    Ok(page)
}

fn add(page: &mut String, kiln: &Path, path: &[&str]) -> Outcome {
    let text = help(kiln, path)?;
    let level = "#".repeat(path.len() + 1);
    write!(page, "\n{level} kiln {}\n\n```text\n{text}```\n", path.join(" "))?;
    for verb in verbs(&text) {
        add(page, kiln, &[path, &[verb]].concat())?;
    }
    Ok(())
}

fn help(kiln: &Path, verb: &[&str]) -> Outcome<String> {
    let said = output(Command::new(kiln).args(verb).arg("--help").env("COLUMNS", "110").env("NO_COLOR", "1"))?;
    let text = String::from_utf8(said.stdout)?;
    Ok(text.lines().map(|line| line.trim_end().to_owned() + "\n").collect())
}

/// The names in the help's list of commands.
fn verbs(help: &str) -> Vec<&str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_found_in_the_help() {
        let help = "Kiln\n\nUsage: kiln\n\nCommands:\n  up      Bakes\n          and more\n  down    Ends\n  help    Print\n\nOptions:\n  -v\n";
        assert_eq!(verbs(help), ["up", "down"]);
    }
}
