//! `RUN`, and commands in the shell and the exec form.

use super::{Heredoc, Mount, mount, read::Reader, words};
use crate::diagnostic::shown;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// For the shell that `SHELL` names.
    Shell(String),
    /// Program and arguments.
    Exec(Vec<String>),
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: Command,
    /// Texts that it announces.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in the order written.
    pub mounts: Vec<Mount>,
    /// `--network`: whether there is one; the recipe's choice where nothing is written.
    pub network: Option<bool>,
}

impl Run {
    /// The text of a `RUN <<EOF`, which is the whole command.
    pub fn script(&self) -> Option<&Heredoc> {
        match (&self.command, &self.heredocs[..]) {
            (Command::Shell(text), [only]) if text.trim() == only.word => Some(only),
            _ => None,
        }
    }
}

pub(super) fn read(reader: &Reader<'_>) -> Option<Run> {
    let (flags, at) = reader.flags();
    let flags = flags.only(reader, &["mount", "network", "security"])?;
    let mounts: Vec<_> = flags.all("mount").map(|(at, text)| mount::read(reader, at, text)).collect();
    let network = match flags.word(reader, "network")? {
        None => None,
        Some(word) => match word.literal().as_str() {
            "default" => Some(true),
            "none" => Some(false),
            "host" => {
                let span = word.at..word.at + word.raw.len();
                let message = "a step never has the host's own network";
                return reader.found.report(span, message, "`--network=default` has a way out to the Internet");
            }
            other => {
                let span = word.at..word.at + word.raw.len();
                let message = format!("`{}` is no network", shown(other));
                return reader.found.report(span, message, "write `--network=default` or `--network=none`");
            }
        },
    };
    if let Some(word) = flags.word(reader, "security")?.filter(|word| word.literal() != "sandbox") {
        let span = word.at..word.at + word.raw.len();
        let message = "a step never has more rights than those over its own files";
        return reader.found.report(span, message, "take `--security` out");
    }
    let rest = reader.logical.text[at.min(reader.logical.text.len())..].trim_end();
    if rest.is_empty() {
        return reader.wrong_here("`RUN` says nothing", "for example: `RUN apt-get update`");
    }
    let mounts = mounts.into_iter().collect::<Option<_>>()?;
    Some(Run { command: command(reader, rest)?, heredocs: reader.logical.heredocs.clone(), mounts, network })
}

/// A list in JSON, or a text for the shell.
pub(super) fn command(reader: &Reader<'_>, rest: &str) -> Option<Command> {
    if rest.contains('\0') {
        return reader.wrong_here("there is a zero byte in this text", "take it out");
    }
    match words::json(rest) {
        Some(list) if list.iter().any(|word| word.contains('\0')) => {
            reader.wrong_here("there is a zero byte in this text", "take it out")
        }
        Some(list) if list.is_empty() && reader.keyword() == "RUN" => {
            reader.wrong_here("the list has nothing in it", "for example: `RUN [\"/usr/bin/make\"]`")
        }
        Some(list) => Some(Command::Exec(list)),
        None => Some(Command::Shell(rest.to_owned())),
    }
}
