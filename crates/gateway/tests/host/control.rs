//! The control socket.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    time::Duration,
};

use kiln_gateway::{
    client::{ClientError, Refusal},
    table::Routes,
};
use kiln_model::manifest::Protocol;

use crate::support::{
    Gateway, route,
    web::{Web, text},
    wire::Wire,
};

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Refusal {
    match result {
        Err(ClientError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_control_refuses_older_and_contradicting_tables() {
    let gateway = Gateway::start().await;
    gateway.route(5, Protocol::Http, &[]).await;
    let table = |listen| Routes { routes: vec![route("web", listen, Protocol::Http, &[])] };
    assert_eq!(refused(gateway.client.set_routes(4, table(0)).await), Refusal::OlderVersion { asked: 4, current: 5 });
    gateway.client.set_routes(5, table(0)).await.expect("the same again");
    assert_eq!(
        refused(gateway.client.set_routes(5, Routes::default()).await),
        Refusal::SameVersionOtherRoutes { version: 5 }
    );
    let twice = Routes { routes: vec![route("a", 8123, Protocol::Http, &[]), route("b", 8123, Protocol::Http, &[])] };
    assert!(matches!(refused(gateway.client.set_routes(6, twice).await), Refusal::InvalidRoutes { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn host_control_names_who_holds_a_port_and_keeps_the_old_table() {
    let web = Web::start("a").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", web.address)]).await;
    let holder = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let taken = holder.local_addr().unwrap().port();
    let routes = Routes { routes: vec![route("web", taken, Protocol::Http, &[])] };
    let refusal = refused(gateway.client.set_routes(2, routes).await);
    let Refusal::PortTaken { port: named, holder: Some(holder) } = &refusal else { panic!("{refusal}") };
    assert_eq!((*named, holder.pid), (taken, std::process::id()));
    assert_eq!(Wire::connect(port).unwrap().get("/").unwrap().text(), text("a", "/"));
    assert_eq!(gateway.client.status().await.unwrap().version, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_control_a_removed_port_is_closed_also_for_who_has_a_duplicate() {
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[]).await;
    let listeners = gateway.client.take_listeners().await.unwrap();
    assert_eq!(listeners.len(), 1);
    gateway.bind(2, vec![]).await;
    assert!(Wire::connect(port).is_err());
    gateway.bind(3, vec![route("web", port, Protocol::Http, &[])]).await;
    assert!(Wire::connect(port).is_ok(), "the port is free for another use");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_control_answers_what_is_no_request_and_goes_on() {
    let gateway = Gateway::start().await;
    let path = gateway.dir.path().join("gateway.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for bad in [
        "\n",
        "hello\n",
        "{}\n",
        "{\"op\":\"fly\"}\n",
        "{\"op\":\"status\",\"x\":1}\n",
        "{\"op\":\"drain\",\"server\":\"../x\",\"limit_ms\":1}\n",
        "{\"op\":\"set_routes\",\"version\":-1,\"routes\":[]}\n",
        "\u{0}\u{1}\n",
    ] {
        stream.write_all(bad.as_bytes()).unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.contains("malformed"), "{bad:?}: {answer}");
    }
    stream.write_all(b"{\"op\":\"status\"}\n").unwrap();
    let mut answer = String::new();
    answers.read_line(&mut answer).unwrap();
    assert!(answer.contains("\"reply\":\"status\""), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_control_a_line_without_end_is_cut_off() {
    let gateway = Gateway::start().await;
    let mut stream = UnixStream::connect(gateway.dir.path().join("gateway.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let chunk = vec![b'['; 1 << 20];
    // The gateway stops reading at its limit, and writing then fails or the answer is there.
    for _ in 0..9 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let mut answer = String::new();
    let read = BufReader::new(stream).read_line(&mut answer);
    assert!(read.is_err() || answer.contains("too_long"), "{answer}");
    gateway.client.status().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn host_control_many_connections_that_say_nothing_do_no_harm() {
    let gateway = Gateway::start().await;
    let path = gateway.dir.path().join("gateway.sock");
    let silent: Vec<_> = (0..40).map(|_| UnixStream::connect(&path).unwrap()).collect();
    gateway.client.status().await.unwrap();
    drop(silent);
}
