//! `kiln daemon`: the daemon in the foreground, or its end.

use kiln_api::Client;
use kiln_control::daemon::{GatewayCommand, Revival, run_local};

use super::{Context, wait};
use crate::{cli::Daemon, exit::Exit, failure::Failure, parts::host::HostPlaces};

pub(super) fn run(context: &Context<'_>, arguments: &Daemon) -> Result<Exit, Failure> {
    if arguments.stop {
        return wait(stop(context));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::NotRoot { action: "run servers" });
    }
    if arguments.background {
        // Not the leader of a process group, because it was started as a child: this cannot fail for another reason.
        rustix::process::setsid().map_err(|error| Failure::host("leave the terminal's session", error))?;
    }
    let places = HostPlaces::of(&context.state)?;
    let program = std::env::current_exe().map_err(|error| Failure::host("find this program", error))?;
    let metrics = arguments.metrics;
    let revival = match (arguments.background, arguments.supervised) {
        (true, _) => Revival::Verbs,
        (false, true) => Revival::Supervisor,
        (false, false) => Revival::Nothing,
    };
    let arguments = ["--state".into(), places.state.clone().into(), "gateway".into(), "--inherit".into()];
    let gateway = GatewayCommand { program, arguments: arguments.into() };
    run_local(&places.state, gateway, metrics, revival)?;
    Ok(Exit::Ok)
}

async fn stop(context: &Context<'_>) -> Result<Exit, Failure> {
    let done = Client::new(&context.state).shutdown().await?;
    context.ui.result(&done, || "the daemon ends; servers and traffic go on".to_owned());
    Ok(Exit::Ok)
}
