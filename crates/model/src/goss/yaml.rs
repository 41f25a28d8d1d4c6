//! YAML as a tree with the line of every node, within bounds.
//!
//! Scalars get the types that goss's own reader (`gopkg.in/yaml.v3`, `resolve.go`) gives them: `yes` is a text, `0644` the number 420.
//! An alias repeats what its anchor stands for, and every repetition counts: nothing grows beyond [`MAX_NODES`].

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{Problem, value::Value};

/// So many nodes, repeated ones included.
const MAX_NODES: usize = 100_000;
/// So deep.
const MAX_DEPTH: usize = 50;

/// A node and the line where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    pub(super) kind: Kind,
    /// How many nodes it is, itself included.
    size: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Anything but a list or a map.
    Scalar(Value),
    List(Vec<Node>),
    /// In the order written; keys are texts.
    Map(Vec<(Key, Node)>),
}

/// A key and its line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) line: usize,
}

impl Node {
    /// The entries of a map.
    pub(super) fn entries(&self) -> Option<&[(Key, Node)]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries()?.iter().find(|(name, _)| name.text == key).map(|(_, node)| node)
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Scalar(Value::Null))
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// It without its lines.
    pub(super) fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => Value::List(items.iter().map(Self::value).collect()),
            Kind::Map(entries) => {
                Value::Map(entries.iter().map(|(key, node)| (key.text.clone(), node.value())).collect())
            }
        }
    }

    /// What it is, for messages.
    pub(super) fn described(&self) -> String {
        match &self.kind {
            Kind::Scalar(value) => value.described(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }
}

/// Reads one document. An empty file is an empty map.
pub(super) fn parse(file: &str, text: &str) -> Result<Node, Problem> {
    let mut reader = Reader { file, anchors: BTreeMap::new(), left: MAX_NODES };
    let mut events = Events { file, parser: Parser::new_from_str(text) };
    loop {
        match events.next()? {
            (Event::StreamEnd, span) => {
                return Ok(Node { line: line(span), kind: Kind::Map(Vec::new()), size: 1 });
            }
            (Event::DocumentStart(_), _) => break,
            _ => {}
        }
    }
    let event = events.next()?;
    let root = reader.node(&mut events, event, 0)?;
    loop {
        match events.next()? {
            (Event::StreamEnd, _) => return Ok(root),
            (Event::DocumentStart(_), span) => {
                return Err(problem(file, span, "a second document begins: one is read"));
            }
            _ => {}
        }
    }
}

fn line(span: Span) -> usize {
    span.start.line()
}

fn problem(file: &str, span: Span, message: impl Into<String>) -> Problem {
    Problem { file: file.to_owned(), line: line(span), message: message.into() }
}

struct Events<'t> {
    file: &'t str,
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
}

impl<'t> Events<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Problem> {
        match self.parser.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Problem {
                file: self.file.to_owned(),
                line: error.marker().line(),
                message: format!("this is not YAML: {}", error.info()),
            }),
            None => Err(Problem { file: self.file.to_owned(), line: 1, message: "the YAML ends early".to_owned() }),
        }
    }
}

struct Reader<'t> {
    file: &'t str,
    anchors: BTreeMap<usize, Node>,
    left: usize,
}

impl<'t> Reader<'t> {
    fn node(
        &mut self,
        events: &mut Events<'t>,
        (event, span): (Event<'t>, Span),
        depth: usize,
    ) -> Result<Node, Problem> {
        if depth > MAX_DEPTH {
            return Err(problem(self.file, span, format!("this is nested deeper than {MAX_DEPTH} levels")));
        }
        self.take(1, span)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value =
                    scalar(&text, style, tag.as_deref()).map_err(|message| problem(self.file, span, message))?;
                (Node { line: line(span), kind: Kind::Scalar(value), size: 1 }, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list(events, span, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(events, span, depth)?, anchor),
            Event::Alias(anchor) => (self.alias(anchor, span)?, 0),
            other => return Err(problem(self.file, span, format!("a value is missing here ({other:?})"))),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn take(&mut self, nodes: usize, span: Span) -> Result<(), Problem> {
        let left = self.left.checked_sub(nodes);
        let message = || format!("there are more than {MAX_NODES} values up to here, what aliases repeat counted");
        self.left = left.ok_or_else(|| problem(self.file, span, message()))?;
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Problem> {
        let size = self.anchors.get(&anchor).map(|node| node.size);
        let size = size.ok_or_else(|| problem(self.file, span, "this alias stands inside what it repeats"))?;
        self.take(size, span)?;
        Ok(self.anchors[&anchor].clone())
    }

    fn list(&mut self, events: &mut Events<'t>, span: Span, depth: usize) -> Result<Node, Problem> {
        let mut items = Vec::new();
        loop {
            let event = events.next()?;
            if event.0 == Event::SequenceEnd {
                let size = 1 + items.iter().map(|item: &Node| item.size).sum::<usize>();
                return Ok(Node { line: line(span), kind: Kind::List(items), size });
            }
            items.push(self.node(events, event, depth + 1)?);
        }
    }

    fn map(&mut self, events: &mut Events<'t>, span: Span, depth: usize) -> Result<Node, Problem> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let event = events.next()?;
            if event.0 == Event::MappingEnd {
                break;
            }
            let place = event.1;
            let key = self.key(event)?;
            let event = events.next()?;
            let value = self.node(events, event, depth + 1)?;
            if key.text == "<<" {
                merged.push((value, place));
            } else if let Some((first, _)) = entries.iter().find(|(earlier, _)| earlier.text == key.text) {
                let message = format!("`{}` stands here a second time; the first is in line {}", key.text, first.line);
                return Err(problem(self.file, place, message));
            } else {
                entries.push((key, value));
            }
        }
        for (value, place) in merged {
            merge(&mut entries, value).map_err(|message| problem(self.file, place, message))?;
        }
        let size = 1 + entries.iter().map(|(_, node)| 1 + node.size).sum::<usize>();
        Ok(Node { line: line(span), kind: Kind::Map(entries), size })
    }

    fn key(&mut self, (event, span): (Event<'t>, Span)) -> Result<Key, Problem> {
        self.take(1, span)?;
        match event {
            Event::Scalar(text, ..) => Ok(Key { text: text.into_owned(), line: line(span) }),
            _ => Err(problem(self.file, span, "a key must be a text")),
        }
    }
}

/// `<<`: the entries of a map, or of several, as far as they are not there (<https://yaml.org/type/merge.html>).
fn merge(entries: &mut Vec<(Key, Node)>, value: Node) -> Result<(), String> {
    match value.kind {
        Kind::Map(more) => {
            for (key, node) in more {
                if !entries.iter().any(|(there, _)| there.text == key.text) {
                    entries.push((key, node));
                }
            }
            Ok(())
        }
        Kind::List(items) => items.into_iter().try_for_each(|item| merge(entries, item)),
        Kind::Scalar(_) => Err("`<<` merges a map, or a list of maps".to_owned()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let tag = tag.filter(|tag| tag.is_yaml_core_schema() || tag.handle == "!!").map(|tag| tag.suffix.as_str());
    match (tag, style) {
        (Some("str"), _) => Ok(Value::Text(text.to_owned())),
        (Some("int" | "float" | "bool" | "null"), _) | (None, ScalarStyle::Plain) => Ok(plain(text)),
        (None, _) => Ok(Value::Text(text.to_owned())),
        (Some(tag), _) => Err(format!("the tag `!!{tag}` is not known")),
    }
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return Value::Text(text.to_owned());
    }
    let digits = text.replace('_', "");
    integer(&digits).or_else(|| float(&digits)).unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// Go's `strconv.ParseInt` with base 0, and YAML 1.2's `0o`. What is larger than 64 bits is a number with a fraction.
fn integer(digits: &str) -> Option<Value> {
    let (negative, rest) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits.strip_prefix('+').unwrap_or(digits)),
    };
    let (base, rest) = match rest.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &rest[2..]),
        [b'0', b'o' | b'O', ..] => (8, &rest[2..]),
        [b'0', b'b' | b'B', ..] => (2, &rest[2..]),
        [b'0', _, ..] => (8, &rest[1..]),
        _ => (10, rest),
    };
    if rest.is_empty() || rest.starts_with(['+', '-']) {
        return None;
    }
    let number = i128::from_str_radix(rest, base).ok()?;
    let number = if negative { -number } else { number };
    Some(i64::try_from(number).map_or(Value::Float(number as f64), Value::Int))
}

/// yaml.v3: `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`.
fn float(digits: &str) -> Option<Value> {
    let good = digits.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && digits.bytes().any(|b| b.is_ascii_digit());
    good.then(|| digits.parse().ok()).flatten().map(Value::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        parse("f", text).unwrap().value()
    }

    #[test]
    fn unit_scalars_have_the_types_that_goss_gives_them() {
        let cases = [
            ("yes", Value::Text("yes".into())),
            ("true", Value::Bool(true)),
            ("0644", Value::Int(420)),
            ("\"0644\"", Value::Text("0644".into())),
            ("1_000", Value::Int(1000)),
            ("0x1f", Value::Int(31)),
            ("-7", Value::Int(-7)),
            ("42.0", Value::Float(42.0)),
            ("1e3", Value::Float(1000.0)),
            ("99999999999999999999999", Value::Float(1e23)),
            ("1.2.3", Value::Text("1.2.3".into())),
            ("08", Value::Float(8.0)),
            ("~", Value::Null),
            ("!!str 42", Value::Text("42".into())),
        ];
        for (text, wanted) in cases {
            assert_eq!(value(text), wanted, "{text}");
        }
    }

    #[test]
    fn unit_merges_and_aliases_are_what_they_stand_for() {
        let text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n";
        let wanted = Value::Map([("y".to_owned(), Value::Int(3)), ("x".to_owned(), Value::Int(1))].into());
        assert_eq!(parse("f", text).unwrap().get("b").unwrap().value(), wanted);
    }

    #[test]
    fn unit_what_grows_without_bounds_is_refused_with_its_line() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            let last = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{last}"); 10].join(", ")));
        }
        let error = parse("f", &bomb).unwrap_err();
        assert!(error.message.contains("more than 100000 values") && (4..6).contains(&error.line), "{error}");
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse("f", &nested(60)).unwrap_err().message.contains("nested deeper"));
        assert!(parse("f", &nested(40)).is_ok() && parse("f", &nested(50_000)).is_err());
        let twice = parse("f", "a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!((twice.line, twice.message.contains("line 1")), (3, true), "{twice}");
        assert!(parse("f", "a: 1\n---\nb: 1\n").unwrap_err().message.contains("second document"));
        assert_eq!(parse("f", "a: b: c\n").unwrap_err().line, 1);
    }
}
