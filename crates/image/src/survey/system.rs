//! Which distribution it is.

use super::{SurveyError, System, text};
use crate::debian::root::Root;

pub(super) fn read(root: &Root) -> Result<System, SurveyError> {
    let release = text(root, "/etc/os-release")?;
    let field = |name: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    Ok(System { id: field("ID"), codename: field("VERSION_CODENAME"), name: field("PRETTY_NAME") })
}
