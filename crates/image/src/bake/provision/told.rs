//! What a tool's step came to, from what it said of itself.

use std::collections::BTreeSet;

use kiln_model::recipe::{
    Step,
    provision::{Idempotent, Provision, Tool},
};

use super::report::{Asked, Record, Resource, State};
use crate::{
    bake::{
        BakeError, BakeEvent, Events,
        run::{Tail, status},
    },
    sandbox::Outcome,
};

/// Resources of one kind that are kept, to name them.
const KEPT: usize = 1000;

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Story {
    run: u32,
    missing: bool,
    question: Option<Resource>,
    failed: Vec<Resource>,
    /// Changed by the second run.
    again: Vec<Resource>,
    /// The last that was begun or told, for a step that does not end.
    last: Option<Resource>,
    told: BTreeSet<(Asked, String)>,
    left: BTreeSet<String>,
}

/// The end of a step, and what was wanted of it.
pub(super) struct Judged<'a> {
    pub(super) step: &'a Step,
    pub(super) what: &'a Provision,
    pub(super) outcome: Outcome,
}

impl Story {
    pub(super) fn hear(&mut self, record: Record, events: Events<'_>) {
        match record {
            Record::Missing => self.missing = true,
            Record::Run { number } => self.run = number,
            Record::Exit { .. } => {}
            Record::Told { what, name } if self.told.len() < KEPT => drop(self.told.insert((what, name))),
            Record::Left { process } if self.left.len() < KEPT => drop(self.left.insert(process)),
            Record::Told { .. } | Record::Left { .. } => {}
            Record::Question { what, file, line } => {
                self.question = Some(Resource { state: State::Failed, what, file, line, message: None });
            }
            Record::Result(resource) => self.result(resource, events),
        }
    }

    fn result(&mut self, resource: Resource, events: Events<'_>) {
        let list = match resource.state {
            State::Failed => Some(&mut self.failed),
            State::Changed if self.run == 2 => Some(&mut self.again),
            _ => None,
        };
        if let Some(list) = list.filter(|list| list.len() < KEPT) {
            list.push(resource.clone());
        }
        self.last = Some(resource.clone());
        events(BakeEvent::Resource { run: self.run, resource });
    }

    /// Whether the step did what it should, and what people should know of it.
    pub(super) fn judge(self, judged: &Judged<'_>, tail: Tail, events: Events<'_>) -> Result<(), BakeError> {
        let step = || judged.step.name.clone();
        let tool = judged.what.tool.name();
        if self.missing {
            return Err(BakeError::NoTool { step: step(), tool });
        }
        if let Some(asked) = self.question {
            return Err(BakeError::Asked { step: step(), tool, question: asked.to_string() });
        }
        self.warnings().into_iter().for_each(|warning| events(BakeEvent::Warning(warning)));
        // CFEngine ends well whatever became of its promises.
        let failed = matches!(judged.what.tool, Tool::Cfengine(_)) && !self.failed.is_empty();
        if judged.outcome != Outcome::Exited(0) || failed {
            return Err(self.failure(judged, tail));
        }
        match judged.what.idempotent {
            Idempotent::Fail if !self.again.is_empty() => {
                Err(BakeError::NotIdempotent { step: step(), tool, resources: list(&self.again) })
            }
            Idempotent::Warn if !self.again.is_empty() => {
                let resources = list(&self.again);
                events(BakeEvent::Warning(format!("step `{}` changes again what it has changed: {resources}", step())));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn failure(self, judged: &Judged<'_>, tail: Tail) -> BakeError {
        let status = match judged.outcome {
            Outcome::Exited(0) => "did not do all it should".to_owned(),
            outcome => status(outcome, judged.step.time_limit),
        };
        let again = if self.run == 2 { " in its second run" } else { "" };
        let resources = match (judged.outcome, &self.last) {
            (Outcome::TimedOut, Some(last)) if last.state == State::Begun => format!("\n  it was at {last}"),
            (Outcome::TimedOut, Some(last)) => format!("\n  the last result was of {last}"),
            _ => described(&self.failed),
        };
        BakeError::Provision {
            step: judged.step.name.clone(),
            status: format!("{status}{again}"),
            resources,
            output: tail.text(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let named = |asked: Asked| {
            let names = self.told.iter().filter(|(what, _)| *what == asked).map(|(_, name)| name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let left: Vec<_> = self.left.iter().map(String::as_str).collect();
        let texts = [
            (
                named(Asked::Start),
                "not started",
                "no service runs while an image is baked; `[service.NAME]` says what runs in servers",
            ),
            (named(Asked::Reboot), "did not happen", "an image that is baked has nothing to reboot"),
            (
                named(Asked::Kernel),
                "did not set the running kernel",
                "it is the host's; what is in files stays, and is not read in servers",
            ),
            (
                named(Asked::Server),
                "left out",
                "it is for a server that starts, not for an image: what differs between servers comes from the fleet",
            ),
            (left.join(", "), "still ran when the tool had ended", "ended with the step"),
        ];
        texts
            .into_iter()
            .filter(|(names, ..)| !names.is_empty())
            .map(|(names, what, why)| format!("{what}: {names} ({why})"))
            .collect()
    }
}

fn list(resources: &[Resource]) -> String {
    resources.iter().map(|resource| format!("\n  {resource}")).collect()
}

fn described(resources: &[Resource]) -> String {
    let one = |resource: &Resource| match resource.message.as_deref().map(str::trim).filter(|m| !m.is_empty()) {
        Some(message) => format!("\n  {resource}: {}", message.replace('\n', "\n    ")),
        None => format!("\n  {resource}"),
    };
    resources.iter().map(one).collect()
}
