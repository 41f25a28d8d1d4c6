//! What a registry that answers 401 wants (RFC 9110 §11.6.1; distribution `spec/auth/token.md`).

use serde::Deserialize;

/// What is to be shown with the next request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token of this address.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// A token server's answer.
#[derive(Deserialize)]
pub(super) struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Token {
    pub(super) fn text(self) -> Option<String> {
        let text = if self.token.is_empty() { self.access_token } else { self.token };
        let visible = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        visible.then_some(text)
    }
}

/// Reads `WWW-Authenticate`; none if it asks for what Kiln does not speak.
pub(super) fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    for (key, value) in parameters(rest) {
        match key.to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// `key="value",key=value`, where a quoted value may hold commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => match quoted.split_once('"') {
                Some((value, left)) => (value, left),
                None => (quoted, ""),
            },
            None => after.split_once(',').map_or((after, ""), |(value, _)| (value, &after[value.len()..])),
        };
        found.push((key.trim().to_owned(), value.trim().to_owned()));
        rest = left.trim_start_matches([',', ' ']);
    }
    found
}

/// A text as a value of a query.
pub(super) fn encoded(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:".contains(&b);
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_challenges_are_read() {
        let text = |text: &str| Some(text.to_owned());
        let bearer =
            |service, scope| Some(Challenge::Bearer { realm: "https://auth.example/token".into(), service, scope });
        let realm = "realm=\"https://auth.example/token\"";
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(
            challenge(&format!("Bearer {realm},service=\"reg\",scope=\"repository:a/b:pull,push\"")),
            bearer(text("reg"), text("repository:a/b:pull,push"))
        );
        assert_eq!(challenge(&format!("bearer service=reg, {realm}")), bearer(text("reg"), None));
        for nothing in ["", "Bearer", "Bearer service=\"x\"", "Digest realm=\"x\"", "Bearer realm"] {
            assert_eq!(challenge(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn unit_a_token_is_one_visible_word() {
        let token = |json: &str| serde_json::from_str::<Token>(json).expect("JSON").text();
        assert_eq!(token(r#"{"token": "abc"}"#).as_deref(), Some("abc"));
        assert_eq!(token(r#"{"access_token": "abc"}"#).as_deref(), Some("abc"));
        for none in [r#"{}"#, r#"{"token": "a\r\nHost: x"}"#, r#"{"token": "a b"}"#] {
            assert_eq!(token(none), None);
        }
    }
}
