//! What is seen of a server, and what goss files hold: goss's values (Go's `any`) with the differences between them that its
//! matchers see.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// A value. Whole numbers, other numbers, and lists of texts are kinds of their own: Go's `DeepEqual`, behind `equal`, tells them
/// apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `nil`
    Null,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `float64`
    Float(f64),
    /// `string`
    Text(String),
    /// `[]string`: what goss sees of a server.
    Texts(Vec<String>),
    /// `[]any`
    List(Vec<Value>),
    /// `map[string]any`
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// JSON as Go's `encoding/json` has it: every number is a `float64`.
    pub(super) fn of_json(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(flag) => Self::Bool(*flag),
            Json::Number(number) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(items) => Self::List(items.iter().map(Self::of_json).collect()),
            Json::Object(entries) => {
                Self::Map(entries.iter().map(|(key, value)| (key.clone(), Self::of_json(value))).collect())
            }
        }
    }

    /// Go's `fmt.Sprintf("%v")`.
    pub fn printed(&self) -> String {
        let joined = |items: Vec<String>| format!("[{}]", items.join(" "));
        match self {
            Self::Null => "<nil>".to_owned(),
            Self::Bool(flag) => flag.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => float(*number),
            Self::Text(text) => text.clone(),
            Self::Texts(items) => joined(items.clone()),
            Self::List(items) => joined(items.iter().map(Self::printed).collect()),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{key}:{}", value.printed()));
                format!("map[{}]", entries.collect::<Vec<_>>().join(" "))
            }
        }
    }

    /// goss's conversion to a text: lists become lines.
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::List(items) => items.iter().map(Self::printed).collect::<Vec<_>>().join("\n"),
            Self::Texts(items) => items.join("\n"),
            other => other.printed(),
        }
    }

    /// goss's conversion to a number.
    pub(super) fn to_number(&self) -> Result<Self, String> {
        let parse = |text: &str| {
            let number = text.trim();
            let good = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
            let parsed = number.parse().ok().filter(|_| good).map(Self::Float);
            parsed.ok_or_else(|| format!("{number:?} is not a number"))
        };
        match self {
            Self::Int(_) | Self::Float(_) => Ok(self.clone()),
            Self::Text(text) => parse(text),
            Self::Texts(_) => parse(&self.to_text()),
            other => Err(format!("{} is not a number", other.described())),
        }
    }

    /// goss's conversion to a list: a text becomes its lines.
    pub(super) fn to_list(&self) -> Self {
        match self {
            Self::Text(text) => Self::Texts(text.split('\n').map(str::to_owned).collect()),
            other => other.clone(),
        }
    }

    /// The elements of a list, or the values of a map.
    pub(super) fn elements(&self) -> Result<Vec<Self>, String> {
        match self {
            Self::List(items) => Ok(items.clone()),
            Self::Texts(items) => Ok(items.iter().cloned().map(Self::Text).collect()),
            Self::Map(entries) => Ok(entries.values().cloned().collect()),
            other => Err(format!("{} is not a list", other.described())),
        }
    }

    /// As a person reads it in a message.
    pub fn described(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Text(text) => format!("{text:?}"),
            Self::Texts(items) => format!("{items:?}"),
            Self::List(items) => format!("[{}]", items.iter().map(Self::described).collect::<Vec<_>>().join(", ")),
            other => other.printed(),
        }
    }
}

/// Go's `%v` of a `float64`: the shortest digits, with an exponent below -4 and from 21 on (`fmt/format.go`, `%!g`).
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&exponent) {
        return number.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_numbers_are_printed_as_go_prints_them() {
        let cases = [(42.0, "42"), (0.5, "0.5"), (1e21, "1e+21"), (1e20, "100000000000000000000"), (1e-5, "1e-05")];
        for (number, text) in cases {
            assert_eq!(Value::Float(number).printed(), text);
        }
        let map = Value::Map([("b".to_owned(), Value::Int(1)), ("a".to_owned(), Value::Null)].into());
        assert_eq!(map.printed(), "map[a:<nil> b:1]");
    }
}
