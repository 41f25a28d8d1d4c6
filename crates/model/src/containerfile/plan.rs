//! What is to be built: the stages that the wanted one needs, and what each starts from.

use std::collections::{BTreeMap, BTreeSet};

use super::{Containerfile, Instruction, Kind, MountKind, PROXIES, Scope, Stage, found, found::Found, scope};
use crate::{
    diagnostic::{Diagnostics, shown},
    fleet::ImageRef,
    oci::{self, OciSource},
};

/// What stands before the name of one of Kiln's own images.
pub const KILN: &str = "kiln:";

/// What a stage starts from, or files are taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageBase {
    /// Nothing.
    Scratch,
    /// An earlier stage, by number.
    Stage(usize),
    /// An image of this host: `kiln:NAME`.
    Kiln(ImageRef),
    /// An image of a registry, or of a file beside the recipe.
    Oci(OciSource),
}

/// A stage that is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its number in the file, from 0.
    pub index: usize,
    /// What it starts from.
    pub base: StageBase,
    /// What `--from` and `from=` mean, by their words.
    pub others: BTreeMap<String, StageBase>,
}

/// What is built, in order; the last stage is the wanted one.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Never empty.
    pub stages: Vec<Planned>,
    /// The scope before the first `FROM`.
    pub scope: Scope,
}

impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.stages == other.stages
    }
}
impl Eq for Plan {}

impl Plan {
    /// Images of registries and files that are needed, each once, in the order in which they are met.
    pub fn images(&self) -> Vec<OciSource> {
        let mut found: Vec<OciSource> = Vec::new();
        for base in self.bases() {
            if let StageBase::Oci(source) = base
                && !found.contains(source)
            {
                found.push(source.clone());
            }
        }
        found
    }

    /// Images of this host that are needed.
    pub fn kiln_images(&self) -> impl Iterator<Item = &ImageRef> {
        self.bases().filter_map(|base| match base {
            StageBase::Kiln(image) => Some(image),
            _ => None,
        })
    }

    /// The image of this host that the wanted stage is made of, in the end.
    pub fn kiln_base(&self) -> Option<&ImageRef> {
        let mut stage = self.stages.last()?;
        loop {
            match &stage.base {
                StageBase::Kiln(image) => return Some(image),
                StageBase::Stage(index) => stage = self.stages.iter().find(|stage| stage.index == *index)?,
                StageBase::Scratch | StageBase::Oci(_) => return None,
            }
        }
    }

    fn bases(&self) -> impl Iterator<Item = &StageBase> {
        self.stages.iter().flat_map(|stage| std::iter::once(&stage.base).chain(stage.others.values()))
    }
}

impl Containerfile {
    /// What is to be built for the stage with this name or number; the last one where none is named.
    pub fn plan(&self, given: &BTreeMap<String, String>, target: Option<&str>) -> Result<Plan, Diagnostics> {
        let found = Found::new(&self.file, &self.text);
        let planner = Planner { file: self, found: &found };
        let plan = planner.plan(given, target);
        match plan {
            Some(plan) => found.finish(plan),
            None => match found.finish(()) {
                Err(faults) => Err(faults),
                Ok(()) => unreachable!("a plan is missing only where a fault was recorded"),
            },
        }
    }

    /// Names of arguments that no `ARG` of the file declares, with the name that was probably meant.
    pub fn undeclared<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<(&'n str, Option<String>)> {
        let stages = self.stages.iter().flat_map(|stage| &stage.instructions);
        let mut declared: Vec<&str> = Vec::new();
        for instruction in self.globals.iter().chain(stages) {
            if let Kind::Arg(list) = &instruction.kind {
                declared.extend(list.iter().map(|(name, _)| name.as_str()));
            }
        }
        let known =
            |name: &str| declared.contains(&name) || PROXIES.contains(&name) || scope::platform().contains_key(name);
        let undeclared = names.filter(|name| !known(name));
        undeclared.map(|name| (name, found::nearest(name, &declared).map(str::to_owned))).collect()
    }
}

struct Planner<'a> {
    file: &'a Containerfile,
    found: &'a Found<'a>,
}

impl Planner<'_> {
    fn plan(&self, given: &BTreeMap<String, String>, target: Option<&str>) -> Option<Plan> {
        let scope = match Scope::global(&self.file.globals, given) {
            Ok(scope) => scope,
            Err((index, error)) => {
                let span = self.file.globals[index].place.span.clone();
                return self.found.report(span, error.to_string(), "shorten the value, or give the argument in `args`");
            }
        };
        let target = match target {
            None => self.file.stages.len() - 1,
            Some(name) => self.stage(name, self.file.stages.len()).or_else(|| self.no_target(name))?,
        };
        let planned: Vec<_> = (0..=target).map(|index| self.planned(index, &scope)).collect();
        let needed = self.needed(target, &planned);
        let stages: Vec<_> = planned.into_iter().enumerate().filter(|(index, _)| needed.contains(index)).collect();
        let stages = stages.into_iter().map(|(_, stage)| stage).collect::<Option<_>>()?;
        Some(Plan { stages, scope })
    }

    fn no_target<T>(&self, name: &str) -> Option<T> {
        let names: Vec<_> = self.file.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        let meant = found::nearest(name, &names).map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
        let message = format!("there is no stage `{}`, which `target` names", shown(name));
        self.found.report(0..0, message, format!("{meant}The stages are {}", names.join(", ")))
    }

    /// An earlier stage by name or number.
    fn stage(&self, name: &str, before: usize) -> Option<usize> {
        let lower = name.to_ascii_lowercase();
        let named = self.file.stages[..before].iter().position(|stage| stage.name.as_deref() == Some(&lower));
        named.or_else(|| name.parse::<usize>().ok().filter(|number| *number < before))
    }

    fn planned(&self, index: usize, scope: &Scope) -> Option<Planned> {
        let stage = &self.file.stages[index];
        self.platform(stage, scope)?;
        let span = stage.from.at..stage.from.at + stage.from.raw.len();
        let from = match scope.expand(&stage.from) {
            Ok(from) => from,
            Err(error) => return self.found.report(span, error.to_string(), "give the argument in `args`"),
        };
        if from.is_empty() {
            let message =
                format!("`{}` is empty: no `ARG` before the first `FROM` gives it a value", shown(&stage.from.raw));
            return self.found.report(span, message, "write `ARG NAME=value` in the first line, or give it in `args`");
        }
        let named = self.file.stages[..index].iter().position(|stage| stage.name == Some(from.to_ascii_lowercase()));
        let base = match named {
            Some(earlier) => StageBase::Stage(earlier),
            None => self.base(&from, span)?,
        };
        let mut others = BTreeMap::new();
        for instruction in &stage.instructions {
            for name in froms(instruction) {
                let base = match self.stage(name, index) {
                    Some(earlier) => StageBase::Stage(earlier),
                    None => self.other(name, index, instruction)?,
                };
                others.insert(name.to_owned(), base);
            }
        }
        Some(Planned { index, base, others })
    }

    fn platform(&self, stage: &Stage, scope: &Scope) -> Option<()> {
        let Some(word) = &stage.platform else { return Some(()) };
        let span = word.at..word.at + word.raw.len();
        let own = oci::architecture();
        match scope.expand(word) {
            Ok(platform) if platform == own || platform == format!("linux/{own}") => Some(()),
            Ok(platform) => self.found.report(
                span,
                format!("this host cannot run programs of `{}`", shown(&platform)),
                format!("Kiln bakes for the host it runs on, which is linux/{own}: take `--platform` out"),
            ),
            Err(error) => self.found.report(span, error.to_string(), "take `--platform` out"),
        }
    }

    fn other(&self, name: &str, index: usize, instruction: &Instruction) -> Option<StageBase> {
        let span = instruction.place.span.clone();
        let lower = name.to_ascii_lowercase();
        if let Some(later) = self.file.stages[index..].iter().find(|stage| stage.name.as_deref() == Some(&lower)) {
            let message = format!("the stage `{lower}` does not stand before this one");
            return self.found.report(span, message, format!("it begins on line {}; move it", later.place.line));
        }
        if name.chars().all(|c| c.is_ascii_digit()) {
            let message = format!("there is no stage {} before this one", shown(name));
            return self.found.report(span, message, "stages have numbers from 0; better give them names with `AS`");
        }
        self.base(name, span)
    }

    fn base(&self, from: &str, span: std::ops::Range<usize>) -> Option<StageBase> {
        if from == "scratch" {
            return Some(StageBase::Scratch);
        }
        if let Some(name) = from.strip_prefix(KILN) {
            return match name.parse::<ImageRef>() {
                Ok(image) => Some(StageBase::Kiln(image)),
                Err(error) => self.found.report(span, error.to_string(), "for example `FROM kiln:base@stable`"),
            };
        }
        let source = match from.parse::<OciSource>() {
            Ok(source) => source,
            Err(error) => return self.found.report(span, error.to_string(), "for example `FROM debian:bookworm`"),
        };
        if let OciSource::Layout(place) | OciSource::Archive(place) = &source
            && let Err(message) = crate::recipe::check_recipe_path(&place.path)
        {
            return self.found.report(span, message, "put it into the recipe's directory and name it from there");
        }
        Some(StageBase::Oci(source))
    }

    /// The stages that this one is made from, itself included.
    fn needed(&self, target: usize, planned: &[Option<Planned>]) -> BTreeSet<usize> {
        let (mut needed, mut todo) = (BTreeSet::new(), vec![target]);
        while let Some(index) = todo.pop() {
            let Some(stage) = planned.get(index).and_then(Option::as_ref).filter(|_| needed.insert(index)) else {
                needed.insert(index);
                continue;
            };
            for base in std::iter::once(&stage.base).chain(stage.others.values()) {
                if let StageBase::Stage(earlier) = base {
                    todo.push(*earlier);
                }
            }
        }
        needed
    }
}

/// The words of `--from` and `from=` of an instruction.
fn froms(instruction: &Instruction) -> Vec<&str> {
    match &instruction.kind {
        Kind::Copy(copy) => copy.from.as_deref().into_iter().collect(),
        Kind::Run(run) => {
            let binds = run.mounts.iter().filter_map(|mount| match &mount.kind {
                MountKind::Bind { from, .. } => from.as_deref(),
                _ => None,
            });
            binds.collect()
        }
        _ => Vec::new(),
    }
}
