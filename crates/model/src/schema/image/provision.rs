//! Steps for configuration tools.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::OnOff;
use crate::schema::{DurationText, RecipePath};

/// Runs an Ansible playbook while the image is baked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnsibleStep {
    /// What the step is called in progress and errors.
    pub name: Option<String>,
    /// The playbook. Everything in its directory is seen by it, and makes the step run again when it changes.
    pub ansible: RecipePath,
    /// More directories that hold roles, beside `roles` in the playbook's directory.
    pub roles: Option<Vec<RecipePath>>,
    /// Directories that hold `ansible_collections`.
    pub collections: Option<Vec<RecipePath>>,
    /// Extra variables, which win over all others.
    pub variables: Option<BTreeMap<String, Value>>,
    /// The host's name in the inventory; `localhost` where nothing is said.
    pub host: Option<String>,
    /// Groups of the inventory that the host is in.
    pub groups: Option<Vec<String>>,
    /// Only tasks with one of these tags.
    pub tags: Option<Vec<String>>,
    /// No tasks with one of these tags.
    pub skip_tags: Option<Vec<String>>,
    /// Where Ansible comes from; `archive` where nothing is said.
    pub tool: Option<Tool>,
    /// What becomes of a step that changes something when it is carried out again; true where nothing is said.
    pub idempotent: Option<Idempotent>,
    /// Variables.
    pub environment: Option<BTreeMap<String, String>>,
    /// Whether there is a way out to the network; `off` where nothing is said.
    pub network: Option<OnOff>,
    /// The step is killed after this time; `30m` where nothing is said.
    pub time_limit: Option<DurationText>,
}

/// Applies a Puppet manifest while the image is baked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PuppetStep {
    /// What the step is called in progress and errors.
    pub name: Option<String>,
    /// A manifest, or a directory of manifests. Everything beside it is seen.
    pub puppet: RecipePath,
    /// Directories of modules.
    pub modules: Option<Vec<RecipePath>>,
    /// `hiera.yaml`. Everything beside it is seen.
    pub hiera: Option<RecipePath>,
    /// Facts beside those that Puppet finds.
    pub facts: Option<BTreeMap<String, String>>,
    /// Where Puppet comes from; `archive` where nothing is said.
    pub tool: Option<Tool>,
    /// What becomes of a step that changes something when it is carried out again; true where nothing is said.
    pub idempotent: Option<Idempotent>,
    /// Variables.
    pub environment: Option<BTreeMap<String, String>>,
    /// Whether there is a way out to the network; `off` where nothing is said.
    pub network: Option<OnOff>,
    /// The step is killed after this time; `30m` where nothing is said.
    pub time_limit: Option<DurationText>,
}

/// Runs a CFEngine policy while the image is baked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CfengineStep {
    /// What the step is called in progress and errors.
    pub name: Option<String>,
    /// The policy file. Everything beside it is seen.
    pub cfengine: RecipePath,
    /// The bundles to run, in place of the policy's own sequence.
    pub bundles: Option<Vec<String>>,
    /// Classes that are defined.
    pub classes: Option<Vec<String>>,
    /// Where CFEngine comes from; `archive` where nothing is said.
    pub tool: Option<Tool>,
    /// What becomes of a step that changes something when it is carried out again; true where nothing is said.
    pub idempotent: Option<Idempotent>,
    /// Variables.
    pub environment: Option<BTreeMap<String, String>>,
    /// Whether there is a way out to the network; `off` where nothing is said.
    pub network: Option<OnOff>,
    /// The step is killed after this time; `30m` where nothing is said.
    pub time_limit: Option<DurationText>,
}

/// Runs Chef's recipes while the image is baked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChefStep {
    /// What the step is called in progress and errors.
    pub name: Option<String>,
    /// The run list: `recipe[web]`, `role[base]`.
    pub chef: Vec<String>,
    /// Directories of cookbooks.
    pub cookbooks: Vec<RecipePath>,
    /// A directory of data bags.
    pub data_bags: Option<RecipePath>,
    /// A directory of roles.
    pub roles: Option<RecipePath>,
    /// The node's attributes.
    pub attributes: Option<BTreeMap<String, Value>>,
    /// Where Chef comes from; `host` where nothing is said.
    pub tool: Option<ChefTool>,
    /// What becomes of a step that changes something when it is carried out again; true where nothing is said.
    pub idempotent: Option<Idempotent>,
    /// Variables.
    pub environment: Option<BTreeMap<String, String>>,
    /// Whether there is a way out to the network; `off` where nothing is said.
    pub network: Option<OnOff>,
    /// The step is killed after this time; `30m` where nothing is said.
    pub time_limit: Option<DurationText>,
}

/// Where Chef comes from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChefTool {
    /// `/opt/cinc` or `/opt/chef` of the host. Nothing of it stays in the image.
    Host,
    /// The image has it installed.
    Image,
}

/// Applies a user-data file of cloud-init while the image is baked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudInitStep {
    /// What the step is called in progress and errors.
    pub name: Option<String>,
    /// The user-data file.
    #[serde(rename = "cloud-init")]
    pub cloud_init: RecipePath,
    /// Where cloud-init comes from; `archive` where nothing is said.
    pub tool: Option<Tool>,
    /// Variables.
    pub environment: Option<BTreeMap<String, String>>,
    /// Whether there is a way out to the network; `off` where nothing is said.
    pub network: Option<OnOff>,
    /// The step is killed after this time; `30m` where nothing is said.
    pub time_limit: Option<DurationText>,
}

/// Where a tool comes from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// Packages of the base's archive, as locked. Nothing of it stays in the image.
    Archive,
    /// The image has it installed.
    Image,
}

/// Whether a second run must change nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Idempotent {
    /// `true`: a second run that changes something fails the step. `false`: there is no second run.
    Checked(bool),
    /// A second run that changes something is warned of.
    Warn(Warn),
}

/// `warn`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Warn {
    /// It is warned of.
    Warn,
}
