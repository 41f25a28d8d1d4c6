//! Files that are written to be executed. As long as any process has one open for writing, executing it fails (ETXTBSY), and a process
//! that another thread is just starting has open, for a moment, what this one had.

use std::{
    fs::{File, Permissions},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::fs::PermissionsExt as _,
    },
    path::Path,
    time::{Duration, Instant},
};

use crate::error::{Attempt as _, Outcome, Result, SysError};

/// Whatever another thread starts has executed its own program long before.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_micros(200);

/// Writes a program, which can be executed (by everybody) when this returns.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    let action = || format!("write the program {}", path.display());
    let written = || -> io::Result<File> {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(0o755))?;
        drop(file);
        File::open(path)
    };
    match wait_until_unwritten(written().attempt(action)?.as_fd(), LIMIT)? {
        true => Ok(()),
        false => Err(SysError { action: action(), outcome: Outcome::Busy }),
    }
}

/// Waits until nobody has a file open for writing, at most `limit`. `file` is open for reading, and whoever writes has closed it here.
/// Answers whether it can be executed. Where the file system does not tell, it is not waited for.
fn wait_until_unwritten(file: BorrowedFd<'_>, limit: Duration) -> Result<bool> {
    let end = Instant::now() + limit;
    loop {
        // The kernel gives a lease for reading only where nobody can write (fcntl(2)); it is given back at once.
        // SAFETY: takes only integers and touches no memory.
        let taken = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
        if taken == 0 {
            // SAFETY: as above.
            let given = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
            let result = if given == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
            return result.attempt(|| "give a lease back".into()).map(|()| true);
        }
        match std::io::Error::last_os_error().raw_os_error().map(Outcome::from_errno) {
            Some(Outcome::Exhausted) if Instant::now() < end => std::thread::sleep(PAUSE),
            Some(Outcome::Exhausted) => return Ok(false),
            _ => return Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::CommandExt as _,
        process::Command,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[test]
    fn host_a_program_that_was_written_can_be_executed_though_others_are_started() {
        let directory = tempfile::tempdir().unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !ended.load(Ordering::Relaxed) {
                        Command::new("true").process_group(0).status().unwrap();
                    }
                });
            }
            let ran = (0..300).map(|turn| {
                let program = directory.path().join(format!("program-{turn}"));
                write(&program, b"#!/bin/sh\n").map_err(io::Error::other)?;
                Command::new(program).status()
            });
            let failed: Vec<_> = ran.filter_map(io::Result::err).map(|error| error.to_string()).collect();
            ended.store(true, Ordering::Relaxed);
            assert_eq!(failed, [""; 0]);
        });
    }

    #[test]
    fn host_a_file_that_is_open_for_writing_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let writing = std::fs::File::create(&path).unwrap();
        let reading = std::fs::File::open(&path).unwrap();
        assert!(!wait_until_unwritten(reading.as_fd(), Duration::from_millis(5)).unwrap());
        let closing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            drop(writing);
        });
        let begun = Instant::now();
        assert!(wait_until_unwritten(reading.as_fd(), Duration::from_secs(10)).unwrap());
        assert!(begun.elapsed() >= Duration::from_millis(20));
        closing.join().unwrap();
        std::fs::File::options().append(true).open(&path).unwrap();
    }
}
