//! What the fuzz targets call: the files that somebody writes, those that come with a repository, and
//! what an endpoint answers.
//!
//! Nothing here may panic or hang, and whatever is wrong has a place in the text. The corpora under `fuzz/corpus` are read in the
//! ordinary tests too.

use std::collections::BTreeMap;

use crate::{
    Lock, cases,
    containerfile::{Containerfile, Kind, MAX_VALUE, ignore::Ignore},
    diagnostic::Diagnostics,
    fleet::{FleetFiles, FleetText},
    goss,
    recipe::{FileKind, FileProblem, Recipe, RecipeFiles},
    trust::Rules,
};

/// A directory in which every name is a small file, and every name that ends with `d` a directory.
struct Files;

impl RecipeFiles for Files {
    fn kind(&self, path: &str) -> Result<Option<FileKind>, FileProblem> {
        Ok(match path.len() % 7 {
            0 => None,
            _ if path.ends_with('d') => Some(FileKind::Directory),
            _ => Some(FileKind::File),
        })
    }
    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, FileProblem> {
        match path.len() as u64 > limit {
            true => Err(FileProblem::TooLong { limit }),
            false => Ok(path.as_bytes().to_vec()),
        }
    }
    fn list(&self, path: &str) -> Result<Vec<String>, FileProblem> {
        Ok(vec![format!("{path}.yaml"), "other".to_owned()])
    }
}

/// `image.toml`
pub fn recipe(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    has_places(&text, Recipe::parse(&text, "image.toml", &Files));
}

/// `fleet.toml`, and the file of an environment over it.
pub fn fleet(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    has_places(&text, crate::Fleet::parse(&text, "fleet.toml"));
    let base = "[group.web]\nimage = \"hello@dev\"\ncount = 3\n";
    let file = |text: &str, file: &str| FleetText { text: text.to_owned(), file: file.to_owned() };
    has_places(&text, FleetFiles::parse(file(base, "fleet.toml"), Some(file(&text, "fleet.staging.toml"))));
}

/// `kiln.lock`: what is read is written as it was.
pub fn lock(bytes: &[u8]) {
    if let Ok(lock) = Lock::parse(&String::from_utf8_lossy(bytes)) {
        assert_eq!(Lock::parse(&lock.render()).expect("what Kiln wrote"), lock);
    }
}

/// `trust.toml`
pub fn trust(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    has_places(&text, Rules::parse(&text, "trust.toml"));
}

/// A Containerfile: what it says, which stages it needs, and what its variables come to.
pub fn containerfile(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let read = Containerfile::parse(&text, "Containerfile");
    let plan = read.and_then(|file| {
        let plan = file.plan(&BTreeMap::new(), None)?;
        Ok((file, plan))
    });
    if let Ok((file, plan)) = &plan {
        for stage in &plan.stages {
            let mut scope = plan.scope.stage(vec![("PATH".to_owned(), "/bin".to_owned())]);
            for instruction in &file.stages[stage.index].instructions {
                match &instruction.kind {
                    Kind::Env(list) => drop(scope.set(list)),
                    Kind::Arg(list) => drop(scope.declare(list)),
                    Kind::Copy(copy) => drop(scope.expand(&copy.to)),
                    _ => {}
                }
            }
            assert!(scope.environment().iter().all(|(_, value)| value.len() <= MAX_VALUE));
        }
    }
    has_places(&text, plan);
    if let Ok(ignore) = Ignore::parse(&text) {
        assert!(!ignore.hides(""));
        let whole = ignore.hides("a/b.c") && !ignore.may_show_below("a/b.c");
        assert!(!whole || ignore.hides("a/b.c/d"));
    }
}

/// What a metrics endpoint answers: the first line names the metric.
pub fn exposition(bytes: &[u8]) {
    crate::exposition::fuzz(bytes);
}

/// A goss file that includes itself and whose variables are the file as well: whatever is wrong has a line. What is read compares
/// with a few values.
pub fn goss(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let file = "goss.yaml".to_owned();
    let environment = [("X".to_owned(), "x".to_owned())].into();
    for vars in [None, Some(goss::Vars { file: "vars.yaml".to_owned(), text: text.clone() })] {
        let files = [(file.clone(), text.clone())].into();
        let sources = goss::Sources {
            file: file.clone(),
            files,
            vars,
            environment: std::collections::BTreeMap::clone(&environment),
        };
        match sources.read() {
            Err(problems) => assert!(problems.iter().all(|problem| problem.line >= 1 && !problem.message.is_empty())),
            Ok(resources) => resources.iter().for_each(compared),
        }
    }
}

fn compared(resource: &goss::Resource) {
    let values = [
        goss::Value::Null,
        goss::Value::Bool(true),
        goss::Value::Int(7),
        goss::Value::Float(1e300),
        goss::Value::Text("{\"a\": [1, {\"b\": \"1.2.3\"}]}\n".to_owned()),
        goss::Value::Texts(vec!["1.2.3".to_owned(), String::new()]),
    ];
    for value in values {
        let judged = goss::judge(resource, |_| Ok(value.clone()), str::to_owned);
        assert_eq!(judged.len(), resource.checks.len());
    }
}

/// What programs with tests of their own say: TAP and JUnit XML.
pub fn cases(bytes: &[u8]) {
    let tap = cases::tap::parse(&String::from_utf8_lossy(bytes));
    for told in [tap, cases::junit::parse(bytes)] {
        assert!(told.cases.len() <= cases::MAX_CASES + 1);
        assert!(!told.cases.is_empty() || !told.problems.is_empty(), "nothing told is told");
    }
}

fn has_places<T>(text: &str, read: Result<T, Diagnostics>) {
    let Err(found) = read else { return };
    assert!(!found.diagnostics.is_empty());
    for wrong in &found.diagnostics {
        assert!(wrong.span.end <= text.len() && text.is_char_boundary(wrong.span.start), "{wrong:?}");
        assert!(wrong.line >= 1 && !wrong.message.is_empty() && !wrong.help.is_empty(), "{wrong:?}");
    }
    assert!(!found.render(false, 80).is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_what_was_fuzzed_is_read_without_fault() {
        let targets = [
            ("recipe", recipe as fn(&[u8])),
            ("fleet", fleet),
            ("lock", lock),
            ("trust", trust),
            ("exposition", exposition),
            ("containerfile", containerfile),
            ("goss", goss),
            ("cases", cases),
        ];
        for (target, read) in targets {
            let directory = format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
            let files: Vec<_> = std::fs::read_dir(directory).expect("a corpus").flatten().collect();
            assert!(!files.is_empty(), "{target} has no corpus");
            files.iter().for_each(|file| read(&std::fs::read(file.path()).expect("readable")));
        }
    }
}
