//! Collectors that die, come late, are slow or break off; daemons that are killed; spools that are full.

use std::{collections::BTreeMap, time::Duration};

use kiln_boot::spool::Stream;
use kiln_model::fleet::{LogsPolicy, Transport};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::{Instant, sleep, timeout},
};

use super::{
    Writer,
    collector::{Collector, Line, Program},
    world::{World, web},
};
use crate::logs::{
    HandOver, Origin,
    shipper::{WINDOW, WRITE_LINES},
};

/// Every line of the server at least once, in order where it comes first; how many came more than once.
fn whole(lines: &[Line], count: u64) -> u64 {
    let mut times = BTreeMap::<u64, u64>::new();
    let mut newest = 0;
    for line in lines {
        let before = times.entry(line.seq()).or_default();
        *before += 1;
        assert_eq!(line.text(), format!("line {}", line.seq()), "what bears the same number is the same");
        if *before == 1 {
            assert_eq!(line.seq(), newest + 1, "in order");
            newest = line.seq();
        }
    }
    let missing: Vec<u64> = (1..=count).filter(|seq| !times.contains_key(seq)).collect();
    assert!(missing.is_empty(), "{} of {count} are missing: {:?}", missing.len(), &missing[..missing.len().min(20)]);
    lines.len() as u64 - count
}

fn write(writer: &mut Writer, number: u64) {
    writer.write("main", Stream::Stdout, format!("line {number}\n").as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_collector_that_is_killed_again_and_again_misses_no_line() {
    let mut collector = Collector::started(Program::Rsyslog, Transport::Relp).await;
    let world = World::new();
    world.logs.policy(&web(), Some(&collector.policy()));
    let mut writer = Writer::new(8 << 20);
    world.follow("web-1", &writer, Origin::Launched);
    let (kills, mut number) = (4, 0);
    for _ in 0..kills {
        for _ in 0..3000 {
            number += 1;
            write(&mut writer, number);
            if number % 300 == 0 {
                sleep(Duration::from_millis(2)).await;
            }
        }
        collector.kill();
        collector.start().await;
    }
    let handed = timeout(Duration::from_secs(60), world.hand_over("web-1")).await;
    assert_eq!(handed.expect("in time"), Some(HandOver::Complete));
    let twice = whole(&collector.lines(), number);
    assert!(twice <= kills * WINDOW as u64, "{twice} lines came more than once");
    println!("{number} lines, {kills} kills: {twice} came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_daemon_that_is_killed_sends_on_from_where_it_was() {
    let collector = Collector::started(Program::Rsyslog, Transport::Relp).await;
    let mut world = World::new();
    let mut writer = Writer::new(8 << 20);
    world.logs.policy(&web(), Some(&collector.policy()));
    world.follow("web-1", &writer, Origin::Launched);
    let (kills, mut number) = (3, 0);
    for _ in 0..kills {
        for _ in 0..2000 {
            number += 1;
            write(&mut writer, number);
        }
        // Long enough for something to be written down, and for something not to be.
        collector.have(number as usize / 2).await;
        sleep(Duration::from_millis(2500)).await;
        (0..500).for_each(|n| write(&mut writer, number + 1 + n));
        number += 500;
        sleep(Duration::from_millis(30)).await;
        world = world.kill_and_restart().await;
        world.logs.policy(&web(), Some(&collector.policy()));
        world.follow("web-1", &writer, Origin::Found);
    }
    let handed = timeout(Duration::from_secs(60), world.hand_over("web-1")).await;
    assert_eq!(handed.expect("in time"), Some(HandOver::Complete));
    let twice = whole(&collector.lines(), number);
    assert!(twice <= kills * (WINDOW as u64 + WRITE_LINES), "bounded: {twice}");
    // What had been written down was not sent again.
    assert!(twice <= kills * 1100, "{twice} lines came more than once");
    println!("{number} lines, {kills} daemons killed: {twice} came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_server_waits_for_a_collector_that_comes_in_time_and_counts_the_lines_for_one_that_does_not() {
    let mut collector = Collector::new(Program::Rsyslog, Transport::Relp);
    let mut world = World::new();
    world.logs.policy(&web(), Some(&collector.policy()));
    let mut writer = Writer::new(8 << 20);
    world.follow("web-1", &writer, Origin::Launched);
    (1..=100).for_each(|number| write(&mut writer, number));
    let begun = Instant::now();
    let (handed, ()) = tokio::join!(world.hand_over("web-1"), async {
        sleep(Duration::from_millis(700)).await;
        assert!(world.logs.status(&web()).unwrap().away.is_some());
        collector.start().await;
    });
    assert_eq!(handed, Some(HandOver::Complete));
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert_eq!(whole(&collector.lines(), 100), 0);

    // A second server, whose collector has a part of its lines when it goes for good.
    let mut second = Writer::new(8 << 20);
    world.follow("web-2", &second, Origin::Launched);
    (1..=50).for_each(|number| write(&mut second, number));
    collector.have(150).await;
    sleep(Duration::from_millis(50)).await;
    collector.kill();
    let short = LogsPolicy { receipt: Duration::from_millis(800), ..collector.policy() };
    world.logs.policy(&web(), Some(&short));
    second.write("main", Stream::Stdout, b"51\n52\n53\nno end");
    second.write("main", Stream::Init, b"ended: exit code 1");
    second.write("", Stream::Syslog, b"<13>x: one\ntwo");
    let begun = Instant::now();
    assert_eq!(world.hand_over("web-2").await, Some(HandOver::Lost(6)), "three lines, one without end, two messages");
    assert!((800..3000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!(world.logs.status(&web()).unwrap().lost, 6);
    // A server that has nothing left needs no collector.
    let silent = Writer::new(8 << 20);
    world.follow("web-3", &silent, Origin::Launched);
    let begun = Instant::now();
    assert_eq!(world.hand_over("web-3").await, Some(HandOver::Complete));
    assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
    assert_eq!(world.hand_over("web-4").await, None, "nobody knows it");
    world.told_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn host_what_is_overwritten_while_the_collector_is_slow_or_away_is_counted_exactly() {
    let mut collector = Collector::new(Program::Rsyslog, Transport::Relp);
    let mut world = World::new();
    world.logs.policy(&web(), Some(&collector.policy()));
    let mut writer = Writer::new(64 << 10);
    world.follow("web-1", &writer, Origin::Launched);
    // The writer waits for nobody: twenty times what is kept.
    (1..=30_000).for_each(|number| write(&mut writer, number));
    sleep(Duration::from_millis(2500)).await;
    let waiting = world.logs.status(&web()).unwrap().waiting;
    collector.start().await;
    let handed = timeout(Duration::from_secs(60), world.hand_over("web-1")).await;
    assert_eq!(handed.expect("in time"), Some(HandOver::Complete));
    let arrived = collector.lines();
    let lost = world.logs.status(&web()).unwrap().lost;
    assert_eq!(arrived.len() as u64 + lost, 30_000, "what arrived and what is gone is all there was");
    assert!(lost > 20_000 && !arrived.is_empty(), "{lost}");
    assert_eq!(world.told_lost(), lost, "and it is said");
    assert!(waiting > 29_000, "{waiting} lines waited, gone ones included until they are missed");
    assert_eq!(arrived.last().unwrap().text(), "line 30000");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_slow_collector_gets_every_line_and_a_stopped_one_is_waited_for() {
    let collector = Collector::started(Program::Rsyslog, Transport::Relp).await;
    let world = World::new();
    world.logs.policy(&web(), Some(&collector.policy()));
    let mut writer = Writer::new(8 << 20);
    world.follow("web-1", &writer, Origin::Launched);
    let begun = Instant::now();
    for number in 1..=5000 {
        if number % 1000 == 1 {
            rustix::process::kill_process(collector.pid(), rustix::process::Signal::STOP).unwrap();
        }
        write(&mut writer, number);
        if number % 1000 == 500 {
            sleep(Duration::from_millis(200)).await;
            rustix::process::kill_process(collector.pid(), rustix::process::Signal::CONT).unwrap();
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "the writer waits for nobody");
    let handed = timeout(Duration::from_secs(60), world.hand_over("web-1")).await;
    assert_eq!(handed.expect("in time"), Some(HandOver::Complete));
    assert_eq!(whole(&collector.lines(), 5000), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_line_of_a_megabyte_arrives_in_numbered_pieces() {
    let collector = Collector::started(Program::Rsyslog, Transport::Relp).await;
    let world = World::new();
    world.logs.policy(&web(), Some(&collector.policy()));
    let mut writer = Writer::new(8 << 20);
    world.follow("web-1", &writer, Origin::Launched);
    let text: String = (0..150_000).map(|number| format!("{number:06} ")).collect();
    let line = format!("{text}\nnext\n");
    line.as_bytes().chunks(8 << 10).for_each(|chunk| writer.write("main", Stream::Stdout, chunk));
    let handed = timeout(Duration::from_secs(60), world.hand_over("web-1")).await;
    assert_eq!(handed.expect("in time"), Some(HandOver::Complete));
    let lines = collector.lines();
    let (pieces, last) = lines.split_at(lines.len() - 1);
    assert_eq!((last[0].text().as_str(), last[0].data.contains_key("part")), ("next", false));
    let parts: Vec<usize> = pieces.iter().map(|line| line.data["part"].parse().unwrap()).collect();
    assert_eq!(parts, (1..=pieces.len()).collect::<Vec<_>>());
    assert_eq!(pieces.iter().map(Line::text).collect::<String>(), text);
}

/// Speaks RELP, acknowledges some lines, and breaks off in the middle of the next one; the last time it goes on.
async fn breaking(listener: TcpListener, times: usize) -> Vec<String> {
    let mut got = Vec::new();
    for time in 0..=times {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut heard, mut acknowledged) = (Vec::new(), 0);
        'session: loop {
            let mut buffer = [0; 777];
            let count = stream.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                break;
            }
            heard.extend_from_slice(&buffer[..count]);
            while let Some((txnr, command, data, size)) = frame(&heard) {
                heard.drain(..size);
                let answer = if command == "open" { "200 OK\nrelp_version=0\ncommands=syslog" } else { "200 OK" };
                stream
                    .write_all(format!("{txnr} rsp {} {answer}\n", answer.len()).as_bytes())
                    .await
                    .unwrap_or_default();
                if command == "syslog" {
                    got.push(data);
                    acknowledged += 1;
                }
                if time < times && acknowledged == 100 {
                    break 'session;
                }
            }
        }
    }
    got
}

fn frame(bytes: &[u8]) -> Option<(String, String, String, usize)> {
    let head = bytes.iter().enumerate().filter(|(_, byte)| **byte == b' ').map(|(at, _)| at).nth(2)?;
    let words = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut words = words.split(' ').map(str::to_owned);
    let (txnr, command, length) = (words.next()?, words.next()?, words.next()?.parse::<usize>().ok()?);
    let data = bytes.get(head + 1..head + 1 + length)?;
    (bytes.len() > head + 1 + length)
        .then(|| (txnr, command, String::from_utf8_lossy(data).into_owned(), head + 2 + length))
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_collector_that_breaks_off_in_the_middle_of_a_line_gets_it_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = format!("relp://{}", listener.local_addr().unwrap());
    let times = 5;
    let collector = tokio::spawn(breaking(listener, times));
    let world = World::new();
    world.logs.policy(&web(), Some(&LogsPolicy::new(to.parse().unwrap())));
    let mut writer = Writer::new(8 << 20);
    world.follow("web-1", &writer, Origin::Launched);
    (1..=3000).for_each(|number| write(&mut writer, number));
    let handed = timeout(Duration::from_secs(60), world.hand_over("web-1")).await;
    assert_eq!(handed.expect("in time"), Some(HandOver::Complete));
    world.logs.policy(&web(), None);
    let got = timeout(Duration::from_secs(20), collector).await.expect("the connection is closed").unwrap();
    let mut newest = 0;
    for line in &got {
        let number: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(number <= newest + 1, "{number} came after {newest}");
        newest = newest.max(number);
    }
    assert_eq!(newest, 3000);
    assert!(got.len() <= 3000 + times * WINDOW, "{}", got.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_peer_that_is_no_collector_is_named_and_harms_nobody() {
    let says: [&[u8]; 5] =
        [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"1 rsp 6 500 no\n", b"1 rsp 999999999 x", b"0 serverclose 0\n", b""];
    for said in says {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("relp://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(said).await.unwrap_or_default();
                stream.read(&mut [0; 4096]).await.unwrap_or_default();
            }
        });
        let world = World::new();
        let policy = LogsPolicy { receipt: Duration::from_millis(500), ..LogsPolicy::new(to.parse().unwrap()) };
        world.logs.policy(&web(), Some(&policy));
        let mut writer = Writer::new(8 << 20);
        world.follow("web-1", &writer, Origin::Launched);
        write(&mut writer, 1);
        assert_eq!(world.hand_over("web-1").await, Some(HandOver::Lost(1)));
        let away = world.logs.status(&web()).unwrap().away;
        assert!(away.is_some(), "{}", said.escape_ascii());
    }
}

#[tokio::test(flavor = "multi_thread")]
// The processor time of this process: each test is one of its own.
async fn host_many_silent_servers_cost_nothing_and_each_is_heard_when_it_speaks() {
    let collector = Collector::started(Program::Rsyslog, Transport::Relp).await;
    let world = World::new();
    world.logs.policy(&web(), Some(&collector.policy()));
    let mut writers: Vec<Writer> = (0..300).map(|_| Writer::new(1 << 20)).collect();
    for (number, writer) in writers.iter_mut().enumerate() {
        world.follow(&format!("web-{number}"), writer, Origin::Launched);
        write(writer, 1);
    }
    assert_eq!(collector.have(300).await.len(), 300);
    sleep(Duration::from_millis(1500)).await;
    let ticks = || {
        let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(usage.tv_sec as u64, usage.tv_nsec as u32)
    };
    let before = ticks();
    sleep(Duration::from_secs(3)).await;
    let used = ticks() - before;
    assert!(used < Duration::from_millis(30), "{used:?} of processor time in 3 s with nothing to do");
    write(&mut writers[217], 2);
    let begun = Instant::now();
    assert_eq!(collector.have(301).await.last().unwrap().host, "web-217");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}
