//! Files that all servers of a group see, with real servers: across replacements, daemons, and the end of all of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_api::{
    Event,
    event::Outcome,
    request::{ApplyRequest, DownRequest, RebuildRequest},
};
use kiln_model::{
    ImageDigest,
    manifest::{Writable, WritableKind},
    shared::{Place, SharedDirectory},
    suite::TestKind,
};

use crate::bench::{Bench, assert_ok, endpoint, request};

/// Each server adds a line when it starts and serves the directory. Tests see an empty one.
fn image(bench: &Bench, name: &str) -> ImageDigest {
    std::fs::create_dir_all(bench.directory.path().join("images").join(name).join("root/uploads")).unwrap();
    bench.image(name, name, |manifest, suite| {
        let script = format!(
            "echo {name} >> /uploads/log; echo {name} > /uploads/index.html; exec httpd -f -p 8080 -h /uploads"
        );
        let main = manifest.services.values_mut().next().unwrap();
        main.command = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
        let kind = WritableKind::Shared { name: "uploads".parse().unwrap() };
        manifest.writable = vec![Writable { path: "/uploads".into(), kind, user: "root".into(), mode: 0o755 }];
        suite.tests.push(kiln_model::suite::Test {
            name: "it has a directory of its own".into(),
            within: Duration::from_secs(2),
            kind: TestKind::Command {
                command: ["/bin/sh", "-c", "test $(wc -l < /uploads/log) = 1"].map(str::to_owned).to_vec(),
                user: "root".into(),
                exit: 0,
                stdout: Vec::new(),
                stderr: Vec::new(),
            },
        });
    })
}

fn wish(image: ImageDigest, directory: &Path) -> ApplyRequest {
    let mut request = request(image);
    let group = request.fleet.groups.values_mut().next().unwrap();
    group.count = 2;
    group.rollout.drain = Duration::from_millis(100);
    let place = Place::Directory(directory.to_str().unwrap().parse().unwrap());
    let bound = SharedDirectory { place, read_only: false, execute: false };
    group.shared = BTreeMap::from([("uploads".parse().unwrap(), bound)]);
    request
}

async fn apply(bench: &Bench, request: &ApplyRequest) -> Event {
    bench.client.apply(request).await.unwrap().finish(|_| ()).await.unwrap()
}

fn made(bench: &Bench, name: &str) -> PathBuf {
    let path = bench.directory.path().join(name);
    std::fs::create_dir(&path).unwrap();
    path
}

fn lines(directory: &Path) -> Vec<String> {
    std::fs::read_to_string(directory.join("log")).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_shared_files_outlive_replacements_daemons_and_purges() {
    let mut bench = Bench::new().await;
    let (first, second) = (image(&bench, "first"), image(&bench, "second"));
    let (uploads, other) = (made(&bench, "uploads"), made(&bench, "other"));
    let last = apply(&bench, &wish(first, &uploads)).await;
    assert_ok(&last);
    let at = endpoint(&last);
    assert_eq!(lines(&uploads), ["first", "first"], "both servers, and no test, wrote here");
    std::fs::write(uploads.join("index.html"), "from the host\n").unwrap();
    assert_eq!(bench.page(&at).await, "from the host\n");

    assert_ok(&apply(&bench, &wish(second, &uploads)).await);
    assert_eq!(lines(&uploads), ["first", "first", "second", "second"]);
    bench.kill_and_restart().await;
    let stream = bench.client.rebuild(&RebuildRequest::group("web".parse().unwrap())).await.unwrap();
    assert_ok(&stream.finish(|_| ()).await.unwrap());
    assert_eq!(lines(&uploads).len(), 6);

    // Another directory comes by replacement; what was asked for already changes nothing.
    assert_ok(&apply(&bench, &wish(second, &other)).await);
    assert_eq!((lines(&uploads).len(), lines(&other).len()), (6, 2));
    assert_ok(&apply(&bench, &wish(second, &other)).await);
    assert_eq!(lines(&other).len(), 2);

    bench.purge().await;
    assert_eq!((lines(&uploads).len(), lines(&other).len()), (6, 2), "Kiln never removes what is shared");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_two_groups_share_a_directory_and_one_is_removed_without_the_other() {
    let mut bench = Bench::new().await;
    let (first, second) = (image(&bench, "first"), image(&bench, "second"));
    let uploads = made(&bench, "uploads");
    let both = {
        let mut both = wish(first, &uploads);
        let mut other = wish(second, &uploads).fleet.groups.into_values().next().unwrap();
        other.publish.clear();
        other.count = 1;
        both.fleet.groups.insert("other".parse().unwrap(), other);
        both
    };
    let last = apply(&bench, &both).await;
    assert_ok(&last);
    let mut seen = lines(&uploads);
    seen.sort();
    assert_eq!(seen, ["first", "first", "second"], "servers of both groups wrote into the same file");
    std::fs::write(uploads.join("index.html"), "for both\n").unwrap();
    assert_eq!(bench.page(&endpoint(&last)).await, "for both\n");

    let down = DownRequest { groups: vec!["other".parse().unwrap()], ..DownRequest::default() };
    assert_ok(&bench.client.down(&down).await.unwrap().finish(|_| ()).await.unwrap());
    assert_eq!(bench.page(&endpoint(&last)).await, "for both\n", "it goes on without the other");
    let stream = bench.client.rebuild(&RebuildRequest::group("web".parse().unwrap())).await.unwrap();
    assert_ok(&stream.finish(|_| ()).await.unwrap());
    assert_eq!(lines(&uploads).len(), 5);
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_directory_that_cannot_be_shared_is_said_before_anything_is_done() {
    let mut bench = Bench::new().await;
    let image = image(&bench, "first");
    let state = bench.directory.path().join("state");
    for (directory, said) in
        [(bench.directory.path().join("missing"), "is not there"), (state, "Kiln keeps its own files")]
    {
        let mut told = Vec::new();
        let stream = bench.client.apply(&wish(image, &directory)).await.unwrap();
        let last = stream.finish(|event| told.push(event.clone())).await.unwrap();
        let Event::Result { result: Outcome::Failed, error: Some(error), .. } = &last else { panic!("{last:?}") };
        assert!(error.message.contains(said) && error.message.contains("`uploads` of group `web`"), "{error:?}");
        assert!(!told.iter().any(|event| matches!(event, Event::SuiteStarted { .. })), "{told:?}");
    }
    let mut unbound = wish(image, bench.directory.path());
    unbound.fleet.groups.values_mut().next().unwrap().shared.clear();
    let last = apply(&bench, &unbound).await;
    let Event::Result { error: Some(error), .. } = &last else { panic!("{last:?}") };
    assert!(error.message.contains("does not say where to find the shared directory `uploads`"), "{error:?}");
    assert!(bench.client.status().await.unwrap().groups.is_empty());
    bench.purge().await;
}
