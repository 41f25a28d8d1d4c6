//! What the fuzz targets call: the files that somebody writes, those that come with a repository, and
//! what an endpoint answers.
//!
//! Nothing here may panic or hang, and whatever is wrong has a place in the text. The corpora under `fuzz/corpus` are read in the
//! ordinary tests too.

use crate::{
    Lock,
    diagnostic::Diagnostics,
    fleet::{FleetFiles, FleetText},
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

/// What a metrics endpoint answers: the first line names the metric.
pub fn exposition(bytes: &[u8]) {
    crate::exposition::fuzz(bytes);
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
        ];
        for (target, read) in targets {
            let directory = format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
            let files: Vec<_> = std::fs::read_dir(directory).expect("a corpus").flatten().collect();
            assert!(!files.is_empty(), "{target} has no corpus");
            files.iter().for_each(|file| read(&std::fs::read(file.path()).expect("readable")));
        }
    }
}
