use super::*;

fn short(bytes: &[u8]) -> (String, Option<&str>, Option<&str>, String) {
    let message = parse(bytes);
    (message.priority.to_string(), message.tag, message.pid, String::from_utf8_lossy(message.text).into_owned())
}

#[test]
fn unit_what_programs_write_to_dev_log_is_understood() {
    let expect = |bytes: &[u8], priority: &str, tag, pid, text: &str| {
        assert_eq!(short(bytes), (priority.to_owned(), tag, pid, text.to_owned()), "{}", bytes.escape_ascii());
    };
    // glibc's syslog(3) and util-linux's logger.
    let glibc = b"<29>Nov 27 15:45:20 nginx[12]: [warn] low";
    expect(glibc, "daemon.notice", Some("nginx"), Some("12"), "[warn] low");
    expect(b"<13>Nov  7 05:05:09 root: hello: world\n", "user.notice", Some("root"), None, "hello: world");
    // Those who think they write to a network.
    expect(b"<30>Nov 27 15:45:20 web-1 app[3]: x", "daemon.info", Some("app"), Some("3"), "x");
    expect(b"<30>2026-11-27T15:45:20+01:00 web-1 app: x", "daemon.info", Some("app"), None, "x");
    // Python's SysLogHandler: nothing but a priority, and a zero at the end.
    expect(b"<14>some words, no tag\0", "user.info", None, None, "some words, no tag");
    expect(b"no header at all", "user.notice", None, None, "no header at all");
    expect(b"<192>x", "user.notice", None, None, "<192>x");
    expect(b"<1x>x", "user.notice", None, None, "<1x>x");
    expect(b"<5>tag\xff: x", "kern.notice", None, None, "tag\u{fffd}: x");
    expect(b"", "user.notice", None, None, "");
    expect(b"<3>Nov 27 15:45:2", "kern.err", None, None, "Nov 27 15:45:2");
}

#[test]
fn unit_rfc_5424_is_understood_with_its_structured_data() {
    let bytes = b"<165>1 2003-10-11T22:14:15.003Z host evntslog 77 ID47 [ex@1 a=\"1\" b=\"q\\\"\\]\\\\\"][o x=\"\xc3\xa9\"] \xef\xbb\xbfAn event";
    let message = parse(bytes);
    assert_eq!(message.priority.to_string(), "local4.notice");
    assert_eq!((message.tag, message.pid, message.id), (Some("evntslog"), Some("77"), Some("ID47")));
    assert_eq!(message.data, "[ex@1 a=\"1\" b=\"q\\\"\\]\\\\\"][o x=\"é\"]");
    assert_eq!(message.text, b"An event");
    let nothing = parse(b"<34>1 - - - - - -");
    assert_eq!((nothing.tag, nothing.data, nothing.text), (None, "", b"".as_slice()));
    // Broken structured data is no header: the whole is text.
    let broken = parse(b"<34>1 - - app - - [a b=\"c] text");
    assert_eq!(broken.text, b"1 - - app - - [a b=\"c] text");
}

#[test]
fn unit_nobody_can_speak_in_kilns_name() {
    let forged = parse(b"<34>1 - - app - - [KILN@32473 group=\"db\"][x y=\"1\"] text");
    assert_eq!(forged.data, "[x y=\"1\"]");
    let last = parse(b"<34>1 - - app - - [x y=\"1\"][kiln@32473 group=\"db\"] text");
    assert_eq!((last.data, last.text), ("", b"text".as_slice()));
    let mut line = Vec::new();
    let own = [("server", "a\"]\\\n")];
    let text = b"one\n<34>1 two\0\x1b[31m\ttab \xff\xfe";
    let (app, pid) = ("my app\u{e9}", "");
    let priority = Priority::daemon(Severity::Info);
    Line {
        priority,
        time: &time(1_700_000_000_123_456_789),
        host: "web-1",
        app,
        pid,
        id: "stdout",
        own: &own,
        data: "",
        text,
    }
    .write(&mut line);
    let expected = b"<30>1 2023-11-14T22:13:20.123456Z web-1 my_app__ - stdout [kiln@32473 server=\"a\\\"\\]\\\\_\"] \
        one#012<34>1 two#000#033[31m\ttab \xff\xfe";
    assert_eq!(line.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

#[test]
fn unit_what_was_fuzzed_is_read_without_fault() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/syslog");
    let files: Vec<_> = std::fs::read_dir(directory).expect("a corpus").flatten().collect();
    assert!(!files.is_empty());
    files.iter().for_each(|file| fuzz(&std::fs::read(file.path()).expect("readable")));
}

proptest::proptest! {
    #[test]
    fn unit_any_bytes_become_one_line(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        fuzz(&bytes);
    }

    #[test]
    fn unit_nearly_good_bytes_become_one_line(text in "<[0-9]{1,3}>(1 )?[-a-zA-Z0-9:\\[\\]= \"\\\\\n]{0,80}") {
        fuzz(text.as_bytes());
    }
}
