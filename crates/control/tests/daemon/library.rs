//! Images that are directories: `images/NAME` holds `root/`, `manifest.json` and `suite.json`; reports and channels are files.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_api::difference::{Difference, Sizes};
use kiln_control::{
    ImageInfo, ImageOrigin, Releases, ReleasesError,
    harness::{
        ImageTree,
        tree::{self, TreeError, TreeFacts},
    },
    keys::Keys,
    reports::Library,
};
use kiln_model::{
    ChannelName, Digest, ImageDigest, ImageName, Suite, SuiteDigest,
    evidence::{self, Envelope},
    fleet::{EvidencePolicy, ImageRef, Selector},
    trust::TrustPolicy,
};
use kiln_runtime::{BoxError, RootProvider};
use kiln_sys::mount;
use rustix::fs::CWD;

pub struct Directories {
    dir: PathBuf,
    keys: Arc<Keys>,
}

/// The digest of the image in `images/NAME`.
pub fn digest(name: &str) -> ImageDigest {
    ImageDigest(Digest::of(name.as_bytes()))
}

impl Directories {
    pub fn new(dir: &Path, keys: Arc<Keys>) -> Self {
        Self { dir: dir.to_owned(), keys }
    }
    fn find(&self, image: &ImageDigest) -> Result<PathBuf, ReleasesError> {
        let entries = fs::read_dir(self.dir.join("images")).map_err(failed)?;
        let mut found = entries.flatten().filter(|entry| digest(&entry.file_name().to_string_lossy()) == *image);
        found.next().map(|entry| entry.path()).ok_or_else(|| ReleasesError::NotFound { image: image.to_string() })
    }
    fn pointer(&self, name: &ImageName, channel: &ChannelName) -> PathBuf {
        self.dir.join(format!("channel-{name}-{channel}"))
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> ReleasesError {
    ReleasesError::Store(Box::new(error))
}

impl Releases for Directories {
    fn resolve(&self, image: &ImageRef) -> Result<ImageInfo, ReleasesError> {
        let missing = || ReleasesError::NotFound { image: image.to_string() };
        match &image.selector {
            Selector::Digest(digest) => self.image(digest),
            Selector::Channel(channel) => self.image(&self.channel(&image.name, channel)?.ok_or_else(missing)?),
        }
    }
    fn image(&self, image: &ImageDigest) -> Result<ImageInfo, ReleasesError> {
        let dir = self.find(image)?;
        let manifest: kiln_model::ImageManifest =
            serde_json::from_slice(&fs::read(dir.join("manifest.json")).map_err(failed)?).map_err(failed)?;
        let suite: Suite =
            serde_json::from_slice(&fs::read(dir.join("suite.json")).map_err(failed)?).map_err(failed)?;
        let name = manifest.name.clone();
        Ok(ImageInfo {
            digest: *image,
            name,
            manifest: Arc::new(manifest),
            suite: suite.digest(),
            origin: ImageOrigin::Baked,
        })
    }
    fn reports(&self, image: &ImageDigest) -> Result<Vec<Envelope>, ReleasesError> {
        let dir = self.find(image)?.join("reports");
        let Ok(entries) = fs::read_dir(dir) else { return Ok(Vec::new()) };
        let read = |path: PathBuf| evidence::parse(&fs::read(path).map_err(failed)?).map_err(failed);
        entries.flatten().map(|entry| read(entry.path())).collect()
    }
    fn policy(&self, evidence: EvidencePolicy) -> Result<TrustPolicy, ReleasesError> {
        self.keys.policy(evidence).map_err(failed)
    }
}

impl Library for Directories {
    fn suite(&self, suite: &SuiteDigest) -> Result<Option<Suite>, ReleasesError> {
        let entries = fs::read_dir(self.dir.join("images")).map_err(failed)?;
        let suites = entries.flatten().filter_map(|entry| fs::read(entry.path().join("suite.json")).ok());
        let mut suites = suites.filter_map(|bytes| serde_json::from_slice::<Suite>(&bytes).ok());
        Ok(suites.find(|found| found.digest() == *suite))
    }
    fn add_report(&self, image: &ImageDigest, report: &Envelope) -> Result<Digest, ReleasesError> {
        let bytes = evidence::render(report);
        let dir = self.find(image)?.join("reports");
        fs::create_dir_all(&dir).map_err(failed)?;
        fs::write(dir.join(Digest::of(&bytes).hex()), &bytes).map_err(failed)?;
        Ok(Digest::of(&bytes))
    }
    fn approvals(&self, _image: &ImageDigest) -> Result<Vec<Envelope>, ReleasesError> {
        Ok(Vec::new())
    }
    fn channels(&self, name: &ImageName) -> Result<BTreeMap<ChannelName, ImageDigest>, ReleasesError> {
        let prefix = format!("channel-{name}-");
        let entries = fs::read_dir(&self.dir).map_err(failed)?.flatten();
        let pointers = entries.filter_map(|entry| {
            let channel = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?;
            Some((channel, fs::read_to_string(entry.path()).ok()?.parse().ok()?))
        });
        Ok(pointers.collect())
    }
    fn difference(&self, before: &ImageDigest, after: &ImageDigest, _: usize) -> Result<Difference, ReleasesError> {
        let (before, after) = (before.to_string(), after.to_string());
        let size = Sizes { before: 0, after: 0 };
        Ok(Difference { before, after, size, packages: vec![], manifest: vec![], files: vec![], files_left_out: 0 })
    }
    fn set_channel(&self, name: &ImageName, channel: &ChannelName, image: &ImageDigest) -> Result<(), ReleasesError> {
        fs::write(self.pointer(name, channel), image.to_string()).map_err(failed)
    }
}

impl ImageTree for Directories {
    fn facts(&self, image: &ImageDigest) -> Result<TreeFacts, TreeError> {
        let mount = |error: Box<dyn std::error::Error + Send + Sync>| TreeError::Mount(error);
        let dir = self.find(image).map_err(|error| mount(Box::new(error)))?;
        let root = fs::File::open(dir.join("root")).map_err(|error| mount(Box::new(error)))?;
        tree::scan(root.as_fd())
    }
}

impl RootProvider for Directories {
    fn root(&self, image: &ImageDigest, users: BorrowedFd<'_>) -> Result<OwnedFd, BoxError> {
        let tree = mount::clone_tree(CWD, &self.find(image)?.join("root"), mount::Depth::One)?;
        mount::restrict(tree.as_fd(), mount::Depth::One, mount::Attributes::READ_ONLY)?;
        mount::map_owners(tree.as_fd(), users)?;
        Ok(tree)
    }
}
