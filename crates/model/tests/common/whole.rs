//! A recipe and a fleet that use every key.

/// A recipe with every key that a recipe can have, one on a line.
pub const WHOLE_RECIPE: &str = include_str!("../whole/image.toml");
/// A fleet with every key that a fleet can have, one on a line.
pub const WHOLE_FLEET: &str = include_str!("../whole/fleet.toml");
