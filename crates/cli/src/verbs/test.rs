//! `kiln test`: boots a frozen image and runs its tests.

use std::path::{Path, PathBuf};

use kiln_api::{
    Client,
    report::TestReport,
    request::{Fresh, TestRequest},
};
use kiln_image::bake::LockMode;
use kiln_model::{
    EnvironmentName, Fleet, Group, GroupName, ImageName, Recipe,
    fleet::{ImageRef, Selector},
};

use super::Context;
use crate::{baking, cli::Test, daemon, exit::Exit, failure::Failure, project, ui::events};

pub(super) async fn run(context: &Context<'_>, arguments: &Test) -> Result<Exit, Failure> {
    let directory = Path::new(&arguments.what);
    let (image, fleet) = if directory.is_dir() {
        prepare(context, directory, arguments)?
    } else {
        let unknown = |_| Failure::Unknown { kind: "directory or image", name: arguments.what.clone() };
        (arguments.what.parse::<ImageRef>().map_err(unknown)?, None)
    };
    let client = daemon::ensure(&context.state, context.ui).await?;
    let mut reports = Vec::new();
    let mut exit = Exit::Ok;
    let directory = if directory.is_dir() { project::absolute(directory)? } else { "/".into() };
    for group in configured(fleet.as_ref(), &image.name, arguments.group.as_ref())? {
        // What was seen with further configurations of the suite by the first holds for the others.
        let fresh = if reports.is_empty() { Fresh::Always } else { Fresh::Renew };
        let (tested, outcome) = test(context, &client, &image, (group, directory.clone()), fresh).await?;
        reports.extend(tested);
        exit = if outcome == Exit::Ok { exit } else { outcome };
    }
    if let Some(path) = &arguments.junit {
        let text = kiln_control::harness::junit(&reports);
        std::fs::write(path, text).map_err(|source| Failure::Write { path: path.clone(), source })?;
    }
    Ok(exit)
}

/// Bakes the image of a directory; its fleet, if there is one, is read and checked before.
fn prepare(context: &Context<'_>, directory: &Path, arguments: &Test) -> Result<(ImageRef, Option<Fleet>), Failure> {
    let recipe = project::recipe(directory)?;
    let fleet = fleet(directory, arguments.env.as_ref(), &recipe)?;
    Ok((bake(context, directory, &recipe, arguments.offline)?, fleet))
}

/// The fleet beside a recipe, if there is one, checked against it, with the values that its groups get.
pub(super) fn fleet(
    directory: &Path,
    environment: Option<&EnvironmentName>,
    recipe: &Recipe,
) -> Result<Option<Fleet>, Failure> {
    let Some(files) = project::fleet_if_any(directory, environment)? else { return Ok(None) };
    files.check(&recipe.manifest)?;
    let mut fleet = project::with_variables(files.fleet)?;
    fleet.spread(|_| Some(&recipe.manifest.config));
    Ok(Some(fleet))
}

fn bake(context: &Context<'_>, directory: &Path, recipe: &Recipe, offline: bool) -> Result<ImageRef, Failure> {
    let settings =
        baking::Settings { lock: LockMode::Use, offline, fresh: false, shell_on_failure: false, stream: true };
    let baked = baking::bake(&context.state, directory, recipe, settings, context.ui)?;
    Ok(ImageRef { name: baked.name, selector: Selector::Digest(baked.image) })
}

/// One group for each configuration of those that use the image; none in particular where there are none.
pub(super) fn configured(
    fleet: Option<&Fleet>,
    image: &ImageName,
    only: Option<&GroupName>,
) -> Result<Vec<Option<Group>>, Failure> {
    let groups = fleet.into_iter().flat_map(|fleet| &fleet.groups);
    let ours = groups.filter(|(name, group)| match only {
        Some(wanted) => *name == wanted,
        None => group.image.name == *image,
    });
    let mut found: Vec<Group> = Vec::new();
    for (_, group) in ours {
        let same = |other: &Group| {
            (&other.environment, &other.config, &other.bindings) == (&group.environment, &group.config, &group.bindings)
        };
        if !found.iter().any(same) {
            found.push(group.clone());
        }
    }
    match only {
        Some(wanted) if found.is_empty() => Err(Failure::Unknown { kind: "group", name: wanted.to_string() }),
        _ if found.is_empty() => Ok(vec![None]),
        _ => Ok(found.into_iter().map(Some).collect()),
    }
}

async fn test(
    context: &Context<'_>,
    client: &Client,
    image: &ImageRef,
    (group, directory): (Option<Group>, PathBuf),
    fresh: Fresh,
) -> Result<(Vec<TestReport>, Exit), Failure> {
    let request = TestRequest { image: image.clone(), group: group.map(Box::new), directory, fresh, move_dev: false };
    let ended = events::follow(context.ui, client.test(&request).await?).await?;
    let reports = ended.reports.clone();
    let exit = match ended.finish(context.ui) {
        Err(failure @ Failure::Ended(_)) if !reports.is_empty() => {
            let exit = failure.exit();
            failure.print(context.ui);
            exit
        }
        ended => ended?,
    };
    Ok((reports, exit))
}
