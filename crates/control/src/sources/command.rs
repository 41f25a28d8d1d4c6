//! A value that is what a program prints.
//!
//! The program gets a clean environment, no input and a process group of its own, which is killed when its time is over, when
//! it has printed more than a value can hold, and when it has ended: whatever it left running goes with it.

use std::{path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
};

use super::{MAX_BYTES, SourceError, text};
use crate::foreign;

/// So much of standard error is shown.
const MAX_ERRORS: usize = 2048;
/// Standard error is read on for this long after the end, for what a program's child holds open.
const LINGER: Duration = Duration::from_millis(100);

pub(super) async fn run(command: &[String], directory: &Path, limit: Duration) -> Result<String, SourceError> {
    let program = command.first().cloned().unwrap_or_default();
    let failed = |how: String| SourceError::Command { program: program.clone(), how };
    let mut child = start(command, directory).map_err(|error| failed(format!("could not be started: {error}")))?;
    let group = Group(child.id());
    child.id().into_iter().for_each(foreign::expose);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let errors = tokio::spawn(tail(stderr));
    let what = format!("the command {program}");
    let ended = tokio::time::timeout(limit, async { (output(stdout).await, child.wait().await) }).await;
    drop(group);
    let said = tokio::time::timeout(LINGER, errors).await.ok().and_then(Result::ok).unwrap_or_default();
    let (bytes, status) = match ended {
        Err(_) => {
            let limit = kiln_model::duration::format(limit);
            return Err(failed(format!("was killed: it had not ended within {limit}{said}")));
        }
        Ok((Err(error), _)) | Ok((_, Err(error))) => return Err(failed(format!("could not be read: {error}"))),
        Ok((Ok(bytes), Ok(status))) => (bytes, status),
    };
    if bytes.len() > MAX_BYTES {
        return Err(SourceError::TooLarge { what, bytes: bytes.len() as u64 });
    }
    if !status.success() {
        return Err(failed(format!("ended with {status}{said}")));
    }
    text(&what, bytes)
}

fn start(command: &[String], directory: &Path) -> std::io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Standard output to its end, or to one byte more than a value can hold; then the pipe is closed.
async fn output(stdout: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stdout) = stdout {
        stdout.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The last line or two of standard error, for the message.
async fn tail(stderr: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stderr) = stderr else { return String::new() };
    let (mut kept, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stderr.read(&mut part).await {
        kept.extend_from_slice(&part[..read]);
        let surplus = kept.len().saturating_sub(MAX_ERRORS);
        kept.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&kept);
    match text.trim() {
        "" => String::new(),
        said => format!("; it said: {said}"),
    }
}

/// Kills a process group when dropped, also when the caller gives up waiting.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.and_then(|id| Pid::from_raw(id as i32)) {
            // A group that is gone already is what is wanted.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, limit: Duration) -> Result<String, SourceError> {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&command, Path::new("/"), limit).await
    }

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn host_a_command_runs_with_a_clean_environment() {
        assert_eq!(shell("echo hello", LIMIT).await.unwrap(), "hello");
        assert_eq!(
            shell("pwd; env | cut -d= -f1 | grep -vE '^(PWD|OLDPWD|_|SHLVL)$' | sort", LIMIT).await.unwrap(),
            "/\nHOME\nLANG\nPATH"
        );
    }

    #[tokio::test]
    async fn host_a_command_that_fails_is_shown_with_what_it_said() {
        let error = shell("echo no such thing >&2; exit 3", LIMIT).await.unwrap_err();
        assert!(error.to_string().contains("exit status: 3; it said: no such thing"), "{error}");
        let missing = run(&["/no/such/program".to_owned()], Path::new("/"), LIMIT).await.unwrap_err();
        assert!(missing.to_string().contains("could not be started"), "{missing}");
        assert!(matches!(shell("yes | head -c 3000000", LIMIT).await, Err(SourceError::TooLarge { .. })));
        assert!(matches!(shell("printf '\\377'", LIMIT).await, Err(SourceError::NotText { .. })));
    }

    #[tokio::test]
    async fn host_a_command_that_hangs_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let pids = directory.path().join("pids");
        let script = format!("sleep 1000 & echo $! > {0}; echo $$ >> {0}; echo waiting >&2; wait", pids.display());
        let began = std::time::Instant::now();
        let error = shell(&script, Duration::from_millis(300)).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(3));
        assert!(error.to_string().contains("had not ended within 300ms; it said: waiting"), "{error}");
        let pids = std::fs::read_to_string(pids).unwrap();
        for pid in pids.lines() {
            let gone =
                || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
            let end = std::time::Instant::now() + Duration::from_secs(3);
            while !gone() {
                assert!(std::time::Instant::now() < end, "process {pid} is left");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}
