//! One stage: its instructions in the order written, over what it starts from.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use kiln_model::containerfile::{Instruction, Kind, Word};

use super::{super::chain::Position, BakeError, Build, settings::Settings};
use crate::{bake::BakeEvent, oci::Execution};

/// How long a `RUN` may take.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(60 * 60);

/// A stage that has come this far.
pub(super) struct Stage<'s, 'a> {
    pub(super) build: &'s mut Build<'a>,
    /// Its name, where there are several.
    label: Option<String>,
    /// Trees that files are taken from, by the words of `--from`.
    pub(super) others: BTreeMap<&'s str, Position>,
    pub(super) settings: Settings,
}

impl<'s, 'a> Stage<'s, 'a> {
    pub(super) fn new(
        build: &'s mut Build<'a>,
        label: Option<String>,
        others: BTreeMap<&'s str, Position>,
        execution: Execution,
    ) -> Self {
        let settings = Settings::new(&build.base.plan.scope, execution);
        Self { build, label, others, settings }
    }

    /// How the stage would be run.
    pub(super) fn finish(self) -> Execution {
        self.settings.execution
    }

    /// One instruction.
    pub(super) fn instruction(&mut self, instruction: &'a Instruction) -> Result<(), BakeError> {
        let wrong = self.build.fault(instruction);
        self.settings.apply(&instruction.kind).map_err(wrong)?;
        match &instruction.kind {
            Kind::Copy(copy) => self.copy(instruction, copy),
            Kind::Run(run) => self.run(instruction, run),
            Kind::Workdir(_) => self.workdir(instruction),
            Kind::Maintainer(_) => {
                let at = self.build.at(instruction);
                let words = "MAINTAINER is deprecated and says nothing that an image keeps: \
                             write `LABEL org.opencontainers.image.authors=…`";
                (self.build.chain.events)(BakeEvent::Warning(format!("{at}: {words}")));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The value of a word.
    pub(super) fn value(&self, instruction: &Instruction, word: &Word) -> Result<String, BakeError> {
        self.settings.value(word).map_err(self.build.fault(instruction))
    }

    /// The value of a word that must have one.
    pub(super) fn filled(&self, instruction: &Instruction, word: &Word) -> Result<String, BakeError> {
        self.settings.filled(word).map_err(self.build.fault(instruction))
    }

    /// A path inside, from the working directory on.
    pub(super) fn absolute(&self, path: &str) -> PathBuf {
        self.settings.absolute(path)
    }

    /// The name of a step, for people and for the image's history.
    pub(super) fn name(&self, instruction: &Instruction) -> String {
        match &self.label {
            None => instruction.text.clone(),
            Some(label) => format!("[{label}] {}", instruction.text),
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
