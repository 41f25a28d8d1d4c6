//! `kiln exec SERVER -- COMMAND`: a command inside a server, through its PID 1.

mod terminal;

use std::{io::IsTerminal as _, os::fd::AsFd as _, path::Path};

use kiln_api::{Client, request::TouchRequest};
use kiln_runtime::{Session, open_session, protocol::Exec as Command};
use serde_json::json;

use super::Context;
use crate::{cli::Exec, exit::Exit, failure::Failure};

pub(super) async fn run(context: &Context<'_>, arguments: &Exec) -> Result<Exit, Failure> {
    let client = Client::new(&context.state);
    let details = client.server(&arguments.server).await?;
    let unknown = || Failure::Unknown { kind: "server with a PID 1", name: arguments.server.to_string() };
    let socket = details.control_socket.ok_or_else(unknown)?;
    // First the mark, then the deed: whatever the command does, the server is known to have been touched.
    client.touch(&TouchRequest { server: arguments.server.clone(), command: arguments.command.clone() }).await?;
    let code = execute(Path::new(&socket), context, arguments)?;
    if context.ui.json() {
        context.ui.line(&json!({ "server": arguments.server.as_str(), "exit": code }));
    }
    Ok(if code == 0 { Exit::Ok } else { Exit::Command(u8::try_from(code).unwrap_or(u8::MAX)) })
}

fn execute(socket: &Path, context: &Context<'_>, arguments: &Exec) -> Result<i32, Failure> {
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !context.ui.json();
    let term = std::env::var("TERM").ok().map(|term| ("TERM".to_owned(), term));
    let command = Command {
        command: arguments.command.clone(),
        user: arguments.user.clone(),
        environment: term.filter(|_| interactive).into_iter().collect(),
        directory: None,
        terminal: interactive.then(terminal::size),
    };
    if interactive {
        return terminal::attach(start(socket, command, false)?);
    }
    let session = start(socket, command, true)?;
    session.wait().map_err(|error| Failure::host("wait for the command", error))
}

fn start(socket: &Path, command: Command, pass: bool) -> Result<Session, Failure> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let stdio = pass.then(|| [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
    open_session(socket, command, stdio).map_err(|error| Failure::host("start the command", error))
}
