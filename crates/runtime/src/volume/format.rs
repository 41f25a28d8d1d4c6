//! The host's programs that make and check file systems.
//!
//! They are handed the open file as their standard input and called with its name in `/proc`: no path of ours, or of a server,
//! is ever an argument. Each ends within a limit, or is ended.

use std::{
    fs::File,
    io::ErrorKind,
    os::fd::{AsFd as _, BorrowedFd},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use kiln_sys::pidfd;

use super::error::{OnFile as _, Result, VolumeError};

const INPUT: &str = "/proc/self/fd/0";
/// e2fsck(8): file system errors left uncorrected, or worse.
const NOT_MENDED: i32 = 4;
/// For a file system that is made: nearly nothing of it is written.
const MAKING: Duration = Duration::from_secs(120);
/// For one that is checked or grown: a terabyte with many files, from a slow disk.
const CHECKING: Duration = Duration::from_secs(3600);

struct Program {
    name: &'static str,
    package: &'static str,
    limit: Duration,
}

const MKE2FS: Program = Program { name: "mke2fs", package: "e2fsprogs", limit: MAKING };
const E2FSCK: Program = Program { name: "e2fsck", package: "e2fsprogs", limit: CHECKING };
const RESIZE2FS: Program = Program { name: "resize2fs", package: "e2fsprogs", limit: CHECKING };
const MKFS_XFS: Program = Program { name: "mkfs.xfs", package: "xfsprogs", limit: MAKING };

impl Program {
    fn run(&self, file: &File, arguments: &[&str], action: &'static str) -> Result<Output> {
        let input = file.try_clone().on("copy", "a descriptor")?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(self.name);
        command.args(arguments).arg(INPUT).stdin(Stdio::from(input));
        command.env_clear().env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
        match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(VolumeError::NoProgram { program: self.name, package: self.package, action })
            }
            child => self.within_limit(child.on("run", self.name)?),
        }
    }

    /// What it said, if it ends by itself.
    fn within_limit(&self, child: Child) -> Result<Output> {
        let process = pidfd::open(child.id())?;
        let (output, ended) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| ended_by_itself(process.as_fd(), self.limit));
            (child.wait_with_output(), watch.join().expect("a watch does not panic"))
        });
        match ended? {
            true => output.on("run", self.name),
            false => Err(VolumeError::TooLong { program: self.name, limit: self.limit }),
        }
    }

    fn must(&self, file: &File, arguments: &[&str], action: &'static str) -> Result<()> {
        let output = self.run(file, arguments, action)?;
        if output.status.success() {
            Ok(())
        } else {
            Err(VolumeError::Program { program: self.name, said: said(&output) })
        }
    }
}

fn ended_by_itself(process: BorrowedFd<'_>, limit: Duration) -> kiln_sys::Result<bool> {
    let ended = pidfd::wait(process, limit)?;
    if !ended {
        pidfd::kill(process)?;
    }
    Ok(ended)
}

fn said(output: &Output) -> String {
    let text =
        String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr }).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(3)..].join("; ");
    last.replace(INPUT, "the image").chars().filter(|c| !c.is_control()).take(400).collect()
}

/// Makes an ext4 over the whole file, which is all zeros.
pub(super) fn ext4(file: &File, action: &'static str) -> Result<()> {
    // The device has blocks of this size.
    let usual = ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-E"];
    let zeros = [&usual[..], &["assume_storage_prezeroed=1,nodiscard"]].concat();
    match MKE2FS.must(file, &zeros, action) {
        // e2fsprogs before 1.47.
        Err(VolumeError::Program { .. }) => {
            let lazy = [&usual[..], &["lazy_itable_init=1,lazy_journal_init=1,nodiscard"]].concat();
            MKE2FS.must(file, &lazy, action)
        }
        other => other,
    }
}

/// Makes an XFS that shares content between files over the whole file.
pub(super) fn xfs(file: &File, action: &'static str) -> Result<()> {
    MKFS_XFS.must(file, &["-q", "-f", "-K", "-s", "size=4096", "-m", "reflink=1"], action)
}

/// Grows an ext4 that nobody has to the size of its image.
pub(super) fn grow_ext4(file: &File, volume: &str) -> Result<()> {
    let action = "grow a volume";
    let output = E2FSCK.run(file, &["-f", "-p"], action)?;
    if output.status.code().is_none_or(|code| code >= NOT_MENDED) {
        return Err(VolumeError::Damaged { volume: volume.to_owned(), found: said(&output) });
    }
    RESIZE2FS.must(file, &[], action)
}

/// Checks an ext4 that was not let go of in order, and mends what can be mended without asking.
pub(super) fn check_ext4(file: &File, volume: &str) -> Result<()> {
    let output = E2FSCK.run(file, &["-p"], "check a volume that was not detached in order")?;
    match output.status.code() {
        Some(code) if code < NOT_MENDED => Ok(()),
        _ => Err(VolumeError::Damaged { volume: volume.to_owned(), found: said(&output) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_a_program_that_does_not_end_is_ended() {
        let endless = Program { name: "tail", package: "coreutils", limit: Duration::from_millis(200) };
        let file = tempfile::tempfile().expect("a file");
        let error = endless.must(&file, &["-f"], "wait").expect_err("it follows the file for ever");
        assert_eq!(error.to_string(), "tail did not end within 0.2 s and was ended");
    }
}
