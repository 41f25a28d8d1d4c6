use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_800_000_000_000;

fn read(text: &str, selector: &str) -> Result<f64, NoNumber> {
    sum(text, &selector.parse().unwrap(), Timestamp::from_millisecond(NOW).unwrap())
}

const PAGE: &str = r#"# HELP jobs Jobs that wait.
# TYPE jobs gauge
jobs{queue="mail",host="a"} 120
jobs{queue="mail", host="b" , } 3.5e1 1800000000000
jobs { queue = "print \"now\"" } 7
jobs_total 99
other{broken
up 1
empty{} 0
"#;

#[test]
fn unit_the_samples_that_are_named_are_added_up() {
    assert_eq!(read(PAGE, "jobs"), Ok(162.0));
    assert_eq!(read(PAGE, "jobs{queue=\"mail\"}"), Ok(155.0));
    assert_eq!(read(PAGE, "jobs{queue=\"print \\\"now\\\"\"}"), Ok(7.0));
    assert_eq!(read(PAGE, "jobs{host=\"b\",queue=\"mail\"}"), Ok(35.0));
    assert_eq!(read(PAGE, "empty"), Ok(0.0));
    assert_eq!(read("jobs 5\r\n", "jobs"), Ok(5.0));
    assert_eq!(bare(" 350\n"), Ok(350.0));
}

#[test]
fn unit_what_is_no_load_is_an_error_and_never_a_zero() {
    use NoNumber::{Ahead, Infinite, Malformed, Missing, Negative, NotANumber, NotBare, Stale};
    let missing = |text: &str| Missing(text.parse().unwrap());
    assert_eq!(read("", "jobs"), Err(missing("jobs")));
    assert_eq!(read(PAGE, "job"), Err(missing("job")));
    assert_eq!(read(PAGE, "jobs{queue=\"fax\"}"), Err(missing("jobs{queue=\"fax\"}")));
    assert_eq!(read(PAGE, "other"), Err(Malformed(7)));
    for (line, why) in [
        ("jobs NaN", NotANumber),
        ("jobs -1", Negative),
        ("jobs -Inf", Negative),
        ("jobs +Inf", Infinite),
        ("jobs 1e308\njobs 1e308", Infinite),
        ("jobs 4\njobs NaN", NotANumber),
        ("jobs", Malformed(1)),
        ("jobs four", Malformed(1)),
        ("jobs 4 yesterday", Malformed(1)),
        ("jobs 4 1 2", Malformed(1)),
        ("jobs{a=\"x} 4", Malformed(1)),
        ("jobs{a=\"\\x\"} 4", Malformed(1)),
        ("jobs{a=\"x\" b=\"y\"} 4", Malformed(1)),
        ("\njobs{=\"x\"} 4", Malformed(2)),
        ("jobs 4 1799999939000", Stale(61)),
        ("jobs 4 0", Stale(1_800_000_000)),
        ("jobs 4 1800000061000", Ahead(61)),
        ("jobs 4 9223372036854775807", Ahead(9_223_370_236_854_775)),
    ] {
        assert_eq!(read(line, "jobs"), Err(why), "{line}");
    }
    assert_eq!(read("jobs 4 1799999941000", "jobs"), Ok(4.0), "59 s old");
    assert_eq!(bare("<html>"), Err(NotBare("<html>".to_owned())));
    assert_eq!(bare("NaN"), Err(NotANumber));
    assert_eq!(bare("-3"), Err(Negative));
    assert_eq!(bare(""), Err(NotBare(String::new())));
}

#[test]
fn unit_selectors_are_shown_as_they_are_read() {
    for text in ["jobs", "a:b_c1", "jobs{queue=\"mail\"}", "jobs{a=\"x\\\"y\\\\z\\n\",b=\"\"}"] {
        assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
    }
    assert_eq!("jobs{}".parse::<Selector>().unwrap().to_string(), "jobs");
    for bad in ["", "1a", "a b", "a{", "a{b}", "a{b=c}", "a{b=\"c\"} 1", "rate(a[5m])", "a-b", "{a=\"b\"}"] {
        assert_eq!(bad.parse::<Selector>(), Err(InvalidSelector::Form), "{bad}");
    }
    assert_eq!("a".repeat(LONG).parse::<Selector>(), Err(InvalidSelector::Long));
}

const LONG: usize = 513;

proptest! {
    #[test]
    fn unit_no_text_is_read_into_anything_but_a_load(text in "[a-c{}=\",\\\\ 0-9.eN#\n-]{0,60}") {
        fuzz(text.as_bytes());
        let number = read(&text, "a");
        prop_assert!(number.is_err() || number.is_ok_and(|number| number.is_finite() && number >= 0.0));
    }

    #[test]
    fn unit_what_a_program_writes_is_read(value in "[^\u{0}]{0,20}", number in 0.0..1e12f64) {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let line = format!("jobs{{queue=\"{escaped}\"}} {number}");
        // A line ends at these, whatever stands around them.
        prop_assume!(!value.contains('\r'));
        prop_assert_eq!(read(&line, &format!("jobs{{queue=\"{escaped}\"}}")), Ok(number));
    }
}
