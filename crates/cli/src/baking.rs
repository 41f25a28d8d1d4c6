//! A bake as it is asked for by several verbs, and as it is shown.

use std::{path::Path, sync::Mutex};

use kiln_control::{attest, keys::Keys};
use kiln_image::{
    Store,
    bake::{self, BakeEvent, BakeRequest, Baked, LockMode, Reproducibility, Resource, State, StepOutcome},
    debian,
    registry::Registries,
    sandbox::Stream,
};
use kiln_model::{Lock, Recipe, recipe::Base};
use serde_json::{Value, json};

use crate::{
    failure::{self, Failure},
    parts::{host::HostPlaces, registries, sandbox::StepSandbox},
    ui::{self, Task, Ui},
};

/// How to bake.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// What to do about kiln.lock.
    pub lock: LockMode,
    /// Without the network.
    pub offline: bool,
    /// Run every step.
    pub fresh: bool,
    /// Open a shell in the tree of a step that failed.
    pub shell_on_failure: bool,
    /// Whether each step is a JSON line of its own.
    pub stream: bool,
}

impl Settings {
    /// With the lock and the network as they are.
    pub const USUAL: Self =
        Self { lock: LockMode::Use, offline: false, fresh: false, shell_on_failure: false, stream: false };
}

/// Which steps are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// All of them.
    All,
    /// Those that were not known: the others were told of before.
    New,
}

/// Bakes the recipe of a directory and shows how it goes.
pub(crate) fn bake(
    state: &Path,
    directory: &Path,
    recipe: &Recipe,
    settings: Settings,
    ui: &Ui,
) -> Result<Baked, Failure> {
    ui.note(&format!("{} {}", ui::strong("bake"), recipe.name));
    bake_on(state, directory, recipe, settings, (ui, Told::All))
}

/// The rest of a bake that [`units`] began.
pub(crate) fn bake_on(
    state: &Path,
    directory: &Path,
    recipe: &Recipe,
    settings: Settings,
    (ui, told): (&Ui, Told),
) -> Result<Baked, Failure> {
    let places = HostPlaces::of(state)?;
    let store = Store::open(&places.store())?;
    let sandbox = StepSandbox::open(&places, needs_network(recipe))?;
    let (cache, registries) = (places.cache(), registries::read(&places)?);
    let request = request(directory, recipe, &cache, &registries, settings);
    let shown = Shown::new(ui, settings, "baking", told);
    let baked = bake::bake(&request, &store, &sandbox, &|event| shown.event(event))?;
    drop(shown);
    attest::provenance(&store, &Keys::open(&places.state)?, &baked).map_err(failure::attest)?;
    let (image, took) = (ui::short(&baked.image.to_string()).to_owned(), ui::seconds(baked.seconds));
    ui.note(&format!("  {} image {image} {}", ui::good(), ui::dim(&took)));
    Ok(baked)
}

/// Carries out the steps of a recipe and says which service units its packages bring.
pub(crate) fn units(
    state: &Path,
    directory: &Path,
    recipe: &Recipe,
    settings: Settings,
    ui: &Ui,
) -> Result<bake::Units, Failure> {
    let places = HostPlaces::of(state)?;
    let store = Store::open(&places.store())?;
    let sandbox = StepSandbox::open(&places, needs_network(recipe))?;
    let (cache, registries) = (places.cache(), registries::read(&places)?);
    let request = request(directory, recipe, &cache, &registries, settings);
    ui.note(&format!("{} {}", ui::strong("bake"), recipe.name));
    let shown = Shown::new(ui, settings, "baking", Told::All);
    Ok(bake::units(&request, &store, &sandbox, &|event| shown.event(event))?)
}

/// Bakes the recipe of a directory twice, from nothing, and compares.
pub(crate) fn compare(
    state: &Path,
    directory: &Path,
    recipe: &Recipe,
    settings: Settings,
    ui: &Ui,
) -> Result<Reproducibility, Failure> {
    let places = HostPlaces::of(state)?;
    let store = Store::open(&places.store())?;
    let sandbox = StepSandbox::open(&places, needs_network(recipe))?;
    let cache = places.cache();
    let registries = registries::read(&places)?;
    let request = request(directory, recipe, &cache, &registries, settings);
    ui.note(&format!("{} {} twice", ui::strong("bake"), recipe.name));
    let shown = Shown::new(ui, settings, "baking", Told::All);
    Ok(bake::check_reproducible(&request, &store, &sandbox, &|event| shown.event(event))?)
}

/// What is asked of a bake.
pub(crate) fn request<'a>(
    directory: &'a Path,
    recipe: &'a Recipe,
    cache: &'a Path,
    registries: &'a Registries,
    settings: Settings,
) -> BakeRequest<'a> {
    BakeRequest {
        recipe,
        directory,
        cache,
        lock: settings.lock,
        registries,
        offline: settings.offline,
        fresh: settings.fresh,
        shell_on_failure: settings.shell_on_failure,
        now: jiff::Timestamp::now(),
    }
}

/// Reads or makes the lock of a recipe; none where the recipe starts from an image.
pub(crate) fn lock(
    state: &Path,
    directory: &Path,
    recipe: &Recipe,
    mode: LockMode,
    ui: &Ui,
) -> Result<Option<Lock>, Failure> {
    let places = HostPlaces::of(state)?;
    let store = Store::open(&places.store())?;
    let request = BakeRequest {
        recipe,
        directory,
        cache: &places.cache(),
        lock: mode,
        registries: &registries::read(&places)?,
        offline: false,
        fresh: false,
        shell_on_failure: false,
        now: jiff::Timestamp::now(),
    };
    let shown = Shown::new(ui, Settings::USUAL, "resolving the packages", Told::All);
    Ok(bake::lock::lock(&request, &store, &|event| shown.event(event))?)
}

/// What `kiln bake --json` prints: a contract that others script against.
pub(crate) fn to_json(baked: &Baked) -> Value {
    json!({
        "image": baked.image.to_string(),
        "name": baked.name.as_str(),
        "suite": baked.suite.to_string(),
        "seconds": baked.seconds,
        "steps": baked.steps.iter().map(step_json).collect::<Vec<_>>(),
    })
}

fn step_json(step: &StepOutcome) -> Value {
    json!({ "name": step.name, "cached": step.cached, "seconds": step.seconds })
}

fn needs_network(recipe: &Recipe) -> bool {
    let asked = recipe.steps.iter().any(|step| step.kind.runs_programs() && step.network);
    asked || matches!(&recipe.base, Base::Containerfile(base) if base.wants_network())
}

/// Shows the events of a bake, which come from several threads.
struct Shown<'a> {
    ui: &'a Ui,
    stream: bool,
    told: Told,
    task: Mutex<Option<Task>>,
}

impl<'a> Shown<'a> {
    fn new(ui: &'a Ui, settings: Settings, what: &str, told: Told) -> Self {
        // A shell that is opened in a broken tree has the terminal for itself.
        let task = (!settings.shell_on_failure).then(|| ui.task(what));
        Self { ui, stream: settings.stream, told, task: Mutex::new(task) }
    }

    fn event(&self, event: BakeEvent) {
        match event {
            BakeEvent::Started { index, count, name } => self.started(index, count, &name),
            BakeEvent::Output { stream, bytes } => self.output(stream, &bytes),
            BakeEvent::Download { bytes, total } => self.download(bytes, total),
            BakeEvent::Resource { run, resource } => self.resource(run, &resource),
            BakeEvent::Warning(text) => self.ui.warn(&text),
            BakeEvent::Done(step) => self.done(&step),
            BakeEvent::Debian(event) => self.debian(event),
        }
    }

    fn started(&self, index: usize, count: usize, name: &str) {
        if let Some(task) = self.task.lock().expect("no holder panics").as_ref() {
            task.say(&format!("[{}/{count}] {name}", index + 1));
        }
    }

    fn download(&self, bytes: u64, total: u64) {
        if let Some(task) = self.task.lock().expect("no holder panics").as_ref() {
            task.progress("downloading", bytes, total);
        }
    }

    fn debian(&self, event: debian::Event) {
        if let debian::Event::Away { archive, since, reason } = &event {
            self.ui.warn(&format!("{archive} cannot be reached ({reason}): going on with what was seen of {since}"));
        }
        let task = self.task.lock().expect("no holder panics");
        let Some(task) = task.as_ref() else { return };
        match event {
            debian::Event::Away { .. } => {}
            debian::Event::Index { archive, path, .. } => task.say(&format!("reading {path} of {archive}")),
            debian::Event::Fetch(amount) => task.progress("downloading", amount.bytes, amount.bytes_total),
            debian::Event::Unpack(amount) => task.progress("unpacking", amount.bytes, amount.bytes_total),
            debian::Event::Configure { packages } => task.say(&format!("configuring {packages} packages")),
        }
    }

    fn resource(&self, run: u32, resource: &Resource) {
        if self.stream && self.ui.json() {
            let (state, place) = (resource.state.word(), resource.place());
            let line = json!({
                "event": "bake_resource", "run": run, "state": state, "name": resource.what, "place": place,
                "message": resource.message,
            });
            self.ui.line(&line);
        }
        match resource.state {
            State::Changed | State::Failed | State::Ignored => {
                let run = if run > 1 { ", again" } else { "" };
                self.ui.note(&format!("    {}{run} {resource}", resource.state.word()));
            }
            State::Begun | State::Same | State::Skipped => {
                if let Some(task) = self.task.lock().expect("no holder panics").as_ref() {
                    task.say(&resource.to_string());
                }
            }
        }
    }

    fn output(&self, _stream: Stream, bytes: &[u8]) {
        if self.ui.verbose() && !self.ui.json() {
            self.ui.error_text(&String::from_utf8_lossy(bytes));
        }
    }

    fn done(&self, step: &StepOutcome) {
        if self.told == Told::New && step.cached {
            return;
        }
        if self.stream && self.ui.json() {
            let mut line = step_json(step);
            line["event"] = json!("bake_step");
            self.ui.line(&line);
        }
        let took = if step.cached { "cached".to_owned() } else { ui::seconds(step.seconds) };
        self.ui.note(&format!("  {} {} {}", ui::good(), step.name, ui::dim(&took)));
    }
}
