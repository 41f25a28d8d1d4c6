//! A value of a document, read as the type that is wanted.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

use toml::{
    Spanned,
    de::{DeString, DeValue},
};

use super::{
    Document, Place,
    keys::{Keys, listed, suggest},
    table::Table,
};
use crate::{config::ConfigValue, diagnostic::shown, duration, size::ByteSize};

/// The example of a text that may be anything.
const ANY_TEXT: &str = "\"…\"";

/// A key and its value.
#[derive(Clone)]
pub(crate) struct Entry<'d> {
    /// The key.
    pub key: &'d str,
    /// Where the key stands.
    pub place: Place<'d>,
    /// The value.
    pub value: Value<'d>,
}

/// A value and the key it belongs to.
#[derive(Clone)]
pub(crate) struct Value<'d> {
    /// Where it stands.
    pub place: Place<'d>,
    key: &'d str,
    key_place: Place<'d>,
    value: &'d DeValue<'d>,
}

impl<'d> Entry<'d> {
    pub(super) fn new(
        document: &'d Document<'d>,
        key: &'d Spanned<DeString<'d>>,
        value: &'d Spanned<DeValue<'d>>,
    ) -> Self {
        let place = Place::at(document, key.span());
        let key: &str = key.get_ref();
        let value = Value { place: Place::at(document, value.span()), key, key_place: place, value: value.get_ref() };
        Self { key, place, value }
    }
}

impl<'d> Value<'d> {
    /// Records that this is not what is wanted; `example` is a value to write instead.
    pub fn wrong<T>(&self, wanted: &str, example: &str) -> Option<T> {
        let found = self.found();
        self.place.report(
            format!("`{}` must be {wanted}, but this is {found}", shown(self.key)),
            format!("write `{} = {example}`", written(self.key)),
        )
    }

    /// A text.
    pub fn text(&self) -> Option<&'d str> {
        match self.value {
            DeValue::String(text) => Some(text),
            DeValue::Integer(number) => self.wrong("a text", &format!("\"{number}\"")),
            DeValue::Boolean(flag) => self.wrong("a text", &format!("\"{flag}\"")),
            _ => self.wrong("a text", "\"…\""),
        }
    }

    /// A text that can be parsed; `example` is a value to write where it cannot.
    pub fn parsed<T: FromStr<Err: Display>>(&self, example: &str) -> Option<T> {
        let text = match self.value {
            DeValue::String(text) => text,
            _ => return self.wrong("a text", example),
        };
        text.parse().or_else_report(self, example)
    }

    /// A text checked by a function that says what is wrong with it.
    pub fn checked(&self, example: &str, check: impl Fn(&str) -> Result<(), String>) -> Option<String> {
        let DeValue::String(text) = self.value else {
            return if example == ANY_TEXT { self.text().map(str::to_owned) } else { self.wrong("a text", example) };
        };
        check(text).or_else_report(self, example)?;
        Some(text.to_string())
    }

    /// One of these words.
    pub fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
        let example = format!("\"{}\"", names[0]);
        let DeValue::String(text) = self.value else {
            return self.wrong(&format!("one of {}", listed(&names)), &example);
        };
        if let Some((_, meaning)) = words.iter().find(|(name, _)| name == text) {
            return Some(*meaning);
        }
        let hint = suggest(text, &names).map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
        self.place.report(
            format!("`{}` cannot be `{}`", shown(self.key), shown(text)),
            format!("{hint}Write one of {}", listed(&names)),
        )
    }

    /// A whole number within a range.
    pub fn integer<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>, example: &str) -> Option<T> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = self.value else { return self.wrong(&wanted, example) };
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| range.contains(n));
        match parsed.and_then(|n| T::try_from(n).ok()) {
            Some(number) => Some(number),
            None => self.wrong(&wanted, example),
        }
    }

    /// A number with or without a fraction.
    pub fn number(&self, range: RangeInclusive<f64>, example: &str) -> Option<f64> {
        let text = match self.value {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => "",
        };
        match text.parse::<f64>().ok().filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.wrong(&format!("a number from {} to {}", range.start(), range.end()), example),
        }
    }

    /// The value of a configuration key, of whichever type it is.
    pub fn config(&self) -> Option<ConfigValue> {
        match self.value {
            DeValue::String(text) => Some(ConfigValue::Text(text.to_string())),
            DeValue::Boolean(flag) => Some(ConfigValue::Boolean(*flag)),
            DeValue::Integer(_) => self.integer(i64::MIN..=i64::MAX, "1").map(ConfigValue::Integer),
            DeValue::Float(_) => {
                let number = self.number(f64::MIN..=f64::MAX, "0.5")?;
                Some(ConfigValue::Number(serde_json::Number::from_f64(number)?))
            }
            DeValue::Array(_) => {
                let items: Vec<_> = self.list("[]")?.iter().map(Value::config).collect();
                items.into_iter().collect::<Option<_>>().map(ConfigValue::List)
            }
            DeValue::Datetime(_) | DeValue::Table(_) => self.wrong("a text, a number, true, false, or a list", "\"…\""),
        }
    }

    /// True or false.
    pub fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => self.wrong("true or false", "true"),
        }
    }

    /// A duration within a range.
    pub fn duration(&self, range: RangeInclusive<Duration>, example: &str) -> Option<Duration> {
        let DeValue::String(text) = self.value else { return self.wrong("a duration", example) };
        let found = duration::parse(text).or_else_report(self, example)?;
        if range.contains(&found) {
            return Some(found);
        }
        let (least, most) = (duration::format(*range.start()), duration::format(*range.end()));
        self.place.report(
            format!("`{}` is `{}`, which is not between {least} and {most}", shown(self.key), shown(text)),
            format!("write a duration from {least} to {most}, for example: `{} = {example}`", shown(self.key)),
        )
    }

    /// A size within a range.
    pub fn size(&self, range: RangeInclusive<ByteSize>, example: &str) -> Option<ByteSize> {
        let found: ByteSize = self.parsed(example)?;
        if range.contains(&found) {
            return Some(found);
        }
        self.place.report(
            format!("`{}` is {found}, which is not between {} and {}", shown(self.key), range.start(), range.end()),
            format!("write a size from {} to {}, for example: `{} = {example}`", range.start(), range.end(), self.key),
        )
    }

    /// A list. `example` is what to write where it is none.
    pub fn list(&self, example: &str) -> Option<Vec<Value<'d>>> {
        match self.value {
            DeValue::Array(items) => Some(items.iter().map(|item| self.item(item)).collect()),
            DeValue::String(text) => self.wrong("a list", &format!("[\"{}\"]", shown(text))),
            DeValue::Integer(number) => self.wrong("a list", &format!("[{number}]")),
            _ => self.wrong("a list", example),
        }
    }

    /// A list with something in it.
    pub fn filled_list(&self, example: &str) -> Option<Vec<Value<'d>>> {
        let items = self.list(example)?;
        match items.is_empty() {
            true => self.place.report("the list is empty", format!("for example: `{example}`")),
            false => Some(items),
        }
    }

    /// A table with these keys. `example` is what to write where it is none.
    pub fn table(&self, keys: Keys, example: &str) -> Option<Table<'d>> {
        match self.value {
            DeValue::Table(entries) => {
                Some(Table::new(self.head(), format!("`{}`", shown(self.key)), entries, Some(keys)))
            }
            _ => self.wrong("a table", example),
        }
    }

    /// A table with any keys.
    pub fn map(&self, example: &str) -> Option<Table<'d>> {
        match self.value {
            DeValue::Table(entries) => Some(Table::new(self.head(), format!("`{}`", shown(self.key)), entries, None)),
            _ => self.wrong("a table", example),
        }
    }

    /// A value as a configuration holds it: a text, a number, true or false, or a list of these. `example` is what to write
    /// where it is none.
    pub fn plain(&self, example: &str) -> Option<ConfigValue> {
        match self.value {
            DeValue::String(text) => Some(ConfigValue::Text(text.to_string())),
            DeValue::Boolean(flag) => Some(ConfigValue::Boolean(*flag)),
            DeValue::Integer(_) => self.integer(i64::MIN..=i64::MAX, example).map(ConfigValue::Integer),
            DeValue::Float(number) => {
                let number = number.as_str().parse().ok().and_then(serde_json::Number::from_f64);
                number.map(ConfigValue::Number).or_else(|| self.wrong("a finite number", "1.5"))
            }
            DeValue::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| self.item(item).plain(example)).collect();
                items.into_iter().collect::<Option<_>>().map(ConfigValue::List)
            }
            DeValue::Datetime(_) | DeValue::Table(_) => self.wrong("a text, a number, true, false or a list", example),
        }
    }

    /// Anything that JSON can say, tables and lists of tables among it. `example` is what to write where it is not.
    pub fn json(&self, example: &str) -> Option<serde_json::Value> {
        match self.value {
            DeValue::String(text) => Some(text.to_string().into()),
            DeValue::Boolean(flag) => Some((*flag).into()),
            DeValue::Integer(_) => self.integer::<i64>(i64::MIN..=i64::MAX, example).map(Into::into),
            DeValue::Float(number) => {
                let number = number.as_str().parse().ok().and_then(serde_json::Number::from_f64);
                number.map(Into::into).or_else(|| self.wrong("a finite number", "1.5"))
            }
            DeValue::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| self.item(item).json(example)).collect();
                items.into_iter().collect::<Option<Vec<_>>>().map(Into::into)
            }
            DeValue::Table(_) => {
                let entries = self.map(example)?;
                let pairs: Vec<_> =
                    entries.entries().map(|entry| Some((entry.key.to_owned(), entry.value.json(example)?))).collect();
                pairs.into_iter().collect::<Option<serde_json::Map<_, _>>>().map(Into::into)
            }
            DeValue::Datetime(_) => self.wrong("a text, a number, true, false, a list or a table", example),
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&'d str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    /// Whether it is `false`.
    pub fn is_false(&self) -> bool {
        matches!(self.value, DeValue::Boolean(false))
    }

    /// Where a table's name stands: its header, or its key where it is written inline.
    fn head(&self) -> Place<'d> {
        self.key_place
    }

    fn item(&self, item: &'d Spanned<DeValue<'d>>) -> Value<'d> {
        let place = Place::at(self.place.document, item.span());
        Value { place, key: self.key, key_place: place, value: item.get_ref() }
    }

    fn found(&self) -> String {
        match self.value {
            DeValue::String(text) => format!("the text `{}`", shown(text)),
            DeValue::Integer(number) => format!("the number `{}`", shown(&number.to_string())),
            DeValue::Float(number) => format!("the number `{}`", shown(number.as_str())),
            DeValue::Boolean(flag) => format!("`{flag}`"),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }
}

/// A key as it is written in a file: in quotes where it has other characters than a bare key may have.
fn written(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { format!("\"{}\"", shown(key)) }
}

/// Turns an error into a diagnostic at the value.
trait OrElseReport<T> {
    fn or_else_report(self, value: &Value<'_>, example: &str) -> Option<T>;
}

impl<T, E: Display> OrElseReport<T> for Result<T, E> {
    fn or_else_report(self, value: &Value<'_>, example: &str) -> Option<T> {
        self.map_err(|error| {
            let help = format!("for example: `{} = {example}`", written(value.key));
            value.place.report::<()>(error.to_string(), help);
        })
        .ok()
    }
}
