//! The recipe and the fleet of a bake without either.

use std::{collections::BTreeMap, fmt::Write as _};

use kiln_model::{
    ImageName,
    recipe::{Distribution, quoted},
};
use toml::Value;

use super::{super::proposal::Proposal, base::Base, files::Package};

/// What is written.
pub(super) struct Written {
    pub(super) name: ImageName,
    pub(super) base: Base,
    pub(super) packages: Vec<Package>,
    /// The call that it is written by.
    pub(super) said: String,
}

impl Written {
    /// `image.toml` with these services.
    pub(super) fn recipe(&self, services: &[&Proposal]) -> String {
        let wanted = self.packages.iter().map(|package| Value::from(package.wanted.as_str())).collect();
        let packages = format!("packages = {}\n", Value::Array(wanted));
        let mut text = format!("# Written by `{}`.\nname = \"{}\"\n\n[base]\n", self.said, self.name);
        match &self.base {
            Base::Suite(distribution, suite) => {
                let key = match distribution {
                    Distribution::Debian => "debian",
                    Distribution::Ubuntu => "ubuntu",
                };
                let _ = write!(text, "{key} = {}\n{packages}", quoted(suite));
            }
            Base::Image(image) => {
                let _ = write!(text, "image = {}\n\n[[step]]\n{packages}", quoted(image));
            }
            Base::Oci(source) => {
                let _ = write!(text, "oci = {}\n\n[[step]]\n{packages}", quoted(source));
            }
        }
        for service in services {
            let _ = write!(text, "\n{}", service.text.as_ref().map_or("", |service| &service.text));
        }
        // Several services may write the same directory, and there is one section for all.
        let lines = services.iter().flat_map(|service| service.writable.0.lines().skip(1));
        let writable: BTreeMap<&str, ()> = lines.map(|line| (line, ())).collect();
        if !writable.is_empty() {
            text.push_str("\n[writable]\n");
        }
        writable.keys().for_each(|line| text.push_str(&format!("{line}\n")));
        for package in &self.packages {
            let _ = write!(text, "\n[[test]]\npackage = {}\n", quoted(&package.name));
        }
        for question in services.iter().flat_map(|service| service.questions()) {
            let _ = writeln!(text, "# QUESTION: {question}");
        }
        text
    }

    /// `fleet.toml`: two servers.
    pub(super) fn fleet(&self) -> String {
        let name = &self.name;
        format!(
            "# Two servers of the image. Where its service says its `ports`, the gateway can lead to them:\n\
             # publish = [{{ listen = 8080, port = 80, protocol = \"http\" }}]\n\
             [group.{name}]\nimage = \"{name}\"\ncount = 2\n"
        )
    }
}
