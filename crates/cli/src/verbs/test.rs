//! `kiln test`: boots a frozen image and runs its tests.

use std::path::Path;

use kiln_api::{
    Client,
    report::TestReport,
    request::{Fresh, TestRequest},
};
use kiln_image::bake::LockMode;
use kiln_model::{
    Fleet, FrozenConfig, ImageName,
    fleet::{ImageRef, Selector},
};

use super::Context;
use crate::{baking, cli::Test, daemon, exit::Exit, failure::Failure, project, ui::events};

pub(super) async fn run(context: &Context<'_>, arguments: &Test) -> Result<Exit, Failure> {
    let directory = Path::new(&arguments.what);
    let (image, fleet) = if directory.is_dir() {
        (bake(context, directory, arguments.offline)?, project::fleet_if_any(directory)?)
    } else {
        let unknown = |_| Failure::Unknown { kind: "directory or image", name: arguments.what.clone() };
        (arguments.what.parse::<ImageRef>().map_err(unknown)?, None)
    };
    let client = daemon::ensure(&context.state, context.ui).await?;
    let mut reports = Vec::new();
    let mut exit = Exit::Ok;
    for config in configurations(fleet.as_ref(), &image.name, arguments)? {
        let (tested, outcome) = test(context, &client, &image, config).await?;
        reports.extend(tested);
        exit = if outcome == Exit::Ok { exit } else { outcome };
    }
    if let Some(path) = &arguments.junit {
        let text = kiln_control::harness::junit(&reports);
        std::fs::write(path, text).map_err(|source| Failure::Write { path: path.clone(), source })?;
    }
    Ok(exit)
}

fn bake(context: &Context<'_>, directory: &Path, offline: bool) -> Result<ImageRef, Failure> {
    let recipe = project::recipe(directory)?;
    let settings =
        baking::Settings { lock: LockMode::Use, offline, fresh: false, shell_on_failure: false, stream: true };
    let baked = baking::bake(&context.state, directory, &recipe, settings, context.ui)?;
    Ok(ImageRef { name: baked.name, selector: Selector::Digest(baked.image) })
}

/// The configurations of the groups that use the image; an empty one where there are none.
fn configurations(fleet: Option<&Fleet>, image: &ImageName, arguments: &Test) -> Result<Vec<FrozenConfig>, Failure> {
    let groups = fleet.into_iter().flat_map(|fleet| &fleet.groups);
    let ours = groups.filter(|(name, group)| match &arguments.group {
        Some(wanted) => *name == wanted,
        None => group.image.name == *image,
    });
    let mut found: Vec<FrozenConfig> =
        ours.map(|(_, group)| FrozenConfig::of_environment(group.environment.clone())).collect();
    found.dedup();
    match &arguments.group {
        Some(wanted) if found.is_empty() => Err(Failure::Unknown { kind: "group", name: wanted.to_string() }),
        _ if found.is_empty() => Ok(vec![FrozenConfig::default()]),
        _ => Ok(found),
    }
}

async fn test(
    context: &Context<'_>,
    client: &Client,
    image: &ImageRef,
    config: FrozenConfig,
) -> Result<(Vec<TestReport>, Exit), Failure> {
    let request = TestRequest { image: image.clone(), config, fresh: Fresh::Always, move_dev: false };
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
