//! `HEALTHCHECK`.

use std::time::Duration;

use super::{
    read::Reader,
    run::{self, Command},
};
use crate::diagnostic::shown;

/// How an image is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The command; `HEALTHCHECK NONE` has none, and takes back what the base says.
    pub command: Option<Command>,
    /// `--interval`
    pub interval: Option<Duration>,
    /// `--timeout`
    pub timeout: Option<Duration>,
    /// `--start-period`
    pub start_period: Option<Duration>,
    /// `--start-interval`
    pub start_interval: Option<Duration>,
    /// `--retries`
    pub retries: Option<u32>,
}

const FLAGS: [&str; 5] = ["interval", "timeout", "start-period", "start-interval", "retries"];
const EXAMPLE: &str = "for example `HEALTHCHECK --interval=30s CMD curl -f http://localhost/`";

pub(super) fn read(reader: &Reader<'_>) -> Option<Health> {
    let (flags, at) = reader.flags();
    let flags = flags.only(reader, &FLAGS)?;
    let rest = reader.logical.text[at.min(reader.logical.text.len())..].trim();
    let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = match (word.to_ascii_uppercase().as_str(), rest.trim()) {
        ("NONE", "") => None,
        ("CMD", rest) if !rest.is_empty() => Some(run::command(reader, rest)?),
        _ => return reader.wrong_here("`HEALTHCHECK` takes `NONE`, or `CMD` and a command", EXAMPLE),
    };
    let time = |name: &str| -> Option<Option<Duration>> {
        let Some(word) = flags.word(reader, name)? else { return Some(None) };
        match duration(&word.literal()) {
            Some(time) => Some(Some(time)),
            None => {
                let span = word.at..word.at + word.raw.len();
                reader.found.report(
                    span,
                    format!("`{}` is no time", shown(&word.raw)),
                    format!("for example `--{name}=30s`"),
                )
            }
        }
    };
    let retries = match flags.word(reader, "retries")? {
        None => None,
        Some(word) => match word.literal().parse() {
            Ok(retries) => Some(retries),
            Err(_) => {
                let span = word.at..word.at + word.raw.len();
                return reader.found.report(
                    span,
                    format!("`{}` is no number", shown(&word.raw)),
                    "for example `--retries=3`",
                );
            }
        },
    };
    let [interval, timeout, start_period, start_interval] =
        [time(FLAGS[0])?, time(FLAGS[1])?, time(FLAGS[2])?, time(FLAGS[3])?];
    Some(Health { command, interval, timeout, start_period, start_interval, retries })
}

/// A duration as Go writes it: `1m30s`, `1.5h`, `300ms`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut nanos) = (text, 0.0_f64);
    if text.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| end + at);
        let unit = match &rest[end..unit_end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number * unit;
        rest = &rest[unit_end..];
    }
    (nanos.is_finite() && nanos < 1e18).then(|| Duration::from_nanos(nanos as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_times_are_read_as_go_writes_them() {
        for (text, millis) in [("30s", 30_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("300ms", 300), ("0s", 0)] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "30", "s", "1x", "-1s", "1e99h", "99999999999h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
