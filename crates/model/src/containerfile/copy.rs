//! `COPY` and `ADD`.

use super::{Heredoc, Word, lines, read::Reader, words};
use crate::{diagnostic::shown, digest::Digest};

/// What is copied, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Whether it is an `ADD`, which unpacks archives.
    pub add: bool,
    /// `--from`: a stage, by name or number, or an image.
    pub from: Option<String>,
    /// `--chown`: `user`, `user:group`, or numbers.
    pub chown: Option<Word>,
    /// `--chmod`: octal digits.
    pub chmod: Option<Word>,
    /// `--checksum` of what an `ADD` downloads.
    pub checksum: Option<Digest>,
    /// At least one.
    pub sources: Vec<CopySource>,
    /// Absolute, or below the working directory.
    pub to: Word,
}

/// One thing that is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path of the context, a stage or an image; its names may be patterns.
    Path(Word),
    /// A text of the file itself.
    Text(Heredoc),
    /// An address, for `ADD`.
    Remote(Word),
}

pub(super) fn read(reader: &Reader<'_>) -> Option<Copy> {
    let add = reader.keyword() == "ADD";
    let known: &[&str] =
        if add { &["chown", "chmod", "link", "checksum"] } else { &["from", "chown", "chmod", "link"] };
    let (flags, at) = reader.flags();
    let flags = flags.only(reader, known);
    let words = arguments(reader, at)?;
    let flags = flags?;
    let checksum = match flags.word(reader, "checksum")? {
        None => None,
        Some(word) => match word.literal().parse::<Digest>() {
            Ok(digest) => Some(digest),
            Err(_) => {
                let span = word.at..word.at + word.raw.len();
                return reader.found.report(
                    span,
                    "the checksum is no `sha256:…`",
                    "write `--checksum=sha256:` and 64 hexadecimal digits",
                );
            }
        },
    };
    let from = flags.word(reader, "from")?;
    if let Some(word) = from.as_ref().filter(|word| word.raw.contains('$')) {
        return reader.found.report(
            word.at..word.at + word.raw.len(),
            "`--from` takes no variables",
            "give the image a stage of its own, whose `FROM` does: `FROM image:${VERSION} AS it`",
        );
    }
    let from = from.map(|word| word.literal());
    flags.switch(reader, "link")?;
    let (to, sources) = words.split_last()?;
    let sources: Vec<_> = sources.iter().map(|(at, raw)| source(reader, *at, raw, add, checksum.is_some())).collect();
    let sources: Vec<_> = sources.into_iter().collect::<Option<_>>()?;
    let to = reader.word(&to.1, to.0)?;
    let into_directory = to.raw.ends_with('/') || to.raw.contains('$') || matches!(to.raw.as_str(), "." | "..");
    if sources.len() > 1 && !into_directory && !to.raw.ends_with("/.") {
        let span = to.at..to.at + to.raw.len();
        let message = format!("several things are copied to `{}`, which does not end with `/`", shown(&to.raw));
        return reader.found.report(span, message, format!("write `{}/`", shown(&to.raw)));
    }
    Some(Copy {
        add,
        from,
        chown: flags.word(reader, "chown")?,
        chmod: flags.word(reader, "chmod")?.map_or(Some(None), |word| mode(reader, word).map(Some))?,
        checksum,
        sources,
        to,
    })
}

fn arguments(reader: &Reader<'_>, at: usize) -> Option<Vec<(usize, String)>> {
    let rest = &reader.logical.text[at.min(reader.logical.text.len())..];
    let words: Vec<_> = match words::json(rest) {
        Some(list) => list.into_iter().map(|word| (at, word)).collect(),
        None => words::plain(rest).into_iter().map(|(start, word)| (at + start, word)).collect(),
    };
    match words.len() >= 2 {
        true => Some(words),
        false => reader.wrong_here(
            format!("`{}` takes what is copied, and where to", reader.keyword()),
            format!("for example `{} page/ /var/www/html/`", reader.keyword()),
        ),
    }
}

fn source(reader: &Reader<'_>, at: usize, raw: &str, add: bool, checksum: bool) -> Option<CopySource> {
    if let Some(heredoc) = reader.logical.heredocs.iter().find(|heredoc| heredoc.word == raw)
        && lines::announced(raw).is_some()
    {
        if heredoc.expands
            && let Err(reason) = Word::heredoc(&heredoc.content, heredoc.at)
        {
            let span = heredoc.at..heredoc.at + heredoc.content.len();
            return reader.found.report(
                span,
                reason,
                format!("write `<<\"{}\"` if it is to stay as it is", heredoc.name),
            );
        }
        return Some(CopySource::Text(heredoc.clone()));
    }
    let span = reader.logical.source(at..at + raw.len());
    let remote = ["http://", "https://"].iter().any(|start| raw.starts_with(start));
    if add && (raw.starts_with("git@") || raw.starts_with("ssh://") || (remote && is_git(raw))) {
        let message = "Kiln fetches no git repository while it bakes";
        return reader.found.report(
            span,
            message,
            "check it out beside the recipe and `COPY` it, or fetch it in a `RUN`",
        );
    }
    if add && remote && !checksum {
        let message = format!("nothing says what `{}` must be", shown(raw));
        return reader.found.report(
            span,
            message,
            "write `ADD --checksum=sha256:… URL PLACE`, so that it is the same every time",
        );
    }
    let word = reader.word(raw, at)?;
    Some(if add && remote { CopySource::Remote(word) } else { CopySource::Path(word) })
}

fn is_git(raw: &str) -> bool {
    raw.split(['#', '?']).next().is_some_and(|address| address.ends_with(".git"))
}

/// What has a variable in it is looked at when it has its value.
fn mode(reader: &Reader<'_>, word: Word) -> Option<Word> {
    if word.raw.contains('$') || octal(&word.literal()).is_some() {
        return Some(word);
    }
    let span = word.at..word.at + word.raw.len();
    reader.found.report(span, format!("`{}` is no mode", shown(&word.raw)), "write octal digits: `--chmod=644`")
}

/// Permission bits in octal digits.
pub fn octal(text: &str) -> Option<u32> {
    let good = (1..=5).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    good.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|mode| *mode <= 0o7777)
}
