//! `RUN`: a command in the sandbox over the tree, as the user and in the directory that the stage has come to.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use kiln_model::containerfile::{Command, Heredoc, Instruction, Run};

use super::{
    BakeError,
    mounts::Mounts,
    stage::{Stage, TIME_LIMIT},
    user::{self, Person},
};
use crate::{
    bake::{
        BakeEvent,
        chain::Chain,
        key::Key,
        run::{self, Made, Tail},
    },
    layer::scan::Leftovers,
    sandbox::{Bind, Job, Network, Outcome, Tmp},
    store::{Work, objects::Tree},
    tree::{self, Missing},
};

/// Where a heredoc with a `#!` line is shown.
const SCRIPT: &str = "/run/kiln/script";
/// Where programs are looked for if the image says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command and all it needs.
struct Wanted<'w> {
    name: &'w str,
    /// The name with the line of the file, for errors.
    shown: String,
    command: Vec<String>,
    /// A program that the command is.
    script: Option<&'w str>,
    environment: BTreeMap<String, String>,
    /// Beside the environment: not part of the key.
    proxies: BTreeMap<String, String>,
    user: String,
    directory: String,
    network: Network,
    mounts: Mounts,
}

impl Stage<'_, '_> {
    /// `RUN`
    pub(super) fn run(&mut self, instruction: &Instruction, run: &Run) -> Result<(), BakeError> {
        let name = self.name(instruction);
        let network = run.network.unwrap_or(self.build.base.network);
        if network {
            self.build.chain.networked.push(name.clone());
        }
        let script = run.script().filter(|script| script.content.starts_with("#!"));
        let wanted = Wanted {
            name: &name,
            shown: format!("{name} ({})", self.build.at(instruction)),
            command: self.run_command(run),
            script: script.map(|script| script.content.as_str()),
            environment: self.settings.scope.of_commands(),
            proxies: self.settings.scope.proxies().map(|(name, value)| (name.clone(), value.clone())).collect(),
            user: self.settings.execution.user.clone(),
            directory: self.absolute("").to_string_lossy().into_owned(),
            network: if network { Network::On } else { Network::Off },
            mounts: self.mounts(instruction, &run.mounts)?,
        };
        let key = wanted.key(&self.build.chain.key);
        let wrong = self.build.fault(instruction);
        self.build.chain.perform(&name, key, TIME_LIMIT, |chain, lower| wanted.layer(chain, lower, wrong))
    }

    fn run_command(&self, run: &Run) -> Vec<String> {
        match (&run.command, run.script()) {
            (_, Some(script)) if script.content.starts_with("#!") => vec![SCRIPT.to_owned()],
            (_, Some(script)) => self.settings.shell().into_iter().chain([script.content.clone()]).collect(),
            (Command::Exec(list), None) => list.clone(),
            (Command::Shell(text), None) => {
                let texts = run.heredocs.iter().map(|Heredoc { content, name, .. }| format!("\n{content}{name}"));
                self.settings
                    .shell()
                    .into_iter()
                    .chain([std::iter::once(text.clone()).chain(texts).collect()])
                    .collect()
            }
        }
    }
}

impl Wanted<'_> {
    fn key(&self, parent: &kiln_model::Digest) -> kiln_model::Digest {
        Key::new("containerfile run", Some(parent))
            .parts(&self.command)
            .part(self.script.unwrap_or_default())
            .parts(self.environment.iter().flat_map(|(name, value)| [name, value]))
            .part(&self.user)
            .part(&self.directory)
            .part([u8::from(self.network == Network::On)])
            .parts(self.mounts.key())
            .done()
    }

    fn layer(
        &self,
        chain: &Chain<'_>,
        lower: &str,
        wrong: impl FnOnce(String) -> BakeError,
    ) -> Result<Made, BakeError> {
        let work = Work::new(chain.store)?;
        let clamp = run::clamp(chain.epoch);
        let tree = tree::load(chain.store.repo(), lower)?;
        let job = match self.job(chain, &tree, lower, &work)? {
            Ok(job) => job,
            Err(reason) => return Err(wrong(reason)),
        };
        let mut tail = Tail::default();
        let outcome = chain.sandbox.run(job, &mut |stream, bytes| {
            tail.push(bytes);
            (chain.events)(BakeEvent::Output { stream, bytes: bytes.to_vec() });
        });
        let failed = |source| BakeError::Sandbox { step: self.shown.clone(), source };
        match outcome.map_err(failed)? {
            Outcome::Exited(0) => run::made(self.name, work, clamp, Leftovers::Keep),
            outcome => {
                let error = run::failure(&self.shown, TIME_LIMIT, outcome, &work, tail);
                if chain.request.shell_on_failure {
                    self.in_a_shell(chain, &tree, lower, &work)?;
                }
                Err(error)
            }
        }
    }

    fn in_a_shell(&self, chain: &Chain<'_>, tree: &Tree, lower: &str, work: &Work) -> Result<(), BakeError> {
        let Ok(job) = self.job(chain, tree, lower, work)? else { return Ok(()) };
        let command = vec!["/bin/sh".to_owned(), "-i".to_owned()];
        let job = Job { command, time_limit: std::time::Duration::from_secs(86_400), interactive: true, ..job };
        let failed = |source| BakeError::Sandbox { step: self.shown.clone(), source };
        chain.sandbox.run(job, &mut |_, _| {}).map_err(failed).map(drop)
    }

    /// The inner error says what of the image makes it impossible.
    fn job(&self, chain: &Chain<'_>, tree: &Tree, lower: &str, work: &Work) -> Result<Result<Job, String>, BakeError> {
        let person = match self.user.as_str() {
            "" => None,
            user => match user::find(tree, chain.store.repo(), user)? {
                Ok(person) => Some(person),
                Err(reason) => return Ok(Err(reason)),
            },
        };
        let mut command = self.command.clone();
        if self.script.is_none() {
            match program(tree, &command[0], &self.directory, &self.environment) {
                Some(path) => command[0] = path,
                None => return Ok(Err(format!("the image has no program `{}`", command[0]))),
            }
        }
        let shown = match self.mounts.prepare(chain, tree, work) {
            Ok(shown) => shown,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut binds = shown.binds;
        if let Some(script) = self.script {
            let path = work.path().join("script");
            if let Err(error) = kiln_sys::executable::write(&path, script.as_bytes()) {
                return Ok(Err(error.to_string()));
            }
            binds.push(Bind { source: path, target: SCRIPT.to_owned(), writable: false });
        }
        let mut own = self.proxies.clone();
        if let Some(Person { home, .. }) = &person {
            own.insert("HOME".to_owned(), home.clone());
        }
        own.extend(self.environment.clone());
        own.extend(shown.variables);
        Ok(Ok(Job {
            root: run::root(chain, lower, work),
            command,
            environment: run::environment(chain.epoch, &own),
            working_directory: self.directory.clone(),
            network: self.network,
            binds,
            user: person.map(|person| person.user).filter(|user| user.uid != 0 || user.gid != 0),
            trees: Vec::new(),
            tmp: Tmp::Tree,
            memory: shown.memory,
            hostname: chain.manner.hostname.to_owned(),
            time_limit: TIME_LIMIT,
            interactive: false,
        }))
    }
}

/// The absolute path of a program, looked for where the image says.
fn program(tree: &Tree, name: &str, directory: &str, environment: &BTreeMap<String, String>) -> Option<String> {
    let there = |path: &Path| tree::resolve(tree, path, Missing::Refuse).is_some();
    if name.contains('/') {
        let path = super::settings::plain(&Path::new(directory).join(name));
        return there(&path).then(|| path.to_string_lossy().into_owned());
    }
    let places = environment.get("PATH").map_or(PATH, String::as_str).split(':');
    let paths = places.filter(|place| place.starts_with('/')).map(|place| PathBuf::from(place).join(name));
    paths.into_iter().find(|path| there(path)).map(|path| path.to_string_lossy().into_owned())
}
