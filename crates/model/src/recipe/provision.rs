//! Steps that have a configuration tool do what its own files say: Ansible, Puppet, CFEngine, Chef, cloud-init.
//!
//! A tool runs while the image is baked and never in a server. It comes from a tree of its own that Kiln bakes from the
//! archive of the image's base ([`ToolFrom::Archive`]) and shows beside the image's, so that nothing of it stays; or it is
//! the image's own ([`ToolFrom::Image`]). Chef is in no archive: it is the host's ([`ToolFrom::Host`]) or the image's.

pub(crate) mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// What a configuration tool does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Provision {
    /// Which, and what it is told.
    pub tool: Tool,
    /// Where it comes from.
    pub from: ToolFrom,
    /// What becomes of a step that changes something when it is carried out again.
    pub idempotent: Idempotent,
}

/// Where a tool comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolFrom {
    /// Packages of the base's archive, as locked, in a tree that is thrown away.
    Archive,
    /// The image has it installed.
    Image,
    /// The host has it installed, in a directory of its own with all that it needs.
    Host,
}

/// What becomes of a step whose second run changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Idempotent {
    /// It fails and names what changed.
    Fail,
    /// A warning names what changed.
    Warn,
    /// There is no second run.
    Unchecked,
}

/// A tool, and what it is told. Paths are relative to the recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// `ansible-playbook`.
    Ansible(Ansible),
    /// `puppet apply`.
    Puppet(Puppet),
    /// `cf-agent`.
    Cfengine(Cfengine),
    /// `cinc-solo` or `chef-solo`.
    Chef(Chef),
    /// cloud-init's modules, as far as they are for an image.
    CloudInit(CloudInit),
}

/// What Ansible is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ansible {
    /// The playbook; everything in its directory is seen by it.
    pub playbook: String,
    /// More directories that hold roles.
    pub roles: Vec<String>,
    /// Directories that hold `ansible_collections`.
    pub collections: Vec<String>,
    /// Extra variables, which win over all others.
    pub variables: Map<String, Value>,
    /// The name of the only host of the inventory.
    pub host: String,
    /// The groups it is in.
    pub groups: Vec<String>,
    /// Only tasks with one of these tags; all where there are none.
    pub tags: Vec<String>,
    /// No tasks with one of these tags.
    pub skip_tags: Vec<String>,
}

/// What Puppet is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Puppet {
    /// A manifest, or a directory of them; everything in its directory is seen.
    pub manifest: String,
    /// Directories of modules.
    pub modules: Vec<String>,
    /// `hiera.yaml`; everything in its directory is seen.
    pub hiera: Option<String>,
    /// Facts beside those that are found.
    pub facts: BTreeMap<String, String>,
}

/// What CFEngine is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cfengine {
    /// The policy file; everything in its directory is seen.
    pub policy: String,
    /// The bundles to run, in place of the policy's own sequence.
    pub bundles: Vec<String>,
    /// Classes that are defined.
    pub classes: Vec<String>,
}

/// What Chef is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chef {
    /// What to carry out, in order: `recipe[web]`, `role[base]`.
    pub run_list: Vec<String>,
    /// Directories of cookbooks.
    pub cookbooks: Vec<String>,
    /// Directories of data bags.
    pub data_bags: Option<String>,
    /// A directory of roles.
    pub roles: Option<String>,
    /// The node's attributes.
    pub attributes: Map<String, Value>,
}

/// What cloud-init is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CloudInit {
    /// The user-data file.
    pub user_data: String,
}

impl Tool {
    /// The tool's name, as people write it and as `[[step]]` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ansible(_) => "ansible",
            Self::Puppet(_) => "puppet",
            Self::Cfengine(_) => "cfengine",
            Self::Chef(_) => "chef",
            Self::CloudInit(_) => "cloud-init",
        }
    }

    /// What it is begun with: a playbook, a manifest, a policy, a run list, a user-data file.
    pub fn source(&self) -> String {
        match self {
            Self::Ansible(ansible) => ansible.playbook.clone(),
            Self::Puppet(puppet) => puppet.manifest.clone(),
            Self::Cfengine(cfengine) => cfengine.policy.clone(),
            Self::Chef(chef) => chef.run_list.join(","),
            Self::CloudInit(cloud) => cloud.user_data.clone(),
        }
    }

    /// The packages of Debian that its tree is made of. `python3-apt` and `python3-setuptools`
    /// are what Ansible's `apt` and `pip` modules import.
    pub fn packages(&self) -> &'static [&'static str] {
        match self {
            Self::Ansible(_) => {
                &["ansible", "python3-apt", "python3-jmespath", "python3-passlib", "python3-setuptools"]
            }
            Self::Puppet(_) => &["puppet-agent"],
            Self::Cfengine(_) => &["cfengine3"],
            Self::Chef(_) => &[],
            Self::CloudInit(_) => &["cloud-init"],
        }
    }

    /// Every file and directory of the recipe that it is given.
    pub fn inputs(&self) -> Vec<&str> {
        match self {
            Self::Ansible(ansible) => beside(&ansible.playbook, ansible.roles.iter().chain(&ansible.collections)),
            Self::Puppet(puppet) => {
                let mut inputs = beside(&puppet.manifest, &puppet.modules);
                inputs.extend(puppet.hiera.as_deref().map(parent));
                inputs
            }
            Self::Cfengine(cfengine) => beside(&cfengine.policy, []),
            Self::Chef(chef) => {
                let more = chef.data_bags.iter().chain(&chef.roles);
                chef.cookbooks.iter().chain(more).map(String::as_str).collect()
            }
            Self::CloudInit(cloud) => vec![&cloud.user_data],
        }
    }
}

fn beside<'a>(path: &'a str, more: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    [parent(path)].into_iter().chain(more.into_iter().map(String::as_str)).collect()
}

/// The directory of a path of the recipe; empty for the recipe's own.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
