//! Services that packages bring, as a recipe would have them.

use kiln_image::{
    Store,
    bake::Baked,
    survey::{self, EnabledService, ServiceText, service_text, writable_text},
};
use kiln_model::Recipe;
use serde_json::{Value, json};

use crate::{failure::Failure, parts::host::HostPlaces, verbs::Context};

/// What a unit would be in a recipe.
pub(super) struct Proposal {
    /// `nginx.service`
    pub(super) unit: String,
    package: String,
    /// None where its file could not be understood.
    pub(super) text: Option<ServiceText>,
    /// `[writable]`, and questions about it.
    pub(super) writable: (String, Vec<String>),
}

impl Proposal {
    pub(super) fn of(service: &EnabledService) -> Self {
        Self {
            unit: service.unit.clone(),
            package: service.package.clone().unwrap_or_default(),
            text: service_text(service, &[]),
            writable: writable_text([service]),
        }
    }

    /// The sections of a recipe.
    pub(super) fn toml(&self) -> String {
        let Some(service) = &self.text else { return String::new() };
        match self.writable.0.as_str() {
            "" => service.text.clone(),
            writable => format!("{}\n{writable}", service.text),
        }
    }

    pub(super) fn questions(&self) -> impl Iterator<Item = &String> {
        self.text.iter().flat_map(|text| &text.questions).chain(&self.writable.1)
    }
}

/// What a recipe without services could run.
pub(super) fn of_recipe(context: &Context<'_>, recipe: &Recipe, baked: &Baked) -> Result<Vec<Proposal>, Failure> {
    if !recipe.manifest.services.is_empty() || baked.packages.is_empty() {
        return Ok(Vec::new());
    }
    let store = Store::open(&HostPlaces::of(&context.state)?.store())?;
    let units = survey::units(&store.tree(&baked.image)?, &baked.packages)?;
    Ok(units.iter().map(Proposal::of).collect())
}

/// For programs.
pub(super) fn to_json(proposals: &[Proposal]) -> Value {
    let one = |proposal: &Proposal| {
        json!({
            "unit": proposal.unit,
            "package": proposal.package,
            "toml": proposal.text.as_ref().map(|_| proposal.toml()),
            "questions": proposal.questions().collect::<Vec<_>>(),
        })
    };
    proposals.iter().map(one).collect()
}

/// For people, who paste it.
pub(super) fn to_paste(proposals: &[Proposal]) -> String {
    let mut lines = vec!["the recipe has no [service], and its packages bring:".to_owned()];
    lines.extend(proposals.iter().map(shown));
    lines.push("paste what servers of this image are to run into image.toml, and say its `ports`".to_owned());
    lines.join("\n")
}

/// One of them, with what a person must decide.
pub(super) fn shown(proposal: &Proposal) -> String {
    let Proposal { unit, package, .. } = proposal;
    let questions: String = proposal.questions().map(|question| format!("# QUESTION: {question}\n")).collect();
    match proposal.toml().as_str() {
        "" => format!("\n# {unit} of {package} starts nothing that can be understood\n"),
        toml => format!("\n{toml}{questions}"),
    }
}
