//! What differs between two images, and why a file is there.

use std::path::Path;

use super::Sample;

#[test]
fn root_what_differs_between_two_images_is_named() {
    let sample = Sample::new();
    let changed = sample.changed();
    let diff = sample.bench.store.diff(&sample.image, &changed).expect("compared");
    let names: Vec<_> = diff.files.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(names, ["/var/www/page.html"]);
    let (before, after) = (diff.files[0].before.as_ref().expect("there"), diff.files[0].after.as_ref().expect("there"));
    assert_eq!((before.size, after.size), (6, 8));
    assert!(before.content != after.content && before.mode == after.mode);
    assert!(sample.bench.store.diff(&changed, &changed).expect("compared").is_empty());
    // From the base: a program that became set-user-id, one that is gone, and what is new.
    let diff = sample.bench.store.diff(&sample.base, &sample.image).expect("compared");
    let change = |name: &str| diff.files.iter().find(|change| change.name == name).expect("it differs");
    let cat = change("/bin/cat");
    assert!(!cat.before.as_ref().expect("there").setuid && cat.after.as_ref().expect("there").setuid, "{cat:?}");
    assert!(change("/bin/ls").after.is_none() && change("/etc/made").before.is_none());
    assert_eq!(change("/srv/z").after.as_ref().map(|state| (state.kind, state.content.as_str())), Some(("link", "x")));
}

#[test]
fn root_why_names_the_step_that_put_a_file_there() {
    let sample = Sample::new();
    let why = |path: &str| sample.bench.store.why(&sample.image, Path::new(path)).expect("looked");
    assert_eq!(why("/var/www/page.html").expect("there").steps, ["copy"]);
    let cat = why("bin/cat").expect("there");
    assert_eq!(cat.steps.len(), 2, "a step changed what the base had: {cat:?}");
    assert_eq!(cat.steps[1], "base");
    assert!(cat.steps[0].starts_with("echo made"));
    assert_eq!(cat.package.as_deref(), Some("coreutils"));
    assert_eq!(why("/etc/made").expect("there").package, None);
    assert!(why("/bin/ls").is_none() && why("/nothing/here").is_none());
}
