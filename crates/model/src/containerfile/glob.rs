//! Patterns: of names, as Go's `filepath.Match` reads them (`*`, `?`, `[a-z]`, `\x`), and of texts, where `*` also goes over `/`.

/// Whether one name, without `/`, is what the pattern means.
pub fn name(pattern: &str, name: &str) -> bool {
    matches(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
}

/// Whether a whole text is what the pattern means.
pub(super) fn text(pattern: &str, text: &str) -> bool {
    name(pattern, text)
}

/// Whether there is anything in a name that stands for other letters.
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '[', '\\'])
}

/// With one place to come back to, so that the time is at most the product of the two lengths.
fn matches(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            back = Some((p + 1, t));
            p += 1;
            continue;
        }
        if let Some(next) = one(pattern, p, text[t]) {
            (p, t) = (next, t + 1);
            continue;
        }
        match back {
            Some((star, from)) => {
                back = Some((star, from + 1));
                (p, t) = (star, from + 1);
            }
            None => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Where the pattern goes on after it stood for this letter.
fn one(pattern: &[char], at: usize, letter: char) -> Option<usize> {
    match pattern.get(at)? {
        '?' => Some(at + 1),
        '\\' => (*pattern.get(at + 1)? == letter).then_some(at + 2),
        '[' => class(pattern, at + 1, letter),
        c => (*c == letter).then_some(at + 1),
    }
}

fn class(pattern: &[char], mut at: usize, letter: char) -> Option<usize> {
    let negated = matches!(pattern.get(at), Some('^' | '!'));
    at += usize::from(negated);
    let (first, mut found) = (at, false);
    loop {
        let from = match pattern.get(at)? {
            ']' if at > first => return (found != negated).then_some(at + 1),
            '\\' => {
                at += 1;
                *pattern.get(at)?
            }
            c => *c,
        };
        at += 1;
        let ends = pattern.get(at) == Some(&'-') && pattern.get(at + 1).is_some_and(|c| *c != ']');
        let to = if ends { pattern[at + 1] } else { from };
        at += if ends { 2 } else { 0 };
        found |= (from..=to).contains(&letter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_patterns_mean_what_go_says() {
        for (pattern, text, expected) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txtx", false),
            ("a?c", "abc", true),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "ace", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*", "", true),
            ("**a*b", "xxaxxb", true),
            ("[", "[", false),
            ("[]a]", "]", true),
        ] {
            assert_eq!(name(pattern, text), expected, "{pattern} {text}");
        }
        assert!(!name(&"*a".repeat(1000), &"a".repeat(900)), "and it comes to an end");
    }
}
