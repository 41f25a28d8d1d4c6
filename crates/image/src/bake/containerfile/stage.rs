//! One stage: its instructions in the order written, over what it starts from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use kiln_model::containerfile::{Command, ExpandError, Health, Instruction, Kind, Scope, Word};

use super::{super::chain::Position, BakeError, Build};
use crate::{
    bake::BakeEvent,
    oci::{Empty, Execution, Healthcheck},
};

/// What `RUN` and the like use where no `SHELL` says otherwise.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// A stage that has come this far.
pub(super) struct Stage<'s, 'a> {
    pub(super) build: &'s mut Build<'a>,
    /// Its name, where there are several.
    label: Option<String>,
    /// Trees that files are taken from, by the words of `--from`.
    pub(super) others: BTreeMap<&'s str, Position>,
    pub(super) scope: Scope,
    pub(super) execution: Execution,
    /// A `CMD` of the base goes with the base's `ENTRYPOINT`.
    own_cmd: bool,
}

impl<'s, 'a> Stage<'s, 'a> {
    pub(super) fn new(
        build: &'s mut Build<'a>,
        label: Option<String>,
        others: BTreeMap<&'s str, Position>,
        execution: Execution,
    ) -> Self {
        let pairs = execution.env.iter().filter_map(|variable| variable.split_once('='));
        let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let scope = build.base.plan.scope.stage(environment);
        Self { build, label, others, scope, execution, own_cmd: false }
    }

    /// How the stage would be run.
    pub(super) fn finish(mut self) -> Execution {
        self.keep_environment();
        self.execution
    }

    /// One instruction.
    pub(super) fn instruction(&mut self, instruction: &'a Instruction) -> Result<(), BakeError> {
        let failed = |error: ExpandError| self.build.wrong(instruction, error.to_string());
        match &instruction.kind {
            Kind::Copy(copy) => return self.copy(instruction, copy),
            Kind::Run(run) => return self.run(instruction, run),
            Kind::Workdir(word) => return self.workdir(instruction, word),
            Kind::Env(list) => {
                self.scope.set(list).map_err(failed)?;
                self.keep_environment();
            }
            Kind::Arg(list) => self.scope.declare(list).map_err(failed)?,
            Kind::Label(list) => {
                for (name, value) in list {
                    let (name, value) = (self.value(instruction, name)?, self.value(instruction, value)?);
                    self.execution.labels.insert(name, value);
                }
                self.execution.labels.remove(kiln_model::manifest::LABEL);
            }
            Kind::User(word) => self.execution.user = self.filled(instruction, word)?,
            Kind::StopSignal(word) => self.execution.stop_signal = self.filled(instruction, word)?,
            Kind::Shell(shell) => self.execution.shell.clone_from(shell),
            Kind::Cmd(command) => {
                self.execution.cmd = self.command(command);
                self.own_cmd = true;
            }
            Kind::Entrypoint(command) => {
                self.execution.entrypoint = self.command(command);
                if !self.own_cmd {
                    self.execution.cmd.clear();
                }
            }
            Kind::Expose(words) => self.expose(instruction, words)?,
            Kind::Volume(words) => {
                for word in words {
                    let path = self.filled(instruction, word)?;
                    self.execution.volumes.insert(path, Empty {});
                }
            }
            Kind::Healthcheck(health) => self.execution.healthcheck = Some(self.healthcheck(health)),
            Kind::Maintainer(_) => {
                let at = self.build.at(instruction);
                let words = "MAINTAINER is deprecated and says nothing that an image keeps: write `LABEL org.opencontainers.image.authors=…`";
                (self.build.chain.events)(BakeEvent::Warning(format!("{at}: {words}")));
            }
        }
        Ok(())
    }

    fn keep_environment(&mut self) {
        let pairs = self.scope.environment().iter();
        self.execution.env = pairs.map(|(name, value)| format!("{name}={value}")).collect();
    }

    /// The value of a word.
    pub(super) fn value(&self, instruction: &Instruction, word: &Word) -> Result<String, BakeError> {
        self.scope.expand(word).map_err(|error| self.build.wrong(instruction, error.to_string()))
    }

    /// The value of a word that must have one.
    pub(super) fn filled(&self, instruction: &Instruction, word: &Word) -> Result<String, BakeError> {
        match self.value(instruction, word)? {
            value if value.is_empty() || value.contains('\0') => {
                Err(self.build.wrong(instruction, format!("`{}` has no value", word.raw)))
            }
            value => Ok(value),
        }
    }

    /// A path inside, from the working directory on.
    pub(super) fn absolute(&self, path: &str) -> PathBuf {
        let directory = match self.execution.working_dir.as_str() {
            "" => "/",
            directory => directory,
        };
        plain(&Path::new(directory).join(path))
    }

    /// The name of a step, for people and for the image's history.
    pub(super) fn name(&self, instruction: &Instruction) -> String {
        match &self.label {
            None => instruction.text.clone(),
            Some(label) => format!("[{label}] {}", instruction.text),
        }
    }

    pub(super) fn shell(&self) -> Vec<String> {
        match self.execution.shell.is_empty() {
            true => SHELL.map(str::to_owned).to_vec(),
            false => self.execution.shell.clone(),
        }
    }

    fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(list) => list.clone(),
            Command::Shell(text) => self.shell().into_iter().chain([text.clone()]).collect(),
        }
    }

    fn expose(&mut self, instruction: &Instruction, words: &[Word]) -> Result<(), BakeError> {
        for word in words {
            let value = self.value(instruction, word)?;
            for text in value.split_whitespace() {
                let Some((from, to, protocol)) = kiln_model::containerfile::port(text) else {
                    return Err(self.build.wrong(instruction, format!("`{text}` is no port")));
                };
                let ports = (from..=to).map(|port| (format!("{port}/{protocol}"), Empty {}));
                self.execution.exposed_ports.extend(ports);
            }
        }
        Ok(())
    }

    fn healthcheck(&self, health: &Health) -> Healthcheck {
        let test = match &health.command {
            None => vec!["NONE".to_owned()],
            Some(Command::Exec(list)) => std::iter::once("CMD".to_owned()).chain(list.clone()).collect(),
            Some(Command::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
        };
        let nanos = |time: Option<std::time::Duration>| {
            time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
        };
        Healthcheck {
            test,
            interval: nanos(health.interval),
            timeout: nanos(health.timeout),
            start_period: nanos(health.start_period),
            start_interval: nanos(health.start_interval),
            retries: health.retries.map_or(0, u64::from),
        }
    }
}

impl Build<'_> {
    /// Where an instruction stands, for people.
    pub(super) fn at(&self, instruction: &Instruction) -> String {
        format!("{}:{}", self.base.path, instruction.place.line)
    }

    /// What is wrong with an instruction.
    pub(super) fn wrong(&self, instruction: &Instruction, reason: impl Into<String>) -> BakeError {
        self.fault(instruction)(reason.into())
    }

    /// Says what is wrong with an instruction, later.
    pub(super) fn fault(&self, instruction: &Instruction) -> impl Fn(String) -> BakeError + use<> {
        let (file, line, instruction) = (self.base.path.clone(), instruction.place.line, instruction.text.clone());
        move |reason| BakeError::Instruction { file: file.clone(), line, instruction: instruction.clone(), reason }
    }
}

/// Without `.` and `..`, which at the root stay there.
pub(super) fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => out.push(name),
            std::path::Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out
}

/// How long a `RUN` may take.
pub(super) const TIME_LIMIT: std::time::Duration = std::time::Duration::from_secs(60 * 60);
