//! `kiln survey [ROOT]`: what was done to a server that nobody dares to touch, and a recipe of it.

use std::{fs, path::Path};

use kiln_image::{
    debian::root::Root,
    survey::{
        Change, Changed, Draft, EnabledService, Kind, Left, Listening, Survey, Unowned, copy, draft, listening, survey,
    },
};
use kiln_model::{ByteSize, loss::counted};
use serde_json::json;

use super::Context;
use crate::{
    cli,
    exit::Exit,
    failure::Failure,
    project::{self, RECIPE},
    ui::{careful, dim, strong},
};

pub(super) fn run(context: &Context<'_>, arguments: &cli::Survey) -> Result<Exit, Failure> {
    if let Some(to) = arguments.to.as_ref().filter(|to| fs::read_dir(to).is_ok_and(|mut files| files.next().is_some()))
    {
        return Err(Failure::Exists { path: to.clone() });
    }
    let root = open(&arguments.root)?;
    let task = context.ui.task("survey");
    task.say(&format!("comparing {} with what its packages shipped", arguments.root.display()));
    let found =
        survey(&root, &arguments.except).map_err(|source| Failure::Survey { root: arguments.root.clone(), source })?;
    drop(task);
    // Only of this machine is it known what runs.
    let listening = (arguments.root == Path::new("/")).then(listening);
    let drafted = draft(&found, listening.as_deref(), &arguments.name);
    let left = arguments.to.as_deref().map(|to| write(&root, &drafted, to)).transpose()?;
    let value =
        json!({ "survey": found, "listening": listening, "questions": drafted.questions, "directory": arguments.to });
    context
        .ui
        .result(&value, || text(&found, listening.as_deref(), &drafted, arguments.to.as_deref(), left.as_deref()));
    Ok(Exit::Ok)
}

fn open(path: &Path) -> Result<Root, Failure> {
    let read = |source| Failure::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(read)?.is_dir() {
        return Err(read(std::io::ErrorKind::NotADirectory.into()));
    }
    Ok(Root::new(fs::File::open(path).map_err(read)?.into()))
}

/// Writes recipe and files, and reads the recipe as a bake would.
fn write(root: &Root, drafted: &Draft, to: &Path) -> Result<Vec<Left>, Failure> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Failure::Write { path, source }
    };
    fs::create_dir_all(to).map_err(failed(to))?;
    let left = copy(root, &drafted.files, to).map_err(failed(&to.join("files")))?;
    let recipe = to.join(RECIPE);
    fs::write(&recipe, &drafted.recipe).map_err(failed(&recipe))?;
    project::recipe(to)?;
    Ok(left)
}

fn text(
    found: &Survey,
    listening: Option<&[Listening]>,
    drafted: &Draft,
    to: Option<&Path>,
    left: Option<&[Left]>,
) -> String {
    let mut lines = vec![found.system.name.clone()];
    let packages = found.packages.iter().map(|package| format!("{} {}", package.name, dim(&package.version)));
    section(&mut lines, "packages that somebody asked for", packages);
    section(&mut lines, "files of packages that were changed", found.changed.iter().map(changed));
    section(&mut lines, "what belongs to no package", found.unowned.iter().map(unowned));
    section(&mut lines, "services that start by themselves", found.services.iter().map(service));
    let scheduled = found
        .scheduled
        .iter()
        .map(|run| format!("{}  {} {}", run.when, run.command, dim(&format!("as {}, {}", run.user, run.path))));
    section(&mut lines, "what is run at set times", scheduled);
    let users = found.users.iter().map(|user| format!("{} {}", user.name, dim(&format!("{} {}", user.uid, user.home))));
    section(&mut lines, "users that no package made", users);
    let ports = listening.unwrap_or_default().iter().map(|port| {
        let program = port.program.as_deref().unwrap_or("another network namespace, or the kernel");
        format!("{} {} {}", port.protocol, std::net::SocketAddr::from((port.address, port.port)), dim(program))
    });
    section(&mut lines, "ports that are listened on", ports);
    section(
        &mut lines,
        "this machine's own, which comes from outside in an immutable server",
        found.own.iter().cloned(),
    );
    let unread = found.unread.iter().map(|unread| format!("{} {}", unread.path, dim(&unread.reason)));
    section(&mut lines, "not looked at", unread);
    let not_copied = left.unwrap_or_default().iter().map(|left| format!("{} {}", left.path, dim(&left.reason)));
    section(&mut lines, "not copied", not_copied);
    lines.push(String::new());
    lines.push(next_step(drafted, to));
    lines.join("\n")
}

fn next_step(drafted: &Draft, to: Option<&Path>) -> String {
    let questions = counted(drafted.questions.len() as u64, "question");
    match to {
        Some(to) => {
            let recipe = to.join(RECIPE);
            format!("wrote {}; answer its {questions} at the end, then: kiln bake {}", recipe.display(), to.display())
        }
        None => format!("{questions} for a person; `--to DIR` writes a recipe with them and the files that it copies"),
    }
}

/// Of each kind, people are shown so many.
const SHOWN: usize = 60;

fn section(lines: &mut Vec<String>, heading: &str, found: impl Iterator<Item = String>) {
    let found: Vec<_> = found.collect();
    if !found.is_empty() {
        lines.push(format!("\n{} {}", strong(heading), dim(&found.len().to_string())));
        lines.extend(found.iter().take(SHOWN).map(|line| format!("  {line}")));
        if let Some(more) = found.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            lines.push(dim(&format!("  … and {more} more: `--json` tells all")));
        }
    }
}

fn secret(secret: Option<kiln_image::survey::Secret>) -> String {
    secret.map(|secret| format!(" {} {}", careful(), secret.words())).unwrap_or_default()
}

fn changed(changed: &Changed) -> String {
    let how = match changed.change {
        Change::Configuration => "",
        Change::Content => ", not a configuration file",
        Change::Missing => ", removed",
    };
    format!("{} {}{}", changed.path, dim(&format!("{}{how}", changed.package)), secret(changed.secret))
}

fn unowned(unowned: &Unowned) -> String {
    let size = ByteSize::bytes(unowned.bytes);
    let what = match &unowned.kind {
        Kind::File => format!("{size}, {}", unowned.user),
        Kind::Link(target) => format!("→ {target}"),
        Kind::Directory { files } => format!("{}, {size}, {}", counted(*files, "file"), unowned.user),
        Kind::Special => "a device, pipe or socket".to_owned(),
    };
    format!("{} {}{}", unowned.path, dim(&what), secret(unowned.secret))
}

fn service(service: &EnabledService) -> String {
    let of = service
        .package
        .as_deref()
        .map_or_else(|| format!("by hand, {}", service.path), |package| format!("package {package}"));
    format!("{} {}", service.unit, dim(&format!("{} ({of})", service.description)))
}
