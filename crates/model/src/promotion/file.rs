//! The rules of channels as they are written: `kiln.toml`.
//!
//! ```
//! let channels = kiln_model::promotion::Channels::parse(
//!     "[channel.stable]\nafter = \"staging\"\nsoak = \"24h\"\napprovals = 2\napprovers = [\"alice\", \"bob\", \"carol\"]\n",
//!     "kiln.toml",
//! )?;
//! # Ok::<_, kiln_model::diagnostic::Diagnostics>(())
//! ```

use std::{collections::BTreeMap, time::Duration};

use super::{ChannelRule, Channels, ReportRule};
use crate::{
    diagnostic::Diagnostics,
    id::{ChannelName, KeyName},
    text::{Document, Entry, Keys, Place, Table, Value},
    trust::file,
};

/// The keys of the file.
pub(crate) const KEYS: Keys = Keys { of: "kiln.toml", valid: &["channel"] };
/// The keys of a channel.
pub(crate) const CHANNEL: Keys = Keys {
    of: "a channel",
    valid: &["promoters", "after", "soak", "approvals", "approvers", "keys", "threshold", "suites", "max_age"],
};

const EXAMPLE: &str = "[channel.stable]` followed by `after = \"staging\"";
const TEN_YEARS: Duration = Duration::from_secs(3660 * 86_400);

type Placed<'d> = (ChannelName, ChannelRule, Option<Place<'d>>);

impl Channels {
    /// Reads and checks `kiln.toml`. `file` is how the person names it. Everything that is wrong is in the diagnostics.
    pub fn parse(text: &str, file: &str) -> Result<Self, Diagnostics> {
        let document = Document::parse(file, text)?;
        let channels = read(&document.root(KEYS));
        document.finish(channels)
    }
}

fn read(root: &Table<'_>) -> Option<Channels> {
    let value = root.required("channel", EXAMPLE)?;
    let table = value.map("{ stable = { after = \"staging\" } }")?;
    let read: Vec<_> = table.entries().map(|entry| channel(&entry)).collect();
    if read.is_empty() {
        return value.place.report("there is no channel", format!("add one: `{EXAMPLE}`"));
    }
    let placed: Vec<Placed<'_>> = read.into_iter().collect::<Option<_>>()?;
    let rules: BTreeMap<_, _> = placed.iter().map(|(name, rule, _)| (name.clone(), rule.clone())).collect();
    let mut good = true;
    for (name, _, after) in &placed {
        if let Some(place) = after.filter(|_| goes_round(name, &rules)) {
            let message = format!("no image ever gets to `{name}`: it must have been there before");
            place.report::<()>(message, "let `after` lead to a channel that is moved freely, such as `dev`");
            good = false;
        }
    }
    good.then_some(Channels(rules))
}

/// Whether the channels that must come before this one include it.
fn goes_round(name: &ChannelName, rules: &BTreeMap<ChannelName, ChannelRule>) -> bool {
    let next = |channel: &ChannelName| rules.get(channel).and_then(|rule| rule.after.clone());
    std::iter::successors(next(name), next).take(rules.len()).any(|before| before == *name)
}

fn channel<'d>(entry: &Entry<'d>) -> Option<Placed<'d>> {
    let name = entry.key.parse::<ChannelName>().map_err(|error| {
        entry.place.report::<()>(error.to_string(), "for example: `[channel.stable]`");
    });
    let table = entry.value.table(CHANNEL, "{ after = \"staging\" }")?;
    let promoters = table.get("promoters").map_or(Some(Vec::new()), |v| file::keys(&v, "[\"release\"]"));
    let (after, soak) = before(&table);
    let approvals = approvals(&table);
    let reports = reports(&table);
    let (approvals, approvers) = approvals?;
    let place = table.get("after").map(|value| value.place);
    let rule =
        ChannelRule { promoters: promoters?, after: after?, soak: soak?, approvals, approvers, reports: reports? };
    Some((name.ok()?, rule, place))
}

fn before(table: &Table<'_>) -> (Option<Option<ChannelName>>, Option<Duration>) {
    let after = table.get("after").map_or(Some(None), |v| v.parsed::<ChannelName>("\"staging\"").map(Some));
    let soak = table.get("soak").map_or(Some(Duration::ZERO), |v| {
        let soak = v.duration(Duration::from_secs(1)..=TEN_YEARS, "\"24h\"")?;
        match table.has("after") {
            true => Some(soak),
            false => v.place.report("`soak` is the time in another channel", "say which one: `after = \"staging\"`"),
        }
    });
    (after, soak)
}

fn approvals(table: &Table<'_>) -> Option<(u32, Vec<KeyName>)> {
    let approvers = table.get("approvers").map_or(Some(Vec::new()), |v| file::keys(&v, "[\"alice\", \"bob\"]"));
    let Some(value) = table.get("approvals") else {
        return match table.get("approvers") {
            Some(only) => only.place.report("it is not said how many must approve", "add `approvals = 1`"),
            None => Some((0, Vec::new())),
        };
    };
    let approvals = value.integer::<u32>(1..=16, "2")?;
    let Some(list) = table.get("approvers") else {
        return value.place.report("it is not said who may approve", "add `approvers = [\"alice\", \"bob\"]`");
    };
    let approvers = approvers?;
    enough(&value, approvals, approvers.len(), list.place, "approve").then_some((approvals, approvers))
}

fn reports(table: &Table<'_>) -> Option<Option<ReportRule>> {
    if !["keys", "threshold", "suites", "max_age"].iter().any(|key| table.has(key)) {
        return Some(None);
    }
    let keys = table.get("keys").map_or(Some(Vec::new()), |v| file::keys(&v, "[\"ci\"]"));
    let threshold = table.get("threshold").map_or(Some(1), |v| {
        let threshold = v.integer::<u32>(1..=16, "2")?;
        match (table.get("keys"), &keys) {
            (Some(list), Some(keys)) => enough(&v, threshold, keys.len(), list.place, "sign").then_some(threshold),
            (Some(_), None) => None,
            (None, _) => v.place.report("it is not said whose reports count", "add `keys = [\"ci\", \"nightly\"]`"),
        }
    });
    let suites = table.get("suites").map_or(Some(Vec::new()), |v| file::suites(&v));
    let limits = Duration::from_secs(60)..=TEN_YEARS;
    let max_age = table.get("max_age").map_or(Some(None), |v| v.duration(limits, "\"7d\"").map(Some));
    Some(Some(ReportRule { keys: keys?, threshold: threshold?, suites: suites?, max_age: max_age? }))
}

fn enough(value: &Value<'_>, wanted: u32, may: usize, list: Place<'_>, verb: &str) -> bool {
    if wanted as usize <= may {
        return true;
    }
    let message = format!("{wanted} keys must {verb}, and only {may} may");
    value.place.contradicts::<()>(list, message, "these", "name more keys, or write a smaller number");
    false
}
