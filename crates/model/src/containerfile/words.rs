//! Texts to words.

/// Words between blanks, with where each begins.
pub(super) fn plain(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (c.is_whitespace(), start) {
            (true, Some(from)) => {
                found.push((from, text[from..at].to_owned()));
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    found
}

/// Words between blanks that stand neither in quotes nor behind an escape character. Quotes and escapes stay.
pub(super) fn quoted(text: &str, escape: char) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (mut start, mut quote, mut escaped) = (None, None, false);
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        if c.is_whitespace() && quote.is_none() {
            if let Some(from) = start.take() {
                found.push((from, text[from..at].to_owned()));
            }
            continue;
        }
        start.get_or_insert(at);
        match quote {
            _ if c == escape && quote != Some('\'') => escaped = true,
            Some(open) if open == c => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            _ => {}
        }
    }
    if let Some(from) = start {
        found.push((from, text[from..].to_owned()));
    }
    found
}

/// The fields of `a=b,"c=d,e"`, as RFC 4180 has them.
pub(super) fn fields(text: &str) -> Vec<String> {
    let (mut found, mut field, mut inside) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => inside = !inside,
            ',' if !inside => found.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    found.push(field);
    found
}

/// A list of texts as JSON has it; none if it is no such list.
pub(super) fn json(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    text.starts_with('[').then(|| serde_json::from_str(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_words_are_split_where_no_quotes_are() {
        let texts = |found: Vec<(usize, String)>| found.into_iter().map(|(_, word)| word).collect::<Vec<_>>();
        assert_eq!(texts(quoted(r#"a="b c" d=e\ f 'g "h'"#, '\\')), [r#"a="b c""#, r"d=e\ f", r#"'g "h'"#]);
        assert_eq!(texts(quoted(r"'a\' b", '\\')), [r"'a\'", "b"], "no escape in single quotes");
        assert_eq!(quoted("  x  yy", '\\'), [(2, "x".to_owned()), (5, "yy".to_owned())]);
        assert_eq!(texts(plain("a  \"b c\"")), ["a", "\"b", "c\""]);
        assert_eq!(fields("type=bind,\"source=a,b\",x"), ["type=bind", "source=a,b", "x"]);
        assert_eq!(json(" [\"a\", \"b\"] "), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!((json("[ -f x ]"), json("[1]")), (None, None));
    }
}
