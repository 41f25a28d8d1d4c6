//! What of a unit a recipe cannot say is left out of the proposal, and asked about: what is proposed is always accepted.

use super::{Kept, Proposal};
use crate::{
    diagnostic::shown,
    manifest::Service,
    recipe::{check, service::SIGNALS},
};

impl Proposal {
    /// Without what a recipe cannot say.
    pub(super) fn sayable(mut self) -> Self {
        let usual = Service::new(Vec::new());
        let (service, questions) = (&mut self.service, &mut self.questions);
        if let Err(problem) = command(&service.command) {
            questions.push(problem);
            service.command.clear();
        }
        if check::user(&service.user).is_err() {
            questions.push(format!("its user is `{}`: which one is that in the image?", shown(&service.user)));
            service.user = usual.user;
        }
        let directory = &mut service.working_directory;
        if check::image_path(directory, true).is_err() {
            questions.push(format!("it works in `{}`: which directory is that?", shown(directory)));
            *directory = usual.working_directory;
        }
        service.environment.retain(|name, value| {
            let good = check::variable(name).and(check::argument(value)).is_ok();
            if !good {
                questions.push(format!("its variable `{}` cannot be one of a service", shown(name)));
            }
            good
        });
        if !SIGNALS.iter().any(|(name, _)| *name == service.stop.signal) {
            questions.push(format!("it is stopped by `{}`, which a recipe cannot say", shown(&service.stop.signal)));
            service.stop.signal = usual.stop.signal;
        }
        self.writable = writable(std::mem::take(&mut self.writable), &mut self.questions);
        self
    }
}

fn command(words: &[String]) -> Result<(), String> {
    let Some(program) = words.first() else { return Ok(()) };
    words.iter().try_for_each(|word| check::argument(word))?;
    match program.is_empty() || (program.contains('/') && !program.starts_with('/')) {
        true => Err(format!("`{}` is not a program: what starts it?", shown(program))),
        false => Ok(()),
    }
}

/// Only directories that can be declared, and none inside another one.
fn writable(all: Vec<(String, Kept)>, questions: &mut Vec<String>) -> Vec<(String, Kept)> {
    let mut kept: Vec<(String, Kept)> = Vec::new();
    for (path, whether) in all {
        if check::image_path(&path, false).is_err() {
            questions.push(format!("it writes `{}`: which directory is that?", shown(&path)));
        } else if !kept.iter().any(|(outer, _)| check::is_within(&path, outer)) {
            kept.retain(|(inner, _)| !check::is_within(inner, &path));
            kept.push((path, whether));
        }
    }
    kept
}
