//! `wrk`: keep-alive connections that ask without pause.

use std::process::{Child, Command, Stdio};

use crate::{Outcome, command::output};

/// What `wrk` says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Load {
    pub requests: f64,
    pub per_second: f64,
    /// Milliseconds.
    pub p99: f64,
    /// Connections that broke or timed out, and responses other than 2xx and 3xx.
    pub failed: u64,
}

/// Connections, over two threads.
pub const CONNECTIONS: u32 = 50;

fn wrk(url: &str, seconds: u32) -> Command {
    let mut command = Command::new("wrk");
    command.args(["--threads", "2", "--latency", "--connections"]).arg(CONNECTIONS.to_string());
    command.arg("--duration").arg(format!("{seconds}s")).arg(url);
    command
}

/// So many seconds of load.
pub fn run(url: &str, seconds: u32) -> Outcome<Load> {
    parse(&String::from_utf8(output(&mut wrk(url, seconds))?.stdout)?)
}

/// Load in the background.
pub struct Running(Child);

/// Starts load of at most so many seconds.
pub fn start(url: &str, seconds: u32) -> Outcome<Running> {
    Ok(Running(wrk(url, seconds).stdout(Stdio::piped()).spawn()?))
}

impl Running {
    /// Ends it: `wrk` says what it saw so far.
    pub fn stop(self) -> Outcome<Load> {
        output(Command::new("kill").args(["-INT", &self.0.id().to_string()]))?;
        let output = self.0.wait_with_output()?;
        parse(&String::from_utf8(output.stdout)?)
    }
}

fn parse(text: &str) -> Outcome<Load> {
    let mut load = Load::default();
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [count, "requests", "in", ..] => load.requests = count.parse()?,
            ["Requests/sec:", rate] => load.per_second = rate.parse()?,
            ["99%", time] => load.p99 = milliseconds(time)?,
            ["Socket", "errors:", rest @ ..] => {
                eprintln!("{line}");
                load.failed += counts(rest)
            }
            ["Non-2xx", "or", "3xx", "responses:", count] => {
                eprintln!("{line}");
                load.failed += count.parse::<u64>()?
            }
            _ => {}
        }
    }
    if load.requests > 0.0 { Ok(load) } else { Err(format!("wrk made no request:\n{text}").into()) }
}

fn counts(words: &[&str]) -> u64 {
    words.iter().filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok()).sum()
}

fn milliseconds(text: &str) -> Outcome<f64> {
    let split = text.find(|c: char| c.is_alphabetic()).ok_or("a time has a unit")?;
    let factor = match &text[split..] {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        unit => return Err(format!("`{unit}` is no unit of wrk").into()),
    };
    Ok(text[..split].parse::<f64>()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_wrk_says() {
        let text = "Running 3s test @ http://127.0.0.1:1/\n  Latency Distribution\n     50%    1.00ms\n     99%   12.50ms\n  \
                    1234 requests in 3.00s, 1.00MB read\n  Socket errors: connect 0, read 3, write 0, timeout 1\n  \
                    Non-2xx or 3xx responses: 2\nRequests/sec:    411.33\n";
        assert_eq!(parse(text).unwrap(), Load { requests: 1234.0, per_second: 411.33, p99: 12.5, failed: 6 });
        assert!(parse("unable to connect").is_err());
        assert_eq!(milliseconds("650.00us").unwrap(), 0.65);
    }
}
