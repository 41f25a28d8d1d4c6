//! Comparing what was seen with what was expected, in words that show both.

use kiln_model::suite::TextMatch;

/// So many characters of what was seen are shown.
const SHOWN: usize = 300;

/// Checks one text.
pub(super) fn text(what: &str, seen: &[u8], expected: &TextMatch) -> Result<(), String> {
    let seen = String::from_utf8_lossy(seen);
    let (holds, wanted) = match expected {
        TextMatch::Contains(part) => (seen.contains(part.as_str()), format!("to contain {part:?}")),
        TextMatch::Equals(whole) => (seen == whole.as_str(), format!("to be {whole:?}")),
        TextMatch::Matches(pattern) => {
            let regex = regex::Regex::new(pattern).map_err(|e| format!("{what}: the pattern is not valid: {e}"))?;
            (regex.is_match(&seen), format!("to match /{pattern}/"))
        }
    };
    if holds { Ok(()) } else { Err(format!("expected {what} {wanted}, saw {}", shown(&seen))) }
}

/// Checks a text against all its expectations.
pub(super) fn texts(what: &str, seen: &[u8], expected: &[TextMatch]) -> Result<(), String> {
    expected.iter().try_for_each(|expected| text(what, seen, expected))
}

/// Checks a plain value.
pub(super) fn equal<T: PartialEq + std::fmt::Display>(what: &str, seen: &T, expected: &T) -> Result<(), String> {
    if seen == expected { Ok(()) } else { Err(format!("expected {what} {expected}, saw {seen}")) }
}

/// A text in quotes, cut at a length that people read.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?} and {} more bytes", &text[..cut], text.len() - cut),
    }
}

/// Names in one line, the first few of many.
pub(super) fn listed(names: &[String]) -> String {
    const FEW: usize = 5;
    let first = names.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > FEW { format!("{first} and {} more", names.len() - FEW) } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_a_failure_shows_what_was_expected_and_what_was_seen() {
        let contains = TextMatch::Contains("It works".to_owned());
        assert_eq!(text("the body", b"xx It works", &contains), Ok(()));
        let failure = text("the body", b"404", &contains).unwrap_err();
        assert_eq!(failure, r#"expected the body to contain "It works", saw "404""#);
    }

    #[test]
    fn unit_long_texts_are_cut_between_characters() {
        let failure = text("it", "é".repeat(1000).as_bytes(), &TextMatch::Equals("x".to_owned())).unwrap_err();
        assert!(failure.ends_with("and 1400 more bytes"), "{failure}");
    }

    #[test]
    fn unit_patterns_match_anywhere_and_bad_ones_are_named() {
        assert_eq!(text("it", b"ab12", &TextMatch::Matches("[0-9]+$".to_owned())), Ok(()));
        let failure = text("it", b"ab12", &TextMatch::Matches("(".to_owned())).unwrap_err();
        assert!(failure.contains("not valid"), "{failure}");
    }
}
