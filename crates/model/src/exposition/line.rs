//! A line: `name{label="value",…} value [timestamp]`.

/// A sample, without its name.
#[derive(Debug, PartialEq)]
pub(super) struct Sample {
    pub labels: Vec<(String, String)>,
    pub value: f64,
    /// Unix milliseconds.
    pub at_ms: Option<i64>,
}

/// Reads a line that is no comment.
pub(super) fn sample(line: &str) -> Option<Sample> {
    let (name, rest) = line.split_at(name_length(line));
    if name.is_empty() {
        return None;
    }
    let (labels, rest) = labels(rest)?;
    let mut words = rest.split_ascii_whitespace();
    let value = number(words.next()?)?;
    let at_ms = words.next().map(|word| word.parse().ok());
    let at_ms = if let Some(read) = at_ms { Some(read?) } else { None };
    words.next().is_none().then_some(Sample { labels, value, at_ms })
}

/// How many bytes at the beginning are a metric's name.
pub(super) fn name_length(text: &str) -> usize {
    let inside = |(at, byte): (usize, u8)| {
        byte.is_ascii_alphabetic() || byte == b'_' || byte == b':' || at > 0 && byte.is_ascii_digit()
    };
    text.bytes().enumerate().take_while(|found| inside(*found)).count()
}

/// A value as Go writes it: `1e3`, `NaN`, `+Inf`.
pub(super) fn number(word: &str) -> Option<f64> {
    word.parse().ok()
}

/// The labels at the beginning, if there are any, and what comes after them.
pub(super) fn labels(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let Some(mut rest) = text.strip_prefix('{') else { return Some((Vec::new(), text)) };
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_at(name_length(rest));
        let after = after.trim_start_matches([' ', '\t']).strip_prefix('=')?;
        let (value, after) = quoted(after.trim_start_matches([' ', '\t']))?;
        if name.is_empty() || name.contains(':') {
            return None;
        }
        labels.push((name.to_owned(), value));
        let after = after.trim_start_matches([' ', '\t']);
        rest = match after.strip_prefix(',') {
            Some(more) => more,
            None if after.starts_with('}') => after,
            None => return None,
        };
    }
}

/// A text in quotes, in which `\\`, `\"` and `\n` stand for one character.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.strip_prefix('"')?.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            // The quote at the begin is one byte, and so is this one.
            '"' => return Some((value, &text[at + 2..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                same @ ('\\' | '"') => same,
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}
