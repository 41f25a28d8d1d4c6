//! pytest-testinfra: Debian's `python3-testinfra` on the host, whose host is the server under test.
//!
//! The tests run where `script` tests run, without privileges. What they want of the server goes through a socket in that directory: a
//! back end for testinfra (`testinfra/kiln_testinfra.py`) asks there for commands, and the harness runs them inside, as root of the
//! server. Only the user who was drawn for the run is answered, and only about this server.

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, stream::FuturesUnordered};
use kiln_api::error::chain;
use kiln_engine::{Engine, Inside, Observed};
use kiln_model::{ServerId, duration, suite::TestKind};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

use super::{
    expect::Expect,
    script::{How, Job, Place},
    suites::{MAX_REPORT, Shown},
};

const PROGRAM: &str = include_str!("testinfra/program.py");
const BACKEND: &str = include_str!("testinfra/kiln_testinfra.py");
/// Exit code of the program where pytest or testinfra is missing.
const MISSING: i32 = 97;
/// A shell's exit code where there is no Python.
const NO_PROGRAM: i32 = 127;
/// What a test asks for is at most this long, in bytes.
const MAX_REQUEST: u64 = 1 << 20;
/// So much of each output of a command is handed over.
const MAX_OUTPUT: usize = 4 << 20;
/// So many commands run at once.
const AT_ONCE: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    command: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Reply {
    Ended { exit: i32, stdout: String, stderr: String },
    Refused { refused: String },
}

/// Where commands are run.
#[derive(Clone, Copy)]
struct Target<'a> {
    inside: &'a dyn Inside,
    server: &'a ServerId,
    limit: Duration,
}

pub(super) async fn run(
    engine: &dyn Engine,
    (server, expect): (&Observed, Expect<'_>),
    kind: &TestKind,
    limit: Duration,
) -> Result<Shown, String> {
    let TestKind::Testinfra { file, files, arguments, secrets } = kind else {
        return Err("this is not a test with tests of its own".to_owned());
    };
    let inside = engine.inside().ok_or_else(|| format!("engine {} cannot look inside a server", engine.name()))?;
    let failed = |reason: std::io::Error| format!("could not run {file}: {reason}");
    let place = Place::new().map_err(failed)?;
    let (listener, socket) = listen(&place).map_err(failed)?;
    let mut job = Job::new(server, expect, (PROGRAM, &[], secrets), limit)?;
    job.arguments = [format!("suite/{file}")].into_iter().chain(arguments.iter().cloned()).collect();
    job.files = files.iter().map(|(path, text)| (format!("suite/{path}"), text.clone())).collect();
    job.files.push(("kiln_testinfra.py".to_owned(), BACKEND.to_owned()));
    job.variables.push(("KILN_SERVER_SOCKET".to_owned(), socket.display().to_string()));
    (job.apart, job.report) = (true, Some(("report.xml".to_owned(), MAX_REPORT)));
    let target = Target { inside, server: &server.server, limit };
    let ran = tokio::select! {
        ran = job.carried_out(&place) => ran.map_err(|reason| format!("could not run {file}: {reason}"))?,
        () = serve(listener, place.user(), target) => return Err("nobody answers the tests any more".to_owned()),
    };
    let ended = ended((file, limit), ran.how, &expect.shown(ran.said.trim_end()))?;
    Ok(Shown { ended, printed: Vec::new(), report: ran.report.map(|report| plain(report, &place)) })
}

/// What there is to say of the end, where it was not a good one. The error says why there is no report at all.
fn ended((file, limit): (&str, Duration), how: How, said: &str) -> Result<Option<String>, String> {
    match how {
        How::Killed => {
            let limit = duration::format(limit);
            Err(format!("{file} did not end within {limit} and was killed; its output: {said}"))
        }
        How::Exited(status) if status.success() => Ok(None),
        How::Exited(status) if [Some(MISSING), Some(NO_PROGRAM)].contains(&status.code()) => {
            let help = "install Debian's package python3-testinfra";
            Err(format!("this host lacks pytest-testinfra: {help} (it says: {said})"))
        }
        How::Exited(status) => Ok(Some(format!("pytest ended with {status}; its output: {said}"))),
    }
}

/// A socket that the user of the place can connect to.
fn listen(place: &Place) -> std::io::Result<(UnixListener, PathBuf)> {
    let path = place.path().join("server");
    let listener = UnixListener::bind(&path)?;
    place.give(&path)?;
    Ok((listener, path))
}

/// testinfra adds its host to the names of tests, and pytest the directory to what failed: there is one host, and it stands for the
/// server, and the directory is another one in each run.
fn plain(report: Vec<u8>, place: &Place) -> Vec<u8> {
    let text = String::from_utf8_lossy(&report).replace("[kiln://server]", "").replace("[kiln://server-", "[");
    text.replace(&format!("{}/suite/", place.path().display()), "").into_bytes()
}

/// Answers until it is dropped.
async fn serve(listener: UnixListener, user: Option<u32>, target: Target<'_>) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < AT_ONCE => match accepted {
                Ok((stream, _)) if is_user(&stream, user) => open.push(answer(stream, target)),
                Ok(_) => tracing::warn!("somebody else connected to a test's socket"),
                Err(error) => {
                    tracing::warn!(%error, "a test's socket accepts nobody");
                    return;
                }
            },
            Some(()) = open.next() => {}
        }
    }
}

fn is_user(stream: &UnixStream, user: Option<u32>) -> bool {
    let wanted = user.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    stream.peer_cred().is_ok_and(|peer| peer.uid() == wanted)
}

/// One command. A connection that breaks is the test's own affair: pytest says so.
async fn answer(mut stream: UnixStream, target: Target<'_>) {
    let mut request = Vec::new();
    let read = (&mut stream).take(MAX_REQUEST + 1).read_to_end(&mut request).await;
    let reply = match read {
        Ok(_) if request.len() as u64 > MAX_REQUEST => {
            Reply::Refused { refused: format!("a command is at most {MAX_REQUEST} bytes long") }
        }
        Ok(_) => carry_out(&request, target).await,
        Err(_) => return,
    };
    let reply = serde_json::to_vec(&reply).expect("plain data always serialises");
    if let Err(error) = stream.write_all(&reply).await {
        tracing::debug!(%error, "a test did not wait for its answer");
    }
}

async fn carry_out(request: &[u8], target: Target<'_>) -> Reply {
    let request: Request = match serde_json::from_slice(request) {
        Ok(request) => request,
        Err(error) => return Reply::Refused { refused: format!("this is not a request: {error}") },
    };
    let command = ["/bin/sh".to_owned(), "-c".to_owned(), request.command];
    match target.inside.exec(target.server, &command, "root", target.limit, MAX_OUTPUT).await {
        Ok(ran) => {
            Reply::Ended { exit: ran.exit, stdout: STANDARD.encode(ran.stdout), stderr: STANDARD.encode(ran.stderr) }
        }
        Err(error) => Reply::Refused { refused: chain(&error) },
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

    use super::*;

    #[test]
    fn unit_a_host_without_testinfra_is_told_which_package_it_lacks() {
        let end =
            |code: i32| ended(("t.py", Duration::from_secs(1)), How::Exited(ExitStatus::from_raw(code << 8)), "x");
        for code in [MISSING, NO_PROGRAM] {
            assert!(end(code).unwrap_err().contains("Debian's package python3-testinfra"));
        }
        assert_eq!(end(0), Ok(None));
        assert!(end(4).unwrap().unwrap().contains("pytest ended with exit status: 4"));
    }
}
