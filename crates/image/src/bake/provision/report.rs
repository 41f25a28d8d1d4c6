//! What a step for a configuration tool says of itself, on its standard output between what the tool writes there: lines that
//! begin with a record separator and are JSON (RFC 7464), and of CFEngine its own verbose words.
//!
//! Everything here comes from programs that a recipe runs. A line that is no record is output; what is kept of a line, and
//! how many results are kept, has a limit.

mod cfengine;

use std::fmt;

use serde::Deserialize;

use super::RECIPE;

/// A longer line (bytes) is no record.
const LONGEST: usize = 64 << 10;
const SEPARATOR: u8 = 0x1e;

/// What became of a resource: a task, a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is being worked on.
    Begun,
    /// It was as wanted.
    Same,
    /// It was changed.
    Changed,
    /// It could not be made as wanted.
    Failed,
    /// It failed, which the tool's files allow.
    Ignored,
    /// It was left out.
    Skipped,
}

impl State {
    /// The state as one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Same => "same",
            Self::Changed => "changed",
            Self::Failed => "failed",
            Self::Ignored => "ignored",
            Self::Skipped => "skipped",
        }
    }
}

/// What a tool did with one resource.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// What became of it.
    pub state: State,
    /// Its name: of the task, the resource, the promise.
    pub what: String,
    /// The file that declares it: relative to the recipe, if it is the recipe's.
    #[serde(default)]
    pub file: Option<String>,
    /// The line there, from 1.
    #[serde(default)]
    pub line: Option<u32>,
    /// The tool's words.
    #[serde(default)]
    pub message: Option<String>,
}

impl Resource {
    /// Where it is declared: `site.yml:12`.
    pub fn place(&self) -> Option<String> {
        let file = self.file.as_ref()?;
        Some(self.line.map_or_else(|| file.clone(), |line| format!("{file}:{line}")))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place() {
            Some(place) => write!(f, "{place}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Record {
    /// There is no such tool.
    Missing,
    /// A run begins, the first or the second.
    Run { number: u32 },
    /// A run ended.
    Exit { code: i32 },
    /// A stand-in was asked for what an image cannot do.
    Told { what: Asked, name: String },
    /// A process outlived the tool.
    Left { process: String },
    /// The tool's files ask somebody.
    Question {
        what: String,
        #[serde(default)]
        file: Option<String>,
        #[serde(default)]
        line: Option<u32>,
    },
    /// What became of a resource.
    Result(Resource),
}

/// What a stand-in was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Asked {
    Start,
    Reboot,
    Kernel,
    /// What is for a server that starts, not for an image.
    Server,
}

/// A piece of what was read.
pub(super) enum Said<'a> {
    Record(Record),
    Output(&'a [u8]),
}

/// Takes records out of a stream.
#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    cfengine: Option<cfengine::Listener>,
}

impl Reader {
    /// `cfengine` says whether CFEngine's words are to be understood.
    pub(super) fn new(cfengine: bool) -> Self {
        Self { line: Vec::new(), cfengine: cfengine.then(cfengine::Listener::default) }
    }

    pub(super) fn read(&mut self, bytes: &[u8], hear: &mut dyn FnMut(Said<'_>)) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() > LONGEST {
                self.end(hear);
            }
        }
    }

    /// The line so far is all there is of it.
    pub(super) fn end(&mut self, hear: &mut dyn FnMut(Said<'_>)) {
        let line = std::mem::take(&mut self.line);
        if let Some(record) = record(&line) {
            return hear(Said::Record(record));
        }
        if let Some(record) = self.cfengine.as_mut().and_then(|listener| listener.line(&line)) {
            hear(Said::Record(record));
        }
        let verbose = self.cfengine.is_some() && line.starts_with(cfengine::VERBOSE);
        if !line.is_empty() && !verbose {
            hear(Said::Output(&line));
        }
    }
}

fn record(line: &[u8]) -> Option<Record> {
    let text = line.strip_prefix(&[SEPARATOR])?;
    let record = serde_json::from_slice(text).ok()?;
    Some(match record {
        Record::Result(resource) => {
            Record::Result(Resource { file: resource.file.as_deref().map(in_recipe), ..resource })
        }
        Record::Question { what, file, line } => Record::Question { what, file: file.as_deref().map(in_recipe), line },
        other => other,
    })
}

/// A file as the person who wrote the recipe knows it.
fn in_recipe(file: &str) -> String {
    file.strip_prefix(RECIPE).and_then(|rest| rest.strip_prefix('/')).unwrap_or(file).to_owned()
}

#[cfg(any(test, fuzzing))]
/// For fuzzing: reads the bytes in pieces, both ways.
pub(crate) fn fuzz(bytes: &[u8]) {
    for cfengine in [false, true] {
        let mut reader = Reader::new(cfengine);
        let mut hear = |said: Said<'_>| {
            if let Said::Output(bytes) = said {
                assert!(!bytes.is_empty());
            }
        };
        bytes.chunks(7).for_each(|piece| reader.read(piece, &mut hear));
        reader.end(&mut hear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(cfengine: bool, bytes: &[u8]) -> (Vec<Record>, Vec<u8>) {
        let (mut records, mut output, mut reader) = (Vec::new(), Vec::new(), Reader::new(cfengine));
        let mut hear = |said: Said<'_>| match said {
            Said::Record(record) => records.push(record),
            Said::Output(bytes) => output.extend_from_slice(bytes),
        };
        bytes.chunks(5).for_each(|piece| reader.read(piece, &mut hear));
        reader.end(&mut hear);
        (records, output)
    }

    #[test]
    fn unit_records_are_taken_out_of_output() {
        let text = "one\n\x1e{\"event\":\"run\",\"number\":2}\ntwo\n\x1e{\"event\":\"result\",\"state\":\"failed\",\
                    \"what\":\"bad\",\"file\":\"/run/kiln/recipe/roles/a.yml\",\"line\":3}\n\x1enothing\nend";
        let (records, output) = heard(false, text.as_bytes());
        let failed = Resource {
            state: State::Failed,
            what: "bad".into(),
            file: Some("roles/a.yml".into()),
            line: Some(3),
            message: None,
        };
        assert_eq!(failed.to_string(), "roles/a.yml:3: bad");
        assert_eq!(records, [Record::Run { number: 2 }, Record::Result(failed)]);
        assert_eq!(String::from_utf8_lossy(&output), "one\ntwo\n\x1enothing\nend");
    }

    #[test]
    fn unit_a_line_without_end_is_not_kept() {
        let mut reader = Reader::new(true);
        (0..100).for_each(|_| reader.read(&[b'x'; 4096], &mut |_| {}));
        assert!(reader.line.len() <= LONGEST + 4096);
    }
}
