//! Paths into JSON (<https://github.com/tidwall/gjson/blob/master/SYNTAX.md>): keys, `*` and `?`, escapes, indexes, `#`, queries and
//! the modifiers `@this`, `@keys`, `@values`, `@reverse`. A path with anything else is refused when the file is read.

use serde_json::Value as Json;

/// A path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Path(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    /// A key of an object, or an index. `wild` where `*` and `?` stand for something.
    Key {
        text: String,
        wild: bool,
    },
    /// `#`: how many, or each.
    Each,
    /// `#(…)`, and with `#` behind it all that fit.
    Query {
        path: Path,
        test: Option<(Operator, Json)>,
        all: bool,
    },
    Modifier(Modifier),
    /// `|`: what follows is about the whole and not about each.
    Pipe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modifier {
    This,
    Keys,
    Values,
    Reverse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
    Unlike,
}

const OPERATORS: [(&str, Operator); 9] = [
    ("==", Operator::Equal),
    ("!=", Operator::Unequal),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("!%", Operator::Unlike),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("%", Operator::Like),
];

/// Paths inside queries inside paths … so deep.
const MAX_DEPTH: usize = 8;

impl Path {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        read(text, 0).map_err(|what| format!("`{text}` is not a path into JSON that Kiln knows: {what}"))
    }

    /// What the path leads to.
    pub(super) fn find(&self, json: &Json) -> Option<Json> {
        find(&self.0, json)
    }
}

fn read(text: &str, depth: usize) -> Result<Path, String> {
    if depth > MAX_DEPTH {
        return Err("its queries are nested too deep".to_owned());
    }
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = component(rest, depth)?;
        parts.push(part);
        match after.chars().next() {
            None => return Ok(Path(parts)),
            Some('|') => parts.push(Part::Pipe),
            Some('.') => {}
            Some(other) => return Err(format!("`{other}` is not expected")),
        }
        rest = &after[1..];
    }
}

fn component(text: &str, depth: usize) -> Result<(Part, &str), String> {
    if let Some(name) = text.strip_prefix('@') {
        let end = name.find(['.', '|']).unwrap_or(name.len());
        let modifier = match &name[..end] {
            "this" => Modifier::This,
            "keys" => Modifier::Keys,
            "values" => Modifier::Values,
            "reverse" => Modifier::Reverse,
            other => return Err(format!("the modifier `@{other}` is not supported")),
        };
        return Ok((Part::Modifier(modifier), &name[end..]));
    }
    if let Some(query) = text.strip_prefix("#(").or_else(|| text.strip_prefix("#[")) {
        return self::query(query, depth);
    }
    if text.starts_with(['{', '[', '!']) {
        return Err("multipaths and literals are not supported".to_owned());
    }
    if let Some(after) = text.strip_prefix('#').filter(|after| after.is_empty() || after.starts_with(['.', '|'])) {
        return Ok((Part::Each, after));
    }
    let (mut key, mut wild, mut escaped) = (String::new(), false, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => {
                if matches!(c, '*' | '?') {
                    key.push('\\');
                }
                key.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '.' | '|' => return Ok((Part::Key { text: key, wild }, &text[index..])),
            _ => {
                wild |= matches!(c, '*' | '?');
                key.push(c);
            }
        }
    }
    Ok((Part::Key { text: key, wild }, ""))
}

/// What stands behind `#(`.
fn query(text: &str, depth: usize) -> Result<(Part, &str), String> {
    let end = closing(text).ok_or("a query does not end")?;
    let (inner, after) = (text[..end].trim(), &text[end + 1..]);
    let (all, after) = after.strip_prefix('#').map_or((false, after), |after| (true, after));
    let found = operator(inner);
    let (left, test) = match found {
        None => (inner, None),
        Some((at, symbol, operator)) => {
            let right = inner[at + symbol.len()..].trim();
            let value = serde_json::from_str(right).unwrap_or_else(|_| Json::String(right.to_owned()));
            (inner[..at].trim(), Some((operator, value)))
        }
    };
    let path = if left.is_empty() { Path(vec![Part::Modifier(Modifier::This)]) } else { read(left, depth + 1)? };
    Ok((Part::Query { path, test, all }, after))
}

/// Where the bracket closes that is open at the beginning.
fn closing(text: &str) -> Option<usize> {
    let (mut open, mut quoted, mut escaped) = (1, false, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'(' | b'[' if !quoted => open += 1,
            b')' | b']' if !quoted => {
                open -= 1;
                if open == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// The first comparison outside of brackets.
fn operator(text: &str) -> Option<(usize, &'static str, Operator)> {
    let mut open = 0;
    for (index, c) in text.char_indices() {
        match c {
            '(' | '[' => open += 1,
            ')' | ']' => open -= 1,
            _ if open == 0 => {
                let found = OPERATORS.iter().find(|(symbol, _)| text[index..].starts_with(symbol));
                if let Some((symbol, operator)) = found {
                    return Some((index, symbol, *operator));
                }
            }
            _ => {}
        }
    }
    None
}

fn find(parts: &[Part], json: &Json) -> Option<Json> {
    let Some((part, rest)) = parts.split_first() else { return Some(json.clone()) };
    match (part, json) {
        (Part::Pipe, _) => find(rest, json),
        (Part::Modifier(modifier), _) => find(rest, &modified(*modifier, json)),
        (Part::Key { text, wild: true }, Json::Object(entries)) => {
            let (_, value) = entries.iter().find(|(key, _)| like(text, key))?;
            find(rest, value)
        }
        (Part::Key { text, .. }, Json::Object(entries)) => find(rest, entries.get(text)?),
        (Part::Key { text, .. }, Json::Array(items)) => find(rest, items.get(text.parse::<usize>().ok()?)?),
        (Part::Each, Json::Array(items)) => match rest {
            [] | [Part::Pipe, ..] => find(rest, &Json::from(items.len())),
            _ => each(items, rest),
        },
        (Part::Query { path, test, all: false }, Json::Array(items)) => {
            find(rest, items.iter().find(|item| fits(path, test.as_ref(), item))?)
        }
        (Part::Query { path, test, all: true }, Json::Array(items)) => {
            let fitting: Vec<Json> = items.iter().filter(|item| fits(path, test.as_ref(), item)).cloned().collect();
            match rest {
                [] | [Part::Pipe, ..] => find(rest, &Json::Array(fitting)),
                _ => each(&fitting, rest),
            }
        }
        _ => None,
    }
}

/// What the path leads to in each item, up to a `|`, and then in the list of them.
fn each(items: &[Json], parts: &[Part]) -> Option<Json> {
    let end = parts.iter().position(|part| *part == Part::Pipe).unwrap_or(parts.len());
    let found = items.iter().filter_map(|item| find(&parts[..end], item)).collect();
    find(&parts[end..], &Json::Array(found))
}

fn modified(modifier: Modifier, json: &Json) -> Json {
    match (modifier, json) {
        (Modifier::Keys, Json::Object(entries)) => entries.keys().cloned().map(Json::String).collect(),
        (Modifier::Values, Json::Object(entries)) => entries.values().cloned().collect(),
        (Modifier::Keys, _) => Json::Array(Vec::new()),
        (Modifier::Reverse, Json::Array(items)) => items.iter().rev().cloned().collect(),
        _ => json.clone(),
    }
}

fn fits(path: &Path, test: Option<&(Operator, Json)>, item: &Json) -> bool {
    let Some(seen) = path.find(item) else { return false };
    let Some((operator, wanted)) = test else { return true };
    let order = match (&seen, wanted) {
        (Json::Number(a), Json::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Json::String(a), Json::String(b)) => Some(a.cmp(b)),
        (Json::Bool(a), Json::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    };
    let pattern = || seen.as_str().zip(wanted.as_str()).map(|(seen, pattern)| like(pattern, seen));
    match operator {
        Operator::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Operator::Unequal => order.is_some_and(std::cmp::Ordering::is_ne),
        Operator::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Operator::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Operator::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Operator::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        Operator::Like => pattern() == Some(true),
        Operator::Unlike => pattern() == Some(false),
    }
}

/// `*` stands for anything, `?` for one character; a backslash takes that from them.
fn like(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        let escaped = pattern.get(p) == Some(&'\\') && pattern.get(p + 1).is_some();
        let (wanted, step) = if escaped { (pattern.get(p + 1), 2) } else { (pattern.get(p), 1) };
        if !escaped && wanted == Some(&'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if (!escaped && wanted == Some(&'?')) || wanted == Some(&text[t]) {
            p += step;
            t += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            p = after;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of gjson's own SYNTAX.md.
    #[test]
    fn unit_paths_lead_where_gjson_says() {
        let json = json!({
            "name": {"first": "Tom", "last": "Anderson"},
            "age": 37,
            "children": ["Sara", "Alex", "Jack"],
            "fav.movie": "Deer Hunter",
            "friends": [
                {"first": "Dale", "last": "Murphy", "age": 44, "nets": ["ig", "fb", "tw"]},
                {"first": "Roger", "last": "Craig", "age": 68, "nets": ["fb", "tw"]},
                {"first": "Jane", "last": "Murphy", "age": 47, "nets": ["ig", "tw"]},
            ],
        });
        for (path, wanted) in [
            ("name.last", json!("Anderson")),
            ("children.0", json!("Sara")),
            ("friends.1.first", json!("Roger")),
            ("child*.2", json!("Jack")),
            ("c?ildren.0", json!("Sara")),
            ("fav\\.movie", json!("Deer Hunter")),
            ("friends.#", json!(3)),
            ("friends.#.age", json!([44, 68, 47])),
            ("friends.#(last==\"Murphy\").first", json!("Dale")),
            ("friends.#(last==\"Murphy\")#.first", json!(["Dale", "Jane"])),
            ("friends.#(age>45)#.last", json!(["Craig", "Murphy"])),
            ("friends.#(first%\"D*\").last", json!("Murphy")),
            ("friends.#(nets.#(==\"fb\"))#.first", json!(["Dale", "Roger"])),
            ("children|@reverse|0", json!("Jack")),
            ("friends.#(last=\"Murphy\")#|0.first", json!("Dale")),
            ("name.@keys", json!(["first", "last"])),
        ] {
            assert_eq!(Path::read(path).unwrap().find(&json), Some(wanted), "{path}");
        }
        assert_eq!(Path::read("@this").unwrap().find(&json), Some(json.clone()));
        assert_eq!(Path::read("name.middle").unwrap().find(&json), None);
        for wrong in ["@pretty", "{a,b}", "#(a", "friends.#(last==\"x\")y"] {
            assert!(Path::read(wrong).is_err(), "{wrong}");
        }
        assert!(Path::read(&"#(".repeat(20_000)).is_err());
    }
}
