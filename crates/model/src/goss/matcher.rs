//! Matchers: what is expected of a value. Reading them is goss's `resource/gomega.go`, comparing its `matchers/` and gomega's.

use regex::Regex;

use super::{
    Problem, gjson,
    patterns::{self, Pattern},
    semver::Range,
    value::Value,
    yaml::{Key, Kind, Node},
};

/// A compiled expression larger than this (bytes) is refused.
const MAX_COMPILED: usize = 1 << 20;

/// What is expected of a value. A comparison can also fail to make sense ([`Matcher::holds`]), and then nothing holds, not even
/// `not`.
#[derive(Debug, Clone)]
pub struct Matcher(Rule);

#[derive(Debug, Clone)]
enum Rule {
    Text(String),
    Number(Value),
    /// `equal`, and a plain `true` or `false`.
    Equal(Value),
    Prefix(String),
    Suffix(String),
    Regex(Regex),
    Part(String),
    Length(usize),
    Patterns(Vec<Pattern>),
    Key(Box<Rule>),
    Element(Box<Rule>),
    /// `lines`: a text is taken as its lines, which a plain list does not.
    Elements {
        rules: Vec<Rule>,
        lines: bool,
    },
    Exactly(Vec<Rule>),
    Not(Box<Rule>),
    All(Vec<Rule>),
    Any(Vec<Rule>),
    Compare(Comparison, Value),
    Versions(Range, String),
    Json(Vec<(gjson::Path, String, Rule)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Compiles an expression; the error is one line.
pub(super) fn regex(text: &str) -> Result<Regex, String> {
    let built = regex::RegexBuilder::new(text).size_limit(MAX_COMPILED).build();
    built.map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("`{text}` is not a regular expression: {reason}")
    })
}

impl Matcher {
    /// Reads a matcher. `lines` for what goss reads line by line: there, a plain list is a list of patterns.
    pub(super) fn read(file: &str, node: &Node, lines: bool) -> Result<Self, Problem> {
        match &node.kind {
            Kind::List(_) if lines => patterns(node),
            _ => rule(node),
        }
        .map(Self)
        .map_err(|(line, message)| Problem { file: file.to_owned(), line, message })
    }

    /// A whole number, where goss takes a text as one.
    pub(super) fn number(number: i64) -> Self {
        Self(Rule::Number(Value::Float(number as f64)))
    }

    /// Whether a value is as expected; the error says why that cannot be said.
    pub fn holds(&self, value: &Value) -> Result<bool, String> {
        self.0.holds(value)
    }

    /// What is expected, in words that follow "expected it".
    pub fn wanted(&self) -> String {
        self.0.wanted()
    }

    /// The patterns that a text does not have, where patterns are expected.
    pub(super) fn missing(&self, value: &Value) -> Option<String> {
        match &self.0 {
            Rule::Patterns(all) => Some(patterns::missing(all, &value.to_text()).join(", ")),
            _ => None,
        }
    }
}

type Read<T> = Result<T, (usize, String)>;

fn rule(node: &Node) -> Read<Rule> {
    match &node.kind {
        Kind::Scalar(Value::Text(text)) => Ok(Rule::Text(text.clone())),
        Kind::Scalar(number @ (Value::Int(_) | Value::Float(_))) => Ok(Rule::Number(number.clone())),
        Kind::Scalar(flag @ Value::Bool(_)) => Ok(Rule::Equal(flag.clone())),
        Kind::Scalar(_) => Err((node.line, "nothing is expected here: write a value or a matcher".to_owned())),
        Kind::List(items) => Ok(Rule::Elements { rules: items.iter().map(rule).collect::<Read<_>>()?, lines: false }),
        Kind::Map(entries) => match entries.as_slice() {
            [(key, value)] => named(key, value),
            _ => {
                let names: Vec<_> = entries.iter().map(|(key, _)| format!("`{}`", key.text)).collect();
                let message = format!("one matcher stands here, not {}: {}", names.len(), names.join(", "));
                Err((node.line, format!("{message}; combine them with `and`")))
            }
        },
    }
}

/// The names, for messages. `xml` is younger than goss 0.4.
const NAMES: [&str; 18] = [
    "equal",
    "have-prefix",
    "have-suffix",
    "match-regexp",
    "contain-substring",
    "have-len",
    "have-patterns",
    "have-key",
    "contain-element",
    "contain-elements",
    "consist-of",
    "not",
    "and",
    "or",
    "gt",
    "ge",
    "lt",
    "le",
];

fn named(key: &Key, node: &Node) -> Read<Rule> {
    Ok(match key.text.as_str() {
        "equal" => Rule::Equal(node.value()),
        "have-prefix" => Rule::Prefix(text(key, node)?),
        "have-suffix" => Rule::Suffix(text(key, node)?),
        "match-regexp" => Rule::Regex(regex(&text(key, node)?).map_err(|message| (node.line, message))?),
        "contain-substring" => Rule::Part(text(key, node)?),
        "have-len" => Rule::Length(length(key, node)?),
        "have-patterns" => patterns(node)?,
        "have-key" => Rule::Key(Box::new(rule(node)?)),
        "contain-element" => match node.kind {
            Kind::List(_) | Kind::Scalar(Value::Bool(_)) => {
                return Err(wrong(key, node, "a matcher, a text or a number"));
            }
            _ => Rule::Element(Box::new(rule(node)?)),
        },
        "contain-elements" => Rule::Elements { rules: list(key, node)?, lines: true },
        "consist-of" => Rule::Exactly(list(key, node)?),
        "not" => Rule::Not(Box::new(rule(node)?)),
        "and" => Rule::All(list(key, node)?),
        "or" => Rule::Any(list(key, node)?),
        "gt" => Rule::Compare(Comparison::Greater, number(key, node)?),
        "ge" => Rule::Compare(Comparison::GreaterOrEqual, number(key, node)?),
        "lt" => Rule::Compare(Comparison::Less, number(key, node)?),
        "le" => Rule::Compare(Comparison::LessOrEqual, number(key, node)?),
        "semver-constraint" => {
            let text = text(key, node)?;
            Rule::Versions(Range::read(&text).map_err(|message| (node.line, message))?, text)
        }
        "gjson" => json(key, node)?,
        other => {
            let meant = crate::text::suggest(&other.replace('_', "-"), &NAMES);
            let hint = meant.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
            return Err((key.line, format!("`{other}` is not a matcher of goss 0.4{hint}")));
        }
    })
}

fn wrong(key: &Key, node: &Node, wanted: &str) -> (usize, String) {
    (node.line, format!("`{}` takes {wanted}, and this is {}", key.text, node.described()))
}

fn text(key: &Key, node: &Node) -> Read<String> {
    node.text().map(str::to_owned).ok_or_else(|| wrong(key, node, "a text"))
}

fn list(key: &Key, node: &Node) -> Read<Vec<Rule>> {
    match &node.kind {
        Kind::List(items) => items.iter().map(rule).collect(),
        _ => Err(wrong(key, node, "a list")),
    }
}

fn number(key: &Key, node: &Node) -> Read<Value> {
    match &node.kind {
        Kind::Scalar(number @ (Value::Int(_) | Value::Float(_))) => Ok(number.clone()),
        _ => Err(wrong(key, node, "a number")),
    }
}

fn length(key: &Key, node: &Node) -> Read<usize> {
    let whole = match number(key, node)? {
        Value::Int(number) => usize::try_from(number).ok(),
        Value::Float(number) if (0.0..1e9).contains(&number) => Some(number as usize),
        _ => None,
    };
    whole.ok_or_else(|| wrong(key, node, "a length"))
}

fn patterns(node: &Node) -> Read<Rule> {
    let Kind::List(items) = &node.kind else {
        return Err((node.line, format!("`have-patterns` takes a list, and this is {}", node.described())));
    };
    let read = |item: &Node| {
        let text =
            item.text().ok_or_else(|| (item.line, format!("a pattern is a text, and this is {}", item.described())))?;
        Pattern::read(text).map_err(|message| (item.line, message))
    };
    Ok(Rule::Patterns(items.iter().map(read).collect::<Read<_>>()?))
}

fn json(key: &Key, node: &Node) -> Read<Rule> {
    let entries = node.entries().ok_or_else(|| wrong(key, node, "a map from paths to matchers"))?;
    let read = |(path, node): &(Key, Node)| {
        let found = gjson::Path::read(&path.text).map_err(|message| (path.line, message))?;
        Ok((found, path.text.clone(), rule(node)?))
    };
    Ok(Rule::Json(entries.iter().map(read).collect::<Read<_>>()?))
}

impl Rule {
    fn holds(&self, value: &Value) -> Result<bool, String> {
        match self {
            Self::Text(text) => Ok(value.to_text() == *text),
            Self::Number(number) => Ok(order(&value.to_number()?, number)?.is_some_and(std::cmp::Ordering::is_eq)),
            Self::Equal(wanted) => equal(value, wanted),
            Self::Prefix(text) => Ok(value.to_text().starts_with(text)),
            Self::Suffix(text) => Ok(value.to_text().ends_with(text)),
            Self::Regex(regex) => Ok(regex.is_match(&value.to_text())),
            Self::Part(text) => Ok(value.to_text().contains(text)),
            Self::Length(wanted) => Ok(length_of(value)? == *wanted),
            Self::Patterns(all) => Ok(patterns::missing(all, &value.to_text()).is_empty()),
            Self::Key(rule) => has_key(rule, value),
            Self::Element(rule) => has_element(rule, &value.to_list()),
            Self::Elements { rules, lines } => {
                let elements = if *lines { value.to_list() } else { value.clone() }.elements()?;
                Ok(assigned(rules, &elements) == rules.len())
            }
            Self::Exactly(rules) => {
                let elements = value.elements()?;
                Ok(elements.len() == rules.len() && assigned(rules, &elements) == rules.len())
            }
            Self::Not(rule) => rule.holds(value).map(|holds| !holds),
            Self::All(rules) => all(rules.iter().map(|rule| rule.holds(value))),
            Self::Any(rules) => any(rules, value),
            Self::Compare(comparison, number) => compare(*comparison, &value.to_number()?, number),
            Self::Versions(range, _) => versions(range, value),
            Self::Json(paths) => json_holds(paths, value),
        }
    }

    fn wanted(&self) -> String {
        let listed = |rules: &[Self]| format!("[{}]", rules.iter().map(Self::wanted).collect::<Vec<_>>().join(", "));
        match self {
            Self::Text(text) => format!("to be {text:?}"),
            Self::Number(number) => format!("to be the number {}", number.printed()),
            Self::Equal(value) => format!("to equal {}", value.described()),
            Self::Prefix(text) => format!("to begin with {text:?}"),
            Self::Suffix(text) => format!("to end with {text:?}"),
            Self::Regex(regex) => format!("to match /{regex}/"),
            Self::Part(text) => format!("to contain {text:?}"),
            Self::Length(length) => format!("to have length {length}"),
            Self::Patterns(_) => "to have the patterns".to_owned(),
            Self::Key(rule) => format!("to have a key {}", rule.wanted()),
            Self::Element(rule) => format!("to have an element {}", rule.wanted()),
            Self::Elements { rules, .. } => format!("to have elements {}", listed(rules)),
            Self::Exactly(rules) => format!("to consist of elements {}", listed(rules)),
            Self::Not(rule) => format!("not {}", rule.wanted()),
            Self::All(rules) => format!("to be all of {}", listed(rules)),
            Self::Any(rules) => format!("to be any of {}", listed(rules)),
            Self::Compare(comparison, number) => {
                let words = match comparison {
                    Comparison::Greater => "more than",
                    Comparison::GreaterOrEqual => "at least",
                    Comparison::Less => "less than",
                    Comparison::LessOrEqual => "at most",
                };
                format!("to be {words} {}", number.printed())
            }
            Self::Versions(_, text) => format!("to be in the range of versions {text:?}"),
            Self::Json(paths) => {
                let paths = paths.iter().map(|(_, path, rule)| format!("{path} {}", rule.wanted()));
                format!("as JSON: {}", paths.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Go's `reflect.DeepEqual` behind gomega's Equal: kinds that differ never equal each other.
fn equal(value: &Value, wanted: &Value) -> Result<bool, String> {
    match (value, wanted) {
        (Value::Null, Value::Null) => Err("nothing cannot be compared with nothing".to_owned()),
        _ => Ok(value == wanted),
    }
}

fn order(value: &Value, wanted: &Value) -> Result<Option<std::cmp::Ordering>, String> {
    let float = |value: &Value| match value {
        Value::Int(number) => Ok(*number as f64),
        Value::Float(number) => Ok(*number),
        other => Err(format!("{} is not a number", other.described())),
    };
    match (value, wanted) {
        (Value::Int(a), Value::Int(b)) => Ok(Some(a.cmp(b))),
        _ => Ok(float(value)?.partial_cmp(&float(wanted)?)),
    }
}

fn compare(comparison: Comparison, value: &Value, wanted: &Value) -> Result<bool, String> {
    let order = order(value, wanted)?;
    Ok(order.is_some_and(|order| match comparison {
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
    }))
}

/// Go's `len`: of a text, its bytes.
fn length_of(value: &Value) -> Result<usize, String> {
    match value {
        Value::Text(text) => Ok(text.len()),
        other => {
            other.elements().map(|elements| elements.len()).map_err(|_| format!("{} has no length", other.described()))
        }
    }
}

fn has_key(rule: &Rule, value: &Value) -> Result<bool, String> {
    let Value::Map(entries) = value else { return Err(format!("{} has no keys", value.described())) };
    for key in entries.keys() {
        if rule.holds(&Value::Text(key.clone()))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An element that cannot be compared counts only if no other one fits.
fn has_element(rule: &Rule, value: &Value) -> Result<bool, String> {
    let mut last = Ok(false);
    for element in value.elements()? {
        match rule.holds(&element) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            error => last = error,
        }
    }
    last
}

fn all(mut holds: impl Iterator<Item = Result<bool, String>>) -> Result<bool, String> {
    holds.find(|holds| *holds != Ok(true)).unwrap_or(Ok(true))
}

/// gomega's Or: the first that fits; an error before it ends the search.
fn any(rules: &[Rule], value: &Value) -> Result<bool, String> {
    for rule in rules {
        if rule.holds(value)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn versions(range: &Range, value: &Value) -> Result<bool, String> {
    if let Value::Text(version) = value {
        return range.holds(version);
    }
    let versions = value.elements().ok().filter(|all| !all.is_empty());
    let versions = versions.ok_or_else(|| format!("{} is not a version, nor a list of them", value.described()))?;
    let held: Result<Vec<bool>, String> = versions
        .iter()
        .map(|version| match version {
            Value::Text(text) => range.holds(text),
            other => Err(format!("{} is not a version", other.described())),
        })
        .collect();
    Ok(held?.into_iter().all(|holds| holds))
}

fn json_holds(paths: &[(gjson::Path, String, Rule)], value: &Value) -> Result<bool, String> {
    let Value::Text(text) = value else { return Err(format!("{} is not JSON", value.described())) };
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))?;
    all(paths.iter().map(|(path, written, rule)| {
        let found = path.find(&json).ok_or_else(|| format!("there is nothing at `{written}`"))?;
        rule.holds(&Value::of_json(&found))
    }))
}

/// How many rules get an element of their own, at best (augmenting paths: Kuhn's algorithm).
fn assigned(rules: &[Rule], elements: &[Value]) -> usize {
    let fits: Vec<Vec<usize>> = rules
        .iter()
        .map(|rule| (0..elements.len()).filter(|index| rule.holds(&elements[*index]) == Ok(true)).collect())
        .collect();
    let mut owner = vec![None; elements.len()];
    (0..rules.len()).filter(|rule| augment(*rule, &fits, &mut owner)).count()
}

/// Finds an element for a rule, moving the rules that have one. Breadth first, so that nothing is nested as deep as lists are long.
fn augment(rule: usize, fits: &[Vec<usize>], owner: &mut [Option<usize>]) -> bool {
    let mut came_from = vec![None; owner.len()];
    let mut queue = std::collections::VecDeque::from([rule]);
    while let Some(current) = queue.pop_front() {
        for element in &fits[current] {
            if came_from[*element].is_some() {
                continue;
            }
            came_from[*element] = Some(current);
            match owner[*element] {
                Some(holder) => queue.push_back(holder),
                None => {
                    assign(*element, rule, &came_from, owner);
                    return true;
                }
            }
        }
    }
    false
}

fn assign(mut element: usize, first: usize, came_from: &[Option<usize>], owner: &mut [Option<usize>]) {
    while let Some(rule) = came_from[element] {
        let had = owner.iter().position(|holder| *holder == Some(rule));
        owner[element] = Some(rule);
        match had {
            Some(before) if rule != first => element = before,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goss::yaml;

    fn holds(content: &str, matcher: &str) -> Result<bool, String> {
        let value = yaml::parse("c", content).unwrap().value();
        let node = yaml::parse("f", matcher).unwrap();
        Matcher::read("f", &node, false).unwrap_or_else(|problem| panic!("{problem}")).holds(&value)
    }

    /// The examples of goss's documentation (docs/gossfile.md, "Matchers").
    #[test]
    fn unit_the_documented_examples_hold() {
        for (content, matcher) in [
            ("foo", "foo"),
            ("[group1, group2, group3]", "[group1, group2]"),
            (
                "42",
                "{and: ['42', {have-prefix: '4'}, {have-suffix: '2'}, {match-regexp: '\\d{2}'}, {contain-substring: '2'}]}",
            ),
            ("'42'", "{and: [42, 42.0, {gt: 40}, {lt: 45}]}"),
            ("[foo, bar, moo]", "{and: [{contain-elements: [foo, bar]}, [foo, bar], {equal: [foo, bar, moo]}]}"),
            ("[foo, bar, moo]", "{consist-of: [foo, {have-prefix: m}, bar]}"),
            ("[foo, bar, moo]", "{contain-element: {have-prefix: b}}"),
            ("[1.0.1, 1.9.9]", "{semver-constraint: '>1.0.0 <2.0.0 !=1.5.0'}"),
            ("[1.0.1, 1.5.0, 1.9.9]", "{not: {semver-constraint: '>1.0.0 <2.0.0 !=1.5.0'}}"),
            ("1.0.1", "{semver-constraint: '>5.0.0 || < 1.5.0'}"),
            ("{foo: bar, baz: bing}", "{and: [{have-key: baz}]}"),
            ("[2]", "{contain-element: 2}"),
            ("some string", "{match-regexp: some str}"),
            ("foo", "{have-len: 3}"),
            (
                "'{\"foo\": \"bar\", \"moo\": {\"nested\": \"cow\"}, \"count\": \"15\"}'",
                "{gjson: {moo.nested: cow, foo: {have-prefix: b}, count: {le: 25}, '@this': {have-key: foo}, \
                 moo: {and: [{have-key: nested}, {not: {have-key: nested2}}]}}}",
            ),
        ] {
            assert_eq!(holds(content, matcher), Ok(true), "{content} {matcher}");
        }
    }

    #[test]
    fn unit_each_matcher_can_fail() {
        for (content, matcher) in [
            ("foo", "bar"),
            ("[group1, group2, group3]", "[group1, group2, group2]"),
            ("41", "{or: [42, {gt: 42}]}"),
            ("foo", "{have-prefix: o}"),
            ("foo", "{have-suffix: f}"),
            ("foo", "{match-regexp: '^o'}"),
            ("foo", "{contain-substring: x}"),
            ("foo", "{have-len: 2}"),
            ("[a, b]", "{consist-of: [a]}"),
            ("[a, b]", "{equal: [b, a]}"),
            ("42", "{equal: 42.0}"),
            ("42", "true"),
            ("{a: 1}", "{have-key: b}"),
            ("\"a\\nb\"", "{contain-element: c}"),
            ("7", "{ge: 8}"),
            ("7", "{le: 6}"),
            ("foo", "{not: foo}"),
            ("\"a\\nb\"", "{have-patterns: ['!a']}"),
        ] {
            assert_eq!(holds(content, matcher), Ok(false), "{content} {matcher}");
        }
    }

    #[test]
    fn unit_what_cannot_be_compared_does_not_hold_negated_either() {
        for (content, matcher) in [
            ("foo", "{not: {gt: 3}}"),
            ("foo", "{not: {have-key: a}}"),
            ("foo", "{not: [foo]}"),
            ("foo", "{not: {gjson: {a: 1}}}"),
            ("'{}'", "{not: {gjson: {a: 1}}}"),
            ("foo", "{not: {semver-constraint: '>1.0.0'}}"),
        ] {
            assert!(holds(content, matcher).is_err(), "{content} {matcher}");
        }
    }

    #[test]
    fn unit_elements_are_given_out_at_best() {
        assert_eq!(holds("[aa, ab]", "[{have-prefix: a}, aa]"), Ok(true));
        assert_eq!(holds("[a1, a2, b1]", "{consist-of: [{have-prefix: a}, {match-regexp: '1$'}, a1]}"), Ok(true));
        assert_eq!(holds("[x, y]", "{consist-of: [x, x]}"), Ok(false));
    }

    #[test]
    fn unit_what_is_no_matcher_is_refused_with_its_line() {
        for (matcher, line, words) in [
            ("and:\n  - have-prefx: a\n", 2, "did you mean `have-prefix`"),
            ("gt: 1\nlt: 2\n", 1, "combine them with `and`"),
            ("have-prefix: 7", 1, "takes a text, and this is 7"),
            ("gt: '5'", 1, "takes a number"),
            ("match-regexp: '('", 1, "not a regular expression"),
            ("semver-constraint: 'x'", 1, "not a range of versions"),
            ("not:", 1, "nothing is expected"),
            ("gjson: {'@ugly': 1}", 1, "`@ugly` is not supported"),
            ("have-patterns: [1]", 1, "a pattern is a text"),
        ] {
            let problem = Matcher::read("f", &yaml::parse("f", matcher).unwrap(), false).unwrap_err();
            assert!(problem.line == line && problem.message.contains(words), "{matcher}: {problem}");
        }
    }
}
