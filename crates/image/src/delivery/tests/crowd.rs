//! A registry that says very much of an image.

use std::{cell::RefCell, collections::HashMap, io::Read};

use kiln_model::{
    Digest, FrozenConfig,
    evidence::{self, Report, SigningKey, Verdict},
};

use super::{super::receive::*, Elsewhere, Sample, suite};
use crate::{
    delivery::{DeliveryEvent, Received, save},
    oci::{
        self, Artifact,
        archive::Archive,
        foreign::Described,
        source::{LayerBytes, OciError, Origin, Top},
    },
};

/// An image in a file, of which a crowd says something.
struct Crowd {
    image: Archive,
    artifacts: HashMap<Digest, Artifact>,
    listed: Vec<Described>,
    asked: RefCell<usize>,
}

impl Origin for Crowd {
    fn top(&self, locked: Option<Digest>) -> Result<Top, OciError> {
        self.image.top(locked)
    }
    fn document(&self, what: &'static str, described: &Described) -> Result<Vec<u8>, OciError> {
        match self.artifacts.get(&described.digest) {
            Some(artifact) => Ok(artifact.manifest.clone()),
            None => self.image.document(what, described),
        }
    }
    fn open(&self, bytes: &LayerBytes) -> Result<Box<dyn Read + Send>, OciError> {
        let LayerBytes::Blob(described) = bytes else { unreachable!("no such layers") };
        *self.asked.borrow_mut() += 1;
        match self.artifacts.values().find(|artifact| Digest::of(&artifact.content) == described.digest) {
            Some(artifact) => Ok(Box::new(std::io::Cursor::new(artifact.content.clone()))),
            None => self.image.open(bytes),
        }
    }
    fn referrers(&self, _subject: &Digest) -> Result<Vec<Described>, OciError> {
        Ok(self.listed.clone())
    }
}

impl Crowd {
    /// So many listed, of which the last ones are reports `from`, `from + 1`, … on the image, each with so long a note.
    fn new(sample: &Sample, listed: usize, from: usize, real: usize, note: usize) -> Self {
        let file = sample.bench.dir.path().join("image.tar");
        if !file.exists() {
            save(&sample.bench.store, &sample.image, &file, &|_| {}).expect("saved");
        }
        let subject = sample.bench.store.subject(&sample.image).expect("there");
        let made = (from..from + real).map(|number| {
            let artifact = Artifact::statement(subject.clone(), &evidence::seal(&report(sample, number, note), &key()));
            (artifact.digest(), artifact)
        });
        let made: Vec<(Digest, Artifact)> = made.collect();
        let entry = |digest: Digest, size: u64| Described {
            media_type: oci::MANIFEST.into(),
            digest,
            size,
            platform: None,
            artifact_type: Some(oci::IN_TOTO.into()),
            annotations: None,
        };
        let idle = (0..listed - real).map(|number| entry(Digest::of(&number.to_le_bytes()), 400));
        let listed = idle.chain(made.iter().map(|(digest, made)| entry(*digest, made.manifest.len() as u64))).collect();
        let image = Archive::open(&file, None).expect("an archive");
        Self { image, artifacts: made.into_iter().collect(), listed, asked: RefCell::default() }
    }

    fn receive(&self, to: &Elsewhere) -> (Received, Vec<String>) {
        let warnings = std::sync::Mutex::new(Vec::new());
        let events = |event| {
            if let DeliveryEvent::Warning(text) = event {
                warnings.lock().expect("no panic").push(text);
            }
        };
        let now = jiff::Timestamp::now();
        let receive = Receive {
            store: &to.store,
            origin: self,
            from: "a crowd".into(),
            now,
            limits: kiln_model::recipe::ImportLimits::default(),
            events: &events,
        };
        let received = receive.all(&|_| Ok(())).unwrap_or_else(|e| panic!("{}", crate::oci::tests::chain(&e))).0;
        (received, warnings.into_inner().expect("no panic"))
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn report(sample: &Sample, number: usize, note: usize) -> Report {
    Report {
        name: "sample".into(),
        image: sample.image,
        config: FrozenConfig::default().digest(),
        suite: suite().digest(),
        verdict: Verdict::Passed,
        finished_at: jiff::Timestamp::from_second(1_700_000_000 + number as i64).expect("a time"),
        parameters: vec!["n".repeat(note)],
        tests: Vec::new(),
        matrix: Vec::new(),
        reads: Default::default(),
    }
}

#[test]
fn root_ten_thousand_that_speak_of_an_image_are_not_all_heard() {
    let (sample, other) = (Sample::new(), Elsewhere::new());
    let crowd = Crowd::new(&sample, 10_000, 0, MAX_REFERRERS, 10);
    let (received, warnings) = crowd.receive(&other);
    assert_eq!(received.reports, MAX_REFERRERS, "{warnings:?}");
    assert!(warnings[0].contains("10000 things are said of the image; only the last 256"), "{warnings:?}");
    // What is kept has a limit of its own, whoever comes how often.
    let (_, warnings) = Crowd::new(&sample, MAX_REFERRERS, 1000, MAX_REFERRERS, 10).receive(&other);
    assert!(warnings.is_empty(), "{warnings:?}");
    let (received, warnings) = Crowd::new(&sample, 20, 2000, 20, 10).receive(&other);
    assert_eq!((received.reports, warnings.len()), (0, 1), "{warnings:?}");
    assert!(warnings[0].contains("20 reports are left out: 512 on this image are kept already"), "{warnings:?}");
    assert_eq!(other.store.statement_digests(&sample.image).expect("listed").len(), MAX_REPORTS);
}

#[test]
fn root_long_speeches_on_an_image_are_cut_off() {
    let (sample, other) = (Sample::new(), Elsewhere::new());
    let crowd = Crowd::new(&sample, 30, 0, 30, 2_900_000);
    let (received, warnings) = crowd.receive(&other);
    assert!((10..20).contains(&received.reports), "{received:?}");
    assert!(warnings.iter().any(|text| text.contains("more than 67108864 bytes")), "{warnings:?}");
    assert!(*crowd.asked.borrow() < 40);
}
