//! From files to resources: templates, YAML, included files, sections.

use std::collections::BTreeMap;

use super::{
    MAX_FILES, Problem, Resource, Sources,
    attributes::{Found, KINDS, section},
    template,
    value::Value,
    yaml::{self, Node},
};

/// goss's own limit of files that include files.
const MAX_DEPTH: usize = 50;
/// So many problems are told.
const MAX_PROBLEMS: usize = 20;
/// The section that includes files.
const INCLUDE: &str = "gossfile";

impl Sources {
    /// The resources, in the order written; those of included files behind. Everything that is wrong is told.
    pub fn read(&self) -> Result<Vec<Resource>, Vec<Problem>> {
        let vars = self.vars().map_err(|problem| vec![problem])?;
        let mut reading = Reading { sources: self, vars, found: Found::default(), read: 0 };
        reading.file(&self.file, 0);
        let Found { resources, mut problems } = reading.found;
        problems.truncate(MAX_PROBLEMS);
        if !problems.is_empty() {
            return Err(problems);
        }
        if resources.is_empty() {
            let message = "there is no resource to look at".to_owned();
            return Err(vec![Problem { file: self.file.clone(), line: 1, message }]);
        }
        Ok(resources.into_iter().map(|(_, resource)| resource).collect())
    }

    pub(super) fn vars(&self) -> Result<Value, Problem> {
        self.vars
            .as_ref()
            .map_or(Ok(Value::Map(BTreeMap::new())), |vars| Ok(yaml::parse(&vars.file, &vars.text)?.value()))
    }
}

struct Reading<'a> {
    sources: &'a Sources,
    vars: Value,
    found: Found,
    read: usize,
}

impl Reading<'_> {
    fn file(&mut self, file: &str, depth: usize) {
        match self.parse(file, depth) {
            Ok(root) => self.sections(file, &root, depth),
            Err(problem) => self.found.problems.push(problem),
        }
    }

    fn parse(&mut self, file: &str, depth: usize) -> Result<Node, Problem> {
        let problem = |message: String| Problem { file: file.to_owned(), line: 1, message };
        self.read += 1;
        if depth >= MAX_DEPTH || self.read > MAX_FILES {
            return Err(problem(format!("more than {MAX_FILES} files are included: does one include itself?")));
        }
        let text = self.sources.files.get(file).ok_or_else(|| problem("the file is not there".to_owned()))?;
        let text = template::fill(file, text, &self.vars, &self.sources.environment)?;
        yaml::parse(file, &text)
    }

    fn sections(&mut self, file: &str, root: &Node, depth: usize) {
        if root.is_null() {
            return;
        }
        let Some(entries) = root.entries() else {
            let message = format!("a goss file is a map from kinds of resources, and this is {}", root.described());
            return self.found.problems.push(Problem { file: file.to_owned(), line: root.line, message });
        };
        for (key, node) in entries {
            match KINDS.iter().find(|kind| kind.key == key.text) {
                Some(kind) => section(file, kind, node, &mut self.found),
                None if key.text == INCLUDE => {}
                None => self.found.problems.push(Problem {
                    file: file.to_owned(),
                    line: key.line,
                    message: unknown(&key.text),
                }),
            }
        }
        let includes = super::include::named(file, root);
        match includes {
            Ok(mut includes) => {
                includes.sort_by(|a, b| a.written.cmp(&b.written));
                let files = includes.iter().flat_map(|include| include.matching(self.sources.files.keys()));
                files.collect::<Vec<_>>().iter().for_each(|file| self.file(file, depth + 1));
            }
            Err(problem) => self.found.problems.push(problem),
        }
    }
}

fn unknown(key: &str) -> String {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.key).chain([INCLUDE]).collect();
    let meant = crate::text::suggest(&key.replace('_', "-"), &names);
    let hint = meant.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
    format!("`{key}` is not a kind of resource of goss 0.4{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> Sources {
        Sources {
            file: "goss.yaml".into(),
            files: BTreeMap::from([("goss.yaml".into(), text.into())]),
            ..Sources::default()
        }
    }

    fn problems(text: &str) -> Vec<String> {
        sources(text).read().unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unit_resources_have_the_names_that_goss_gives_them() {
        let text = "file:\n  /etc/passwd:\n    exists: true\n    linked-to: x\n  other:\n    path: /etc/group\n    exists: true\n\
                    command:\n  named:\n    exec: ls\n    exit-status: '0'\n    stdout: []\n    stderr: ''\n";
        let resources = sources(text).read().unwrap();
        let names: Vec<_> = resources
            .iter()
            .map(|r| format!("{}: {}: {:?}", r.kind, r.id, r.checks.iter().map(|c| c.property).collect::<Vec<_>>()))
            .collect();
        assert_eq!(
            names,
            [
                r#"File: /etc/passwd: ["exists", "linkedto"]"#,
                r#"File: other: /etc/group: ["exists"]"#,
                r#"Command: named: ["exit-status", "stderr"]"#,
            ]
        );
    }

    #[test]
    fn unit_everything_that_is_wrong_is_told_with_its_line() {
        let text = "file:\n  /a:\n    exists: true\n    modes: '0644'\n  /b:\n    mode: '0644'\nfiles: {}\nuser:\n  root:\n    \
                    exists: {have-prefx: a}\n";
        assert_eq!(
            problems(text),
            [
                "goss.yaml:4: `modes` is not an attribute of a file in goss 0.4 (did you mean `mode`?)",
                "goss.yaml:5: file `/b` has no `exists`, which it must have",
                "goss.yaml:7: `files` is not a kind of resource of goss 0.4 (did you mean `file`?)",
                "goss.yaml:10: `have-prefx` is not a matcher of goss 0.4 (did you mean `have-prefix`?)",
            ]
        );
        assert_eq!(problems("package:\n  nginx:\n"), ["goss.yaml:2: package `nginx` has no attributes"]);
        assert_eq!(problems(""), ["goss.yaml:1: there is no resource to look at"]);
        assert_eq!(problems("[a]"), ["goss.yaml:1: a goss file is a map from kinds of resources, and this is a list"]);
    }

    #[test]
    fn unit_too_much_is_refused() {
        let many: String = (0..1500).map(|n| format!("  /f{n}: {{exists: true}}\n")).collect();
        assert!(problems(&format!("file:\n{many}"))[0].contains("more than 1000 resources"));
        let huge = problems("command:\n  ls: {exit-status: 0, timeout: 99999999999999999999}\n");
        assert!(huge[0].starts_with("goss.yaml:2: `timeout` is a number of milliseconds"), "{huge:?}");
    }
}
