//! `kiln rebase BASE DIR…`: bakes and tests every image that descends from a base, bases first.
//!
//! Each image is baked from its recipe, tested, and its channel `dev` moved when it has passed; what descends from it sees that. What
//! fails stops its own branch, and the others go on. A rebase that was killed is called again: what is baked is found baked, what
//! is tested is found tested, and a channel that has moved stays where it is.

mod tree;

use std::{collections::BTreeMap, path::Path};

use kiln_api::{
    Client, ErrorCode,
    request::{Fresh, TestRequest},
};
use kiln_control::audit;
use kiln_image::{Store, bake::LockMode};
use kiln_model::{
    ImageDigest, ImageName,
    fleet::{ImageRef, Selector},
    recipe::descend::{Descent, descendants},
};
use serde::Serialize;
use serde_json::json;

use self::tree::Project;
use super::{Context, test};
use crate::{
    baking,
    cli::Rebase,
    daemon,
    exit::Exit,
    failure::Failure,
    parts::host::HostPlaces,
    project,
    ui::{self, events},
};

/// What became of one image.
#[derive(Debug, Clone, Serialize)]
struct Outcome {
    name: ImageName,
    directory: String,
    /// `rebased`, `unchanged`, `pinned`, `failed`, `skipped`.
    state: &'static str,
    before: Option<ImageDigest>,
    image: Option<ImageDigest>,
    reason: Option<String>,
}

pub(super) async fn run(context: &Context<'_>, arguments: &Rebase) -> Result<Exit, Failure> {
    let projects = tree::projects(&arguments.directories)?;
    let recipes: Vec<Descent> =
        projects.iter().map(|project| Descent::of(&project.recipe.name, &project.recipe.base)).collect();
    let wrong = |source| Failure::NoOrder { base: arguments.base.clone(), source };
    let order = descendants(&arguments.base, &recipes).map_err(wrong)?;
    let client = daemon::ensure(&context.state, context.ui).await?;
    let mut outcomes: BTreeMap<ImageName, Outcome> = BTreeMap::new();
    let mut told = Vec::new();
    for place in order {
        let (project, descent) = (&projects[place], &recipes[place]);
        let stopped = descent.base.as_ref().and_then(|base| outcomes.get(base)).filter(|base| base.stops());
        let outcome = match stopped {
            Some(base) => project.outcome("skipped", None, Some(format!("its base `{}` {}", base.name, base.state))),
            None if descent.pinned => {
                project.outcome("pinned", None, Some("its recipe names its base by digest".to_owned()))
            }
            None => one(context, &client, project, arguments.offline).await?,
        };
        context.ui.note(&line(&outcome));
        told.push(outcome.name.clone());
        outcomes.insert(outcome.name.clone(), outcome);
    }
    let outcomes: Vec<&Outcome> = told.iter().map(|name| &outcomes[name]).collect();
    let value = json!({ "base": arguments.base, "images": outcomes });
    audit::note(&HostPlaces::of(&context.state)?.state, "rebase", value.clone(), "somebody asked for it")?;
    let failed = outcomes.iter().filter(|outcome| outcome.stops()).count();
    context.ui.result(&value, || match (outcomes.len(), failed) {
        (0, _) => format!("no recipe there descends from {}", arguments.base),
        (all, 0) => format!("{} {all} images are on the newest {}", ui::good(), arguments.base),
        (all, failed) => format!("{} {failed} of {all} images failed or were left out", ui::bad()),
    });
    Ok(if failed == 0 { Exit::Ok } else { Exit::Failed })
}

impl Outcome {
    /// Whether what descends from it is left alone.
    fn stops(&self) -> bool {
        matches!(self.state, "failed" | "skipped")
    }
}

impl Project {
    fn outcome(&self, state: &'static str, image: Option<ImageDigest>, reason: Option<String>) -> Outcome {
        let (name, directory) = (self.recipe.name.clone(), self.directory.display().to_string());
        Outcome { name, directory, state, before: None, image, reason }
    }
}

/// Bakes and tests one image. Only what would fail for every other image as well ends the whole.
async fn one(context: &Context<'_>, client: &Client, project: &Project, offline: bool) -> Result<Outcome, Failure> {
    let store = Store::open(&HostPlaces::of(&context.state)?.store())?;
    let name = &project.recipe.name;
    let dev = ImageRef { name: name.clone(), selector: Selector::Channel("dev".parse().expect("a channel name")) };
    let before = store.resolve(&dev)?.map(|record| record.digest);
    let settings =
        baking::Settings { lock: LockMode::Use, offline, fresh: false, shell_on_failure: false, stream: true };
    let made = match baking::bake(&context.state, &project.directory, &project.recipe, settings, context.ui) {
        Ok(baked) => tested(context, client, project, baked.image).await.map(|()| baked.image),
        Err(failure) => Err(failure),
    };
    match made {
        Ok(image) => {
            let state = if before == Some(image) { "unchanged" } else { "rebased" };
            Ok(Outcome { before, ..project.outcome(state, Some(image), None) })
        }
        Err(failure) if is_its_own(&failure) => {
            let reason = kiln_api::error::chain(&failure);
            Ok(Outcome { before, ..project.outcome("failed", None, Some(reason)) })
        }
        Err(failure) => Err(failure),
    }
}

/// Runs the tests with the configuration of every group of its fleet that uses the image; the last run moves the channel.
async fn tested(context: &Context<'_>, client: &Client, project: &Project, image: ImageDigest) -> Result<(), Failure> {
    let name = &project.recipe.name;
    let fleet = test::fleet(&project.directory, None, &project.recipe)?;
    let groups = test::configured(fleet.as_ref(), name, None)?;
    let count = groups.len();
    for (at, group) in groups.into_iter().enumerate() {
        let request = TestRequest {
            image: ImageRef { name: name.clone(), selector: Selector::Digest(image) },
            group: group.map(Box::new),
            directory: project::absolute(&project.directory)?,
            fresh: Fresh::Reuse,
            move_dev: at + 1 == count,
        };
        if let Some(error) = events::follow(context.ui, client.test(&request).await?).await?.error {
            return Err(Failure::Ended(error));
        }
    }
    Ok(())
}

/// Whether a failure says something of this image alone.
fn is_its_own(failure: &Failure) -> bool {
    match failure {
        Failure::Bake(_) => failure.exit() != Exit::Host,
        Failure::Ended(error) => !matches!(error.code, ErrorCode::Host | ErrorCode::Internal),
        Failure::Wrong(_) | Failure::NoVariable(_) => true,
        _ => false,
    }
}

fn line(outcome: &Outcome) -> String {
    let mark = if outcome.stops() { ui::bad() } else { ui::good() };
    let image = outcome.image.map(|image| format!(" {}", image.short())).unwrap_or_default();
    let reason = outcome.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!(
        "{mark} {} {}{image}{reason} {}",
        ui::strong(outcome.name.as_str()),
        outcome.state,
        shown(&outcome.directory)
    )
}

fn shown(directory: &str) -> String {
    ui::dim(&Path::new(directory).display().to_string())
}
