//! A fleet as it stands in files: `fleet.toml`, and over it the file of an environment, which wins key by key.

use super::{Fleet, overlay::Overlay};
use crate::{config::ConfigKey, diagnostic::Diagnostics, id::GroupName};

/// A file: how the person names it, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetText {
    /// Its name.
    pub file: String,
    /// What is in it.
    pub text: String,
}

/// A fleet and the files it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetFiles {
    /// The fleet, with its environment's file over it.
    pub fleet: Fleet,
    pub(super) base: FleetText,
    pub(super) over: Option<(FleetText, Overlay)>,
}

/// Where a value of a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Whether in the environment's file.
    pub environment: bool,
    /// Whether among the group's own values; else in `[config]` of the file.
    pub own: bool,
}

impl FleetFiles {
    /// Reads and checks a fleet, and the file of an environment if there is one. Each file has its own diagnostics.
    pub fn parse(base: FleetText, over: Option<FleetText>) -> Result<Self, Diagnostics> {
        let fleet = Fleet::parse(&base.text, &base.file)?;
        let Some(over) = over else { return Ok(Self { fleet, base, over: None }) };
        let overlay = Overlay::parse(&over.text, &over.file, &fleet)?;
        Ok(Self { fleet: overlay.over(fleet), base, over: Some((over, overlay)) })
    }

    /// The file in which something stands.
    pub fn file(&self, origin: Origin) -> &FleetText {
        self.over.as_ref().filter(|_| origin.environment).map_or(&self.base, |(file, _)| file)
    }

    /// Where the value of a group's key stands, if the fleet gives one.
    pub fn origin(&self, group: &GroupName, key: &ConfigKey) -> Option<Origin> {
        let overlay = self.over.as_ref().map(|(_, overlay)| overlay);
        let own = self.fleet.groups.get(group).is_some_and(|group| group.config.contains_key(key));
        let environment = match own {
            true => overlay.and_then(|o| o.groups.get(group)).is_some_and(|group| group.config.contains_key(key)),
            false => overlay.is_some_and(|overlay| overlay.config.contains_key(key)),
        };
        (own || self.fleet.config.contains_key(key)).then_some(Origin { environment, own })
    }
}
