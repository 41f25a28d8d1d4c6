//! Names and ids, one type each, so that a group can never be passed where a server is meant.
//!
//! The one list of kinds is at the bottom of this file.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text that is not a valid name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {rule}")]
pub struct InvalidName {
    /// What the text was meant to be.
    pub kind: &'static str,
    /// The offending text, shortened to 80 characters.
    pub text: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

const RULE: &str = "use 1 to 63 of a-z, 0-9, `-`, starting with a letter and not ending with `-`";

fn check(kind: &'static str, text: &str) -> Result<(), InvalidName> {
    let bytes = text.as_bytes();
    let good = (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && !text.ends_with('-')
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if good { Ok(()) } else { Err(InvalidName { kind, text: text.escape_debug().take(80).collect(), rule: RULE }) }
}

/// The name that is nearest to some words: `Web Server_2` gives `web-server-2`. None where there is no letter in them.
pub fn nearest(words: &str) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let words: String = words.chars().map(plain).collect();
    let words = words.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let cut: String = words.chars().take(63).collect();
    Some(cut.trim_end_matches('-').to_owned()).filter(|name| check("name", name).is_ok())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(extend("pattern" = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"))]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check($kind, text)?;
                Ok(Self(text.to_owned()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                check($kind, &text)?;
                Ok(Self(text))
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}

names! {
    /// The name of an image, given by its recipe (`name = "hello"`).
    ImageName = "image name";
    /// A pointer to an image digest: `dev`, `staging`, `stable`.
    ChannelName = "channel name";
    /// A group of servers of one role in a fleet.
    GroupName = "group name";
    /// One running instance of a release: group name, `-`, and a random suffix.
    ServerId = "server id";
    /// A service of a recipe, supervised by PID 1.
    ServiceName = "service name";
    /// Data that outlives servers.
    VolumeName = "volume name";
    /// Files that many servers see at the same time.
    SharedName = "name of a shared directory";
    /// A point in time of a volume.
    SnapshotName = "snapshot name";
    /// An external service that servers of an image need (`[service_binding.db]`).
    BindingName = "binding name";
    /// A further configuration with which the tests of an image are run (`[[test.matrix]]`).
    MatrixName = "name of a configuration";
    /// A key whose reports are believed: `this-host` is the one that this host signs with.
    KeyName = "key name";
    /// An environment of a fleet: what differs there stands in a file of its own (`fleet.staging.toml`).
    EnvironmentName = "environment name";
    /// A repository of packages beside the archives of a base (`[base.repository.vendor]`).
    RepositoryName = "name of a repository";
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn unit_the_nearest_name_is_a_name_or_there_is_none() {
        for (words, name) in [
            ("Web Server_2", Some("web-server-2")),
            ("lib32stdc++6", Some("lib32stdc--6")),
            ("7zip.", Some("zip")),
            ("ünï", Some("n")),
            ("123", None),
            ("", None),
        ] {
            assert_eq!(nearest(words).as_deref(), name, "{words}");
        }
        assert_eq!(nearest(&"a".repeat(100)).map(|name| name.len()), Some(63));
    }
}
