//! Readers that steps, services and tests share: commands, variables, directories, modes, labels.

use std::collections::BTreeMap;

use super::check;
use crate::{
    diagnostic::shown,
    text::{Entry, Value},
};

/// What runs a `run` step that is written as one text.
pub(crate) const SHELL: [&str; 2] = ["/bin/sh", "-euc"];
/// Words that only a shell understands.
const OPERATORS: [&str; 10] = ["&&", "||", "|", ";", ">", ">>", "<", "2>", "2>&1", "&"];
/// What the kernel takes as one argument (`MAX_ARG_STRLEN`).
const MAX_ARGUMENT: usize = 131_071;

/// How a command that is one text is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// A shell runs it.
    Shell,
    /// It is split into words as a shell would, and run without one.
    Words,
}

/// A command: one text, or a list of program and arguments.
pub(super) fn read(value: &Value<'_>, text: Text) -> Option<Vec<String>> {
    let words = if value.is_list() {
        let words: Vec<_> = value.list("[\"nginx\", \"-t\"]")?.iter().map(argument).collect();
        words.into_iter().collect::<Option<Vec<_>>>()?
    } else {
        let line = argument(value)?;
        match text {
            Text::Shell if line.trim().is_empty() => vec![],
            Text::Shell => SHELL.into_iter().map(str::to_owned).chain([line]).collect(),
            Text::Words => split(value, &line)?,
        }
    };
    match words.first() {
        None => value.place.report("this command is empty", "write a program and its arguments: `[\"nginx\", \"-t\"]`"),
        Some(program) => runnable(value, program).then_some(words),
    }
}

fn argument(value: &Value<'_>) -> Option<String> {
    value.checked("[\"nginx\", \"-t\"]", |text| {
        check::argument(text)?;
        if text.len() > MAX_ARGUMENT {
            Err(format!("this argument is longer than {MAX_ARGUMENT} bytes"))
        } else {
            Ok(())
        }
    })
}

fn split(value: &Value<'_>, line: &str) -> Option<Vec<String>> {
    let Ok(words) = shell_words::split(line) else {
        return value.place.report(
            "a quotation mark in this command has no end",
            "close it, or write a list: `[\"program\", \"argument\"]`",
        );
    };
    if let Some(operator) = words.iter().find(|word| OPERATORS.contains(&word.as_str())) {
        return value.place.report(
            format!("no shell runs this command, so `{operator}` would be an argument"),
            "write what a shell runs as `[\"/bin/sh\", \"-c\", \"…\"]`",
        );
    }
    Some(words)
}

fn runnable(value: &Value<'_>, program: &str) -> bool {
    if program.is_empty() || (program.contains('/') && !program.starts_with('/')) {
        value.place.report::<()>(
            format!("`{}` is not a program", shown(program)),
            "write an absolute path, or a name that is looked up in PATH",
        );
        return false;
    }
    true
}

/// Variables: names and texts.
pub(crate) fn environment(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let variables: Vec<_> = value.map("{ LANG = \"C.UTF-8\" }")?.entries().map(|entry| variable(&entry)).collect();
    variables.into_iter().collect()
}

/// The name of a variable.
pub(crate) fn named_variable(value: &Value<'_>) -> Option<String> {
    value.checked("\"GREETING\"", check::variable)
}

/// A variable and its text.
pub(super) fn variable(entry: &Entry<'_>) -> Option<(String, String)> {
    let name = variable_name(entry);
    let text = entry.value.checked("\"…\"", check::argument);
    Some((name?, text?))
}

/// A variable's name.
pub(super) fn variable_name(entry: &Entry<'_>) -> Option<String> {
    match check::variable(entry.key) {
        Ok(()) => Some(entry.key.to_owned()),
        Err(message) => entry.place.report(message, "for example: `LOG_LEVEL = \"info\"`"),
    }
}

/// An absolute directory.
pub(super) fn directory(value: &Value<'_>) -> Option<String> {
    let path = value.checked("\"/srv/app\"", |text| check::image_path(text, true))?;
    Some(if path == "/" { path } else { path.trim_end_matches('/').to_owned() })
}

/// Permission bits.
pub(super) fn mode(value: &Value<'_>) -> Option<u32> {
    let text = value.checked("\"0644\"", |text| check::mode(text).map(|_| ()))?;
    check::mode(&text).ok()
}

/// A name for people: one line of at most 100 characters.
pub(super) fn label(value: &Value<'_>) -> Option<String> {
    value.checked("\"the front page\"", |text| {
        let good = !text.trim().is_empty() && text.chars().count() <= 100 && !text.chars().any(char::is_control);
        if good {
            Ok(())
        } else {
            Err(format!("`{}` is not a name: write 1 to 100 characters on one line", shown(text)))
        }
    })
}
