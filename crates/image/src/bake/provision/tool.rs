//! The tree of a configuration tool: an ordinary Debian base of the image's own suite, with the tool's packages, as locked.
//!
//! It is a layer of the store like any other, known by its packages, so that recipes with the same lock share it. No image
//! has it.

use std::{fs, path::PathBuf, sync::Arc};

use kiln_model::{
    Digest,
    lock::LockedPackage,
    recipe::{DebianBase, provision::Tool},
};

use crate::{
    bake::{
        BakeError, BakeEvent, BakeRequest,
        chain::{Chain, Manner},
        packages::{self, Below, Packages},
    },
    sandbox::Bind,
};

/// Where packages of Chef put it with all that it needs, and its file that says which it is.
const CHEF: [&str; 2] = ["/opt/cinc", "/opt/chef"];
const VERSION: &str = "version-manifest.txt";

/// A tool that can be baked.
pub(super) struct ToolTree {
    step: String,
    base: Arc<DebianBase>,
    set: Vec<LockedPackage>,
    /// Stands for its packages.
    pub(super) key: Digest,
}

impl ToolTree {
    /// The packages that the lock has for it.
    pub(super) fn locked(chain: &Chain<'_>, step: &str, tool: &Tool) -> Result<Self, BakeError> {
        let wrong = |reason: String| BakeError::Step { step: step.to_owned(), reason };
        let name = tool.name();
        let (base, _) = chain.debian.as_ref().ok_or_else(|| {
            wrong(format!("{name} is baked from the packages of a Debian base; write `tool = \"image\"`"))
        })?;
        let set = chain.lock.as_ref().and_then(|lock| lock.tool(tool.packages()));
        let set = set.ok_or_else(|| wrong(format!("the lock has no packages of {name}")))?.packages.clone();
        let (step, base) = (format!("the tool {name}"), Arc::clone(base));
        let key = Packages { step: &step, base: &base, set: &set }.key(&chain.key);
        Ok(Self { step, base, set, key })
    }

    /// Its tree's metadata image. It is baked if it is not there.
    pub(super) fn bake(&self, chain: &Chain<'_>) -> Result<String, BakeError> {
        let request = BakeRequest { fresh: false, shell_on_failure: false, ..*chain.request };
        let events = |event| match event {
            BakeEvent::Started { .. } => {}
            BakeEvent::Done(step) if step.cached => {}
            event => (chain.events)(event),
        };
        let mut own = Chain::empty(&request, chain.store, chain.sandbox, &events, Manner::USUAL);
        own.start_at(chain.epoch);
        let wanted = Packages { step: &self.step, base: &self.base, set: &self.set };
        let key = wanted.key(&own.key);
        let make = |own: &Chain<'_>, lower: &str| wanted.layer(own, lower, Below::Nothing);
        own.perform(&self.step, key, packages::TIME_LIMIT, make)?;
        own.stored()
    }
}

/// Chef as the host has it: a directory with everything that it needs, shown at its own place.
pub(super) struct HostTool {
    directory: PathBuf,
    /// Stands for its version.
    pub(super) version: String,
}

impl HostTool {
    pub(super) fn find(step: &str) -> Result<Self, BakeError> {
        let found = CHEF.iter().find_map(|directory| {
            let directory = PathBuf::from(directory);
            fs::read(directory.join(VERSION))
                .ok()
                .map(|text| Self { directory, version: Digest::of(&text).to_string() })
        });
        found.ok_or_else(|| {
            let reason = "this host has neither Cinc nor Chef (there is no /opt/cinc and no /opt/chef): install its package \
                          here, or in the image with `tool = \"image\"`";
            BakeError::Step { step: step.to_owned(), reason: reason.to_owned() }
        })
    }

    pub(super) fn bind(&self) -> Bind {
        let target = self.directory.display().to_string();
        Bind { source: self.directory.clone(), target, writable: false }
    }
}
