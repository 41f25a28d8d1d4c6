use kiln_boot::spool::Stream;

use super::*;
use crate::logs::tests::Writer;

fn texts(reader: &mut Reader) -> (Vec<String>, u64) {
    let (mut texts, mut lost) = (Vec::new(), 0);
    loop {
        let read = |_: Option<Gap>, frame: &Frame<'_>| texts.push(String::from_utf8_lossy(frame.bytes).into_owned());
        let batch = reader.read(read).unwrap();
        lost += batch.gap.map_or(0, |gap| gap.to - gap.from);
        if batch.end {
            return (texts, lost);
        }
    }
}

#[test]
fn host_a_spool_is_followed_over_both_files_and_each_frame_comes_once() {
    let mut writer = Writer::new(600);
    let mut reader = Reader::new(writer.paths(), Some(1));
    assert_eq!(texts(&mut reader), (vec![], 0));
    let mut expected = Vec::new();
    for number in 0..200 {
        writer.write("web", Stream::Stdout, format!("line {number}\n").as_bytes());
        expected.push(format!("line {number}\n"));
        // Sometimes a few are there at once.
        if number % 7 != 0 {
            let (seen, lost) = texts(&mut reader);
            assert_eq!((seen, lost), (std::mem::take(&mut expected), 0), "{number}");
        }
    }
    assert_eq!(texts(&mut reader), (expected, 0));
    assert_eq!(texts(&mut reader), (vec![], 0));
}

#[test]
fn host_what_was_overwritten_before_it_was_read_is_counted_line_by_line() {
    let mut writer = Writer::new(600);
    let mut reader = Reader::new(writer.paths(), Some(1));
    writer.write("web", Stream::Stdout, b"first\n");
    assert_eq!(texts(&mut reader), (vec!["first\n".into()], 0));
    for number in 0..400 {
        writer.write("web", Stream::Stdout, format!("a {number}\nb {number}\n").as_bytes());
    }
    let (seen, lost) = texts(&mut reader);
    assert_eq!(seen.last().unwrap(), "a 399\nb 399\n");
    assert_eq!(lost + 2 * seen.len() as u64, 800, "what came and what is gone is all there was");
    assert!(lost > 700, "{lost}");
    writer.write("web", Stream::Stdout, b"last\n");
    assert_eq!(texts(&mut reader), (vec!["last\n".into()], 0));
    // A reader that begins anew where it was finds the same.
    let mut again = Reader::new(writer.paths(), Some(2));
    let (again_seen, again_lost) = texts(&mut again);
    assert_eq!((again_lost, again_seen.len()), (lost, seen.len() + 1));
    assert_eq!(texts(&mut Reader::new(writer.paths(), None)).1, 0, "where nothing was expected, nothing is missing");
}

#[test]
fn host_half_a_frame_is_waited_for_and_a_damaged_one_is_passed_over() {
    let mut writer = Writer::new(1 << 20);
    let mut reader = Reader::new(writer.paths(), Some(1));
    writer.write("web", Stream::Stdout, b"one\n");
    let half = writer.write_half("web", b"two\n");
    assert_eq!(texts(&mut reader), (vec!["one\n".into()], 0));
    writer.append(&half);
    assert_eq!(texts(&mut reader), (vec!["two\n".into()], 0));
    // The disk was full in the middle of a frame: the writer begins anew in the other file.
    writer.write_half("web", b"three\nand\n");
    writer.turn();
    assert_eq!(texts(&mut reader), (vec![], 0));
    writer.write("web", Stream::Stdout, b"four\n");
    assert_eq!(texts(&mut reader), (vec!["four\n".into()], 2));
    writer.scribble();
    assert_eq!(texts(&mut reader), (vec![], 0));
}
