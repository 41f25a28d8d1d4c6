//! What an image says of itself: its services, writable paths and configuration schema. Written by the bake into the OCI image
//! configuration (label [`LABEL`]), so it is covered by the image digest.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    config::{ConfigKey, ConfigSchema},
    id::{BindingName, ImageName, ServiceName, SharedName, VolumeName},
    size::ByteSize,
    volume::{Hooks, ScaleFrom},
};

/// The OCI label that holds the manifest as JSON.
pub const LABEL: &str = "dev.kiln.manifest";

/// The services and writable paths of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageManifest {
    /// The format of this manifest: 1.
    pub version: u32,
    /// The recipe's name.
    pub name: ImageName,
    /// The services that PID 1 starts.
    pub services: BTreeMap<ServiceName, Service>,
    /// The only paths that can be written.
    pub writable: Vec<Writable>,
    /// What can be configured.
    #[serde(default, skip_serializing_if = "ConfigSchema::is_empty")]
    pub config: ConfigSchema,
    /// Files that PID 1 renders before services start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<Template>,
    /// External services that servers need.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bindings: BTreeMap<BindingName, Binding>,
}

impl ImageManifest {
    /// A manifest of nothing but services.
    pub fn new(name: ImageName, services: BTreeMap<ServiceName, Service>) -> Self {
        let (writable, config, templates) = (Vec::new(), ConfigSchema::default(), Vec::new());
        Self { version: 1, name, services, writable, config, templates, bindings: BTreeMap::new() }
    }

    /// For how long a server may be held, frozen, once all its services are ready; none where one of them may not.
    pub fn holds_ready(&self) -> Option<Duration> {
        let each = self.services.values().map(|service| service.hold_ready);
        each.collect::<Option<Vec<Duration>>>()?.into_iter().min()
    }
}

/// A file that PID 1 renders once, on a tmpfs, before services start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Where the rendered file is: absolute, below a path that is memory in every server.
    pub path: String,
    /// The file's name in the recipe, for messages.
    pub source: String,
    /// The template: minijinja's language.
    pub content: String,
    /// Owner: a user of the image.
    pub user: String,
    /// Permission bits.
    pub mode: u32,
}

/// An external service that servers need: what is known of it comes from the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// What kind of service: `postgresql`, `redis`, or any other word.
    pub kind: String,
    /// The fields that a fleet must give (`host`, `port`, `user`, `password`, …).
    pub fields: ConfigSchema,
    /// Whether a server counts as ready only when the service answers.
    pub wait: bool,
    /// What tests run with.
    #[serde(default)]
    pub test: BindingTest,
}

/// What a binding leads to while an image is tested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BindingTest {
    /// What the fleet says, from a network that leads nowhere but to it.
    #[default]
    Bound,
    /// A real service of the binding's kind, started on the host for the test and removed after it.
    Throwaway,
}

/// Whether a host's name or address is the one that asks. A server's loopback is its own, not its host's.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let address = host.parse::<std::net::IpAddr>().is_ok_and(|ip| match ip {
        std::net::IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified(),
        std::net::IpAddr::V6(ip) => {
            let mapped = ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback() || ip.is_unspecified());
            ip.is_loopback() || ip.is_unspecified() || mapped
        }
    });
    address || host == "localhost" || host.ends_with(".localhost")
}

/// A program supervised by PID 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Program (absolute path, or a name looked up in PATH) and arguments.
    pub command: Vec<String>,
    /// The user's name or number in the image. The group is the user's primary group.
    pub user: String,
    /// Variables of the service.
    pub environment: BTreeMap<String, String>,
    /// Variables whose values are those of configuration keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configured: BTreeMap<String, ConfigKey>,
    /// Absolute path.
    pub working_directory: String,
    /// Ports the service listens on.
    pub ports: Vec<Port>,
    /// How to know that the service works; without one it is ready when it runs.
    pub readiness: Option<Readiness>,
    /// How to know that the service still works; without one it does while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Liveness>,
    /// How the service is asked to stop.
    pub stop: Stop,
    /// What happens when the service exits by itself.
    pub restart: Restart,
    /// For how long it may be held, frozen, once it is ready; without one it is not started in a server that is held.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::duration::option")]
    pub hold_ready: Option<Duration>,
}

impl Service {
    /// A command, run by root, with nothing said beside it.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            user: "root".to_owned(),
            environment: BTreeMap::new(),
            configured: BTreeMap::new(),
            working_directory: "/".to_owned(),
            ports: Vec::new(),
            readiness: None,
            liveness: None,
            stop: Stop { signal: "SIGTERM".to_owned(), grace: Duration::from_secs(10) },
            restart: Restart::Never,
            hold_ready: None,
        }
    }
}

/// A port inside the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// 1 to 65535.
    pub port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Any byte stream.
    Tcp,
    /// HTTP/1.1.
    Http,
}

/// A readiness check, run from outside the server except `Command`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Readiness {
    /// What is tried.
    pub check: ServiceCheck,
    /// The service must be ready within this time of its start.
    #[serde(with = "crate::duration")]
    pub within: Duration,
}

/// A check of a server that serves, run from outside it except `Command`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Liveness {
    /// What is tried.
    pub check: ServiceCheck,
    /// From the end of one attempt to the next.
    #[serde(with = "crate::duration")]
    pub interval: Duration,
    /// An attempt that takes longer has failed.
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// So many failed attempts in a row, and the server has failed.
    pub failures: u32,
}

/// What a check tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ServiceCheck {
    /// GET answers with a status of 200 to 399.
    Http {
        /// Port inside the server.
        port: u16,
        /// Path with a leading `/`.
        path: String,
    },
    /// A connection is accepted.
    Tcp {
        /// Port inside the server.
        port: u16,
    },
    /// A command inside the server exits with 0.
    Command {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// How a service is asked to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// The signal's name with `SIG`: `SIGTERM`, `SIGQUIT`.
    pub signal: String,
    /// After this time it is killed.
    #[serde(with = "crate::duration")]
    pub grace: Duration,
}

/// What happens when a service exits by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// The server has failed and is replaced.
    Never,
    /// PID 1 starts it again, with a growing pause.
    OnFailure,
    /// The service is a task: exit 0 is success and the server goes on, anything else fails the server.
    Once,
}

/// A path that can be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Writable {
    /// Absolute, without `.` and `..`.
    pub path: String,
    /// What is there.
    pub kind: WritableKind,
    /// Owner of the top directory: a user of the image.
    pub user: String,
    /// Mode of the top directory.
    pub mode: u32,
}

/// What is at a writable path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum WritableKind {
    /// Empty memory.
    Tmpfs {
        /// At most this many bytes.
        size: ByteSize,
    },
    /// The image's directory, with changes that go with the server.
    Ephemeral {
        /// Changes take at most this many bytes.
        size: ByteSize,
    },
    /// Data that outlives the server.
    Volume {
        /// The volume's name.
        name: VolumeName,
        /// What is run around a snapshot.
        #[serde(default, skip_serializing_if = "Hooks::is_empty")]
        hooks: Hooks,
        /// Where the volumes of further slots come from.
        #[serde(default, skip_serializing_if = "ScaleFrom::is_empty")]
        scale_from: ScaleFrom,
    },
    /// Files that other servers see too.
    Shared {
        /// The shared directory's name.
        name: SharedName,
    },
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn unit_the_loopback_has_many_names() {
        for host in [
            "127.0.0.1",
            "127.9.9.9",
            "localhost",
            "LOCALHOST.",
            "db.localhost",
            "::1",
            "[::1]",
            "0.0.0.0",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "localhost.example", "db", "::2", "128.0.0.1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
