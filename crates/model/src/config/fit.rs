//! Whether a value fits its type, and its normal form: equal meanings have equal bytes.

use super::{ConfigType, ConfigValue, place};
use crate::{duration, size::ByteSize};

/// A text is at most this many bytes long.
pub const MAX_TEXT: usize = 64 << 10;
/// A list is at most this many items long.
pub const MAX_ITEMS: usize = 1000;

/// What a value should have been. It does not repeat the value, which may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be {0}")]
pub struct Unfit(pub String);

type Fit = Result<ConfigValue, Unfit>;

impl ConfigType {
    /// Checks a value and brings it into its normal form. A text from outside (a file, a command, a registry, a variable) has
    /// no other type: where another one is wanted it is read as that.
    pub fn read(&self, value: &ConfigValue) -> Fit {
        match (value, self) {
            (ConfigValue::Text(text), Self::Integer { .. }) => {
                self.fit(&text.trim().parse().map_or_else(|_| value.clone(), ConfigValue::Integer))
            }
            (ConfigValue::Text(text), Self::Number { .. } | Self::Boolean | Self::List { .. }) => {
                self.fit(&serde_json::from_str(text).unwrap_or_else(|_| value.clone()))
            }
            (ConfigValue::Text(text), Self::Duration { .. } | Self::Size { .. }) => {
                self.fit(&ConfigValue::Text(text.trim().to_owned()))
            }
            _ => self.fit(value),
        }
    }

    /// Checks a value that must have the type itself, as a file that a person wrote has it.
    pub fn fit(&self, value: &ConfigValue) -> Fit {
        let unfit = || Unfit(self.wanted());
        match (self, value) {
            (Self::String { pattern }, ConfigValue::Text(text)) => string(text, pattern.as_deref(), unfit),
            (Self::Integer { min, max }, ConfigValue::Integer(number)) => {
                let inside = min.is_none_or(|min| *number >= min) && max.is_none_or(|max| *number <= max);
                inside.then(|| value.clone()).ok_or_else(unfit)
            }
            (Self::Number { min, max }, ConfigValue::Integer(number)) => within(*number as f64, min, max, unfit),
            (Self::Number { min, max }, ConfigValue::Number(number)) => {
                within(number.as_f64().ok_or_else(unfit)?, min, max, unfit)
            }
            (Self::Boolean, ConfigValue::Boolean(_)) => Ok(value.clone()),
            (Self::Duration { min, max }, ConfigValue::Text(text)) => {
                let found = duration::parse(text).map_err(|_| unfit())?;
                let bound = |text: &Option<String>| text.as_deref().and_then(|text| duration::parse(text).ok());
                between(found, bound(min), bound(max)).then(|| words(duration::format(found))).ok_or_else(unfit)
            }
            (Self::Size { min, max }, ConfigValue::Text(text)) => {
                let found: ByteSize = text.parse().map_err(|_| unfit())?;
                between(found, *min, *max).then(|| words(found.to_string())).ok_or_else(unfit)
            }
            (Self::Url, ConfigValue::Text(text)) => place::url(text).map(words).ok_or_else(unfit),
            (Self::Address, ConfigValue::Text(text)) => place::address(text).map(words).ok_or_else(unfit),
            (Self::Enum { values }, ConfigValue::Text(text)) => {
                values.contains(text).then(|| value.clone()).ok_or_else(unfit)
            }
            (Self::List { items }, ConfigValue::List(list)) if list.len() <= MAX_ITEMS => {
                list.iter().map(|item| items.fit(item)).collect::<Result<_, _>>().map(ConfigValue::List)
            }
            _ => Err(unfit()),
        }
    }

    /// What its values are, in words that end a sentence.
    pub fn wanted(&self) -> String {
        match self {
            Self::String { pattern: None } => "a text of at most 64 KiB".to_owned(),
            Self::String { pattern: Some(pattern) } => format!("a text that matches `{pattern}`"),
            Self::Integer { min, max } => format!("a whole number{}", bounds(min.as_ref(), max.as_ref())),
            Self::Number { min, max } => format!("a number{}", bounds(min.as_ref(), max.as_ref())),
            Self::Boolean => "true or false".to_owned(),
            Self::Duration { min, max } => {
                format!("a duration{}, for example `\"30s\"`", bounds(min.as_ref(), max.as_ref()))
            }
            Self::Size { min, max } => format!("a size{}, for example `\"64MiB\"`", bounds(min.as_ref(), max.as_ref())),
            Self::Url => "a URL with a host, for example `\"https://api.example/v1\"`".to_owned(),
            Self::Address => "`\"host:port\"`".to_owned(),
            Self::Enum { values } => {
                let words: Vec<String> = values.iter().map(|word| format!("`\"{word}\"`")).collect();
                format!("one of {}", words.join(", "))
            }
            Self::List { items } => {
                format!("a list of at most {MAX_ITEMS} items, each of which must be {}", items.wanted())
            }
        }
    }

    /// The type's name in a recipe.
    pub fn word(&self) -> &'static str {
        match self {
            Self::String { .. } => "string",
            Self::Integer { .. } => "integer",
            Self::Number { .. } => "number",
            Self::Boolean => "boolean",
            Self::Duration { .. } => "duration",
            Self::Size { .. } => "size",
            Self::Url => "url",
            Self::Address => "address",
            Self::Enum { .. } => "enum",
            Self::List { .. } => "list",
        }
    }
}

fn words(text: String) -> ConfigValue {
    ConfigValue::Text(text)
}

fn string(text: &str, pattern: Option<&str>, unfit: impl Fn() -> Unfit) -> Fit {
    if text.len() > MAX_TEXT {
        return Err(Unfit("a text of at most 64 KiB".to_owned()));
    }
    if text.contains('\0') {
        return Err(Unfit("a text without zero bytes".to_owned()));
    }
    let matches = pattern.is_none_or(|pattern| whole(pattern).is_ok_and(|regex| regex.is_match(text)));
    matches.then(|| words(text.to_owned())).ok_or_else(unfit)
}

/// The expression that a whole text must match.
pub(crate) fn whole(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(1 << 20).build()
}

fn within(
    found: f64,
    min: &Option<serde_json::Number>,
    max: &Option<serde_json::Number>,
    unfit: impl Fn() -> Unfit,
) -> Fit {
    let bound = |bound: &Option<serde_json::Number>| bound.as_ref().and_then(serde_json::Number::as_f64);
    // Minus zero is zero, and every number is written with a fraction.
    let number = serde_json::Number::from_f64(found + 0.0).filter(|_| between(found, bound(min), bound(max)));
    number.map(ConfigValue::Number).ok_or_else(unfit)
}

fn between<T: PartialOrd>(found: T, min: Option<T>, max: Option<T>) -> bool {
    min.is_none_or(|min| found >= min) && max.is_none_or(|max| found <= max)
}

fn bounds<T: std::fmt::Display>(min: Option<T>, max: Option<T>) -> String {
    match (min, max) {
        (None, None) => String::new(),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
    }
}
