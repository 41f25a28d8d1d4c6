//! `gossfile`: files that include files.

use super::{MAX_FILE, MAX_FILES, Problem, Sources, template, yaml};
use crate::recipe::{FileKind, FileProblem, RecipeFiles};

/// An entry of `gossfile` that is not skipped.
pub(super) struct Include {
    /// As the file has it.
    pub(super) written: String,
    /// Relative to the recipe, without `.` and `..`; the last part may hold `*`, `?` and `[…]`.
    pattern: String,
    line: usize,
}

impl Include {
    /// Those of these files that it names, in their order.
    pub(super) fn matching<'a>(&'a self, files: impl Iterator<Item = &'a String>) -> impl Iterator<Item = String> {
        files.filter(|file| fits(&self.pattern, file)).cloned()
    }
}

/// What a file includes.
pub(super) fn named(file: &str, root: &yaml::Node) -> Result<Vec<Include>, Problem> {
    let Some(node) = root.get("gossfile").filter(|node| !node.is_null()) else { return Ok(Vec::new()) };
    let problem = |line, message: String| Problem { file: file.to_owned(), line, message };
    let entries = node.entries();
    let entries = entries.ok_or_else(|| problem(node.line, "`gossfile` holds a map from names of files".to_owned()))?;
    let mut includes = Vec::new();
    for (key, node) in entries {
        let unknown = node
            .entries()
            .into_iter()
            .flatten()
            .find(|(key, _)| !["file", "skip", "title", "meta"].contains(&key.text.as_str()));
        if let Some((unknown, _)) = unknown {
            return Err(problem(
                unknown.line,
                format!("`{}` is not an attribute of a gossfile in goss 0.4", unknown.text),
            ));
        }
        if node.get("skip").map(yaml::Node::value) == Some(super::Value::Bool(true)) {
            continue;
        }
        let written = node.get("file").and_then(yaml::Node::text).unwrap_or(&key.text).to_owned();
        let pattern = beside(file, &written).map_err(|message| problem(key.line, message))?;
        includes.push(Include { written, pattern, line: key.line });
    }
    Ok(includes)
}

/// A path of a file, seen from the file that names it.
fn beside(file: &str, written: &str) -> Result<String, String> {
    if written.starts_with('/') {
        return Err(format!("`{written}` is absolute: goss files of a recipe are beside it"));
    }
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in written.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(|| format!("`{written}` leads out of the recipe's directory"))?;
            }
            part => parts.push(part),
        }
    }
    if parts.iter().rev().skip(1).any(|part| part.contains(['*', '?', '['])) {
        return Err(format!("`{written}` has a pattern for directories: only names of files can have one"));
    }
    Ok(parts.join("/"))
}

/// Go's `filepath.Match` of the last part; `[…]` is not supported and matches nothing.
fn fits(pattern: &str, file: &str) -> bool {
    let split = |path: &str| {
        path.rsplit_once('/').map_or((String::new(), path.to_owned()), |(d, n)| (d.to_owned(), n.to_owned()))
    };
    let ((directory, wanted), (found, name)) = (split(pattern), split(file));
    directory == found && wild(&wanted.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
}

fn wild(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=name.len()).any(|skipped| wild(rest, &name[skipped..])),
        (Some(('?', rest)), Some((_, after))) => wild(rest, after),
        (Some((wanted, rest)), Some((seen, after))) => wanted == seen && wild(rest, after),
        _ => false,
    }
}

/// Reads a goss file of a recipe and those that it includes into `sources`, whose variables and environment are there already.
pub fn sources(mut sources: Sources, files: &dyn RecipeFiles) -> Result<Sources, Problem> {
    let vars = sources.vars()?;
    let mut waiting = vec![(sources.file.clone(), sources.file.clone(), 1)];
    while let Some((file, named_by, line)) = waiting.pop() {
        if sources.files.contains_key(&file) {
            continue;
        }
        let problem = |message: String| Problem { file: named_by.clone(), line, message };
        if sources.files.len() >= MAX_FILES {
            return Err(problem(format!("more than {MAX_FILES} files are included")));
        }
        let text = text(&file, files).map_err(problem)?;
        sources.files.insert(file.clone(), text.clone());
        let filled = template::fill(&file, &text, &vars, &sources.environment)?;
        for include in named(&file, &yaml::parse(&file, &filled)?)? {
            let found = expand(&include, files).map_err(|message| Problem {
                file: file.clone(),
                line: include.line,
                message,
            })?;
            waiting.extend(found.into_iter().map(|found| (found, file.clone(), include.line)));
        }
    }
    Ok(sources)
}

/// The files that an entry names.
fn expand(include: &Include, files: &dyn RecipeFiles) -> Result<Vec<String>, String> {
    if !include.pattern.contains(['*', '?', '[']) {
        return Ok(vec![include.pattern.clone()]);
    }
    let directory = include.pattern.rsplit_once('/').map_or("", |(directory, _)| directory);
    let all = files.list(directory).map_err(|problem| format!("`{}`: {problem}", include.written))?;
    let paths: Vec<String> = all
        .iter()
        .map(|name| if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") })
        .collect();
    let found: Vec<String> = include.matching(paths.iter()).collect();
    if found.is_empty() { Err(format!("no file fits `{}`", include.written)) } else { Ok(found) }
}

/// The text of a file of the recipe.
pub fn text(file: &str, files: &dyn RecipeFiles) -> Result<String, String> {
    match files.kind(file) {
        Ok(Some(FileKind::File)) => {}
        Ok(None) => return Err(format!("there is no file `{file}` beside the recipe")),
        Ok(Some(_)) => return Err(format!("`{file}` is not a file")),
        Err(problem) => return Err(format!("`{file}` cannot be used: {problem}")),
    }
    let bytes =
        files.read(file, MAX_FILE).map_err(|problem: FileProblem| format!("`{file}` cannot be used: {problem}"))?;
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        format!("`{file}` is not a text in UTF-8 (line {line})")
    })
}
