//! Debian's `docker-registry`, which has no referrers API, and what is sent and fetched.

use super::{Elsewhere, Sample, names, same, suite_digest};
use crate::registry::docker::DockerRegistry;

#[test]
fn root_an_image_goes_through_a_registry_with_its_reports_and_its_suite() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    sample.report(&sample.image, 2);
    let at = format!("{}/some/sample", registry.address);
    let pushed = sample.push(&sample.image, &format!("{at}:v1")).expect("pushed");
    assert_eq!((pushed.there, pushed.mounted, pushed.reports), (0, 0, 2), "{pushed:?}");
    let other = Elsewhere::new();
    let pulled = other.pull(&format!("{at}:v1")).expect("pulled");
    assert_eq!((pulled.image, pulled.reports, pulled.suites), (sample.image, 2, 1));
    assert_eq!(pulled.new_layers, pulled.layers);
    same(&sample, &other.store, &sample.image);
    let record = other.store.image(&sample.image).expect("read").expect("there");
    assert_eq!(record.fetched_from, Some(format!("{at}:v1")));
    assert_eq!(record.suite, suite_digest());
    assert_eq!(names(&other.cache().join("oci/blobs/sha256")).iter().filter(|name| name.ends_with(".part")).count(), 0);
    // By digest, again: nothing is fetched, and what was baked here stays so.
    let again = other.pull(&format!("{at}@{}", sample.image)).expect("pulled");
    assert_eq!((again.new_layers, again.bytes), (0, 0));
    let again = sample.push(&sample.image, &format!("{at}:v1")).expect("pushed");
    assert_eq!((again.sent, again.bytes), (0, 0), "{again:?}");
}

#[test]
fn root_only_what_changed_is_sent_and_fetched() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    let at = format!("{}/some/sample", registry.address);
    sample.push(&sample.image, &at).expect("pushed");
    let other = Elsewhere::new();
    other.pull(&at).expect("pulled");
    let changed = sample.changed();
    let pushed = sample.push(&changed, &at).expect("pushed");
    assert!(pushed.bytes < 100 << 10 && pushed.sent >= 3 && pushed.there >= 3, "{pushed:?}");
    let pulled = other.pull(&at).expect("pulled");
    assert_eq!((pulled.image, pulled.new_layers), (changed, 1));
    assert!(pulled.bytes < 100 << 10, "{pulled:?}");
    same(&sample, &other.store, &changed);
    // What another repository of the registry has is taken over there.
    let pushed = sample.push(&changed, &format!("{}/other/name", registry.address)).expect("pushed");
    assert_eq!((pushed.sent, pushed.bytes, pushed.there), (0, 0, 0), "{pushed:?}");
    assert!(pushed.mounted >= 6, "{pushed:?}");
}

#[test]
fn root_reports_are_added_to_an_image_that_is_there_and_found_by_the_next_pull() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    let at = format!("{}/sample", registry.address);
    sample.push(&sample.image, &at).expect("pushed");
    let other = Elsewhere::new();
    assert_eq!(other.pull(&at).expect("pulled").reports, 1);
    sample.report(&sample.image, 9);
    let pushed = sample.push(&sample.image, &at).expect("pushed");
    assert_eq!((pushed.sent, pushed.reports), (1, 2), "{pushed:?}");
    let pulled = other.pull(&at).expect("pulled");
    assert_eq!((pulled.new_layers, pulled.reports), (0, 2));
    same(&sample, &other.store, &sample.image);
}

#[test]
fn root_two_that_push_at_once_lose_no_report() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    let at = format!("{}/sample", registry.address);
    sample.push(&sample.image, &at).expect("pushed");
    let other = Elsewhere::new();
    other.pull(&at).expect("pulled");
    // Each host has its own report on the same image.
    sample.report(&sample.image, 3);
    let second = Sample::new();
    assert_eq!(second.image, sample.image, "bakes are reproducible");
    second.report(&second.image, 4);
    std::thread::scope(|scope| {
        for one in [&sample, &second] {
            let at = &at;
            scope.spawn(move || one.push(&one.image, at).expect("pushed"));
        }
    });
    // A list written by two at once may lose one's entry: pushing again mends it.
    for one in [&sample, &second] {
        one.push(&one.image, &at).expect("pushed");
    }
    assert_eq!(other.pull(&at).expect("pulled").reports, 3);
}
