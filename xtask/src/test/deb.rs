//! A package of one's own: built by `dpkg-deb` from its sources, installed, running, and replaced by its next build. Without a recipe it
//! gives an image that runs the same service.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use serde_json::Value;

use super::project::{Project, ask};
use crate::{
    Outcome,
    command::{output, run},
};

/// A notice that is up.
pub struct Notice<'a>(pub Project<'a>);

/// Builds the package of an example beside its recipe, if it has one.
pub fn build(example: &Path) -> Outcome {
    let sources = example.join("package");
    if !sources.join("DEBIAN/control").exists() {
        return Ok(());
    }
    run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(sources).arg(example))
}

impl Notice<'_> {
    /// All of it.
    pub fn a_package_becomes_servers_and_its_next_build_replaces_them(&self) -> Outcome {
        let (address, before) = (self.0.address()?, self.0.servers()?);
        shows(address, "We open at nine")?;
        let page = self.0.directory.join("package/usr/share/notice/index.html");
        fs::write(&page, fs::read_to_string(&page)?.replace("nine", "ten"))?;
        build(self.0.directory)?;
        let locked = self.0.call(&["bake", "--locked"]).arg(self.0.directory).output()?;
        if !String::from_utf8_lossy(&locked.stderr).contains("`./notice_1.2_all.deb` has changed") {
            return Err("another build of the package was taken for the one that is locked".into());
        }
        self.0.up()?;
        shows(address, "We open at ten")?;
        let after = self.0.servers()?;
        if after.len() != 2 || after.iter().any(|id| before.contains(id)) {
            return Err(format!("servers were not replaced: before {before:?}, after {after:?}").into());
        }
        self.without_a_recipe()
    }

    fn without_a_recipe(&self) -> Outcome {
        let file = self.0.directory.join("notice_1.2_all.deb");
        let call = ["bake", "--json", "--base", "debian:bookworm", "--name", "bare"];
        let baked: Value = serde_json::from_slice(&output(self.0.call(&call).arg(file))?.stdout)?;
        if baked["services"] != serde_json::json!(["notice.service"]) {
            return Err(format!("the unit did not become a service: {baked}").into());
        }
        let image = format!("bare@{}", baked["image"].as_str().ok_or("a bake gives an image")?);
        output(&mut self.0.call(&["test", &image])).map(drop)
    }
}

fn shows(address: SocketAddr, text: &str) -> Outcome {
    let (status, answer) = ask(address, "GET / HTTP/1.1\r\n", "")?;
    match status == 200 && answer.contains(text) {
        true => Ok(()),
        false => Err(format!("`{text}` is not shown: {status} {answer}").into()),
    }
}
