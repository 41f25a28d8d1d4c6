//! Comparing what was seen with what was expected, in words that show both.

use kiln_model::suite::{Configured, Expected, TextMatch};
use kiln_runtime::values::{Values, masked_part};

/// So many characters of what was seen are shown.
const SHOWN: usize = 300;

/// Compares with what the recipe expects of the configuration under test, and shows none of its secrets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expect<'a>(pub(super) Values<'a>);

impl Expect<'_> {
    /// Checks one text.
    pub(super) fn text(&self, what: &str, seen: &[u8], expected: &TextMatch) -> Result<(), String> {
        let seen = String::from_utf8_lossy(seen);
        let (holds, wanted) = match expected {
            TextMatch::Contains(part) => {
                let part = self.expected(part)?;
                (seen.contains(part.as_str()), format!("to contain {}", self.shown(&part)))
            }
            TextMatch::Equals(whole) => {
                let whole = self.expected(whole)?;
                (seen == whole.as_str(), format!("to be {}", self.shown(&whole)))
            }
            TextMatch::Matches(pattern) => {
                let regex = regex::Regex::new(pattern).map_err(|e| format!("{what}: the pattern is not valid: {e}"))?;
                (regex.is_match(&seen), format!("to match /{pattern}/"))
            }
        };
        if holds { Ok(()) } else { Err(format!("expected {what} {wanted}, saw {}", self.shown(&seen))) }
    }

    /// Checks a text against all its expectations.
    pub(super) fn texts(&self, what: &str, seen: &[u8], expected: &[TextMatch]) -> Result<(), String> {
        expected.iter().try_for_each(|expected| self.text(what, seen, expected))
    }

    fn expected(&self, expected: &Expected) -> Result<String, String> {
        let Configured { config: key } = match expected {
            Expected::Text(text) => return Ok(text.clone()),
            Expected::Configured(key) => key,
        };
        let value = self.0.text(key).map_err(|error| error.to_string())?.unwrap_or_default();
        if value.is_empty() {
            return Err(format!("the configuration under test has no value for `{key}`, or an empty one"));
        }
        Ok(value)
    }

    /// A text without secrets, cut as [`Self::shown`] cuts.
    pub(super) fn plain(&self, text: &str) -> String {
        let text = masked_part(text, self.0.secrets);
        match text.char_indices().nth(SHOWN) {
            None => text,
            Some((cut, _)) => format!("{}… and {} more bytes", &text[..cut], text.len() - cut),
        }
    }

    /// A text in quotes, without secrets, cut at a length that people read. It may be a part of another: what stands at its
    /// ends may be a part of a secret.
    pub(super) fn shown(&self, text: &str) -> String {
        let text = masked_part(text, self.0.secrets);
        match text.char_indices().nth(SHOWN) {
            None => format!("{text:?}"),
            Some((cut, _)) => format!("{:?} and {} more bytes", &text[..cut], text.len() - cut),
        }
    }
}

/// Checks a plain value.
pub(super) fn equal<T: PartialEq + std::fmt::Display>(what: &str, seen: &T, expected: &T) -> Result<(), String> {
    if seen == expected { Ok(()) } else { Err(format!("expected {what} {expected}, saw {seen}")) }
}

/// Names in one line, the first few of many.
pub(super) fn listed(names: &[String]) -> String {
    const FEW: usize = 5;
    let first = names.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > FEW { format!("{first} and {} more", names.len() - FEW) } else { first }
}

#[cfg(test)]
mod tests {
    use kiln_model::{
        Digest, FrozenConfig,
        config::{ConfigValue, Frozen, SecretHash, Secrets},
    };

    use super::*;

    fn check(seen: &str, expected: TextMatch) -> Result<(), String> {
        let (config, secrets) = (FrozenConfig::default(), Secrets::default());
        Expect(Values { config: &config, secrets: &secrets }).text("it", seen.as_bytes(), &expected)
    }

    #[test]
    fn unit_a_failure_shows_what_was_expected_and_what_was_seen() {
        assert_eq!(check("xx It works", TextMatch::Contains("It works".into())), Ok(()));
        let failure = check("404", TextMatch::Contains("It works".into())).unwrap_err();
        assert_eq!(failure, r#"expected it to contain "It works", saw "404""#);
    }

    #[test]
    fn unit_long_texts_are_cut_between_characters() {
        let failure = check(&"é".repeat(1000), TextMatch::Equals("x".into())).unwrap_err();
        assert!(failure.ends_with("and 1400 more bytes"), "{failure}");
    }

    #[test]
    fn unit_patterns_match_anywhere_and_bad_ones_are_named() {
        assert_eq!(check("ab12", TextMatch::Matches("[0-9]+$".to_owned())), Ok(()));
        let failure = check("ab12", TextMatch::Matches("(".to_owned())).unwrap_err();
        assert!(failure.contains("not valid"), "{failure}");
    }

    #[test]
    fn unit_the_configuration_under_test_is_expected_and_its_secrets_are_not_shown_nor_cut_in_half() {
        let (hash, secret) = (SecretHash(Digest::of(b"x")), "correct-horse");
        let secrets = Secrets([(hash.clone(), ConfigValue::Text(secret.into()))].into());
        let values = [
            ("greeting".parse().unwrap(), Frozen::Value(ConfigValue::Text("hello".into()))),
            ("password".parse().unwrap(), Frozen::Secret(hash)),
        ];
        let config = FrozenConfig { values: values.into(), ..FrozenConfig::default() };
        let expect = Expect(Values { config: &config, secrets: &secrets });
        let named = |key: &str| Expected::Configured(Configured { config: key.parse().unwrap() });
        assert_eq!(expect.text("it", b"oh hello", &TextMatch::Contains(named("greeting"))), Ok(()));
        assert_eq!(expect.text("it", secret.as_bytes(), &TextMatch::Equals(named("password"))), Ok(()));
        let failure = expect.text("it", b"hi", &TextMatch::Equals(named("password"))).unwrap_err();
        assert_eq!(failure, "expected it to be \"••••••\", saw \"hi\"");
        let failure = expect.text("it", b"hi", &TextMatch::Equals(named("none"))).unwrap_err();
        assert!(failure.contains("no value for `none`"), "{failure}");
        let long = format!("{}{secret}", "x".repeat(SHOWN - 5));
        for seen in [long.as_str(), "to: correct-hor", "rect-horse and more", "a correct-horse b"] {
            let shown = expect.shown(seen);
            assert!(!shown.contains("corr") && !shown.contains("orse"), "{shown}");
        }
    }
}
