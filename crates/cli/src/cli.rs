//! The command line. The doc comments here are the help texts.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use kiln_control::audit::Head;
use kiln_model::{
    ChannelName, EnvironmentName, GroupName, ImageName, KeyName, Reason, ServerId, config::ConfigKey, fleet::ImageRef,
    oci::OciReference,
};

mod bake;
mod drill;
mod migrate;
mod taken;
mod volume;

pub use bake::{Bake, Lock};
pub use drill::{DrillGroup, DrillTarget};
pub use migrate::{Import, Survey};
pub use taken::Taken;
pub use volume::{Removed, VolumeVerb};

/// Immutable servers: bake an image, test it frozen, sign what was seen, launch, replace.
///
/// Exit codes: 0 done; 1 failed (a test, a step, a rollout); 2 wrong command line, recipe or fleet, or a name of what is
/// not there; 3 refused for lack of evidence; 4 the host lacks something; 5 the daemon cannot be reached; 70 a mistake in
/// Kiln.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What every verb knows.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb knows.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Where Kiln keeps images, keys and state
    #[arg(long, global = true, env = "KILN_STATE", default_value = "/var/lib/kiln", value_name = "DIR")]
    pub state: PathBuf,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write a commented recipe and fleet to start from
    New(New),
    /// Write a recipe for an image of others or a Containerfile
    Import(Import),
    /// Bake what changed, test it, and bring the fleet to it
    Up(Up),
    /// Make the image of a recipe
    Bake(Bake),
    /// Resolve a recipe's packages and write kiln.lock
    Lock(Lock),
    /// Boot a frozen image and run its tests
    Test(Test),
    /// Find what was done to a server that nobody dares to touch, and draft a recipe of it
    Survey(Survey),
    /// Bring the groups of a fleet to what fleet.toml says
    Apply(Apply),
    /// Show, compare and check what groups are configured with; change live keys
    Config(Config),
    /// Show what runs
    Status(Status),
    /// Bring a group back to the release it had before
    Rollback(Rollback),
    /// Replace servers by new ones of the same release
    Rebuild(Rebuild),
    /// Show what would be gone with servers: files outside volumes, log lines, connections
    Loss(Loss),
    /// Show and change the data that outlives servers
    Volume {
        /// What to do.
        #[command(subcommand)]
        verb: VolumeVerb,
    },
    /// Bake and test again every image that starts from a base, bases first
    Rebase(Rebase),
    /// Let a group heal now, although too much of it went down lately
    Heal(Heal),
    /// Destroy servers, the gateway or the daemon on purpose, and measure how they come back
    Drill {
        /// What to destroy.
        #[command(subcommand)]
        target: DrillTarget,
    },
    /// Stop and remove servers
    Down(Down),
    /// List the images of this host
    Images,
    /// Show an image, or a server, in detail
    Inspect(Inspect),
    /// Run a command inside a server; the server counts as touched from then on
    Exec(Exec),
    /// Read everything an image refers to again and check its digests
    Verify(Verify),
    /// Remove images and secrets that nothing uses
    Gc(Gc),
    /// Show every action with its reason, or check that nobody changed the record
    Audit(Audit),
    /// Show what happened lately, and what happens
    Events(Events),
    /// Print the keys that verify the identity tokens of servers, as a JWK set
    Jwks,
    /// Show what the services of a server or a group wrote
    Logs(Logs),
    /// Point a channel to an image, if the channel's rules hold
    Promote(Promote),
    /// Sign that an image may go to a channel
    Approve(Approve),
    /// Show every move of an image's channels: who, when, why, with what evidence
    History(History),
    /// Show which image starts from which, and which servers run an old base
    Lineage(Lineage),
    /// Launch an image never again on this host; there is no way back
    Revoke(Revoke),
    /// Send an image with everything that is said of it to a registry
    Push(Push),
    /// Fetch an image with everything that is said of it from a registry
    Pull(Pull),
    /// Write an image with everything that is said of it to a file
    Save(Save),
    /// Take in an image from a file that `kiln save` wrote
    Load(Load),
    /// Show what differs between two images
    Diff(Diff),
    /// Say which step, and which package, put a file into an image
    Why(Why),
    /// List the packages of an image as SPDX or CycloneDX
    Sbom(Sbom),
    /// Say where an image comes from: every input of its bake by digest
    Provenance(Provenance),
    /// Say whose reports this host believes
    Key(Key),
    /// Say what this host can do, and what it lacks
    Doctor,
    /// Run the daemon in the foreground
    Daemon(Daemon),
    /// Print a shell's completions
    Completions(Completions),
    /// Run the gateway in the foreground; the daemon starts it
    #[command(hide = true)]
    Gateway(Gateway),
    /// Print the manual page
    #[command(hide = true)]
    Man,
}

/// `kiln new`
#[derive(Debug, Args)]
pub struct New {
    /// The image's name
    pub name: ImageName,
    /// Where to write; a new directory of that name where nothing is said
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// `kiln up`
#[derive(Debug, Args)]
pub struct Up {
    /// Directory with image.toml and fleet.toml
    #[arg(default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
    /// What differs in this environment: fleet.ENV.toml beside fleet.toml
    #[arg(long, value_name = "ENV")]
    pub env: Option<EnvironmentName>,
    /// Bake without the network, from what is cached
    #[arg(long)]
    pub offline: bool,
    /// Test again, also where a good report is there
    #[arg(long)]
    pub retest: bool,
    /// Let go what would be lost, although it is more than the fleet says
    #[arg(long)]
    pub accept_loss: bool,
}

/// `kiln test`
#[derive(Debug, Args)]
pub struct Test {
    /// Directory with image.toml (its image is baked first), or an image: name, name@channel, name@sha256:…
    #[arg(default_value = ".", value_name = "DIR|IMAGE")]
    pub what: String,
    /// The group of fleet.toml whose configuration is tested; every group of the image where nothing is said
    #[arg(long)]
    pub group: Option<GroupName>,
    /// What differs in this environment: fleet.ENV.toml beside fleet.toml
    #[arg(long, value_name = "ENV")]
    pub env: Option<EnvironmentName>,
    /// Write the outcome as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Bake without the network, from what is cached
    #[arg(long)]
    pub offline: bool,
}

/// `kiln apply`
#[derive(Debug, Args)]
pub struct Apply {
    /// The fleet, or a directory with fleet.toml
    #[arg(default_value = ".", value_name = "FILE")]
    pub fleet: PathBuf,
    /// What differs in this environment: fleet.ENV.toml beside fleet.toml
    #[arg(long, value_name = "ENV")]
    pub env: Option<EnvironmentName>,
    /// Show what would be done and why, and do nothing
    #[arg(long)]
    pub plan: bool,
    /// Test again, also where a good report is there
    #[arg(long)]
    pub retest: bool,
    /// Let go what would be lost, although it is more than the fleet says
    #[arg(long)]
    pub accept_loss: bool,
}

/// `kiln config`
#[derive(Debug, Args)]
pub struct Config {
    /// What to do
    #[command(subcommand)]
    pub verb: ConfigVerb,
}

/// What can be asked of a configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Show every key of the recipe with the value a group gets, and where it comes from
    Show(ConfigShow),
    /// Count what differs, and name keys that nobody reads or no test varies; exits with 1 where it finds something
    Lint(ConfigLint),
    /// Show how two configurations of a group differ: what runs, and what fleet.toml would give
    Diff(ConfigDiff),
    /// Change a live key of a running group
    Set(ConfigSet),
}

/// `kiln config lint`
#[derive(Debug, Args)]
pub struct ConfigLint {
    /// Directory with image.toml, and fleet.toml with the files of its environments
    #[arg(default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
}

/// `kiln config diff`
#[derive(Debug, Args)]
pub struct ConfigDiff {
    /// The group
    pub group: GroupName,
    /// Directory with fleet.toml
    #[arg(default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
    /// What differs in this environment: fleet.ENV.toml beside fleet.toml
    #[arg(long, value_name = "ENV")]
    pub env: Option<EnvironmentName>,
    /// A release of the group: running, previous, or the first digits of its id
    #[arg(long, value_name = "RELEASE", default_value = "running")]
    pub from: String,
    /// Another one; what fleet.toml would give where nothing is said
    #[arg(long, value_name = "RELEASE", conflicts_with = "env")]
    pub to: Option<String>,
}

/// `kiln config set`
#[derive(Debug, Args)]
pub struct ConfigSet {
    /// The group
    pub group: GroupName,
    /// The live key
    pub key: ConfigKey,
    /// Its value
    #[arg(required_unless_present = "reset", conflicts_with = "reset", allow_hyphen_values = true)]
    pub value: Option<String>,
    /// Go back to the value that the fleet gives
    #[arg(long)]
    pub reset: bool,
}

/// `kiln config show`
#[derive(Debug, Args)]
pub struct ConfigShow {
    /// The group of fleet.toml
    pub group: GroupName,
    /// Directory with image.toml and fleet.toml
    #[arg(default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
    /// What differs in this environment: fleet.ENV.toml beside fleet.toml
    #[arg(long, value_name = "ENV")]
    pub env: Option<EnvironmentName>,
}

/// `kiln status`
#[derive(Debug, Args)]
pub struct Status {
    /// Show it again whenever something changes
    #[arg(short, long)]
    pub watch: bool,
    /// Show everything Kiln made on this host
    #[arg(long, conflicts_with = "watch")]
    pub host: bool,
}

/// `kiln rollback`
#[derive(Debug, Args)]
pub struct Rollback {
    /// The group
    pub group: GroupName,
    /// Put its volumes back, too, to what they were when that release was left; what was written since is kept as a snapshot
    #[arg(long)]
    pub with_data: bool,
    /// Let go what would be lost, although it is more than the fleet says
    #[arg(long)]
    pub accept_loss: bool,
}

/// `kiln rebuild`
#[derive(Debug, Args)]
pub struct Rebuild {
    /// A server, or a group
    #[arg(value_name = "SERVER|GROUP")]
    pub target: String,
    /// Let go what would be lost, although it is more than the fleet says
    #[arg(long)]
    pub accept_loss: bool,
}

/// `kiln loss`
#[derive(Debug, Args)]
pub struct Loss {
    /// A server, or a group; everything where nothing is said
    #[arg(value_name = "SERVER|GROUP")]
    pub target: Option<String>,
}

/// `kiln rebase`
#[derive(Debug, Args)]
pub struct Rebase {
    /// The name of the image that changed; where its recipe is there, it is baked first
    #[arg(value_name = "BASE")]
    pub base: ImageName,
    /// Directories with recipes at or below them
    #[arg(default_value = ".", value_name = "DIR")]
    pub directories: Vec<PathBuf>,
    /// Bake without the network, from what is cached
    #[arg(long)]
    pub offline: bool,
}

/// `kiln heal`
#[derive(Debug, Args)]
pub struct Heal {
    /// The group
    pub group: GroupName,
}

/// `kiln down`
#[derive(Debug, Args)]
pub struct Down {
    /// The groups; all of them where nothing is said
    pub groups: Vec<GroupName>,
    /// Remove everything Kiln made on this host but the state directory's images and keys, and end the daemon and the gateway
    #[arg(long, conflicts_with = "groups")]
    pub purge: bool,
    /// Let go what would be lost, although it is more than the fleet says
    #[arg(long)]
    pub accept_loss: bool,
}

/// `kiln inspect`
#[derive(Debug, Args)]
pub struct Inspect {
    /// An image (name, name@channel, name@sha256:…) or a server
    #[arg(value_name = "IMAGE|SERVER")]
    pub what: String,
}

/// `kiln exec`
#[derive(Debug, Args)]
pub struct Exec {
    /// The server
    pub server: ServerId,
    /// As this user of the image
    #[arg(short, long, default_value = "root")]
    pub user: String,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// `kiln verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The image; all of them where nothing is said
    pub image: Option<ImageRef>,
}

/// `kiln gc`
#[derive(Debug, Args)]
pub struct Gc {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `kiln logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// A server, or a group
    #[arg(value_name = "SERVER|GROUP")]
    pub target: String,
    /// Go on showing what is written
    #[arg(short, long)]
    pub follow: bool,
    /// Only this service
    #[arg(long)]
    pub service: Option<String>,
}

/// `kiln promote`
#[derive(Debug, Args)]
pub struct Promote {
    /// The image: name, name@channel, name@sha256:…
    pub image: ImageRef,
    /// The channel that will point to it
    #[arg(long, default_value = "stable")]
    pub to: ChannelName,
    /// Why, in one line, for the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<Reason>,
    /// Sign the promotion with this private key (ed25519, PKCS#8 PEM), where the rules say who may promote
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Only say whether the rules hold, and what would change
    #[arg(long)]
    pub check: bool,
}

/// `kiln approve`
#[derive(Debug, Args)]
pub struct Approve {
    /// The image: name, name@channel, name@sha256:…
    pub image: ImageRef,
    /// The channel that may point to it
    #[arg(long, default_value = "stable")]
    pub channel: ChannelName,
    /// The private key to sign with (ed25519, PKCS#8 PEM); the one that reports are signed with where nothing is said
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Why, in one line
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<Reason>,
}

/// `kiln history`
#[derive(Debug, Args)]
pub struct History {
    /// The image's name
    pub name: ImageName,
    /// Only this channel
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<ChannelName>,
    /// At most so many moves, the last ones
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    pub lines: u32,
}

/// `kiln lineage`
#[derive(Debug, Args)]
pub struct Lineage {
    /// Only this image, what it starts from and what starts from it: name, name@channel, name@sha256:…
    pub image: Option<ImageRef>,
}

/// `kiln revoke`
#[derive(Debug, Args)]
pub struct Revoke {
    /// The image: name, name@channel, name@sha256:…; one that is named by its digest need not be here
    pub image: ImageRef,
    /// Why, in one line
    #[arg(long, value_name = "TEXT")]
    pub reason: Reason,
}

/// `kiln audit`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Audit {
    /// What to do; show the last entries where nothing is said
    #[command(subcommand)]
    pub verb: Option<AuditVerb>,
    /// Only entries of this group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<GroupName>,
    /// Only entries after this one
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: i64,
    /// At most so many, the last ones
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50)]
    pub lines: u32,
}

/// What can be done with the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    /// Check that no entry was changed, removed or put in
    Verify(AuditVerify),
    /// Make the decisions about numbers of servers again, from what they were made from
    Replay(AuditReplay),
}

/// `kiln audit verify`
#[derive(Debug, Args)]
pub struct AuditVerify {
    /// The head of the log as it was printed earlier: the log must still hold it
    #[arg(long, value_name = "NUMBER:HASH")]
    pub head: Option<Head>,
}

/// `kiln audit replay`
#[derive(Debug, Args)]
pub struct AuditReplay {
    /// Only decisions about this group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<GroupName>,
    /// Only entries after this one
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: i64,
}

/// `kiln events`
#[derive(Debug, Args)]
pub struct Events {
    /// Go on with what happens, until interrupted
    #[arg(short, long)]
    pub follow: bool,
    /// Only what came after the event of this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: u64,
}

/// `kiln push`
#[derive(Debug, Args)]
pub struct Push {
    /// The image: name, name@channel, name@sha256:…
    pub image: ImageRef,
    /// Where to: REGISTRY/NAME or REGISTRY/NAME:TAG
    #[arg(value_name = "REGISTRY/NAME[:TAG]")]
    pub to: OciReference,
    /// Put reports, provenance and signed SBOMs where cosign looks for them, too
    #[arg(long)]
    pub cosign: bool,
}

/// `kiln pull`
#[derive(Debug, Args)]
pub struct Pull {
    /// Where from: REGISTRY/NAME, REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:…
    #[arg(value_name = "REGISTRY/NAME[:TAG|@DIGEST]")]
    pub from: OciReference,
    /// Point this channel of the image's name to it
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<ChannelName>,
    /// How much of it is taken in
    #[command(flatten)]
    pub taken: Taken,
}

/// `kiln save`
#[derive(Debug, Args)]
pub struct Save {
    /// The image: name, name@channel, name@sha256:…
    pub image: ImageRef,
    /// The file, an OCI archive
    pub file: PathBuf,
}

/// `kiln load`
#[derive(Debug, Args)]
pub struct Load {
    /// The file, an OCI archive
    pub file: PathBuf,
    /// Which image of the file; needed where there are several
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Point this channel of the image's name to it
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<ChannelName>,
    /// How much of it is taken in
    #[command(flatten)]
    pub taken: Taken,
}

/// `kiln diff`
#[derive(Debug, Args)]
pub struct Diff {
    /// The image before: name, name@channel, name@sha256:…
    pub before: ImageRef,
    /// The image after
    pub after: ImageRef,
}

/// `kiln why`
#[derive(Debug, Args)]
pub struct Why {
    /// The image: name, name@channel, name@sha256:…
    pub image: ImageRef,
    /// A path in the image
    pub path: PathBuf,
}

/// `kiln sbom`
#[derive(Debug, Args)]
pub struct Sbom {
    /// The image: name, name@channel, name@sha256:…
    pub image: ImageRef,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Spdx)]
    pub format: Format,
    /// Write it to this file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// How an SBOM is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// SPDX 2.3, JSON
    Spdx,
    /// CycloneDX 1.6, JSON
    Cyclonedx,
}

/// `kiln provenance`
#[derive(Debug, Args)]
pub struct Provenance {
    /// The image: name, name@channel, name@sha256:…
    pub image: ImageRef,
    /// Say who signed it, and refuse if nobody who is believed here did
    #[arg(long)]
    pub verify: bool,
}

/// `kiln key`
#[derive(Debug, Args)]
pub struct Key {
    /// What to do
    #[command(subcommand)]
    pub verb: KeyVerb,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// List the keys that are known here, and for which images each may sign
    List,
    /// Make a private key for yourself, to approve and promote with, and print its public half
    Make(KeyMake),
    /// Believe reports that are signed with a key
    Add(KeyAdd),
    /// Sign with a new key from now on; what the old one signed is still believed
    Rotate,
    /// Believe a key's reports no more
    Revoke(KeyRevoke),
    /// Print a public key, for `kiln key add` on another host
    Export(KeyExport),
}

/// `kiln key make`
#[derive(Debug, Args)]
pub struct KeyMake {
    /// Where to write it; only you can read it there
    pub file: PathBuf,
}

/// `kiln key add`
#[derive(Debug, Args)]
pub struct KeyAdd {
    /// What the key is called here
    pub name: KeyName,
    /// The public key, ed25519 in PEM form
    pub file: PathBuf,
}

/// `kiln key revoke`
#[derive(Debug, Args)]
pub struct KeyRevoke {
    /// The key's name, or at least 8 digits of its id
    #[arg(value_name = "NAME|ID")]
    pub which: String,
}

/// `kiln key export`
#[derive(Debug, Args)]
pub struct KeyExport {
    /// The key; this host's own where nothing is said
    pub name: Option<KeyName>,
}

/// `kiln daemon`
#[derive(Debug, Args)]
pub struct Daemon {
    /// End the daemon that runs for the state directory; servers and traffic go on
    #[arg(long)]
    pub stop: bool,
    /// Serve metrics for Prometheus, and the keys of identity tokens, to whoever reaches this address; nobody where nothing is
    /// said
    #[arg(long, env = "KILN_METRICS", value_name = "ADDRESS:PORT")]
    pub metrics: Option<std::net::SocketAddr>,
    /// Send traces of rollouts, healing and launches to this collector of OpenTelemetry, by OTLP over HTTP. The variables
    /// OTEL_EXPORTER_OTLP_ENDPOINT and the like are heeded as well
    #[arg(long, env = "KILN_TRACES", value_name = "URL")]
    pub traces: Option<String>,
    /// Say that whoever starts this starts it again when it was killed: `kiln drill daemon` may do that
    #[arg(long, conflicts_with = "stop")]
    pub supervised: bool,
    /// In a session of its own
    #[arg(long, hide = true)]
    pub background: bool,
}

/// `kiln completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

/// `kiln gateway`
#[derive(Debug, Args)]
pub struct Gateway {
    /// Take listening sockets from the process that starts it, over standard input
    #[arg(long)]
    pub inherit: bool,
}
