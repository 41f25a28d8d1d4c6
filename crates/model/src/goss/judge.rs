//! Comparing what was seen of a resource with what is expected (goss, `resource/validate.go`).

use super::{Resource, value::Value};

/// How one check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// As goss writes it: `File: /etc/passwd: mode`.
    pub name: String,
    /// Whether it held; none where it was left out.
    pub passed: Option<bool>,
    /// What was expected and what was seen, or why it was left out.
    pub message: Option<String>,
}

/// Compares. `seen` answers for a property: its value, or why there is none. `shown` makes a text fit to be read.
pub fn judge(
    resource: &Resource,
    mut seen: impl FnMut(&'static str) -> Result<Value, String>,
    shown: impl Fn(&str) -> String,
) -> Vec<Judged> {
    let mut all = Vec::new();
    let mut left_out = resource.skip.then(|| "the file says `skip`".to_owned());
    for (index, check) in resource.checks.iter().enumerate() {
        let name = format!("{}: {}: {}", resource.kind, resource.id, check.property);
        if let Some(reason) = &left_out {
            all.push(Judged { name, passed: None, message: Some(format!("skipped: {reason}")) });
            continue;
        }
        let value = seen(check.property);
        let held = value.clone().and_then(|value| check.expected.holds(&value));
        let message = match (&held, &value) {
            (Ok(true), _) => None,
            (Ok(false), Ok(value)) => Some(failure(check, value, &shown)),
            (Err(reason), _) | (_, Err(reason)) => Some(shown(reason)),
        };
        if index == 0 && resource.first_decides && (held != Ok(true) || value == Ok(Value::Bool(false))) {
            left_out = Some(format!("`{}` says that there is nothing to look at", check.property));
        }
        let message = message.map(|message| titled(resource, message));
        all.push(Judged { name, passed: Some(held == Ok(true)), message });
    }
    all
}

fn failure(check: &super::Check, value: &Value, shown: impl Fn(&str) -> String) -> String {
    let wanted = match check.expected.missing(value) {
        Some(missing) => format!("to have the patterns {}", shown(&missing)),
        None => shown(&check.expected.wanted()),
    };
    format!("expected {} {wanted}, saw {}", check.property, shown(&value.described()))
}

fn titled(resource: &Resource, message: String) -> String {
    match &resource.title {
        Some(title) => format!("{title}: {message}"),
        None => message,
    }
}
