//! JSON Schemas of `image.toml`, `fleet.toml`, an environment's file, `trust.toml` and `kiln.toml`, for editors and other programs.
//!
//! The structs in the submodules are the files' text form and nothing else: their documentation is what an editor
//! shows beside a key. The parser ([`crate::recipe`], [`crate::fleet`]) says more than a schema can (places, contradictions,
//! files beside the recipe); that the two know the same keys and accept the same forms is kept by tests.

pub mod fleet;
pub mod image;
pub mod promotion;
pub mod trust;

use schemars::{JsonSchema, Schema, generate::SchemaSettings};

/// A schema's name in the repository's `schema/` directory, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaFile {
    /// `image.schema.json`.
    pub name: &'static str,
    /// JSON, ending with a line feed.
    pub text: String,
}

/// All schemas.
pub fn files() -> [SchemaFile; 5] {
    [
        file::<image::ImageToml>("image.schema.json"),
        file::<fleet::FleetToml>("fleet.schema.json"),
        file::<fleet::EnvironmentToml>("environment.schema.json"),
        file::<trust::TrustToml>("trust.schema.json"),
        file::<promotion::KilnToml>("kiln.schema.json"),
    ]
}

fn file<T: JsonSchema>(name: &'static str) -> SchemaFile {
    let text = serde_json::to_string_pretty(&of::<T>()).expect("a schema is plain JSON");
    SchemaFile { name, text: text + "\n" }
}

/// The JSON Schema (draft 2020-12) of a text form.
pub(crate) fn of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>()
}

/// A text with a pattern, for keys whose values have a form of their own.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = $pattern:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, schemars::JsonSchema)]
        #[serde(transparent)]
        #[schemars(extend("pattern" = $pattern))]
        pub struct $name(pub String);
    )*};
}

texts! {
    /// A whole number and one of ms, s, m, h, d: `30s`.
    DurationText = "^[0-9]+(ms|s|m|h|d)$";
    /// A whole number and one of B, KiB, MiB, GiB, TiB: `64MiB`.
    SizeText = "^[0-9]+(B|KiB|MiB|GiB|TiB)$";
    /// Three or four octal digits: `0644`.
    ModeText = "^[0-7]{3,4}$";
    /// An absolute path in the image.
    ImagePath = "^/";
    /// A path relative to the recipe, inside its directory.
    RecipePath = "^[^/]";
    /// A user's name or number.
    UserText = "^([A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,5})$";
    /// A Debian package: `name`, `name=version`, or a `.deb` file beside the recipe.
    PackageText = "^([a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?|[^/].*\\.deb)$";
    /// An image: `name`, `name@channel` or `name@sha256:…`.
    ImageText = "^[a-z]([a-z0-9-]*[a-z0-9])?(@(sha256:[0-9a-f]{64}|[a-z]([a-z0-9-]*[a-z0-9])?))?$";
    /// A name of images, or how their names begin and `*`: `shop`, `web-*`, `*`.
    PatternText = "^([a-z]([a-z0-9-]*[a-z0-9])?|([a-z][a-z0-9-]*)?\\*)$";
    /// A digest.
    DigestText = "^sha256:[0-9a-f]{64}$";
    /// A path of a URL.
    UrlPath = "^/";
}

#[cfg(test)]
mod tests;
