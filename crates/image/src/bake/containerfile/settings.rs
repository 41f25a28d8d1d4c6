//! How an image would be run, as the instructions of a stage say: nothing here looks at files.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_model::containerfile::{Command, ExpandError, Health, Kind, Scope, Word};

use crate::oci::{Empty, Execution, Healthcheck};

/// What `RUN` and the like use where no `SHELL` says otherwise.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The settings of a stage that has come this far.
pub(super) struct Settings {
    pub(super) scope: Scope,
    pub(super) execution: Execution,
    /// A `CMD` of the base goes with the base's `ENTRYPOINT`.
    own_cmd: bool,
}

impl Settings {
    /// Over an image that would be run so.
    pub(super) fn new(global: &Scope, execution: Execution) -> Self {
        let pairs = execution.env.iter().filter_map(|variable| variable.split_once('='));
        let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { scope: global.stage(environment), execution, own_cmd: false }
    }

    /// What an instruction changes of them. The error says what is wrong with it.
    pub(super) fn apply(&mut self, kind: &Kind) -> Result<(), String> {
        let said = |error: ExpandError| error.to_string();
        match kind {
            Kind::Copy(_) | Kind::Run(_) | Kind::Maintainer(_) => {}
            Kind::Env(list) => {
                self.scope.set(list).map_err(said)?;
                let pairs = self.scope.environment().iter();
                self.execution.env = pairs.map(|(name, value)| format!("{name}={value}")).collect();
            }
            Kind::Arg(list) => self.scope.declare(list).map_err(said)?,
            Kind::Label(list) => {
                for (name, value) in list {
                    let (name, value) = (self.value(name)?, self.value(value)?);
                    self.execution.labels.insert(name, value);
                }
                self.execution.labels.remove(kiln_model::manifest::LABEL);
            }
            Kind::Workdir(word) => {
                let path = self.absolute(&self.filled(word)?);
                self.execution.working_dir = path.to_string_lossy().into_owned();
            }
            Kind::User(word) => self.execution.user = self.filled(word)?,
            Kind::StopSignal(word) => self.execution.stop_signal = self.filled(word)?,
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
            Kind::Expose(words) => self.expose(words)?,
            Kind::Volume(words) => {
                for word in words {
                    let path = self.filled(word)?;
                    self.execution.volumes.insert(path, Empty {});
                }
            }
            Kind::Healthcheck(health) => self.execution.healthcheck = Some(healthcheck(health)),
        }
        Ok(())
    }

    /// The value of a word.
    pub(super) fn value(&self, word: &Word) -> Result<String, String> {
        self.scope.expand(word).map_err(|error| error.to_string())
    }

    /// The value of a word that must have one.
    pub(super) fn filled(&self, word: &Word) -> Result<String, String> {
        match self.value(word)? {
            value if value.is_empty() || value.contains('\0') => Err(format!("`{}` has no value", word.raw)),
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

    /// The words before a command of the shell form.
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

    fn expose(&mut self, words: &[Word]) -> Result<(), String> {
        for word in words {
            let value = self.value(word)?;
            for text in value.split_whitespace() {
                let ports = kiln_model::containerfile::port(text);
                let (from, to, protocol) = ports.ok_or_else(|| format!("`{text}` is no port"))?;
                let ports = (from..=to).map(|port| (format!("{port}/{protocol}"), Empty {}));
                self.execution.exposed_ports.extend(ports);
            }
        }
        Ok(())
    }
}

fn healthcheck(health: &Health) -> Healthcheck {
    let test = match &health.command {
        None => vec!["NONE".to_owned()],
        Some(Command::Exec(list)) => std::iter::once("CMD".to_owned()).chain(list.clone()).collect(),
        Some(Command::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
    };
    let nanos = |time: Option<Duration>| time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    Healthcheck {
        test,
        interval: nanos(health.interval),
        timeout: nanos(health.timeout),
        start_period: nanos(health.start_period),
        start_interval: nanos(health.start_interval),
        retries: health.retries.map_or(0, u64::from),
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
