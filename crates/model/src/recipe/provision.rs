//! Steps that have a configuration tool do what its own files say: Ansible, Puppet, CFEngine.
//!
//! A tool runs while the image is baked and never in a server. It comes from a tree of its own that Kiln bakes from the
//! archive of the image's base ([`ToolFrom::Archive`]) and shows beside the image's, so that nothing of it stays; or it is
//! the image's own ([`ToolFrom::Image`]).

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

impl Tool {
    /// The tool's name, as people write it and as `[[step]]` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ansible(_) => "ansible",
            Self::Puppet(_) => "puppet",
            Self::Cfengine(_) => "cfengine",
        }
    }

    /// What it is begun with: a playbook, a manifest, a policy.
    pub fn source(&self) -> &str {
        match self {
            Self::Ansible(ansible) => &ansible.playbook,
            Self::Puppet(puppet) => &puppet.manifest,
            Self::Cfengine(cfengine) => &cfengine.policy,
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
        }
    }

    /// Every file and directory of the recipe that it is given.
    pub fn inputs(&self) -> Vec<&str> {
        let more: Vec<&String> = match self {
            Self::Ansible(ansible) => ansible.roles.iter().chain(&ansible.collections).collect(),
            Self::Puppet(puppet) => puppet.modules.iter().collect(),
            _ => Vec::new(),
        };
        let more = more.into_iter().map(String::as_str);
        [parent(self.source())].into_iter().chain(self.hiera()).chain(more).collect()
    }

    fn hiera(&self) -> Option<&str> {
        match self {
            Self::Puppet(puppet) => puppet.hiera.as_deref().map(parent),
            _ => None,
        }
    }
}

/// The directory of a path of the recipe; empty for the recipe's own.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
