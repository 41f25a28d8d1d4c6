//! A program that goes on writing lines until nobody wants them any more.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use crate::{Outcome, command::shown};

/// The program. It is ended when this is dropped.
pub struct Lines {
    program: Child,
    name: String,
    lines: Receiver<String>,
}

impl Lines {
    /// Starts it.
    pub fn of(mut command: Command) -> Outcome<Self> {
        let mut program = command.stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(program.stdout.take().ok_or("lines go to a pipe")?);
        let (line, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).all(|text| line.send(text).is_ok()));
        Ok(Self { program, name: shown(&command), lines })
    }

    /// The next line, for which is waited so long.
    pub fn next(&self, limit: Duration) -> Outcome<String> {
        let line = self.lines.recv_timeout(limit);
        line.map_err(|_| format!("`{}` wrote nothing for {} s", self.name, limit.as_secs()).into())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.program.kill().ok();
        self.program.wait().ok();
    }
}
