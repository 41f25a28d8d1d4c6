//! Which control groups this host has.

use std::path::{Path, PathBuf};

use super::{ACCOUNTING, FREEZER, V1_CONTROLLERS};
use crate::error::{Attempt as _, Outcome, Result, SysError};

/// Which version keeps the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Hierarchies by controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// The control group hierarchies of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Roots of version 1, by controller; empty where version 2 keeps the limits.
    pub(super) v1: Vec<(&'static str, PathBuf)>,
    /// Root of version 2.
    pub(super) v2: Option<PathBuf>,
    /// Which version keeps the limits.
    pub limits: Version,
}

impl Host {
    /// Looks at the mounts of this process. Fails where there is no hierarchy at all.
    pub fn detect() -> Result<Self> {
        let action = || "read /proc/self/mountinfo".to_owned();
        Self::of_mounts(&std::fs::read_to_string("/proc/self/mountinfo").attempt(action)?)
    }

    /// The same for what mountinfo says (proc(5)).
    pub fn of_mounts(mounts: &str) -> Result<Self> {
        let mut host = Self { v1: Vec::new(), v2: None, limits: Version::V1 };
        for line in mounts.lines() {
            host.consider(line);
        }
        if host.v2.as_deref().is_some_and(holds_controllers) {
            host.limits = Version::V2;
            host.v1.clear();
        }
        if host.v2.is_some() {
            // Every group of version 2 counts processor time and can be frozen: two hierarchies less to enter.
            host.v1.retain(|(controller, _)| V1_CONTROLLERS.contains(controller));
        }
        if host.v1.is_empty() && host.v2.is_none() {
            return Err(SysError { action: "find control groups".into(), outcome: Outcome::Unsupported });
        }
        Ok(host)
    }

    /// Which controllers keep limits: `memory`, `pids`, `cpu`.
    pub fn controllers(&self) -> Vec<String> {
        match (&self.limits, &self.v2) {
            (Version::V2, Some(root)) => controllers_of(root),
            _ => self
                .v1
                .iter()
                .filter(|(name, _)| V1_CONTROLLERS.contains(name))
                .map(|(name, _)| (*name).to_owned())
                .collect(),
        }
    }

    /// Whether groups can be frozen.
    pub fn freezes(&self) -> bool {
        self.v2.is_some() || self.v1.iter().any(|(controller, _)| *controller == FREEZER)
    }

    /// One line of mountinfo: fields, ` - `, type, source, options (proc(5)).
    fn consider(&mut self, line: &str) {
        let Some((fields, rest)) = line.split_once(" - ") else { return };
        let Some(path) = fields.split(' ').nth(4) else { return };
        let mut rest = rest.split(' ');
        match (rest.next(), rest.nth(1)) {
            (Some("cgroup2"), _) if self.v2.is_none() => self.v2 = Some(path.into()),
            (Some("cgroup"), Some(options)) => {
                for controller in V1_CONTROLLERS.into_iter().chain([ACCOUNTING, FREEZER]) {
                    let known = self.v1.iter().any(|(name, _)| *name == controller);
                    if !known && options.split(',').any(|option| option == controller) {
                        self.v1.push((controller, path.into()));
                    }
                }
            }
            _ => {}
        }
    }
}

fn controllers_of(directory: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().filter(|name| V1_CONTROLLERS.contains(name)).map(str::to_owned).collect()
}

fn holds_controllers(root: &Path) -> bool {
    controllers_of(root).len() == V1_CONTROLLERS.len()
}

/// Hands the controllers down to a group, from the root of the hierarchy through every group above it.
pub(super) fn delegate_controllers(directory: &Path) -> Result<()> {
    let above: Vec<&Path> =
        directory.ancestors().skip(1).take_while(|ancestor| ancestor.join("cgroup.subtree_control").exists()).collect();
    for ancestor in above.into_iter().rev() {
        let file = ancestor.join("cgroup.subtree_control");
        let enabled = std::fs::read_to_string(&file).unwrap_or_default();
        for controller in V1_CONTROLLERS {
            if !enabled.split_whitespace().any(|name| name == controller) {
                std::fs::write(&file, format!("+{controller}"))
                    .attempt(|| format!("enable {controller} in {}", file.display()))?;
            }
        }
    }
    Ok(())
}
