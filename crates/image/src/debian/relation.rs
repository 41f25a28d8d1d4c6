//! Relations between packages (Debian Policy 7.1): `a (>= 1) | b:any, c [amd64]`, read without copying.

use std::cmp::Ordering;

use super::version;

/// How a version is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `<<`
    Earlier,
    /// `<=` (and the old `<`)
    AtMost,
    /// `=`
    Exactly,
    /// `>=` (and the old `>`)
    AtLeast,
    /// `>>`
    Later,
}

/// One alternative of a dependency, or one item of `Provides`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The package's name.
    pub name: &'a str,
    /// `any`, `native` or an architecture after the colon.
    pub qualifier: Option<&'a str>,
    /// Version limit.
    pub version: Option<(Limit, &'a str)>,
}

impl Relation<'_> {
    /// Whether this version is within the limit.
    pub fn admits(&self, candidate: &str) -> bool {
        let Some((limit, wanted)) = self.version else { return true };
        let order = version::compare(candidate, wanted);
        match limit {
            Limit::Earlier => order == Ordering::Less,
            Limit::AtMost => order != Ordering::Greater,
            Limit::Exactly => order == Ordering::Equal,
            Limit::AtLeast => order != Ordering::Less,
            Limit::Later => order == Ordering::Greater,
        }
    }
}

impl std::fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        let Some((limit, version)) = self.version else { return Ok(()) };
        let sign = match limit {
            Limit::Earlier => "<<",
            Limit::AtMost => "<=",
            Limit::Exactly => "=",
            Limit::AtLeast => ">=",
            Limit::Later => ">>",
        };
        write!(f, " ({sign} {version})")
    }
}

/// The groups of a relation field; each is a list of alternatives. Empty items are left out.
pub fn groups(field: &str) -> impl Iterator<Item = &str> {
    field.split(',').map(str::trim).filter(|group| !group.is_empty())
}

/// The alternatives of one group that are meant for this architecture. What is not a relation is left out: an archive
/// is signed, and a relation nobody can read is one that nobody can satisfy.
pub fn alternatives(group: &str) -> impl Iterator<Item = Relation<'_>> {
    group.split('|').filter_map(|text| parse(text.trim()))
}

/// Every relation of a field, alternatives or not: for `Provides`, `Conflicts` and `Breaks`.
pub fn all(field: &str) -> impl Iterator<Item = Relation<'_>> {
    groups(field).flat_map(alternatives)
}

/// Reads one alternative; none if it is malformed or for other architectures.
pub fn parse(text: &str) -> Option<Relation<'_>> {
    let end = text.find([' ', '(', '[', '<', '\t']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let (name, qualifier) = match name.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (name, None),
    };
    if name.is_empty() {
        return None;
    }
    let rest = rest.trim_start();
    let (version, rest) = match rest.strip_prefix('(') {
        Some(inner) => {
            let (inside, after) = inner.split_once(')')?;
            (Some(parse_limit(inside.trim())?), after.trim_start())
        }
        None => (None, rest),
    };
    is_for_us(rest).then_some(Relation { name, qualifier, version })
}

fn parse_limit(text: &str) -> Option<(Limit, &str)> {
    let signs = [
        ("<<", Limit::Earlier),
        ("<=", Limit::AtMost),
        (">=", Limit::AtLeast),
        (">>", Limit::Later),
        ("=", Limit::Exactly),
        ("<", Limit::AtMost),
        (">", Limit::AtLeast),
    ];
    let (sign, limit) = signs.into_iter().find(|(sign, _)| text.starts_with(sign))?;
    let version = text[sign.len()..].trim();
    (!version.is_empty()).then_some((limit, version))
}

/// `[amd64 i386]` or `[!armhf]`, seen from amd64.
fn is_for_us(rest: &str) -> bool {
    let Some(list) = rest.strip_prefix('[').and_then(|inner| inner.split(']').next()) else { return true };
    let ours = |name: &str| matches!(name, "amd64" | "any" | "linux-any" | "any-amd64");
    let mut words = list.split_whitespace().peekable();
    if words.peek().is_some_and(|word| word.starts_with('!')) {
        return !words.any(|word| ours(word.trim_start_matches('!')));
    }
    words.any(ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_relation_is_read_in_all_its_parts() {
        let field = "libc6 (>= 2.36), debconf (>= 0.5) | debconf-2.0 , perl:any, a(<<1), b [!amd64], c [linux-any]";
        let read: Vec<String> = all(field).map(|r| r.to_string()).collect();
        assert_eq!(read, ["libc6 (>= 2.36)", "debconf (>= 0.5)", "debconf-2.0", "perl:any", "a (<< 1)", "c"]);
        assert_eq!(groups(field).count(), 6);
    }

    #[test]
    fn limits_admit_what_they_should() {
        for (relation, inside, outside) in [
            ("a (>= 1.0)", "1.0-1", "1.0~rc1"),
            ("a (<< 1.0)", "1.0~", "1.0"),
            ("a (= 2:1)", "2:1", "1"),
            ("a (>> 1)", "1.1", "1"),
            ("a (<= 1)", "1", "1.1"),
        ] {
            let relation = parse(relation).unwrap();
            assert!(relation.admits(inside) && !relation.admits(outside), "{relation}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(field in ".*") {
            let _count = all(&field).filter(|relation| relation.admits("1.0")).count();
        }
    }
}
