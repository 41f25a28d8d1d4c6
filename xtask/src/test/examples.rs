//! Every example, with the real `kiln` and real servers: up, answering, down without a trace.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{
    clients,
    contract::Contract,
    deb::{self, Notice},
    guestbook::Guestbook,
    project::{self, Project},
    survey,
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

/// Where the database of an example answers when no other one runs: what the fleets of those that want one say.
const FIRST_DATABASE: &str = "198.51.100.2";

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
    deb::build(&copy)?;
    if name == "wiki" {
        wiki::make_uploads(&copy)?;
    }
    let outcome = with_base(kiln, &state, &copy)
        .and_then(|()| with_database(&copy, "start"))
        .and_then(|()| exercise(kiln, &state, &copy));
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

/// Makes the archive that an example's Containerfile starts from, as its recipe says: of the image of `base/`.
fn with_base(kiln: &Path, state: &Path, example: &Path) -> Outcome {
    if !example.join("base/image.toml").exists() {
        return Ok(());
    }
    let command = || {
        let mut command = Command::new(kiln);
        command.arg("--state").arg(state);
        command
    };
    let baked: Value =
        serde_json::from_slice(&output(command().args(["bake", "--json"]).arg(example.join("base")))?.stdout)?;
    let named = |key: &str| baked[key].as_str().ok_or_else(|| format!("`bake --json` says no {key}"));
    let image = format!("{}@{}", named("name")?, named("image")?);
    run_command(command().args(["save", &image]).arg(example.join("base.tar")))
}

/// Starts or ends the external database of an example that wants one.
fn with_database(example: &Path, verb: &str) -> Outcome {
    let fleet = example.join("fleet.toml");
    let text = fs::read_to_string(&fleet)?;
    match verb {
        "start" if text.contains(FIRST_DATABASE) => {
            run_command(&mut project::database("start", example))?;
            let address = String::from_utf8(output(&mut project::database("address", example))?.stdout)?;
            Ok(fs::write(fleet, text.replace(FIRST_DATABASE, address.trim()))?)
        }
        "stop" if example.join("db.number").exists() => run_command(&mut project::database("stop", example)),
        _ => Ok(()),
    }
}

fn exercise(kiln: &Path, state: &Path, example: &Path) -> Outcome {
    up(kiln, state, example)?;
    let project = Project { kiln, state, directory: example };
    match example.file_name().and_then(OsStr::to_str) {
        Some("hello") => Contract(project).check()?,
        Some("deb") => Notice(project).a_package_becomes_servers_and_its_next_build_replaces_them()?,
        Some("guestbook") => Guestbook(project).replacing_under_load_fails_no_request_and_loses_no_row()?,
        Some("wiki") => Wiki(project).replacing_under_load_loses_no_page_and_no_file()?,
        Some("postgres") => Written(project).postgres_loses_no_commit()?,
        Some("old-server") => survey::the_example_is_what_the_survey_drafts_with_its_questions_answered(project)?,
        Some("redis") => Written(project).redis_loses_no_answered_command()?,
        _ => {}
    }
    let group = project.group()?;
    match group["ready"] == group["desired"] && group["rollout"].is_null() {
        true => Ok(()),
        false => Err(format!("the group is not as wanted: {group:#}").into()),
    }
}

fn up(kiln: &Path, state: &Path, example: &Path) -> Outcome {
    let said = output(Command::new(kiln).arg("--state").arg(state).args(["up", "--json"]).arg(example))?;
    let text = String::from_utf8(said.stdout)?;
    let last: Value = serde_json::from_str(text.lines().last().ok_or("`up --json` said nothing")?)?;
    eprintln!("{last}");
    if last["result"] == "ok" { Ok(()) } else { Err(format!("`kiln up` did not succeed:\n{text}").into()) }
}
