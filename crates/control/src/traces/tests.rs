//! What collectors do, and what becomes of spans then.

mod receiver;

use std::time::{Duration, Instant};

use super::{span::random_ids, *};
use receiver::{Receiver, Reply};

fn span() -> Span {
    let (trace, id) = random_ids();
    Span {
        trace,
        id,
        parent: None,
        name: "rollout",
        start: 1_795_766_429_812_345_678,
        end: 1_795_766_429_912_345_678,
        attributes: vec![("kiln.group", "web".into()), ("kiln.revision", 7.into()), ("kiln.drill", true.into())],
        moments: vec![Moment { name: "done", at: 1_795_766_429_900_000_000, reason: "all \"is\" well".into() }],
        error: Some("it failed".into()),
    }
}

/// Sends spans to a URL; a request has so much time.
fn sending(url: &str, timeout: Duration) -> (Sending, Sink) {
    let mut settings = TraceSettings::of(Some(url), &|_| None).unwrap().unwrap();
    settings.collector.timeout = timeout;
    Sending::start(settings)
}

async fn until(what: &str, good: impl Fn() -> bool) {
    let begun = Instant::now();
    while !good() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn host_spans_leave_in_batches_and_are_counted() {
    let receiver = Receiver::new(Reply::new("200 OK"));
    let (sending, sink) = sending(&receiver.url, SOON);
    (0..700).for_each(|_| sink.give(span()));
    until("all were sent", || sink.counts().sent() == 700).await;
    let came = receiver.came();
    assert_eq!(came.len(), 2, "512 and the rest");
    assert!(came[0].head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{}", came[0].head);
    assert!(came[0].head.contains("content-type: application/json\r\n"), "{}", came[0].head);
    let body: serde_json::Value = serde_json::from_str(&came[0].body).unwrap();
    let seen = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(seen["startTimeUnixNano"], "1795766429812345678");
    assert_eq!(seen["traceId"].as_str().unwrap().len(), 32);
    assert_eq!(seen["attributes"][1], serde_json::json!({"key": "kiln.revision", "value": {"intValue": "7"}}));
    assert_eq!(seen["status"], serde_json::json!({"message": "it failed", "code": 2}));
    sending.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_what_waits_at_the_end_is_sent_still() {
    let receiver = Receiver::new(Reply::new("200 OK"));
    let (sending, sink) = sending(&receiver.url, SOON);
    (0..600).for_each(|_| sink.give(span()));
    sending.end().await;
    assert_eq!((sink.counts().sent(), sink.counts().dropped()), (600, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_collector_that_has_no_time_gets_the_same_spans_later() {
    for status in ["429 Too Many Requests", "503 Service Unavailable", "502 Bad Gateway", "504 Gateway Timeout"] {
        let receiver = Receiver::new(Reply { headers: "retry-after: 2\r\n", ..Reply::new(status) });
        let (sending, sink) = sending(&receiver.url, SOON);
        sink.give(span());
        until("it was asked", || receiver.came().len() == 1).await;
        receiver.answers(Reply::new("200 OK"));
        let begun = Instant::now();
        until("it has the span", || sink.counts().sent() == 1).await;
        assert!(begun.elapsed() > Duration::from_millis(1800), "{status}: it was left alone as long as it asked for");
        let came = receiver.came();
        assert_eq!(came[0].body, came[1].body);
        assert_eq!(sink.counts().dropped(), 0);
        sending.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_spans_that_are_refused_are_dropped_and_others_go_on() {
    for status in ["400 Bad Request", "404 Not Found", "301 Moved Permanently", "500 Internal Server Error"] {
        let receiver = Receiver::new(Reply::new(status));
        let (sending, sink) = sending(&receiver.url, SOON);
        sink.give(span());
        until("it was dropped", || sink.counts().dropped() == 1).await;
        receiver.answers(Reply::new("200 OK"));
        sink.give(span());
        until("the next was sent", || sink.counts().sent() == 1).await;
        assert_eq!(receiver.came().len(), 2, "{status}: what is refused is not sent again");
        sending.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_collector_that_wants_only_some_says_so_and_they_are_counted() {
    let body = br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#.to_vec();
    let receiver = Receiver::new(Reply { body, ..Reply::new("200 OK") });
    let (sending, sink) = sending(&receiver.url, SOON);
    (0..5).for_each(|_| sink.give(span()));
    until("all are counted", || (sink.counts().sent(), sink.counts().dropped()) == (2, 3)).await;
    sending.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_an_answer_that_is_long_or_no_json_does_no_harm() {
    for body in [vec![b'['; 10 << 20], b"\xff\x00<html>".to_vec(), Vec::new(), b"{\"partialSuccess\":null}".to_vec()] {
        let receiver = Receiver::new(Reply { body, ..Reply::new("200 OK") });
        let (sending, sink) = sending(&receiver.url, SOON);
        sink.give(span());
        until("it was sent", || sink.counts().sent() == 1).await;
        sending.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_collector_that_hangs_or_is_away_costs_a_bounded_queue_and_nobody_waits() {
    let hanging = Receiver::new(Reply { after: Duration::from_secs(30), ..Reply::new("200 OK") });
    // Nothing listens on a port that was just given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [hanging.url.clone(), format!("http://{free}/v1/traces")] {
        let (sending, sink) = sending(&url, Duration::from_millis(200));
        let begun = Instant::now();
        (0..WAITING * 3).for_each(|_| sink.give(span()));
        assert!(begun.elapsed() < Duration::from_secs(2), "giving does not wait");
        let dropped = sink.counts().dropped();
        assert!(dropped >= WAITING as u64, "{dropped} of {} were dropped", WAITING * 3);
        assert_eq!(sink.counts().sent(), 0);
        let begun = Instant::now();
        sending.end().await;
        assert!(begun.elapsed() < Duration::from_secs(3), "the end does not wait for it: {:?}", begun.elapsed());
    }
}
