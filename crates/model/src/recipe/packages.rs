//! What is installed: packages of an archive by name, perhaps in one version, and `.deb` files beside the recipe.

use super::{FileKind, check, text::Context};
use crate::{diagnostic::shown, text::Value};

/// The path of a wanted package that is a file beside the recipe: `./app.deb`. No package of an archive has a `/` in its name or
/// ends with `.deb`.
pub fn deb_file(wanted: &str) -> Option<&str> {
    let is_file = wanted.contains('/') || wanted.ends_with(".deb");
    is_file.then(|| wanted.strip_prefix("./").unwrap_or(wanted))
}

/// A list of packages, without doubles.
pub(super) fn list(value: &Value<'_>, context: &Context<'_>) -> Option<Vec<String>> {
    let items = value.list("[\"nginx\"]")?;
    let read = |item: &Value<'_>| match item.as_text().and_then(deb_file) {
        Some(path) => file(item, path, context),
        None => item.checked("[\"nginx\"]", check::package),
    };
    let names: Vec<_> = items.iter().map(|item| Some((read(item)?, item.place))).collect();
    let names: Vec<_> = names.into_iter().collect::<Option<_>>()?;
    for (index, (name, place)) in names.iter().enumerate() {
        if let Some((_, first)) = names[..index].iter().find(|(earlier, _)| bare(earlier) == bare(name)) {
            place.contradicts::<()>(
                *first,
                format!("the package `{}` is listed twice", shown(bare(name))),
                "it is here already",
                "keep one of them",
            );
        }
    }
    Some(names.into_iter().map(|(name, _)| name).collect())
}

/// A package's file: always written with `./`, so that nobody takes it for a name.
fn file(value: &Value<'_>, path: &str, context: &Context<'_>) -> Option<String> {
    let help = "a package's file lies in the recipe's directory: `packages = [\"./app_1.0_amd64.deb\"]`";
    if let Err(problem) = check::recipe_path(path) {
        return value.place.report(problem, help);
    }
    if !path.ends_with(".deb") {
        return value.place.report(format!("`{}` is not named like a package's file", shown(path)), help);
    }
    match context.files.kind(path) {
        Ok(Some(FileKind::File)) => Some(format!("./{path}")),
        Ok(Some(_)) => value.place.report(format!("`{}` is not a file", shown(path)), help),
        Ok(None) => value.place.report(format!("there is no file `{}` beside the recipe", shown(path)), help),
        Err(problem) => value.place.report(format!("`{}` cannot be used: {problem}", shown(path)), help),
    }
}

fn bare(package: &str) -> &str {
    match deb_file(package) {
        Some(path) => path,
        None => package.split('=').next().unwrap_or(package),
    }
}
