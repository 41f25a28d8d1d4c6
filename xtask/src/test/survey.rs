//! A server that nobody dares to touch: made as its example says, and surveyed. The draft can be baked as it is, it holds no secret, and
//! the example is the draft with its questions answered.

use std::{fs, path::Path, process::Command};

use super::project::Project;
use crate::{
    Outcome,
    command::{output, run},
};

/// What the example answers.
const QUESTIONS: [&str; 4] = [
    "/etc/default/shop was not copied",
    "/srv/shop (1 file",
    "ExecStartPre=",
    "/etc/cron.d/shop runs `/opt/shop/visits`",
];
const PASSWORD: &str = "hunter2";

/// All of it.
pub fn the_example_is_what_the_survey_drafts_with_its_questions_answered(project: Project<'_>) -> Outcome {
    let (machine, draft) = (project.directory.join("machine"), project.directory.join("draft"));
    run(Command::new("sh").arg(project.directory.join("machine.sh")).arg(&machine))?;
    output(project.call(&["survey", "--name", "old-server", "--to"]).args([&draft, &machine]))?;
    fs::remove_dir_all(&machine)?;
    output(project.call(&["bake"]).arg(&draft))?;

    let recipe = fs::read_to_string(draft.join("image.toml"))?;
    let asked: Vec<&str> = recipe.lines().filter(|line| line.starts_with("# QUESTION: ")).collect();
    if asked.len() != QUESTIONS.len() || QUESTIONS.iter().any(|said| !asked.iter().any(|line| line.contains(said))) {
        return Err(format!("other questions than those that the example answers: {asked:#?}").into());
    }
    let answered = fs::read_to_string(project.directory.join("image.toml"))?;
    let kept = recipe.lines().filter(|line| !line.starts_with('#'));
    if let Some(line) = kept.into_iter().find(|line| !answered.lines().any(|of| of == *line)) {
        return Err(format!("the example has not kept this line of the draft: {line}").into());
    }
    same(&project.directory.join("files"), &draft.join("files"))?;
    match output(Command::new("grep").args(["-rl", PASSWORD]).arg(&draft)) {
        Ok(found) => Err(format!("a secret was copied: {}", String::from_utf8_lossy(&found.stdout)).into()),
        Err(_) => Ok(()),
    }
}

/// Every file of the example is what the survey copied.
fn same(example: &Path, draft: &Path) -> Outcome {
    for entry in fs::read_dir(example)? {
        let entry = entry?;
        let (ours, surveyed) = (entry.path(), draft.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            same(&ours, &surveyed)?;
        } else if fs::read(&ours)? != fs::read(&surveyed)? {
            return Err(format!("{} is not what the survey copies", ours.display()).into());
        }
    }
    Ok(())
}
