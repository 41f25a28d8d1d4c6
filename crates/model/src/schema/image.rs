//! The text form of `image.toml`.

mod config;
mod provision;
mod test;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub use self::config::{Configured, File, Items, ItemsTable, Key, KeyItem, KeyType, KeyValue, Variable};
pub use self::provision::{
    AnsibleStep, CfengineStep, ChefStep, ChefTool, CloudInitStep, Idempotent, PuppetStep, Tool, Warn,
};
pub use self::test::{
    CommandTest, Expectation, Expectations, FileTest, HttpTest, MatrixEntry, MatrixOnly, PackageTest, PortTest,
    ProcessTest, ScriptTest, TcpTest, Test, Tests, UserTest,
};
use super::{DurationText, ImagePath, ImageText, ModeText, PackageText, RecipePath, SizeText, UrlPath, UserText};
use crate::{
    config::ConfigKey,
    id::{BindingName, ImageName, RepositoryName, ServiceName, SharedName, VolumeName},
    manifest::{BindingTest, Protocol, Restart},
    volume::ScaleFrom,
};

/// A Kiln recipe: what an image is made from and what must hold in it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "image.toml")]
pub struct ImageToml {
    /// The image's name.
    pub name: ImageName,
    /// What the image starts from.
    pub base: Base,
    /// What is done to it, in this order; each step is one layer.
    pub step: Option<Vec<Step>>,
    /// The programs that run in its servers.
    pub service: Option<BTreeMap<ServiceName, Service>>,
    /// External services that its servers need.
    pub service_binding: Option<BTreeMap<BindingName, ServiceBinding>>,
    /// The only paths of a server that can be written, beside /run, /tmp, /var/tmp and /dev, which always can.
    pub writable: Option<BTreeMap<ImagePath, Writable>>,
    /// What servers of the image can be told, by key.
    pub config: Option<BTreeMap<ConfigKey, Key>>,
    /// Files in memory that are rendered from templates before services start, by path.
    pub file: Option<BTreeMap<ImagePath, File>>,
    /// What must hold in the frozen, booted image.
    pub test: Option<Tests>,
}

/// An external service that servers need: its address and credentials come from the fleet.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceBinding {
    /// `postgresql`, `redis`, or any other word. The first two have the fields `host`, `port`, `user`, `password` and
    /// `database`, the second `host`, `port` and `password`, any other `host` and `port`.
    #[schemars(regex(pattern = "^[a-z][a-z0-9-]{0,62}$"))]
    pub kind: String,
    /// Fields beyond those of its kind.
    pub fields: Option<BTreeMap<ConfigKey, FieldType>>,
    /// Whether a server is ready only when the service answers; true where nothing is said.
    pub wait: Option<bool>,
    /// What tests run with: `bound` (what the fleet says) where nothing is said, or a `throwaway` postgresql or redis.
    pub test: Option<BindingTest>,
}

/// What a field of a binding is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// A text.
    String,
    /// A text that is never shown.
    Secret,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A duration.
    Duration,
    /// A size.
    Size,
    /// A URL.
    Url,
    /// `host:port`.
    Address,
}

/// What an image starts from: `debian`, `ubuntu`, `image`, `oci` or `containerfile`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Base {
    /// A Debian suite.
    Debian(DebianBase),
    /// An Ubuntu suite.
    Ubuntu(UbuntuBase),
    /// Another Kiln image.
    Image(ImageBase),
    /// An OCI image of somebody else.
    Oci(OciBase),
    /// What a Containerfile says.
    Containerfile(ContainerfileBase),
}

/// A Debian suite.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DebianBase {
    /// The code name: `bookworm`.
    #[schemars(regex(pattern = "^[a-z][a-z0-9-]*$"))]
    pub debian: String,
    /// Packages beside the essential ones: `name`, `name=version`, or `./FILE.deb` beside the recipe.
    pub packages: Option<Vec<PackageText>>,
    /// Address of the archive; `http://deb.debian.org/debian` where nothing is said.
    #[schemars(regex(pattern = "^https?://"))]
    pub mirror: Option<String>,
    /// Address of the security archive, or false to leave security updates out; `http://deb.debian.org/debian-security`
    /// where nothing is said.
    pub security_mirror: Option<SecurityMirror>,
    /// Components of the archive; `["main"]` where nothing is said.
    #[schemars(length(min = 1))]
    pub components: Option<Vec<String>>,
    /// OpenPGP keyring that signs the archive, in place of the Debian archive keys shipped with Kiln.
    pub keyring: Option<RecipePath>,
    /// Further repositories, each signed by its own key.
    pub repository: Option<BTreeMap<RepositoryName, Repository>>,
}

/// An Ubuntu suite.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UbuntuBase {
    /// The code name: `noble`.
    #[schemars(regex(pattern = "^[a-z][a-z0-9-]*$"))]
    pub ubuntu: String,
    /// Packages beside the essential ones: `name`, `name=version`, or `./FILE.deb` beside the recipe.
    pub packages: Option<Vec<PackageText>>,
    /// Address of the archive; `http://archive.ubuntu.com/ubuntu` where nothing is said.
    #[schemars(regex(pattern = "^https?://"))]
    pub mirror: Option<String>,
    /// Address of the security archive, or false to leave security updates out; `http://security.ubuntu.com/ubuntu` where
    /// nothing is said.
    pub security_mirror: Option<SecurityMirror>,
    /// Components of the archive; `["main", "universe"]` where nothing is said.
    #[schemars(length(min = 1))]
    pub components: Option<Vec<String>>,
    /// OpenPGP keyring that signs the archive, in place of the Ubuntu archive key shipped with Kiln.
    pub keyring: Option<RecipePath>,
    /// Further repositories, each signed by its own key.
    pub repository: Option<BTreeMap<RepositoryName, Repository>>,
}

/// Another Kiln image.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageBase {
    /// `name`, `name@channel` or `name@sha256:…`.
    pub image: ImageText,
    /// Address of the archive that packages come from; that of the image's suite where nothing is said.
    #[schemars(regex(pattern = "^https?://"))]
    pub mirror: Option<String>,
    /// Address of its security archive, or false to leave security updates out.
    pub security_mirror: Option<SecurityMirror>,
    /// Components of the archive.
    #[schemars(length(min = 1))]
    pub components: Option<Vec<String>>,
    /// OpenPGP keyring that signs the archive, in place of the keys shipped with Kiln.
    pub keyring: Option<RecipePath>,
    /// Further repositories, each signed by its own key.
    pub repository: Option<BTreeMap<RepositoryName, Repository>>,
}

/// An OCI image of somebody else.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OciBase {
    /// `registry/name:tag`, `registry/name@sha256:…`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or
    /// `docker-archive:FILE[:NAME]`.
    #[schemars(length(min = 1, max = 4096))]
    pub oci: String,
    /// At most so many bytes are taken in, unpacked; `32GiB` where nothing is said.
    pub max_size: Option<SizeText>,
    /// At most so many entries are taken in; 1000000 where nothing is said.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_files: Option<u64>,
    /// A layer may unpack to so many times its packed size; 200 where nothing is said.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_ratio: Option<u64>,
    /// Address of the archive that packages come from; that of the image's suite where nothing is said.
    #[schemars(regex(pattern = "^https?://"))]
    pub mirror: Option<String>,
    /// Address of its security archive, or false to leave security updates out.
    pub security_mirror: Option<SecurityMirror>,
    /// Components of the archive.
    #[schemars(length(min = 1))]
    pub components: Option<Vec<String>>,
    /// OpenPGP keyring that signs the archive, in place of the keys shipped with Kiln.
    pub keyring: Option<RecipePath>,
    /// Further repositories, each signed by its own key.
    pub repository: Option<BTreeMap<RepositoryName, Repository>>,
}

/// What a Containerfile (Dockerfile) says.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerfileBase {
    /// The file.
    pub containerfile: RecipePath,
    /// Directory of the files that `COPY` and `ADD` see; `.`, the recipe's own, where nothing is said.
    pub context: Option<RecipePath>,
    /// The stage that is wanted, by name or number; the last one where nothing is said.
    pub target: Option<String>,
    /// Values of its `ARG`s.
    pub args: Option<BTreeMap<String, String>>,
    /// Files beside the recipe that `RUN --mount=type=secret` shows, by name.
    pub secrets: Option<BTreeMap<String, RecipePath>>,
    /// Whether a `RUN` that says nothing about it has a way out to the network; `on` where nothing is said.
    pub network: Option<OnOff>,
    /// At most so many bytes of an image or archive are taken in, unpacked; `32GiB` where nothing is said.
    pub max_size: Option<SizeText>,
    /// At most so many entries of an image, an archive or the context are taken in; 1000000 where nothing is said.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_files: Option<u64>,
    /// A layer or archive may unpack to so many times its packed size; 200 where nothing is said.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_ratio: Option<u64>,
}

/// A repository of somebody else.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// Its address.
    #[schemars(regex(pattern = "^https?://"))]
    pub url: String,
    /// Its suite below `dists/`; for a flat repository its path below the address, ending with `/`: `/`, `stable/`.
    pub suite: String,
    /// Its components; a flat repository has none.
    #[schemars(length(min = 1))]
    pub components: Option<Vec<String>>,
    /// The OpenPGP file, armoured or binary, of the keys that sign it; they count for nothing else.
    pub key: RecipePath,
}

/// An address, or false.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SecurityMirror {
    /// Address of the security archive.
    Address(
        #[schemars(regex(pattern = "^https?://"))]
        String,
    ),
    /// False: no security updates.
    Off(#[schemars(extend("const" = false))] bool),
}

/// One layer of the image: exactly one of `copy`, `run`, `packages`, `remove`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Step {
    /// Copies files of the recipe.
    Copy(CopyStep),
    /// Runs a command.
    Run(RunStep),
    /// Installs Debian packages.
    Packages(PackagesStep),
    /// Removes paths.
    Remove(RemoveStep),
    /// Runs an Ansible playbook.
    Ansible(AnsibleStep),
    /// Applies a Puppet manifest.
    Puppet(PuppetStep),
    /// Runs a CFEngine policy.
    Cfengine(CfengineStep),
    /// Runs Chef's recipes.
    Chef(ChefStep),
    /// Applies a user-data file of cloud-init.
    CloudInit(CloudInitStep),
}

/// Copies a file, or a directory's content, into the image.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyStep {
    /// What the step is called in progress and errors.
    pub name: Option<String>,
    /// File or directory beside the recipe.
    pub copy: RecipePath,
    /// Where to. A file goes into a directory that is written with a `/` at its end.
    pub to: ImagePath,
    /// `user` or `user:group`; root where nothing is said.
    pub owner: Option<String>,
    /// Mode of files; directories get the search bits too.
    pub mode: Option<ModeText>,
}

/// Runs a command in the build sandbox.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunStep {
    /// What the step is called in progress and errors.
    pub name: Option<String>,
    /// A text for `/bin/sh -euc`, or program and arguments.
    pub run: Command,
    /// Variables.
    pub environment: Option<BTreeMap<String, String>>,
    /// Absolute directory; `/` where nothing is said.
    pub working_directory: Option<ImagePath>,
    /// Whether there is a way out to the network; `off` where nothing is said.
    pub network: Option<OnOff>,
    /// The step is killed after this time; `30m` where nothing is said.
    pub time_limit: Option<DurationText>,
}

/// Installs Debian packages, as locked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackagesStep {
    /// What the step is called in progress and errors.
    pub name: Option<String>,
    /// `name`, `name=version`, or `./FILE.deb` beside the recipe.
    #[schemars(length(min = 1))]
    pub packages: Vec<PackageText>,
    /// The step is killed after this time; `30m` where nothing is said.
    pub time_limit: Option<DurationText>,
}

/// Removes paths.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveStep {
    /// What the step is called in progress and errors.
    pub name: Option<String>,
    /// Absolute paths; the last part may hold `*`.
    #[schemars(length(min = 1))]
    pub remove: Vec<ImagePath>,
}

/// `on` or `off`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnOff {
    /// There is.
    On,
    /// There is none.
    Off,
}

/// One text, or a list of program and arguments.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Command {
    /// One text.
    Text(String),
    /// Program and arguments.
    Words(#[schemars(length(min = 1))] Vec<String>),
}

/// A program that PID 1 supervises.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// A text that is split into words (no shell runs it), or program and arguments.
    pub command: Command,
    /// User of the image; root where nothing is said.
    pub user: Option<UserText>,
    /// Variables.
    pub environment: Option<BTreeMap<String, Variable>>,
    /// Absolute directory; `/` where nothing is said.
    pub working_directory: Option<ImagePath>,
    /// Ports it listens on.
    pub ports: Option<Vec<Port>>,
    /// How to know that it works; without one it is ready when it runs.
    pub readiness: Option<Readiness>,
    /// How to know that it still works while it serves; without one it does while it runs.
    pub liveness: Option<Liveness>,
    /// How it is asked to stop.
    pub stop: Option<Stop>,
    /// What happens when it exits by itself; `never` where nothing is said.
    pub restart: Option<Restart>,
    /// A spare may wait with it frozen once it is ready, for so long at most; where a service says nothing, spares wait before
    /// services start.
    pub hold_ready: Option<DurationText>,
}

/// A port inside the server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Port {
    /// Any byte stream.
    Number(#[schemars(range(min = 1))] u16),
    /// With what is spoken there.
    Spoken(SpokenPort),
}

/// A port and what is spoken there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpokenPort {
    /// The port.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// `tcp` where nothing is said.
    pub protocol: Option<Protocol>,
}

/// The three forms of a check, which have the same keys beside what they try.
macro_rules! checks {
    ($(#[$of:meta])* $name:ident: $http:ident, $tcp:ident, $command:ident { $($(#[$about:meta])* $key:ident: $kind:ty,)* }) => {
        $(#[$of])*
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(untagged)]
        pub enum $name {
            /// GET answers with a status of 200 to 399.
            Http($http),
            /// A connection is accepted.
            Tcp($tcp),
            /// A command inside the server exits with 0.
            Command($command),
        }

        /// GET answers with a status of 200 to 399.
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $http {
            /// Path with a leading `/`.
            pub http: UrlPath,
            /// One of the service's ports; the only one where nothing is said.
            #[schemars(range(min = 1))]
            pub port: Option<u16>,
            $($(#[$about])* pub $key: $kind,)*
        }

        /// A connection is accepted.
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $tcp {
            /// One of the service's ports.
            #[schemars(range(min = 1))]
            pub tcp: u16,
            $($(#[$about])* pub $key: $kind,)*
        }

        /// A command inside the server exits with 0.
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $command {
            /// A text that is split into words, or program and arguments.
            pub command: Command,
            $($(#[$about])* pub $key: $kind,)*
        }
    };
}

checks! {
    /// A readiness check: exactly one of `http`, `tcp`, `command`.
    Readiness: HttpReadiness, TcpReadiness, CommandReadiness {
        /// Ready within this time of its start; `10s` where nothing is said.
        within: Option<DurationText>,
    }
}

checks! {
    /// A check of a server that serves: exactly one of `http`, `tcp`, `command`. So many failed attempts in a row, and the
    /// server is replaced.
    Liveness: HttpLiveness, TcpLiveness, CommandLiveness {
        /// From one attempt to the next; `10s` where nothing is said.
        interval: Option<DurationText>,
        /// An attempt that takes longer has failed; `2s` where nothing is said.
        timeout: Option<DurationText>,
        /// In a row; 3 where nothing is said.
        #[schemars(range(min = 1, max = 1000))]
        failures: Option<u32>,
    }
}

/// How a service is asked to stop.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// `SIGTERM` where nothing is said.
    pub signal: Option<String>,
    /// Killed after this time; `10s` where nothing is said.
    pub grace: Option<DurationText>,
}

/// A path that can be written: exactly one of `tmpfs`, `ephemeral`, `volume`, `shared`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Writable {
    /// Empty memory.
    Tmpfs(TmpfsWritable),
    /// The image's directory, with changes that go with the server.
    Ephemeral(EphemeralWritable),
    /// Data that outlives the server.
    Volume(VolumeWritable),
    /// Files that other servers see too.
    Shared(SharedWritable),
}

/// Empty memory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TmpfsWritable {
    /// At most this many bytes: `64MiB`.
    pub tmpfs: SizeText,
    /// Owner of the directory; root where nothing is said.
    pub user: Option<UserText>,
    /// Mode of the directory; `0755` where nothing is said.
    pub mode: Option<ModeText>,
}

/// The image's directory, with changes that go with the server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EphemeralWritable {
    /// Changes take at most this many bytes: `256MiB`.
    pub ephemeral: SizeText,
    /// Owner of the directory; root where nothing is said.
    pub user: Option<UserText>,
    /// Mode of the directory; `0755` where nothing is said.
    pub mode: Option<ModeText>,
}

/// Data that outlives the server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeWritable {
    /// The volume's name.
    pub volume: VolumeName,
    /// Where the volumes of slots other than 0 come from: `clone` makes each from slot 0's; `empty` where nothing is said.
    pub scale_from: Option<ScaleFrom>,
    /// Run inside, as the volume's user, before a snapshot; if it fails, none is taken.
    pub quiesce: Option<Command>,
    /// Run inside, as the volume's user, after a snapshot.
    pub resume: Option<Command>,
    /// Run inside, as the volume's user, while the server still serves, just before it is ended and its successor gets the volume.
    pub hand_over: Option<Command>,
    /// Owner of the directory; root where nothing is said.
    pub user: Option<UserText>,
    /// Mode of the directory; `0755` where nothing is said.
    pub mode: Option<ModeText>,
}

/// Files that other servers see too.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedWritable {
    /// The shared directory's name.
    pub shared: SharedName,
}
