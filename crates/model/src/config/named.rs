//! The configuration keys that a template or a test names.

use std::collections::BTreeSet;

use super::ConfigKey;

/// The keys that a template names as `config.KEY`.
pub fn keys_named(template: &minijinja::Template<'_, '_>) -> BTreeSet<ConfigKey> {
    let names = template.undeclared_variables(true);
    names.iter().filter_map(|name| name.strip_prefix("config.")?.split('.').next()?.parse().ok()).collect()
}

/// The keys that a text of a template names; none where it cannot be read.
pub fn keys_of_template(content: &str) -> BTreeSet<ConfigKey> {
    let environment = minijinja::Environment::new();
    environment.template_from_str(content).map(|template| keys_named(&template)).unwrap_or_default()
}
