//! Instructions to types, one arm for each.

use std::ops::Range;

use super::{
    Containerfile, Instruction, Kind, MAX_BYTES, MAX_STAGES, Place, Stage, Word, copy,
    flags::{self, Flags},
    found::{self, Found},
    health, lines,
    lines::Logical,
    run, words,
};
use crate::diagnostic::{Diagnostics, shown};

/// Every instruction.
const KEYWORDS: [&str; 18] = [
    "FROM",
    "RUN",
    "CMD",
    "LABEL",
    "MAINTAINER",
    "EXPOSE",
    "ENV",
    "ADD",
    "COPY",
    "ENTRYPOINT",
    "VOLUME",
    "USER",
    "WORKDIR",
    "ARG",
    "ONBUILD",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "SHELL",
];
/// An instruction's words for people are cut after so many characters.
const SHOWN: usize = 72;

pub(super) fn read(text: &str, file: &str) -> Result<Containerfile, Diagnostics> {
    if text.len() > MAX_BYTES {
        let found = Found::new(file, "");
        let message = format!("the file is {} bytes long", text.len());
        let help = format!("at most {MAX_BYTES} bytes are read: put long texts into files and `COPY` them");
        found.report::<()>(0..0, message, help);
        return found.finish(()).map(|()| unreachable!("something was reported"));
    }
    let found = Found::new(file, text);
    let (instructions, escape) = lines::instructions(text, &found);
    let mut parsed =
        Containerfile { file: file.to_owned(), text: text.to_owned(), globals: Vec::new(), stages: Vec::new() };
    let mut came = Came::Nowhere;
    for logical in &instructions {
        Reader::new(logical, escape, &found, text).instruction(&mut parsed, &mut came);
    }
    if came == Came::Nowhere {
        found.report::<()>(0..0, "there is no `FROM`", "begin with `FROM debian:bookworm` or another image");
    }
    found.finish(parsed)
}

/// How far reading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Before the first `FROM`.
    Nowhere,
    ToStage,
    /// To a stage whose `FROM` is wrong.
    ToWrongStage,
}

/// One instruction on its way.
pub(super) struct Reader<'a> {
    pub(super) logical: &'a Logical,
    pub(super) escape: char,
    pub(super) found: &'a Found<'a>,
    keyword: String,
    /// Where the words after the keyword begin.
    rest: usize,
    line: usize,
}

impl<'a> Reader<'a> {
    fn new(logical: &'a Logical, escape: char, found: &'a Found<'a>, text: &str) -> Self {
        let end = logical.text.find(char::is_whitespace).unwrap_or(logical.text.len());
        let blank = logical.text[end..].len() - logical.text[end..].trim_start().len();
        Self {
            logical,
            escape,
            found,
            keyword: logical.text[..end].to_ascii_uppercase(),
            rest: end + blank,
            line: text[..logical.span.start].matches('\n').count() + 1,
        }
    }

    fn instruction(&self, to: &mut Containerfile, came: &mut Came) {
        if self.keyword == "FROM" {
            let stage = self.from(to);
            *came = if stage.is_some() { Came::ToStage } else { Came::ToWrongStage };
            to.stages.extend(stage);
            return;
        }
        let Some(kind) = self.kind() else { return };
        let instruction = Instruction { place: self.place(), text: self.text(), kind };
        match (*came, to.stages.last_mut(), &instruction.kind) {
            (Came::ToStage, Some(stage), _) => stage.instructions.push(instruction),
            (Came::Nowhere, _, Kind::Arg(_)) => to.globals.push(instruction),
            (Came::Nowhere, ..) => self.wrong(
                format!("`{}` stands before the first `FROM`", self.keyword),
                "only `ARG` may stand there; begin with `FROM`",
            ),
            // What is wrong with the stage's `FROM` was said.
            _ => {}
        }
    }

    fn kind(&self) -> Option<Kind> {
        let kind = match self.keyword.as_str() {
            "ADD" | "COPY" => return copy::read(self).map(|copy| Kind::Copy(Box::new(copy))),
            "RUN" => return run::read(self).map(|run| Kind::Run(Box::new(run))),
            "HEALTHCHECK" => return health::read(self).map(|health| Kind::Healthcheck(Box::new(health))),
            "ONBUILD" => return self.onbuild(),
            "MAINTAINER" => return self.maintainer(),
            "ENV" => Kind::Env(self.pairs("ENV NAME=value")?),
            "LABEL" => Kind::Label(self.pairs("LABEL name=value")?),
            "ARG" => Kind::Arg(self.arguments()?),
            "WORKDIR" => Kind::Workdir(self.single("WORKDIR /app")?),
            "USER" => Kind::User(self.single("USER app")?),
            "STOPSIGNAL" => Kind::StopSignal(self.single("STOPSIGNAL SIGTERM")?),
            "SHELL" => Kind::Shell(self.shell()?),
            "ENTRYPOINT" => Kind::Entrypoint(self.command("ENTRYPOINT [\"/usr/bin/app\"]")?),
            "CMD" => Kind::Cmd(self.command("CMD [\"app\", \"--port\", \"80\"]")?),
            "EXPOSE" => Kind::Expose(self.ports()?),
            "VOLUME" => Kind::Volume(self.list("VOLUME /data")?),
            _ => return self.unknown(),
        };
        self.no_flags()?;
        Some(kind)
    }

    fn unknown(&self) -> Option<Kind> {
        let meant = found::nearest(&self.keyword, &KEYWORDS).map(|meant| format!("did you mean `{meant}`? "));
        let message = format!("`{}` is no instruction", shown(&self.keyword));
        let help = format!("{}An instruction is one of {}", meant.unwrap_or_default(), KEYWORDS.join(", "));
        self.found.report(self.logical.source(0..self.keyword.len()), message, help)
    }

    fn onbuild(&self) -> Option<Kind> {
        self.wrong(
            "`ONBUILD` is for images that others start from, and Kiln keeps no instructions in an image",
            "write the instruction into the Containerfiles that start from this one",
        );
        None
    }

    fn maintainer(&self) -> Option<Kind> {
        Some(Kind::Maintainer(self.needed("LABEL org.opencontainers.image.authors=\"…\"")?.1.to_owned()))
    }

    fn from(&self, to: &Containerfile) -> Option<Stage> {
        let (flags, at) = self.flags();
        let platform = flags.only(self, &["platform"])?.word(self, "platform")?;
        let words = words::plain(&self.logical.text[at..]);
        let words: Vec<_> = words.into_iter().map(|(start, word)| (at + start, word)).collect();
        let (from, name) = match &words[..] {
            [from] => (from, None),
            [from, (_, word), name] if word.eq_ignore_ascii_case("as") => (from, Some(name)),
            _ => {
                return self.wrong_here(
                    "`FROM` takes an image, and a name after `AS`",
                    "for example `FROM debian:bookworm AS build`",
                );
            }
        };
        let name = match name {
            None => None,
            Some((start, name)) => Some(self.stage_name(*start, name, to)?),
        };
        if to.stages.len() == MAX_STAGES {
            return self.wrong_here(format!("there are more than {MAX_STAGES} stages"), "split the file");
        }
        let from = self.word(&from.1, from.0)?;
        Some(Stage { from, platform, name, place: self.place(), instructions: Vec::new() })
    }

    fn stage_name(&self, start: usize, name: &str, to: &Containerfile) -> Option<String> {
        let lower = name.to_ascii_lowercase();
        let good = lower.starts_with(|c: char| c.is_ascii_lowercase())
            && lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
        let span = self.logical.source(start..start + name.len());
        if !good || lower == "scratch" {
            let message = format!("`{}` cannot be the name of a stage", shown(name));
            return self.found.report(
                span,
                message,
                "a name has letters, digits, `-`, `_`, `.` and begins with a letter",
            );
        }
        if let Some(first) = to.stages.iter().find(|stage| stage.name.as_deref() == Some(&lower)) {
            let message = format!("two stages are called `{lower}`");
            return self.found.report(
                span,
                message,
                format!("the first one is on line {}; call this one otherwise", first.place.line),
            );
        }
        Some(lower)
    }

    fn arguments(&self) -> Option<Vec<(String, Option<Word>)>> {
        let (at, rest) = self.needed("ARG VERSION=1")?;
        let read = words::quoted(rest, self.escape).into_iter().map(|(start, word)| {
            let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
            let value = match value {
                None => None,
                Some(value) => Some(self.word(value, at + start + name.len() + 1)?),
            };
            self.variable_name(name, at + start)?;
            Some((name.to_owned(), value))
        });
        read.collect::<Vec<_>>().into_iter().collect()
    }

    fn variable_name(&self, name: &str, at: usize) -> Option<()> {
        match crate::recipe::check_variable(name) {
            Ok(()) => Some(()),
            Err(message) => {
                self.found.report(self.logical.source(at..at + name.len()), message, "for example `ARG VERSION=1`")
            }
        }
    }

    /// `NAME=value` words; or, as long ago, one name and the rest of the line.
    fn pairs(&self, example: &str) -> Option<Vec<(Word, Word)>> {
        let (at, rest) = self.needed(example)?;
        let words = words::quoted(rest, self.escape);
        let first = &words[0];
        if !first.1.contains('=') {
            let value = rest[first.0 + first.1.len()..].trim();
            if value.is_empty() {
                return self.wrong_here(format!("`{}` has no value", shown(&first.1)), format!("write `{example}`"));
            }
            let from = at + rest.rfind(value).unwrap_or_default();
            return Some(vec![(self.word(&first.1, at)?, self.word(value, from)?)]);
        }
        let read = words.iter().map(|(start, word)| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Some((self.word(name, at + start)?, self.word(value, at + start + name.len() + 1)?))
            }
            _ => {
                let span = self.logical.source(at + start..at + start + word.len());
                let message = format!("`{}` is no `name=value`", shown(word));
                self.found.report(span, message, "a value with blanks stands in quotes: `NAME=\"two words\"`")
            }
        });
        read.collect::<Vec<_>>().into_iter().collect()
    }

    fn single(&self, example: &str) -> Option<Word> {
        let (at, rest) = self.needed(example)?;
        self.word(rest, at)
    }

    fn list(&self, example: &str) -> Option<Vec<Word>> {
        let (at, rest) = self.needed(example)?;
        let words = match words::json(rest) {
            Some(list) if list.is_empty() || list.iter().any(String::is_empty) => {
                return self.wrong_here("the list has nothing in it", format!("write `{example}`"));
            }
            Some(list) => list.into_iter().map(|item| (0, item)).collect(),
            None => words::plain(rest),
        };
        let read = words.iter().map(|(start, word)| self.word(word, at + start));
        read.collect::<Vec<_>>().into_iter().collect()
    }

    fn ports(&self) -> Option<Vec<Word>> {
        let (at, rest) = self.needed("EXPOSE 80")?;
        let read = words::plain(rest).into_iter().map(|(start, word)| {
            let word = self.word(&word, at + start)?;
            // What has a variable in it is looked at when it has its value.
            if !word.raw.contains('$') && port(&word.literal()).is_none() {
                let span = self.logical.source(at + start..at + start + word.raw.len());
                let message = format!("`{}` is no port", shown(&word.raw));
                return self.found.report(
                    span,
                    message,
                    "for example `EXPOSE 80`, `EXPOSE 53/udp`, `EXPOSE 8000-8010`",
                );
            }
            Some(word)
        });
        read.collect::<Vec<_>>().into_iter().collect()
    }

    fn shell(&self) -> Option<Vec<String>> {
        let (_, rest) = self.needed("SHELL [\"/bin/bash\", \"-c\"]")?;
        match words::json(rest).filter(|list| !list.is_empty() && list.iter().all(|word| !word.contains('\0'))) {
            Some(shell) => Some(shell),
            None => self.wrong_here("`SHELL` takes a list of texts", "write `SHELL [\"/bin/bash\", \"-c\"]`"),
        }
    }

    fn command(&self, example: &str) -> Option<run::Command> {
        let (_, rest) = self.needed(example)?;
        run::command(self, rest)
    }

    fn no_flags(&self) -> Option<()> {
        let (flags, _) = self.flags();
        flags.only(self, &[]).map(drop)
    }

    /// The flags, and where the words after them begin.
    pub(super) fn flags(&self) -> (Flags, usize) {
        flags::take(&self.logical.text, self.rest, self.escape)
    }

    /// What stands after the keyword, which must be something.
    pub(super) fn needed(&self, example: &str) -> Option<(usize, &'a str)> {
        let rest = self.logical.text[self.rest..].trim_end();
        match rest.is_empty() {
            false => Some((self.rest, rest)),
            true => self.wrong_here(format!("`{}` says nothing", self.keyword), format!("for example: `{example}`")),
        }
    }

    /// A word that begins at this place of the instruction.
    pub(super) fn word(&self, raw: &str, at: usize) -> Option<Word> {
        let span = self.logical.source(at..at + raw.len());
        if raw.contains('\0') {
            return self.found.report(span, "there is a zero byte in this text", "take it out");
        }
        match Word::parse(raw, span.start, self.escape) {
            Ok(word) => Some(word),
            Err(reason) => self.found.report(
                span,
                format!("{reason}: `{}`", shown(raw)),
                "for example `${NAME}`, `${NAME:-default}`, `\"two words\"`",
            ),
        }
    }

    pub(super) fn place(&self) -> Place {
        Place { line: self.line, span: self.logical.span.clone() }
    }

    pub(super) fn keyword(&self) -> &str {
        &self.keyword
    }

    /// The instruction on one line, shortened.
    fn text(&self) -> String {
        let words = self.logical.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let words: String = words.chars().filter(|c| !c.is_control()).collect();
        match words.chars().nth(SHOWN) {
            None => words,
            Some(_) => format!("{}…", words.chars().take(SHOWN).collect::<String>()),
        }
    }

    fn wrong(&self, message: impl Into<String>, help: impl Into<String>) {
        self.wrong_here::<()>(message, help);
    }

    /// Records a fault of the whole instruction.
    pub(super) fn wrong_here<T>(&self, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        let first = self.logical.text.split('\n').next().map_or(0, str::len);
        let span: Range<usize> = self.logical.span.start..self.logical.source(0..first).end;
        self.found.report(span, message, help)
    }
}

/// The ports and the protocol that a text of `EXPOSE` means.
pub fn port(text: &str) -> Option<(u16, u16, &str)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (from, to) = (number(from)?, number(to)?);
    (from <= to && ["tcp", "udp", "sctp"].contains(&protocol)).then_some((from, to, protocol))
}
