//! The trust policy of a host as it is written: `trust.toml`.
//!
//! ```
//! let rules = kiln_model::trust::Rules::parse(
//!     "[[rule]]\nimages = [\"shop\", \"web-*\"]\nkeys = [\"ci\", \"release\"]\nthreshold = 2\nmax_age = \"7d\"\n",
//!     "trust.toml",
//! )?;
//! # Ok::<_, kiln_model::diagnostic::Diagnostics>(())
//! ```

use std::time::Duration;

use super::{ImagePattern, Rules, TrustRule};
use crate::{
    diagnostic::Diagnostics,
    digest::SuiteDigest,
    id::KeyName,
    text::{Document, Keys, Place, Table, Value},
};

/// The keys of a trust policy.
pub(crate) const KEYS: Keys = Keys { of: "a trust policy", valid: &["rule"] };
/// The keys of a rule.
pub(crate) const RULE: Keys = Keys { of: "a rule", valid: &["images", "keys", "threshold", "suites", "max_age"] };

const RULES: &str = "[[rule]]` followed by `images = [\"*\"]` and `keys = [\"ci\"]";
const EXAMPLE: &str = "[{ images = [\"*\"], keys = [\"ci\"] }]";

type PlacedPattern<'d> = (ImagePattern, Place<'d>);

impl Rules {
    /// Reads and checks `trust.toml`. `file` is how the person names it. Everything that is wrong is in the diagnostics.
    pub fn parse(text: &str, file: &str) -> Result<Self, Diagnostics> {
        let document = Document::parse(file, text)?;
        let rules = read(&document.root(KEYS));
        document.finish(rules)
    }
}

fn read(root: &Table<'_>) -> Option<Rules> {
    let value = root.required("rule", RULES)?;
    let items = value.list(EXAMPLE)?;
    if items.is_empty() {
        return value.place.report("there is no rule: nothing could be launched", format!("add one: `{RULES}`"));
    }
    let (mut rules, mut above) = (Vec::new(), Vec::new());
    for item in &items {
        let (rule, patterns) = rule(item, &above);
        rules.push(rule);
        above.extend(patterns);
    }
    rules.into_iter().collect::<Option<_>>().map(Rules::Listed)
}

fn rule<'d>(value: &Value<'d>, above: &[PlacedPattern<'d>]) -> (Option<TrustRule>, Vec<PlacedPattern<'d>>) {
    let Some(table) = value.table(RULE, "{ images = [\"*\"], keys = [\"ci\"] }") else { return (None, Vec::new()) };
    let images = table.required("images", "images = [\"*\"]").and_then(|v| patterns(&v, above));
    let keys_value = table.required("keys", "keys = [\"ci\", \"this-host\"]");
    let keys = keys_value.as_ref().and_then(|v| keys(v, "[\"ci\", \"this-host\"]"));
    let threshold = table.get("threshold").map_or(Some(1), |v| {
        let threshold = v.integer::<u32>(1..=16, "2")?;
        let (count, place) = (keys.as_ref()?.len(), keys_value.as_ref()?.place);
        if threshold as usize <= count {
            return Some(threshold);
        }
        let message = format!("{threshold} keys must agree, and only {count} may sign");
        v.place.contradicts(place, message, "these", "name more keys, or write a smaller `threshold`")
    });
    let suites = table.get("suites").map_or(Some(Vec::new()), |v| suites(&v));
    let limits = Duration::from_secs(60)..=Duration::from_secs(3660 * 86_400);
    let max_age = table.get("max_age").map_or(Some(None), |v| v.duration(limits, "\"7d\"").map(Some));
    let placed = images.clone().unwrap_or_default();
    let rule = || {
        let images = images?.into_iter().map(|(pattern, _)| pattern).collect();
        Some(TrustRule { images, keys: keys?, threshold: threshold?, suites: suites?, max_age: max_age? })
    };
    (rule(), placed)
}

/// A pattern that an earlier one covers would never decide anything.
fn patterns<'d>(value: &Value<'d>, above: &[PlacedPattern<'d>]) -> Option<Vec<PlacedPattern<'d>>> {
    let items = value.filled_list("[\"*\"]")?;
    let mut read: Vec<PlacedPattern<'d>> = Vec::new();
    let mut wrong = false;
    for item in items {
        let Some(pattern) = item.parsed::<ImagePattern>("[\"shop\", \"web-*\"]") else {
            wrong = true;
            continue;
        };
        match above.iter().chain(&read).find(|(known, _)| known.covers(&pattern)) {
            Some((known, there)) => {
                let message = format!("`{pattern}` is never looked at: the first rule that fits decides");
                let label = format!("`{known}` fits all of it");
                item.place.contradicts::<()>(*there, message, label, "put the narrower rule first, or leave it out");
                wrong = true;
            }
            None => read.push((pattern, item.place)),
        }
    }
    (!wrong).then_some(read)
}

/// Names of keys, each once.
pub(crate) fn keys(value: &Value<'_>, example: &str) -> Option<Vec<KeyName>> {
    let mut read: Vec<KeyName> = Vec::new();
    let mut wrong = false;
    for item in value.filled_list(example)? {
        match item.parsed::<KeyName>(example) {
            Some(key) if read.contains(&key) => {
                item.place.report::<()>(format!("`{key}` is named twice; it counts once"), "leave one of the two out");
                wrong = true;
            }
            Some(key) => read.push(key),
            None => wrong = true,
        }
    }
    (!wrong).then_some(read)
}

/// Suites, of which one must have passed.
pub(crate) fn suites(value: &Value<'_>) -> Option<Vec<SuiteDigest>> {
    let items = value.filled_list("[\"sha256:…\"]")?;
    let read: Vec<_> = items.iter().map(|item| item.parsed::<SuiteDigest>("[\"sha256:…\"]")).collect();
    read.into_iter().collect()
}
