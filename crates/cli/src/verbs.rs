//! One file for each verb.

mod apply;
mod approve;
mod audit;
mod bake;
mod completions;
mod config;
mod daemon;
mod diff;
mod doctor;
mod down;
mod drill;
mod events;
mod exec;
mod gateway;
mod gc;
mod heal;
mod history;
mod images;
mod import;
mod inspect;
mod jwks;
mod key;
mod lineage;
mod load;
mod lock;
mod logs;
mod loss;
mod man;
mod new;
mod promote;
mod provenance;
mod pull;
mod push;
mod rebase;
mod rebuild;
mod revoke;
mod rollback;
mod save;
mod sbom;
mod status;
mod survey;
mod test;
mod up;
mod verify;
mod volume;
mod why;

use std::path::PathBuf;

use crate::{
    cli::{Cli, Verb},
    exit::Exit,
    failure::Failure,
    ui::Ui,
};

/// What every verb is given beside its own arguments.
pub(crate) struct Context<'a> {
    /// The state directory.
    pub state: PathBuf,
    /// Where output goes.
    pub ui: &'a Ui,
}

pub(crate) use drill::text as drill_text;

/// Runs what was asked.
pub(crate) fn run(cli: Cli, ui: &Ui) -> Result<Exit, Failure> {
    let state = std::path::absolute(&cli.global.state)
        .map_err(|source| Failure::Read { path: cli.global.state.clone(), source })?;
    let context = Context { state, ui };
    match cli.verb {
        Verb::New(arguments) => new::run(&context, &arguments),
        Verb::Import(arguments) => import::run(&context, &arguments),
        Verb::Up(arguments) => wait(up::run(&context, &arguments)),
        Verb::Bake(arguments) => bake::run(&context, &arguments),
        Verb::Lock(arguments) => lock::run(&context, &arguments),
        Verb::Test(arguments) => wait(test::run(&context, &arguments)),
        Verb::Survey(arguments) => survey::run(&context, &arguments),
        Verb::Apply(arguments) => wait(apply::run(&context, &arguments)),
        Verb::Config(arguments) => wait(config::run(&context, &arguments)),
        Verb::Status(arguments) => wait(status::run(&context, &arguments)),
        Verb::Rollback(arguments) => wait(rollback::run(&context, &arguments)),
        Verb::Volume { verb } => wait(volume::run(&context, &verb)),
        Verb::Loss(arguments) => wait(loss::run(&context, &arguments)),
        Verb::Rebase(arguments) => wait(rebase::run(&context, &arguments)),
        Verb::Rebuild(arguments) => wait(rebuild::run(&context, &arguments)),
        Verb::Heal(arguments) => wait(heal::run(&context, &arguments)),
        Verb::Drill { target } => wait(drill::run(&context, &target)),
        Verb::Down(arguments) => wait(down::run(&context, &arguments)),
        Verb::Images => images::run(&context),
        Verb::Inspect(arguments) => wait(inspect::run(&context, &arguments)),
        Verb::Exec(arguments) => wait(exec::run(&context, &arguments)),
        Verb::Verify(arguments) => verify::run(&context, &arguments),
        Verb::Gc(arguments) => wait(gc::run(&context, &arguments)),
        Verb::Audit(arguments) => audit::run(&context, &arguments),
        Verb::Events(arguments) => wait(events::run(&context, &arguments)),
        Verb::Jwks => wait(jwks::run(&context)),
        Verb::Logs(arguments) => wait(logs::run(&context, &arguments)),
        Verb::Promote(arguments) => wait(promote::run(&context, &arguments)),
        Verb::Approve(arguments) => approve::run(&context, &arguments),
        Verb::History(arguments) => history::run(&context, &arguments),
        Verb::Lineage(arguments) => wait(lineage::run(&context, &arguments)),
        Verb::Revoke(arguments) => wait(revoke::run(&context, &arguments)),
        Verb::Push(arguments) => push::run(&context, &arguments),
        Verb::Pull(arguments) => pull::run(&context, &arguments),
        Verb::Save(arguments) => save::run(&context, &arguments),
        Verb::Load(arguments) => load::run(&context, &arguments),
        Verb::Diff(arguments) => diff::run(&context, &arguments),
        Verb::Sbom(arguments) => sbom::run(&context, &arguments),
        Verb::Provenance(arguments) => provenance::run(&context, &arguments),
        Verb::Why(arguments) => why::run(&context, &arguments),
        Verb::Key(arguments) => key::run(&context, &arguments),
        Verb::Doctor => doctor::run(&context),
        Verb::Daemon(arguments) => daemon::run(&context, &arguments),
        Verb::Completions(arguments) => completions::run(&context, &arguments),
        Verb::Gateway(arguments) => gateway::run(&context, &arguments),
        Verb::Man => man::run(&context),
    }
}

/// Runs a verb that talks to the daemon: one thread is enough to wait for it.
fn wait(verb: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::host("start waiting for the daemon", error))?.block_on(verb)
}
