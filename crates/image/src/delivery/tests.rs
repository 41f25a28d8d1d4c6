//! Images to and from a real registry, also through one that breaks off, lies and refuses.

mod cosign;
mod crowd;
mod explained;
mod files;
mod others;
mod registry;
mod said;
mod trouble;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_model::{
    FrozenConfig, ImageDigest, Recipe, SuiteDigest,
    evidence::{self, Report, SigningKey, TestOutcome, Verdict},
    oci::OciReference,
    recipe::ImportLimits,
    suite::{Suite, Test, TestKind},
};

use super::{DeliveryError, PullRequest, PushRequest, Pushed, Received, pull, push};
use crate::{
    bake::tests::{Bench, copy, no_registries, over, shell},
    registry::Registries,
    store::{ImageEntry, Store},
};

/// An image with a suite, a report, and a page of its own.
pub(super) struct Sample {
    pub(super) bench: Bench,
    pub(super) image: ImageDigest,
    base: ImageDigest,
}

impl Sample {
    pub(super) fn new() -> Self {
        let bench = Bench::new();
        let base = bench.shell_base();
        let image = bake(&bench, base, "hello\n");
        let sample = Self { bench, image, base };
        sample.report(&image, 1);
        sample
    }

    /// Another image, in which one page differs.
    pub(super) fn changed(&self) -> ImageDigest {
        let image = bake(&self.bench, self.base, "changed\n");
        self.report(&image, 1);
        image
    }

    /// Signs a report on an image with key `seed`.
    pub(super) fn report(&self, image: &ImageDigest, seed: u8) {
        let test = TestOutcome {
            name: "page".into(),
            verdict: Verdict::Passed,
            took: Duration::from_millis(1),
            message: None,
        };
        let report = Report {
            name: "sample".into(),
            image: *image,
            config: FrozenConfig::default().digest(),
            suite: suite().digest(),
            verdict: Verdict::Passed,
            finished_at: "2026-06-01T00:00:00Z".parse().expect("a time"),
            parameters: Vec::new(),
            tests: vec![test],
            matrix: Vec::new(),
            reads: Default::default(),
        };
        let envelope = evidence::seal(&report, &SigningKey::from_bytes(&[seed; 32]));
        self.bench.store.add_statement(image, &envelope).expect("kept");
    }

    pub(super) fn push(&self, image: &ImageDigest, to: &str) -> Result<Pushed, DeliveryError> {
        let to = reference(to);
        let cache = self.bench.dir.path().join("cache");
        let request = PushRequest { image: *image, to: &to, registries: no_registries(), cache: &cache, cosign: None };
        push(&self.bench.store, &request, &|_| {})
    }

    pub(super) fn entry(&self, image: &ImageDigest) -> ImageEntry {
        entry(&self.bench.store, image)
    }
}

fn bake(bench: &Bench, base: ImageDigest, page: &str) -> ImageDigest {
    bench.write("page.html", page);
    let steps = vec![
        shell(
            "echo made > /etc/made; rm /bin/ls; mkdir /srv; touch /srv/x; ln /srv/x /srv/y; ln -s x /srv/z; chmod 4755 /bin/cat; \
             mkdir -p /var/lib/dpkg/info; echo /bin/cat > /var/lib/dpkg/info/coreutils.list",
        ),
        copy("page.html", "/var/www/"),
    ];
    let recipe = Recipe { suite: suite(), ..over(base, steps) };
    bench.bake(&recipe).expect("baked").image
}

pub(super) fn suite() -> Suite {
    let kind = TestKind::Port { port: 80, listening: true };
    Suite::of(vec![Test { name: "page".into(), within: Duration::from_secs(1), kind }])
}

pub(super) fn reference(text: &str) -> OciReference {
    text.parse().expect("a reference")
}

pub(super) fn entry(store: &Store, image: &ImageDigest) -> ImageEntry {
    store.index().image(image).expect("readable").expect("there")
}

/// Another host: a store that has nothing.
pub(super) struct Elsewhere {
    directory: tempfile::TempDir,
    pub(super) store: Store,
}

impl Elsewhere {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(&directory.path().join("store")).expect("a store");
        Self { directory, store }
    }
    pub(super) fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }
    pub(super) fn pull(&self, from: &str) -> Result<Received, DeliveryError> {
        self.pull_with(from, no_registries())
    }
    pub(super) fn pull_with(&self, from: &str, registries: &Registries) -> Result<Received, DeliveryError> {
        self.pull_at_most(from, registries, ImportLimits::default())
    }
    pub(super) fn pull_at_most(
        &self,
        from: &str,
        registries: &Registries,
        limits: ImportLimits,
    ) -> Result<Received, DeliveryError> {
        let (from, cache) = (reference(from), self.cache());
        let now = jiff::Timestamp::now();
        pull(&self.store, &PullRequest { from: &from, registries, cache: &cache, limits, now }, &|_| {})
    }
}

/// The images of two stores are the same in every way that counts.
pub(super) fn same(here: &Sample, there: &Store, image: &ImageDigest) {
    let (one, two) = (here.entry(image), entry(there, image));
    assert_eq!((&one.tree, one.size, &one.name, one.suite), (&two.tree, two.size, &two.name, two.suite));
    let sound = there.verify(image, &|_, _| {}).expect("verified");
    assert!(sound.is_sound() && sound.files > 10, "{sound:?}");
    let reports = |store: &Store| -> BTreeSet<String> {
        store.reports(image).expect("read").into_iter().map(|report| report.payload).collect()
    };
    assert_eq!(reports(&here.bench.store), reports(there));
    assert_eq!(there.suite(&two.suite).expect("read"), Some(suite()));
}

pub(super) fn suite_digest() -> SuiteDigest {
    suite().digest()
}

/// The files of a directory, by name.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("listed").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
