//! A binding as environment variables: `DB_HOST`, `DB_PORT`, … and, for kinds that have one, `DB_URL`.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{ConfigKey, ConfigValue};
use crate::id::BindingName;

/// The variables of a binding called `name`, of this kind, with these fields. Field `user` of `db` is `DB_USER`; a `-` becomes `_`.
/// A field called `url` takes the place of the one that is made.
pub fn binding_variables(
    name: &BindingName,
    kind: &str,
    fields: &BTreeMap<ConfigKey, ConfigValue>,
) -> BTreeMap<String, String> {
    let prefix = name.as_str().to_ascii_uppercase().replace('-', "_");
    let own =
        fields.iter().map(|(key, value)| (format!("{prefix}_{}", key.as_str().to_ascii_uppercase()), value.to_text()));
    let mut variables: BTreeMap<String, String> = own.collect();
    if let Some(url) = url(kind, fields) {
        variables.entry(format!("{prefix}_URL")).or_insert(url);
    }
    variables
}

/// `postgresql://user:password@host:port/database`, `redis://:password@host:port`.
fn url(kind: &str, fields: &BTreeMap<ConfigKey, ConfigValue>) -> Option<String> {
    let field = |wanted: &str| fields.iter().find(|(key, _)| key.as_str() == wanted).map(|(_, value)| value.to_text());
    let (host, port) = (field("host")?, field("port")?);
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    let password = field("password").map(|password| format!(":{}", escaped(&password))).unwrap_or_default();
    match kind {
        "postgresql" => {
            let (user, database) = (escaped(&field("user")?), escaped(&field("database")?));
            Some(format!("postgresql://{user}{password}@{host}:{port}/{database}"))
        }
        "redis" if password.is_empty() => Some(format!("redis://{host}:{port}")),
        "redis" => Some(format!("redis://{password}@{host}:{port}")),
        _ => None,
    }
}

/// Percent-encoded but for unreserved characters (RFC 3986, section 2.3).
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("a String takes every text");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str, kind: &str, fields: &[(&str, ConfigValue)]) -> Vec<String> {
        let fields = fields.iter().map(|(key, value)| (key.parse().unwrap(), value.clone())).collect();
        let made = binding_variables(&name.parse().unwrap(), kind, &fields);
        made.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn text(text: &str) -> ConfigValue {
        ConfigValue::Text(text.to_owned())
    }

    #[test]
    fn unit_a_binding_becomes_variables_and_a_url_that_survives_any_password() {
        let db = [
            ("host", text("db.example")),
            ("port", ConfigValue::Integer(5432)),
            ("user", text("kiln")),
            ("password", text("a/b@c:d%")),
            ("database", text("app")),
        ];
        assert_eq!(
            variables("main-db", "postgresql", &db),
            [
                "MAIN_DB_DATABASE=app",
                "MAIN_DB_HOST=db.example",
                "MAIN_DB_PASSWORD=a/b@c:d%",
                "MAIN_DB_PORT=5432",
                "MAIN_DB_URL=postgresql://kiln:a%2Fb%40c%3Ad%25@db.example:5432/app",
                "MAIN_DB_USER=kiln",
            ]
        );
        let cache = [("host", text("fd00::1")), ("port", ConfigValue::Integer(6379))];
        assert_eq!(variables("cache", "redis", &cache)[2], "CACHE_URL=redis://[fd00::1]:6379");
        let mail = [("host", text("mx")), ("port", ConfigValue::Integer(25)), ("url", text("smtp://mx"))];
        assert_eq!(variables("mail", "smtp", &mail), ["MAIL_HOST=mx", "MAIL_PORT=25", "MAIL_URL=smtp://mx"]);
        assert_eq!(variables("mail", "smtp", &mail[..2]).len(), 2, "only kinds that have a URL get one");
    }
}
