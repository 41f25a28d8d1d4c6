//! Every example, with the real `kiln` and real servers: up, answering, down without a trace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{
    clients,
    contract::Contract,
    guestbook::Guestbook,
    project::Project,
    wiki::{self, Wiki},
    written::Written,
};
use crate::{
    Outcome,
    command::{build_kiln, is_root, output, root, run as run_command},
    demo,
};

/// Not an example: programs that ask the metadata service.
const CLIENTS: &str = "clients";

/// Where the databases of examples answer when no other one runs: what their fleets say.
const FIRST_DATABASES: [&str; 2] = ["198.51.100.2", "203.0.113.2"];

/// Packages that the examples have downloaded.
pub fn downloads() -> PathBuf {
    root().join("target/example-runs/downloads")
}

/// Runs each example, or only one, in a state directory of its own.
pub fn run(only: Option<&str>) -> Outcome {
    if !is_root() {
        return Err("the examples launch servers, which needs root. `--no-examples` leaves them out".into());
    }
    let kiln = build_kiln(false)?;
    let mut examples: Vec<PathBuf> =
        fs::read_dir(root().join("examples"))?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    let chosen = |path: &Path| only.is_none_or(|name| path.ends_with(name));
    examples.retain(|path| path.join("image.toml").exists() && chosen(path));
    if examples.is_empty() && only != Some(CLIENTS) {
        return Err("there is no such example".into());
    }
    examples.sort();
    let work = root().join("target/example-runs");
    fs::create_dir_all(&work)?;
    for example in &examples {
        eprintln!("\n# example {}", example.display());
        run_one(&kiln, &work, example)?;
    }
    if only.is_none_or(|name| name == CLIENTS) {
        eprintln!("\n# clients of the metadata service");
        clients::run(&kiln, &work)?;
    }
    Ok(())
}

fn run_one(kiln: &Path, work: &Path, example: &Path) -> Outcome {
    let name = example.file_name().ok_or("an example has a name")?;
    let (copy, state) = (work.join(name), work.join("state"));
    demo::copy_fresh(example, &copy)?;
    demo::free_ports(&copy)?;
    if name == "wiki" {
        wiki::make_uploads(&copy)?;
    }
    let outcome = with_database(&copy, "start").and_then(|()| exercise(kiln, &state, &copy));
    if name == "hello" && state.join("cache").is_dir() {
        demo::copy_fresh(&state.join("cache"), &downloads())?;
    }
    let gone = run_command(Command::new(kiln).arg("--state").arg(&state).args(["down", "--purge", "--accept-loss"]));
    // Data stays when all else is gone, and is known: the next run begins with none.
    let volumes = state.join("volumes");
    if volumes.exists() {
        fs::remove_dir_all(volumes)?;
        for known in ["kiln.db", "gateway.json"] {
            fs::remove_file(state.join(known))?;
        }
    }
    outcome.and(gone).and(with_database(&copy, "stop"))
}

/// Starts or ends the external database of an example that brings one.
fn with_database(example: &Path, verb: &str) -> Outcome {
    let script = example.join("database.sh");
    if !script.exists() {
        return Ok(());
    }
    run_command(Command::new("sh").arg(&script).arg(verb))?;
    if verb == "start" {
        let address = output(Command::new("sh").arg(&script).arg("address"))?;
        let address = String::from_utf8(address.stdout)?;
        let fleet = example.join("fleet.toml");
        let text = fs::read_to_string(&fleet)?;
        fs::write(fleet, FIRST_DATABASES.iter().fold(text, |text, first| text.replace(first, address.trim())))?;
    }
    Ok(())
}

fn exercise(kiln: &Path, state: &Path, example: &Path) -> Outcome {
    up(kiln, state, example)?;
    if example.ends_with("hello") {
        Contract { kiln, state, project: example }.check()?;
    }
    if example.ends_with("guestbook") {
        Guestbook(Project { kiln, state, directory: example })
            .replacing_under_load_fails_no_request_and_loses_no_row()?;
    }
    if example.ends_with("wiki") {
        Wiki(Project { kiln, state, directory: example }).replacing_under_load_loses_no_page_and_no_file()?;
    }
    let written = Written { kiln, state, project: example };
    if example.ends_with("postgres") {
        written.postgres_loses_no_commit()?;
    }
    if example.ends_with("redis") {
        written.redis_loses_no_answered_command()?;
    }
    let status = output(Command::new(kiln).arg("--state").arg(state).args(["status", "--json"]))?;
    let status: Value = serde_json::from_slice(&status.stdout)?;
    for group in status["groups"].as_array().ok_or("status has groups")? {
        if group["ready"] != group["desired"] || !group["rollout"].is_null() {
            return Err(format!("a group is not as wanted: {group:#}").into());
        }
    }
    Ok(())
}

fn up(kiln: &Path, state: &Path, example: &Path) -> Outcome {
    let said = output(Command::new(kiln).arg("--state").arg(state).args(["up", "--json"]).arg(example))?;
    let text = String::from_utf8(said.stdout)?;
    let last: Value = serde_json::from_str(text.lines().last().ok_or("`up --json` said nothing")?)?;
    eprintln!("{last}");
    if last["result"] == "ok" { Ok(()) } else { Err(format!("`kiln up` did not succeed:\n{text}").into()) }
}
