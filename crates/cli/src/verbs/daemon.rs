//! `kiln daemon`: the daemon in the foreground, or its end.

use kiln_api::Client;
use kiln_control::{
    daemon::{DaemonError, GatewayCommand, Offers, Revival, run_local},
    traces::TraceSettings,
};

use super::{Context, wait};
use crate::{cli::Daemon, daemon::Leaving, exit::Exit, failure::Failure, parts::host::HostPlaces};

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
    let offers = Offers { metrics: arguments.metrics, traces: traces(context, arguments)? };
    let revival = match (arguments.background, arguments.supervised) {
        (true, _) => Revival::Verbs,
        (false, true) => Revival::Supervisor,
        (false, false) => Revival::Nothing,
    };
    let arguments = ["--state".into(), places.state.clone().into(), "gateway".into(), "--inherit".into()];
    let gateway = GatewayCommand { program, arguments: arguments.into() };
    run_local(&places.state, gateway, offers, revival)?;
    Ok(Exit::Ok)
}

/// What the option says must be right. What variables say was perhaps meant for other programs as well.
fn traces(context: &Context<'_>, arguments: &Daemon) -> Result<Option<TraceSettings>, Failure> {
    let option = arguments.traces.as_deref();
    match TraceSettings::of(option, &|name| std::env::var(name).ok()) {
        Err(error) if option.is_none() => {
            context.ui.warn(&format!("no traces are sent: {error}"));
            Ok(None)
        }
        settings => Ok(settings.map_err(DaemonError::from)?),
    }
}

async fn stop(context: &Context<'_>) -> Result<Exit, Failure> {
    let daemon = Leaving::of(&context.state).await?;
    let done = Client::new(&context.state).shutdown().await?;
    daemon.gone(context.ui).await?;
    context.ui.result(&done, || "the daemon ended; servers and traffic go on".to_owned());
    Ok(Exit::Ok)
}
