//! The text form of a recipe: its top level, and what only the whole can tell.

use std::cell::RefCell;

use super::{
    Base, Recipe, RecipeFiles, Step, StepKind, base, binding, check, config, file, service, step, test, writable,
};
use crate::{
    diagnostic::{Diagnostics, shown},
    digest::Digest,
    id::ImageName,
    manifest::{ImageManifest, WritableKind},
    text::{Document, Keys, Place, Table},
};

/// The keys of a recipe.
pub(crate) const KEYS: Keys = Keys {
    of: "a recipe",
    valid: &["name", "base", "step", "service", "service_binding", "writable", "config", "file", "test"],
};

/// What readers of a recipe's parts need beside the text.
pub(super) struct Context<'a> {
    pub files: &'a dyn RecipeFiles,
    /// What is wrong with a file that the recipe names.
    pub beside: RefCell<Option<Diagnostics>>,
}

/// A part of the recipe and where it stands.
pub(super) type Placed<'d, T> = (T, Place<'d>);

impl Recipe {
    /// Reads and checks `image.toml`. `file` is how the person names it; `files` answers for the files beside it. Everything
    /// that is wrong is in the diagnostics; nothing is touched.
    pub fn parse(text: &str, file: &str, files: &dyn RecipeFiles) -> Result<Self, Diagnostics> {
        let document = Document::parse(file, text)?;
        let context = Context { files, beside: RefCell::default() };
        let recipe = read(&document.root(KEYS), &context);
        let recipe = recipe.map(|recipe| Recipe { text: Digest::of(text.as_bytes()), ..recipe });
        // The recipe's own faults are told first.
        match context.beside.into_inner().filter(|_| document.is_sound()) {
            Some(faults) => Err(faults),
            None => document.finish(recipe),
        }
    }
}

fn read(root: &Table<'_>, context: &Context<'_>) -> Option<Recipe> {
    let name = root.required("name", "name = \"hello\"").and_then(|v| v.parsed::<ImageName>("\"hello\""));
    let base = root
        .required("base", "[base]` followed by `debian = \"bookworm\"")
        .and_then(|value| base::read(&value.table(base::KEYS, "{ debian = \"bookworm\" }")?, context));
    let steps = step::read_all(root, context);
    let schema = config::read_all(root);
    let services = service::read_all(root, schema.as_ref());
    let bindings = binding::read_all(root);
    let writable = writable::read_all(root);
    let templates = file::read_all(root, context, schema.as_ref(), writable.as_deref());
    let around =
        test::Around { context, services: services.as_ref(), schema: schema.as_ref(), bindings: bindings.as_ref() };
    let suite = test::read_all(root, &around);
    if let (Some((base, _)), Some(steps)) = (&base, &steps) {
        packages_need_an_archive(base, steps);
        super::provision::text::tools_need_an_archive(base, steps);
    }
    if let (Some(writable), Some(steps)) = (&writable, &steps) {
        copies_must_be_seen(steps, writable);
    }
    let services = services?.into_iter().map(|(name, (service, _))| (name, service)).collect();
    let manifest = ImageManifest {
        writable: writable?.into_iter().map(|(writable, _)| writable).collect(),
        bindings: bindings?,
        config: schema?,
        templates: templates?,
        ..ImageManifest::new(name.clone()?, services)
    };
    let steps = steps?.into_iter().map(|(step, _)| step).collect();
    let (base, sources) = base?;
    Some(Recipe { name: name?, base, sources, steps, manifest, suite: suite?, text: Digest::of(b"") })
}

fn packages_need_an_archive(base: &Base, steps: &[Placed<'_, Step>]) {
    if !matches!(base, Base::Containerfile(_)) {
        return;
    }
    for (step, place) in steps {
        if matches!(step.kind, StepKind::Packages { .. }) {
            place.report::<()>(
                "this recipe starts from what a Containerfile says, whose packages no lock knows",
                "install them in a `RUN` of the Containerfile, or bake it first and start from that image: `image = \"…\"`",
            );
        }
    }
}

fn copies_must_be_seen(steps: &[Placed<'_, Step>], writable: &[Placed<'_, crate::manifest::Writable>]) {
    for (step, place) in steps {
        let StepKind::Copy { to, .. } = &step.kind else { continue };
        let cover = writable.iter().find(|(w, _)| {
            !matches!(w.kind, WritableKind::Ephemeral { .. }) && check::is_within(to.trim_end_matches('/'), &w.path)
        });
        if let Some((cover, there)) = cover {
            place.contradicts::<()>(
                *there,
                format!(
                    "what is copied to `{}` is never seen: `{}` starts empty in every server",
                    shown(to),
                    cover.path
                ),
                "this covers it",
                format!(
                    "write `\"{}\" = {{ ephemeral = \"64MiB\" }}`, which shows the image's files, or copy elsewhere",
                    cover.path
                ),
            );
        }
    }
}
