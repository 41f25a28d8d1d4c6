//! The syntax: sections of `key=value`, with continuation lines, repeated keys and emptied lists.

use std::collections::BTreeMap;

/// The largest unit file that is read, bytes. systemd itself reads no line longer than 1 MiB.
pub const MAX_SIZE: usize = 1 << 20;

/// A unit file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit(BTreeMap<(String, String), Vec<String>>);

/// Why a text is no unit file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It is too large.
    #[error("it is larger than {MAX_SIZE} bytes")]
    TooLarge,
    /// A line is neither a section nor an assignment.
    #[error("line {line} is neither a section nor `key=value`")]
    Line {
        /// From 1.
        line: usize,
    },
}

impl Unit {
    /// Reads a unit file. Assignments before the first section are an error, as unknown lines are.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        if text.len() > MAX_SIZE {
            return Err(UnitError::TooLarge);
        }
        let (mut unit, mut section) = (Self::default(), String::new());
        for (line, text) in joined(text) {
            let text = text.trim();
            if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, value)) = text.split_once('=').filter(|_| !section.is_empty()) {
                unit.assign(&section, key.trim(), value.trim());
            } else if !text.is_empty() {
                return Err(UnitError::Line { line });
            }
        }
        Ok(unit)
    }

    /// An empty value forgets what was assigned before.
    fn assign(&mut self, section: &str, key: &str, value: &str) {
        let values = self.0.entry((section.to_owned(), key.to_owned())).or_default();
        match value {
            "" => values.clear(),
            value => values.push(value.to_owned()),
        }
    }

    /// A drop-in's assignments stand over those that were here (`NAME.d/*.conf`): lists grow, unless they are emptied first.
    pub fn overlay(&mut self, text: &str) -> Result<(), UnitError> {
        let emptied = joined(text).into_iter().filter_map(|(_, line)| line.trim().strip_suffix('=').map(str::to_owned));
        let emptied: Vec<_> = emptied.collect();
        let over = Self::parse(text)?;
        for ((section, key), values) in over.0 {
            let mine = self.0.entry((section, key.clone())).or_default();
            if emptied.contains(&key) {
                mine.clear();
            }
            mine.extend(values);
        }
        Ok(())
    }

    /// Every value of a key, in order.
    pub fn all(&self, section: &str, key: &str) -> &[String] {
        self.0.get(&(section.to_owned(), key.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// The last value of a key: the one that counts where there is only one.
    pub fn last(&self, section: &str, key: &str) -> Option<&str> {
        self.all(section, key).last().map(String::as_str)
    }

    /// The keys of a section.
    pub fn keys<'u>(&'u self, section: &'u str) -> impl Iterator<Item = &'u str> {
        self.0
            .iter()
            .filter(move |((of, _), values)| of == section && !values.is_empty())
            .map(|((_, key), _)| key.as_str())
    }
}

/// Lines with those that they are continued by (a backslash at the end stands for a space), without comments, each with its number.
fn joined(text: &str) -> Vec<(usize, String)> {
    let (mut lines, mut open) = (Vec::<(usize, String)>::new(), false);
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let (part, goes_on) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        match lines.last_mut().filter(|_| open) {
            Some((_, begun)) => {
                begun.push(' ');
                begun.push_str(part.trim_start());
            }
            None => lines.push((index + 1, part.to_owned())),
        }
        open = goes_on;
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "# a comment\n[Unit]\nDescription=Web\n[Service]\nExecStartPre=/bin/a\nExecStartPre=/bin/b\n\
                        ExecStart=/bin/web \\\n  # inside\n  --port 80\nEnvironment=A=1 B=2\nUser=\n";

    #[test]
    fn unit_files_are_read_with_continuations_and_lists() {
        let unit = Unit::parse(TEXT).unwrap();
        assert_eq!(unit.last("Service", "ExecStart"), Some("/bin/web  --port 80"));
        assert_eq!(unit.all("Service", "ExecStartPre"), ["/bin/a", "/bin/b"]);
        assert_eq!(unit.last("Service", "Environment"), Some("A=1 B=2"));
        assert_eq!(unit.last("Service", "User"), None);
        assert_eq!(unit.keys("Service").collect::<Vec<_>>(), ["Environment", "ExecStart", "ExecStartPre"]);
    }

    #[test]
    fn unit_drop_ins_stand_over_the_file() {
        let mut unit = Unit::parse(TEXT).unwrap();
        unit.overlay("[Service]\nExecStart=\nExecStart=/bin/other\nExecStartPre=/bin/c\n").unwrap();
        assert_eq!(unit.all("Service", "ExecStart"), ["/bin/other"]);
        assert_eq!(unit.all("Service", "ExecStartPre"), ["/bin/a", "/bin/b", "/bin/c"]);
    }

    #[test]
    fn unit_what_is_no_unit_file_is_named_with_its_line() {
        assert_eq!(Unit::parse("[Service]\nnonsense\n"), Err(UnitError::Line { line: 2 }));
        assert_eq!(Unit::parse("A=1\n"), Err(UnitError::Line { line: 1 }));
        assert_eq!(Unit::parse(&" ".repeat(MAX_SIZE + 1)), Err(UnitError::TooLarge));
    }

    proptest! {
        #[test]
        fn unit_files_of_any_text_are_read_or_refused(text in "(\\[[A-Z]\\]|[a-z]=|\\\\|#|=|\n|.){0,60}") {
            if let Ok(mut unit) = Unit::parse(&text) {
                unit.overlay(&text).unwrap();
            }
        }
    }
}
