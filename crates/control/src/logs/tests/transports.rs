//! Each way to each collector, end to end.

use std::time::Duration;

use kiln_boot::spool::Stream;
use kiln_model::fleet::Transport;

use super::{
    Writer,
    collector::{Collector, Line, Program},
    world::{World, release, web},
};
use crate::logs::{HandOver, Origin};

/// Writes what is not easy, follows it to the collector, and gives what arrived.
async fn sent(program: Program, transport: Transport) -> Vec<Line> {
    let collector = Collector::started(program, transport).await;
    let world = World::new();
    world.logs.policy(&web(), Some(&collector.policy()));
    let mut writer = Writer::new(1 << 20);
    world.follow("web-1", &writer, Origin::Launched);
    for number in 0..200 {
        writer.write("main", Stream::Stdout, format!("line {number}\n").as_bytes());
        if number % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    writer.write("main", Stream::Stderr, b"half ");
    writer.write("other", Stream::Stdout, b"between\n");
    writer.write("main", Stream::Stderr, b"and whole\n");
    writer.write("main", Stream::Stdout, b"tab\there, bell \x07, escape \x1b[31m, zero \x00, latin \xe9\xff]\"\\\n");
    writer.write("main", Stream::Init, b"ended: exit code 3; it is started again");
    writer.write("", Stream::Syslog, b"<35>Nov 27 15:45:20 sshd[77]: one\nforged: two");
    writer.write("", Stream::Syslog, b"<165>1 - h app\" 8 ID [x@1 a=\"b\"][kiln@32473 group=\"db\"] modern");
    writer.write("", Stream::Syslog, b"<14>1 - h cron 8 ID [x@1 a=\"b\"] modern");
    writer.write("main", Stream::Stdout, b"no end");
    let handed = tokio::time::timeout(Duration::from_secs(30), world.hand_over("web-1")).await;
    assert_eq!(handed.expect("in time"), Some(HandOver::Complete));
    collector.have(208).await
}

fn check(lines: &[Line]) {
    assert_eq!(lines.len(), 208, "{lines:#?}");
    for (number, line) in lines[..200].iter().enumerate() {
        assert_eq!(line.text(), format!("line {number}"), "each once, in order");
        assert_eq!(line.seq(), number as u64 + 1);
        assert_eq!((line.host.as_str(), line.app.as_str(), line.id.as_str()), ("web-1", "main", "stdout"));
        assert_eq!((line.data["group"].as_str(), line.data["server"].as_str()), ("web", "web-1"));
        assert_eq!(
            (line.data["release"].as_str(), line.data["service"].as_str()),
            (release().short().as_str(), "main")
        );
        assert_eq!(line.priority, "daemon.info");
    }
    let last: Vec<_> = lines[200..].iter().map(|line| (line.app.as_str(), line.text())).collect();
    assert_eq!(last[0], ("other", "between".to_owned()));
    assert_eq!(last[1], ("main", "half and whole".to_owned()));
    assert_eq!(lines[201].priority, "daemon.err");
    let raw = b"tab\there, bell #007, escape #033[31m, zero #000, latin \xe9\xff]\"\\";
    let arrived = &lines[202].text;
    // rsyslog writes a tab as it writes other control characters.
    let tab = String::from_utf8_lossy(raw).replace('\t', "#011");
    assert!(arrived == raw || String::from_utf8_lossy(arrived) == tab, "{}", arrived.escape_ascii());
    assert_eq!((lines[203].id.as_str(), lines[203].priority.as_str()), ("init", "daemon.notice"));
    assert_eq!((last[4].clone(), lines[204].pid.as_str()), (("sshd", "one#012forged: two".to_owned()), "77"));
    assert_eq!(lines[204].priority, "auth.err");
    assert_eq!(
        (lines[205].data["group"].as_str(), last[5].1.as_str()),
        ("web", "modern"),
        "nobody speaks in Kiln's name"
    );
    assert_eq!((last[6].clone(), lines[206].id.as_str()), (("cron", "modern".to_owned()), "ID"));
    assert_eq!(last[7], ("main", "no end".to_owned()));
    assert_eq!(lines[207].data["part"], "1", "what has no end is marked");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_every_line_arrives_at_rsyslog_by_udp_tcp_tls_and_relp() {
    for transport in [Transport::Relp, Transport::Tcp, Transport::Tls, Transport::Udp] {
        check(&sent(Program::Rsyslog, transport).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_every_line_arrives_at_syslog_ng_by_udp_tcp_and_tls() {
    for transport in [Transport::Tcp, Transport::Tls, Transport::Udp] {
        check(&sent(Program::SyslogNg, transport).await);
    }
}
