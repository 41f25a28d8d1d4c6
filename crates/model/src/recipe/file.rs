//! `[file."/run/app/app.conf"]`: files that PID 1 renders from templates before services start.

use super::{
    FileKind, check, command, config,
    text::{Context, Placed},
};
use crate::{
    config::ConfigSchema,
    diagnostic::shown,
    manifest::{Template, Writable, WritableKind},
    text::{Entry, Keys, Table, Value},
};

/// The keys of a file.
pub(crate) const KEYS: Keys = Keys { of: "a file", valid: &["template", "user", "mode"] };

const EXAMPLE: &str = "{ template = \"app.conf.j2\" }";
/// Paths that are memory in every server.
const MEMORY: [&str; 4] = ["/run", "/tmp", "/var/tmp", "/dev/shm"];
const MAX_TEMPLATE: u64 = 256 << 10;
const MAX_FILES: usize = 100;

pub(super) fn read_all(
    root: &Table<'_>,
    context: &Context<'_>,
    schema: Option<&ConfigSchema>,
    writable: Option<&[Placed<'_, Writable>]>,
) -> Option<Vec<Template>> {
    let Some(value) = root.get("file") else { return Some(Vec::new()) };
    let table = value.map(&format!("{{ \"/run/app/app.conf\" = {EXAMPLE} }}"))?;
    let read: Vec<_> = table.entries().map(|entry| read(&entry, context, schema, writable)).collect();
    if read.len() > MAX_FILES {
        let message = format!("there are {} files", read.len());
        return value.place.report(message, format!("at most {MAX_FILES} are possible"));
    }
    read.into_iter().collect()
}

fn read(
    entry: &Entry<'_>,
    context: &Context<'_>,
    schema: Option<&ConfigSchema>,
    writable: Option<&[Placed<'_, Writable>]>,
) -> Option<Template> {
    let path = path(entry, writable);
    if !entry.value.is_table() {
        return entry.value.wrong("a table that names a template", EXAMPLE);
    }
    let table = entry.value.table(KEYS, EXAMPLE)?;
    let template = table.required("template", "template = \"app.conf.j2\"").and_then(|v| {
        let source = v.checked("\"app.conf.j2\"", check::recipe_path)?;
        let content = content(&v, &source, context)?;
        names(&v, &source, &content, schema);
        Some((source, content))
    });
    let user = table.get("user").map_or(Some("root".to_owned()), |v| v.checked("\"app\"", check::user));
    let mode = table.get("mode").map_or(Some(0o644), |v| command::mode(&v));
    let (source, content) = template?;
    Some(Template { path: path?, source, content, user: user?, mode: mode? })
}

fn path(entry: &Entry<'_>, writable: Option<&[Placed<'_, Writable>]>) -> Option<String> {
    let path = entry.key;
    if let Err(message) = check::image_path(path, false) {
        return entry.place.report(message, format!("for example: `\"/run/app/app.conf\" = {EXAMPLE}`"));
    }
    let declared = writable.into_iter().flatten().map(|(writable, _)| writable);
    let tmpfs = declared.filter(|writable| matches!(writable.kind, WritableKind::Tmpfs { .. }));
    let mut memory = MEMORY.into_iter().chain(tmpfs.map(|writable| writable.path.as_str()));
    if memory.any(|place| path != place && check::is_within(path, place)) {
        return Some(path.to_owned());
    }
    entry.place.report(
        format!("`{}` is not in memory: a rendered file would be written to the image", shown(path)),
        "put it below /run, /tmp, /var/tmp, /dev/shm, or a path that `[writable]` declares as tmpfs",
    )
}

fn content(value: &Value<'_>, source: &str, context: &Context<'_>) -> Option<String> {
    let help = "name a file beside the recipe";
    match context.files.kind(source) {
        Ok(Some(FileKind::File)) => {}
        Ok(None) => return value.place.report(format!("there is no file `{}`", shown(source)), help),
        Ok(Some(_)) => return value.place.report(format!("`{}` is not a file", shown(source)), help),
        Err(problem) => return value.place.report(format!("`{}`: {problem}", shown(source)), help),
    }
    let read = context.files.read(source, MAX_TEMPLATE).map_err(|problem| problem.to_string());
    match read.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())) {
        Ok(content) => Some(content),
        Err(reason) => value.place.report(format!("`{}`: {reason}", shown(source)), help),
    }
}

/// Parses the template, and looks for every configuration key that it names.
fn names(value: &Value<'_>, source: &str, content: &str, schema: Option<&ConfigSchema>) {
    let environment = minijinja::Environment::new();
    let template = match environment.template_from_str(content) {
        Ok(template) => template,
        Err(error) => {
            let line = error.line().map(|line| format!(", line {line}")).unwrap_or_default();
            let reason = error.detail().map_or_else(|| error.to_string(), str::to_owned);
            value.place.report::<()>(
                format!("the template {}{line} cannot be read: {reason}", shown(source)),
                "values stand in `{{ config.key }}`, statements in `{% if config.key %} … {% endif %}`",
            );
            return;
        }
    };
    let Some(schema) = schema else { return };
    for name in crate::config::keys_named(&template) {
        config::must_be_frozen(schema, &(name, value.place));
    }
}
