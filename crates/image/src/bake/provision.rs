//! Steps for configuration tools: Ansible, Puppet, CFEngine, Chef, cloud-init.
//!
//! The step's programs see the image's tree as it is, with the packages, files and users that it has and no others. The
//! tool stands below [`TOOL`], a mount of a tree of its own ([`tool`]), and runs there with its own loader and libraries,
//! so that nothing of it is in the image's way or in the layer. What Kiln gives it is below [`PROVISION`]: programs that
//! start it, what reports each result ([`report`]), and stand-ins for what starts services; the recipe's files are below
//! [`RECIPE`]. All of it is mounted below `/run`, which is memory in a sandbox and in servers.

mod command;
mod files;
mod report;
mod stage;
mod told;
mod tool;

#[cfg(test)]
mod tests;

use kiln_model::{
    Digest,
    recipe::{
        Step,
        provision::{Idempotent, Provision, Tool, ToolFrom},
    },
};

use self::{
    command::Command,
    report::{Reader, Said},
    stage::Inputs,
    told::Story,
    tool::{HostTool, ToolTree},
};
use super::{
    BakeError, BakeEvent,
    chain::Chain,
    inputs,
    key::Key,
    run::{self, Made, Stored, Tail},
    secrets,
};
use crate::{
    layer::scan::Leftovers,
    sandbox::{Bind, Job, Outcome, Shown, Stream},
    store::Work,
};

#[cfg(any(test, fuzzing))]
pub(crate) use report::fuzz;
pub use report::{Resource, State};

/// Where the tool's tree is seen.
const TOOL: &str = "/run/kiln/tool";
/// Where Kiln's own files for the step are seen.
const PROVISION: &str = "/run/kiln/provision";
/// Where the recipe's files are seen.
const RECIPE: &str = "/run/kiln/recipe";

/// A step for a configuration tool.
pub(super) struct Provisioning<'a> {
    step: &'a Step,
    what: &'a Provision,
    inputs: Inputs,
    tool: Option<ToolTree>,
    host: Option<HostTool>,
}

impl<'a> Chain<'a> {
    /// Runs a configuration tool over the tree.
    pub(super) fn provision(&mut self, step: &'a Step, what: &'a Provision) -> Result<(), BakeError> {
        let inputs = Inputs::read(&step.name, self.request.directory, &what.tool)?;
        self.materials.extend(inputs.sources.iter().map(|(path, source)| inputs::of_source(path, source)));
        let tool = match what.from {
            ToolFrom::Archive => Some(ToolTree::locked(self, &step.name, &what.tool)?),
            ToolFrom::Image | ToolFrom::Host => None,
        };
        let host = match what.from {
            ToolFrom::Host => Some(HostTool::find(&step.name)?),
            ToolFrom::Archive | ToolFrom::Image => None,
        };
        let wanted = Provisioning { step, what, inputs, tool, host };
        let key = wanted.key(&self.key);
        // Before the step, whose time is then its own; a step that is known needs no tool.
        if let Some(tool) = &wanted.tool
            && self.known(&key)?.is_none()
        {
            tool.bake(self)?;
        }
        self.perform(&step.name, key, step.time_limit, |chain, lower| wanted.layer(chain, lower))
    }
}

impl Provisioning<'_> {
    fn key(&self, parent: &Digest) -> Digest {
        let what = serde_json::to_vec(self.what).expect("plain data always serialises");
        let environment = self.step.environment.iter().flat_map(|(name, value)| [name, value]);
        let tool = self.tool.as_ref().map(|tool| tool.key.to_string()).unwrap_or_default();
        Key::new("provision", Some(parent))
            .part(what)
            .parts(environment)
            .part([u8::from(self.step.network)])
            .part(tool)
            .parts(self.host.iter().map(|host| host.version.as_str()))
            .part(self.inputs.digest().as_bytes())
            .part(files::digest().as_bytes())
            .done()
    }

    fn layer(&self, chain: &Chain<'_>, lower: &str) -> Result<Made, BakeError> {
        let tool = self.tool.as_ref().map(|tool| tool.bake(chain)).transpose()?;
        let work = Work::new(chain.store)?;
        let step = self.step.name.as_str();
        let command = Command::of(&self.what.tool, self.what.from);
        let staged = stage::Staged { inputs: &self.inputs, command: &command, what: self.what };
        staged.write(work.path()).map_err(|source| BakeError::Source {
            step: step.to_owned(),
            path: "the step's files".to_owned(),
            source,
        })?;
        let clamp = run::clamp(chain.epoch);
        let (mut tail, mut reader) = (Tail::default(), Reader::new(matches!(self.what.tool, Tool::Cfengine(_))));
        let mut story = Story::default();
        let job = || self.job(chain, lower, &work, &command, tool.clone());
        let outcome = chain.sandbox.run(job(), &mut |stream, bytes| {
            let mut hear = |said: Said<'_>| match said {
                Said::Output(bytes) => {
                    tail.push(bytes);
                    (chain.events)(BakeEvent::Output { stream, bytes: bytes.to_vec() });
                }
                Said::Record(record) => story.hear(record, chain.events),
            };
            match stream {
                Stream::Stdout => reader.read(bytes, &mut hear),
                Stream::Stderr => hear(Said::Output(bytes)),
            }
        });
        reader.end(&mut |said| {
            if let Said::Output(bytes) = said {
                tail.push(bytes);
            }
        });
        let outcome = outcome.map_err(|source| BakeError::Sandbox { step: step.to_owned(), source })?;
        if run::full(&work) && outcome != Outcome::Exited(0) {
            let directory = work.path().to_owned();
            return Err(BakeError::StepFull { step: step.to_owned(), directory, output: tail.text() });
        }
        let judged = told::Judged { step: self.step, what: self.what, outcome };
        if let Err(error) = story.judge(&judged, tail, chain.events) {
            run::shell(self.step, chain, job)?;
            return Err(error);
        }
        let mut made = run::made(step, work, clamp, Leftovers::Drop)?;
        made.warnings.extend(secrets::found(&made.layer));
        Ok(made)
    }

    fn job(&self, chain: &Chain<'_>, lower: &str, work: &Work, command: &Command, tool: Option<String>) -> Job {
        let bind = |name: &str, target: &str| {
            let (source, target) = (work.path().join(name), target.to_owned());
            Bind { source, target, writable: false }
        };
        let binds = [bind("provision", PROVISION), bind("recipe", RECIPE)];
        let runs = if self.what.idempotent == Idempotent::Unchecked { "1" } else { "2" };
        let driver = [format!("{PROVISION}/systemd"), runs.to_owned(), command.good.to_owned()];
        let own = command.environment.iter().map(|(name, value)| (name, value));
        let variables = own.chain(&chain.environment).chain(&self.step.environment);
        let mut environment = run::environment(chain.epoch, variables);
        for (_, value) in environment.iter_mut().filter(|(name, _)| name == "PATH") {
            *value = format!("{PROVISION}/shims:{value}");
        }
        let tree =
            |tree| Shown { tree: Box::new(Stored { store: chain.store.clone(), tree }), target: TOOL.to_owned() };
        Job {
            command: driver.into_iter().chain(command.words.iter().cloned()).collect(),
            environment,
            binds: binds.into_iter().chain(self.host.as_ref().map(HostTool::bind)).collect(),
            trees: tool.map(tree).into_iter().collect(),
            ..run::job(self.step, chain, lower, work)
        }
    }
}
