//! Requests that cannot be carried out, and hosts that cannot.

use std::io::{Read as _, Write as _};

use kiln_api::{ErrorCode, Event};

use crate::bench::{Bench, assert_ok, endpoint, wait_for};

/// Sends bytes and reads the answer, as no good client would.
fn raw(bench: &Bench, request: &[u8]) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(bench.directory.path().join("state/kiln.sock")).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..read]);
        if answer.windows(2).any(|two| two == b"}}") {
            break;
        }
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_bad_requests_are_answered_in_the_one_form() {
    let mut bench = Bench::new().await;
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: kiln\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let cases = [
        ("GET /v1/nothing HTTP/1.1\r\nhost: kiln\r\n\r\n".to_owned(), "404", "not_found"),
        ("GET /v1/apply HTTP/1.1\r\nhost: kiln\r\n\r\n".to_owned(), "400", "invalid"),
        (post("/v1/apply", "{"), "400", "invalid"),
        (post("/v1/rollback", "{\"group\":\"Not A Name\"}"), "400", "invalid"),
        (post("/v1/down", "{\"groups\":[\"web\"],\"purge\":true}"), "400", "invalid"),
        ("GET /v1/servers/no-such HTTP/1.1\r\nhost: kiln\r\n\r\n".to_owned(), "404", "not_found"),
        (post("/v1/apply", &" ".repeat((4 << 20) + 1)), "400", "invalid"),
    ];
    for (request, status, code) in cases {
        let answer = raw(&bench, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")) && answer.contains("\"message\":"), "{answer}");
    }
    bench.client.status().await.unwrap();
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_that_is_not_there_is_said() {
    let mut bench = Bench::new().await;
    std::fs::create_dir(bench.directory.path().join("images")).unwrap();
    let (last, _) = bench.apply(crate::library::digest("nothing")).await;
    let Event::Result { error: Some(error), .. } = last else { panic!("{last:?}") };
    assert_eq!(error.code, ErrorCode::NotFound);
    assert!(error.help.unwrap().contains("kiln images"));
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_service_that_exits_at_once_fails_the_apply_with_its_reason() {
    let mut bench = Bench::new().await;
    let image = bench.image("first", "page", |manifest, _| {
        let service = manifest.services.values_mut().next().unwrap();
        service.command = ["/bin/sh", "-c", "exit 3"].map(str::to_owned).to_vec();
    });
    let (last, _) = bench.apply(image).await;
    let Event::Result { error: Some(error), reports, .. } = last else { panic!("{last:?}") };
    assert_eq!(error.code, ErrorCode::TestsFailed);
    let ready = reports[0].tests.iter().find(|test| test.name == "kiln/services-ready").unwrap();
    assert!(ready.message.as_deref().unwrap().contains("the server ended before it was ready"), "{ready:?}");
    assert_eq!(bench.client.status().await.unwrap().groups.len(), 0);
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_sigterm_ends_the_daemon_well() {
    let mut bench = Bench::new().await;
    let pid = rustix::process::Pid::from_child(&bench.daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(wait_for(&mut bench.daemon).unwrap().success());
    assert!(!bench.directory.path().join("state/kiln.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_full_disk_is_said_and_nothing_is_lost() {
    let mut bench = Bench::with_small_disk(64).await;
    let first = bench.image("first", "first page", |_, _| ());
    let (last, _) = bench.apply(first).await;
    assert_ok(&last);
    let at = endpoint(&last);

    let filler = bench.seen_state().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    let second = bench.image("second", "second page", |_, _| ());
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), bench.apply(second)).await;
    let (last, _) = ended.expect("an apply on a full disk ends");
    let Event::Result { error: Some(error), .. } = &last else { panic!("{last:?}") };
    assert_eq!(error.code, ErrorCode::Host, "{error:?}");
    assert!(error.message.contains("full"), "{error:?}");
    assert_eq!(bench.page(&at).await, "first page", "what runs goes on");
    assert_eq!(bench.group().await.ready, 3);

    std::fs::remove_file(&filler).unwrap();
    let (last, _) = bench.apply(second).await;
    assert_ok(&last);
    assert_eq!(bench.page(&at).await, "second page");
    bench.purge().await;
}
