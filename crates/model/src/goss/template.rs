//! Templates: the simple forms of Go's `text/template` that goss documents. Everything else is refused with its line.
//!
//! `{{ .Vars.a.b }}`, `{{ .Env.X }}`, `{{ getEnv "X" "default" }}`, a quoted text or a number, each with `| toUpper` and `| toLower`
//! behind it, comments, and `{{-`, `-}}` that take the space around. What is not there is an error, as in goss
//! (`missingkey=error`).

use std::{borrow::Cow, collections::BTreeMap};

use super::{Problem, value::Value};

/// A text may grow to so many bytes.
const MAX_FILLED: usize = 4 << 20;

/// Fills in a text. Lines stay where they are, but where a value has several.
pub(super) fn fill<'t>(
    file: &str,
    text: &'t str,
    vars: &Value,
    environment: &BTreeMap<String, String>,
) -> Result<Cow<'t, str>, Problem> {
    if !text.contains("{{") {
        return Ok(Cow::Borrowed(text));
    }
    let mut filled = String::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(start) = rest.find("{{") {
        let before = &rest[..start];
        line += before.matches('\n').count();
        let begins = line;
        let problem = |message: String| Problem { file: file.to_owned(), line: begins, message };
        let inner = &rest[start + 2..];
        let end = ending(inner).ok_or_else(|| problem("a template's `{{` has no `}}`".to_owned()))?;
        let (action, after) = (&inner[..end], &inner[end + 2..]);
        line += action.matches('\n').count();
        let (trim_left, action) = action.strip_prefix("- ").map_or((false, action), |action| (true, action));
        let (trim_right, action) = action.strip_suffix(" -").map_or((false, action), |action| (true, action));
        filled.push_str(if trim_left { before.trim_end() } else { before });
        filled.push_str(&value(action.trim(), vars, environment).map_err(problem)?);
        if filled.len() > MAX_FILLED {
            return Err(problem(format!("filled in, the file is longer than {MAX_FILLED} bytes")));
        }
        rest = if trim_right { after.trim_start() } else { after };
        line += after[..after.len() - rest.len()].matches('\n').count();
    }
    filled.push_str(rest);
    Ok(Cow::Owned(filled))
}

/// Where an action ends; not inside of a quoted text or a comment.
fn ending(action: &str) -> Option<usize> {
    if action.trim_start_matches("- ").starts_with("/*") {
        let close = action.find("*/")? + 2;
        return Some(close + action[close..].find("}}")?);
    }
    let (mut quote, mut escaped) = (None, false);
    for (index, c) in action.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), _) if open == c => quote = None,
            (None, '"' | '`') => quote = Some(c),
            (None, '}') if action[index..].starts_with("}}") => return Some(index),
            _ => {}
        }
    }
    None
}

fn value(action: &str, vars: &Value, environment: &BTreeMap<String, String>) -> Result<String, String> {
    if action.starts_with("/*") && action.ends_with("*/") {
        return Ok(String::new());
    }
    let mut steps = words(action)?.into_iter();
    let first = steps.next().unwrap_or_default();
    let mut text = operand(&first, action, vars, environment)?;
    for step in steps {
        text = match step.as_slice() {
            [name] if name == "toUpper" || name == "upper" => text.to_uppercase(),
            [name] if name == "toLower" || name == "lower" => text.to_lowercase(),
            _ => return Err(unsupported(action)),
        };
    }
    Ok(text)
}

fn unsupported(action: &str) -> String {
    let action: String = action.chars().take(60).collect();
    format!(
        "the template `{{{{ {action} }}}}` is not supported: `.Vars.x`, `.Env.X` and `getEnv \"X\"` are, with `| toUpper` and `| toLower`"
    )
}

/// The words of each step of a pipeline; a quoted text is one word that still begins with its quote.
fn words(action: &str) -> Result<Vec<Vec<String>>, String> {
    let mut steps = vec![Vec::new()];
    let mut chars = action.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => {}
            '|' => steps.push(Vec::new()),
            '"' | '`' => {
                let mut word = String::from('"');
                loop {
                    match chars.next() {
                        None => return Err(unsupported(action)),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => word.push(match chars.next() {
                            Some('n') => '\n',
                            Some('t') => '\t',
                            Some(plain @ ('"' | '\\')) => plain,
                            _ => return Err(unsupported(action)),
                        }),
                        Some(other) => word.push(other),
                    }
                }
                steps.last_mut().expect("one step").push(word);
            }
            _ => {
                let mut word = String::from(c);
                while let Some(next) = chars.next_if(|next| !next.is_whitespace() && !"|\"`".contains(*next)) {
                    word.push(next);
                }
                steps.last_mut().expect("one step").push(word);
            }
        }
    }
    Ok(steps)
}

fn operand(
    words: &[String],
    action: &str,
    vars: &Value,
    environment: &BTreeMap<String, String>,
) -> Result<String, String> {
    let quoted = |word: &String| word.strip_prefix('"').map(str::to_owned);
    match words {
        [word] if word.starts_with('"') => Ok(quoted(word).unwrap_or_default()),
        [word] if word.parse::<i64>().is_ok() => Ok(word.clone()),
        [word] => match (word.strip_prefix(".Vars."), word.strip_prefix(".Env.")) {
            (Some(path), _) => lookup(vars, path).map(Value::printed).ok_or_else(|| missing(word, "`vars`")),
            (_, Some(name)) => environment.get(name).cloned().ok_or_else(|| missing(word, "`environment`")),
            _ => Err(unsupported(action)),
        },
        [get, name, default @ ..] if get == "getEnv" && default.len() <= 1 => {
            let name = quoted(name).ok_or_else(|| unsupported(action))?;
            let set = environment.get(&name).filter(|value| !value.is_empty()).cloned();
            Ok(set.or_else(|| default.first().and_then(quoted)).unwrap_or_default())
        }
        _ => Err(unsupported(action)),
    }
}

fn missing(word: &str, place: &str) -> String {
    format!("the template names `{word}`, which the test's {place} does not have")
}

fn lookup<'v>(vars: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(vars, |value, key| match value {
        Value::Map(entries) => entries.get(key),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        let vars = super::super::yaml::parse("v", "{port: 80, db: {name: App}}").unwrap().value();
        let environment = BTreeMap::from([("OS".to_owned(), "debian".to_owned())]);
        fill("goss.yaml", text, &vars, &environment).map(Cow::into_owned).map_err(|problem| problem.to_string())
    }

    #[test]
    fn unit_the_simple_forms_are_filled_in() {
        for (text, wanted) in [
            ("a: 1", "a: 1"),
            ("tcp:{{ .Vars.port }}:", "tcp:80:"),
            ("{{.Vars.db.name | toUpper}}", "APP"),
            (
                "{{ .Env.OS }}-{{ getEnv \"OS\" \"x\" }}-{{ getEnv \"NO\" \"d}}\" }}-{{ getEnv `NO` }}.",
                "debian-debian-d}}-.",
            ),
            ("a\n{{- /* a }} comment */ -}}\n b", "ab"),
            ("{{ \"x\\\"y\" }}{{ 7 }}", "x\"y7"),
        ] {
            assert_eq!(filled(text), Ok(wanted.to_owned()), "{text}");
        }
    }

    #[test]
    fn unit_other_forms_are_refused_with_their_line() {
        for (text, line, words) in [
            ("a: 1\n{{ range .Vars.users }}", 2, "`{{ range .Vars.users }}` is not supported"),
            ("\n\n{{ .Vars.none }}", 3, "`.Vars.none`, which the test's `vars` does not have"),
            ("{{ .Env.HOME }}", 1, "`.Env.HOME`"),
            ("x: {{ readFile \"/etc/shadow\" }}", 1, "not supported"),
            ("{{ .Vars.port | repeat 5 }}", 1, "not supported"),
            ("{{ .Vars.port", 1, "no `}}`"),
        ] {
            let error = filled(text).unwrap_err();
            assert!(error.starts_with(&format!("goss.yaml:{line}: ")) && error.contains(words), "{error}");
        }
    }
}
