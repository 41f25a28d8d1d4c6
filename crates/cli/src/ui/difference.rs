//! What differs between two images, in short: for plans, promotions and their history.

use kiln_api::difference::{Change, Difference};
use kiln_model::ByteSize;
use serde_json::Value;

use super::{dim, strong};

/// So many changes of each kind are shown; `kiln diff` shows them all.
const SHOWN: usize = 20;

/// A line for each change of packages and manifest, and how many files differ.
pub(crate) fn lines(difference: &Difference) -> Vec<String> {
    if difference.is_empty() {
        return vec!["no difference but times".to_owned()];
    }
    let mut lines = some(&difference.packages);
    lines.extend(some(&difference.manifest));
    let files = difference.files.len() as u64 + difference.files_left_out;
    let setuid = difference.files.iter().filter(|change| is_setuid(change)).map(|change| change.name.as_str());
    lines.extend(setuid.map(|path| format!("! file {} is SETUID", strong(path))));
    if files > 0 {
        let names: Vec<&str> = difference.files.iter().take(3).map(|change| change.name.as_str()).collect();
        let more = if files as usize > names.len() { ", …" } else { "" };
        lines.push(format!("{files} files differ {}", dim(&format!("{}{more}", names.join(", ")))));
    }
    let size = |bytes: u64| ByteSize::mib(bytes.div_ceil(1 << 20));
    lines.push(format!("size {} → {}", size(difference.size.before), size(difference.size.after)));
    lines
}

fn some(changes: &[Change]) -> Vec<String> {
    let mut lines: Vec<String> = changes.iter().take(SHOWN).map(line).collect();
    if changes.len() > SHOWN {
        lines.push(format!("… and {} more", changes.len() - SHOWN));
    }
    lines
}

fn line(change: &Change) -> String {
    let (mark, how) = match (&change.before, &change.after) {
        (None, after) => ("+", after.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()),
        (before, None) => ("-", before.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()),
        (Some(Value::String(before)), Some(Value::String(after))) => ("~", format!("{before} → {after}")),
        (Some(before), Some(after)) => ("~", keys(before, after)),
    };
    format!("{mark} {} {} {}", change.what, strong(&change.name), dim(&how)).trim_end().to_owned()
}

/// The keys that differ.
fn keys(before: &Value, after: &Value) -> String {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return String::new() };
    let all = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    all.filter(|key| before.get(*key) != after.get(*key)).cloned().collect::<Vec<_>>().join(", ")
}

fn is_setuid(change: &Change) -> bool {
    let setuid = |state: &Option<Value>| state.as_ref().is_some_and(|state| state["setuid"] == true);
    setuid(&change.after) && !setuid(&change.before)
}

#[cfg(test)]
mod tests {
    use kiln_api::difference::Sizes;
    use serde_json::json;

    use super::*;

    #[test]
    fn unit_a_difference_is_shown_in_short() {
        let change = |what: &str, name: &str, before: Value, after: Value| Change {
            what: what.to_owned(),
            name: name.to_owned(),
            before: (!before.is_null()).then_some(before),
            after: (!after.is_null()).then_some(after),
        };
        let difference = Difference {
            before: String::new(),
            after: String::new(),
            size: Sizes { before: 10 << 20, after: 12 << 20 },
            packages: vec![
                change("package", "nginx:amd64", json!("1.22-1"), json!("1.22-2")),
                change("package", "curl:amd64", Value::Null, json!("7.88")),
                change("package", "wget:amd64", json!("1.21"), Value::Null),
            ],
            manifest: vec![change(
                "service",
                "web",
                json!({"user": "root", "ports": []}),
                json!({"user": "www", "ports": []}),
            )],
            files: vec![
                change("file", "/usr/bin/a", json!({"setuid": false}), json!({"setuid": true})),
                change("file", "/usr/bin/b", Value::Null, json!({"setuid": false})),
            ],
            files_left_out: 8,
        };
        let text = lines(&difference).join("\n");
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
        let same = Difference { packages: vec![], manifest: vec![], files: vec![], ..difference };
        assert_eq!(lines(&same), ["no difference but times"]);
    }
}
