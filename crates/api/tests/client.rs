//! The client against sockets that answer as a daemon would, badly or not at all.

use kiln_api::{Client, ClientError, Event, client::SOCKET, event::Outcome};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
};

async fn answering(dir: &std::path::Path, answer: &'static str) {
    let listener = UnixListener::bind(dir.join(SOCKET)).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _read = stream.read(&mut head).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
}

#[tokio::test]
async fn host_no_daemon_is_said_with_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let error = Client::new(dir.path()).status().await.unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon { .. }), "{error:?}");
    assert!(error.to_string().contains("kiln.sock"));
    assert_eq!(error.exit_code(), 5);
}

#[tokio::test]
async fn host_an_error_body_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let body = r#"{"error":{"code":"refused","message":"no","help":"test it"}}"#;
    let answer = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    answering(dir.path(), Box::leak(answer.into_boxed_str())).await;
    let ClientError::Refused(error) = Client::new(dir.path()).status().await.unwrap_err() else { panic!() };
    assert_eq!((error.message.as_str(), error.help.as_deref()), ("no", Some("test it")));
    assert_eq!(error.code.exit_code(), 3);
}

#[tokio::test]
async fn host_unknown_events_are_passed_over_and_the_result_ends_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "\n{\"event\":\"of_a_later_version\"}\n{\"event\":\"warning\",\"message\":\"w\"}\n\
                 {\"event\":\"result\",\"result\":\"ok\",\"seconds\":1.5,\"endpoints\":[],\"reports\":[],\"error\":null}\n";
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{lines}", lines.len());
    answering(dir.path(), Box::leak(answer.into_boxed_str())).await;
    let stream = Client::new(dir.path()).down(&Default::default()).await.unwrap();
    let mut seen = Vec::new();
    let last = stream.finish(|event| seen.push(event.clone())).await.unwrap();
    assert_eq!(seen.len(), 2);
    assert!(matches!(last, Event::Result { result: Outcome::Ok, .. }));
}

#[tokio::test]
async fn host_a_stream_that_breaks_off_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let line = "{\"event\":\"warning\",\"message\":\"w\"}\n";
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{line}", line.len());
    answering(dir.path(), Box::leak(answer.into_boxed_str())).await;
    let stream = Client::new(dir.path()).down(&Default::default()).await.unwrap();
    let error = stream.finish(|_| ()).await.unwrap_err();
    assert!(matches!(error, ClientError::Ended { .. }), "{error:?}");
}
