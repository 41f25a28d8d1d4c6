//! Ranges of semantic versions, as goss reads them (`github.com/blang/semver` v4, `range.go`): `>1.0.0 <2.0.0 !=1.5.0 || 3.x`.

use semver::Version;

/// Alternatives of conditions that must hold together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Range(Vec<Vec<Condition>>);

#[derive(Debug, Clone, PartialEq)]
struct Condition {
    operator: Operator,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Condition {
    fn holds(&self, version: &Version) -> bool {
        let order = version.cmp_precedence(&self.version);
        match self.operator {
            Operator::Equal => order.is_eq(),
            Operator::Unequal => order.is_ne(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
        }
    }
}

impl Range {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let alternatives: Result<Vec<_>, String> = text.split("||").map(conditions).collect();
        let alternatives = alternatives.map_err(|what| format!("`{text}` is not a range of versions: {what}"))?;
        Ok(Self(alternatives.into_iter().flatten().collect()))
    }

    /// Whether a version is in it; the error says that it is none.
    pub(super) fn holds(&self, version: &str) -> Result<bool, String> {
        let version = Version::parse(version).map_err(|_| format!("{version:?} is not a semantic version"))?;
        Ok(self.0.iter().any(|all| all.iter().all(|condition| condition.holds(&version))))
    }
}

/// The conditions of one alternative; a `!=` with a wildcard makes two of it.
fn conditions(text: &str) -> Result<Vec<Vec<Condition>>, String> {
    let mut alternatives = vec![Vec::new()];
    for part in parts(text)? {
        let either = expand(&part)?;
        alternatives = alternatives
            .iter()
            .flat_map(|so_far| either.iter().map(|more| so_far.iter().chain(more).cloned().collect()))
            .collect();
    }
    if alternatives.iter().any(Vec::is_empty) { Err("a condition is missing".to_owned()) } else { Ok(alternatives) }
}

/// Splits at spaces, but not behind an operator.
fn parts(text: &str) -> Result<Vec<String>, String> {
    let mut parts: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match parts.last_mut().filter(|last| last.ends_with(['>', '<', '=', '!'])) {
            Some(last) => last.push_str(word),
            None => parts.push(word.to_owned()),
        }
    }
    if parts.len() > 100 { Err("it has more than 100 conditions".to_owned()) } else { Ok(parts) }
}

fn expand(part: &str) -> Result<Vec<Vec<Condition>>, String> {
    let digit = part.find(|c: char| c.is_ascii_digit()).ok_or_else(|| format!("`{part}` has no version"))?;
    let (symbol, version) = part.split_at(digit);
    let operator = match symbol {
        "" | "=" | "==" => Operator::Equal,
        ">" => Operator::Greater,
        ">=" => Operator::GreaterOrEqual,
        "<" => Operator::Less,
        "<=" => Operator::LessOrEqual,
        "!" | "!=" => Operator::Unequal,
        other => return Err(format!("`{other}` is no comparison")),
    };
    let condition = |operator, version: &Version| Condition { operator, version: version.clone() };
    if !version.contains('x') {
        let parsed = Version::parse(version).map_err(|error| format!("`{version}`: {error}"))?;
        return Ok(vec![vec![condition(operator, &parsed)]]);
    }
    let (low, next) = wildcard(version)?;
    let (from, before) = (condition(Operator::GreaterOrEqual, &low), condition(Operator::Less, &next));
    Ok(match operator {
        Operator::Equal => vec![vec![from, before]],
        Operator::Unequal => {
            vec![vec![condition(Operator::Less, &low)], vec![condition(Operator::GreaterOrEqual, &next)]]
        }
        Operator::Greater => vec![vec![condition(Operator::GreaterOrEqual, &next)]],
        Operator::GreaterOrEqual => vec![vec![from]],
        Operator::Less => vec![vec![condition(Operator::Less, &low)]],
        Operator::LessOrEqual => vec![vec![before]],
    })
}

/// The first version of `1.x` or `1.2.x`, and the first one behind.
fn wildcard(text: &str) -> Result<(Version, Version), String> {
    let wrong = || format!("`{text}`: write `1.x` or `1.2.x`");
    let numbers: Vec<&str> = text.split('.').take_while(|part| *part != "x").collect();
    if text.split('.').skip(numbers.len()).any(|part| part != "x") {
        return Err(wrong());
    }
    let number = |index: usize| numbers.get(index).map_or(Ok(0), |text| text.parse::<u32>().map_err(|_| wrong()));
    let (major, minor) = (u64::from(number(0)?), u64::from(number(1)?));
    match numbers.len() {
        1 => Ok((Version::new(major, 0, 0), Version::new(major + 1, 0, 0))),
        2 => Ok((Version::new(major, minor, 0), Version::new(major, minor + 1, 0))),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_ranges_hold_as_in_goss() {
        for (range, version, wanted) in [
            (">1.0.0 <2.0.0 !=1.5.0", "1.9.9", true),
            (">1.0.0 <2.0.0 !=1.5.0", "1.5.0", false),
            (">5.0.0 || < 1.5.0", "1.0.1", true),
            ("1.x", "1.7.0", true),
            ("1.2.x", "1.3.0", false),
            ("!=1.x", "2.0.0", true),
            (">=1.0.0", "1.0.0-rc.1", false),
            ("=1.0.0", "1.0.0+build", true),
        ] {
            assert_eq!(Range::read(range).unwrap().holds(version), Ok(wanted), "{range} {version}");
        }
        for wrong in ["", ">", "abc", "1.2", ">1.0.0 ||", "1.x.2", "~1.0.0"] {
            assert!(Range::read(wrong).is_err(), "{wrong}");
        }
        assert!(Range::read("1.x").unwrap().holds("1.22.1-9").is_ok());
        assert!(Range::read("1.x").unwrap().holds("v1").is_err());
    }
}
