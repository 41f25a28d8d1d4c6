//! `--name=value` words between an instruction's name and its arguments.

use super::{Word, read::Reader, words};
use crate::{diagnostic::shown, text::suggest};

/// The flags of an instruction.
#[derive(Debug)]
pub(super) struct Flags(Vec<Flag>);

#[derive(Debug)]
struct Flag {
    name: String,
    value: Option<String>,
    /// Where the flag, and its value, begin in the instruction's text.
    at: usize,
    value_at: usize,
}

/// Takes the flags off from this place on; answers where the words after them begin.
pub(super) fn take(text: &str, from: usize, escape: char) -> (Flags, usize) {
    let mut flags = Vec::new();
    for (start, word) in words::quoted(&text[from..], escape) {
        let at = from + start;
        let Some(flag) = word.strip_prefix("--").filter(|flag| !flag.is_empty()) else {
            return (Flags(flags), at);
        };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let value_at = at + 2 + name.len() + 1;
        flags.push(Flag { name: name.to_owned(), value: value.map(str::to_owned), at, value_at });
    }
    (Flags(flags), text.len())
}

impl Flags {
    /// Itself, if it has only these; each at most once where its name does not say otherwise.
    pub(super) fn only(self, reader: &Reader<'_>, known: &[&str]) -> Option<Self> {
        let mut good = true;
        for (index, flag) in self.0.iter().enumerate() {
            let span = reader.logical.source(flag.at..flag.at + 2 + flag.name.len());
            if !known.contains(&flag.name.as_str()) {
                let meant = suggest(&flag.name, known).map(|meant| format!("did you mean `--{meant}`? "));
                let list: Vec<_> = known.iter().map(|name| format!("`--{name}`")).collect();
                let takes = if list.is_empty() { "no flags".to_owned() } else { list.join(", ") };
                let message = format!("`{}` has no flag `--{}`", reader.keyword(), shown(&flag.name));
                reader.found.report::<()>(span, message, format!("{}It takes {takes}", meant.unwrap_or_default()));
                good = false;
            } else if flag.name != "mount" && self.0[..index].iter().any(|earlier| earlier.name == flag.name) {
                reader.found.report::<()>(span, format!("`--{}` stands here twice", flag.name), "keep one of the two");
                good = false;
            }
        }
        good.then_some(self)
    }

    /// The value of a flag as a word. The outer `None` means that it is wrong.
    pub(super) fn word(&self, reader: &Reader<'_>, name: &str) -> Option<Option<Word>> {
        let Some(flag) = self.0.iter().find(|flag| flag.name == name) else { return Some(None) };
        match flag.value.as_deref() {
            None | Some("") => reader.found.report(
                reader.logical.source(flag.at..flag.at + 2 + name.len()),
                format!("`--{name}` has no value"),
                format!("write `--{name}=…`"),
            ),
            Some(value) => reader.word(value, flag.value_at).map(Some),
        }
    }

    /// Whether a flag that is on or off is on.
    pub(super) fn switch(&self, reader: &Reader<'_>, name: &str) -> Option<bool> {
        let Some(flag) = self.0.iter().find(|flag| flag.name == name) else { return Some(false) };
        match flag.value.as_deref() {
            None | Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => reader.found.report(
                reader.logical.source(flag.at..flag.at + 2 + name.len()),
                format!("`--{name}` is on or off"),
                format!("write `--{name}` or `--{name}=false`"),
            ),
        }
    }

    /// Every value of a flag that may stand there several times, with its place.
    pub(super) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = (usize, &'f str)> {
        self.0
            .iter()
            .filter(move |flag| flag.name == name)
            .map(|flag| (flag.value_at, flag.value.as_deref().unwrap_or_default()))
    }
}
