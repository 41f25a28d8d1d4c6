//! Tests that somebody has already, in a recipe.
#![allow(missing_docs)]

mod common;

use common::{Files, recipe_with};
use kiln_model::{
    Recipe,
    suite::{Runner, TestKind},
};

const BASE: &str = "name = \"web\"\n[base]\ndebian = \"bookworm\"\n";

fn read(tests: &str, files: Files) -> Result<Recipe, Vec<String>> {
    let told = |wrong: kiln_model::diagnostic::Diagnostics| {
        wrong.diagnostics.iter().map(|d| format!("{}: {}", d.line, d.message)).collect()
    };
    recipe_with(&format!("{BASE}{tests}"), &files).map_err(told)
}

fn kinds(recipe: &Recipe) -> Vec<(&str, &TestKind)> {
    recipe.suite.tests.iter().map(|test| (test.name.as_str(), &test.kind)).collect()
}

#[test]
fn unit_every_dialect_is_read() {
    let tests = "[[test]]\ngoss = \"tests/goss.yaml\"\nvars = \"tests/vars.yaml\"\nenvironment = { OS = \"debian\" }\n\
                 [[test]]\ntap = \"bats --tap /opt\"\nuser = \"app\"\n[[test]]\ntap = { script = \"tests/check.sh\" }\narguments = [\"-v\"]\n\
                 [[test]]\njunit = [\"suite\"]\nreport = \"/tmp/r.xml\"\n[[test]]\ntestinfra = \"tests/test_web.py\"\nfiles = [\"tests/helpers.py\"]\n";
    let files = Files::default()
        .with(
            "tests/goss.yaml",
            "gossfile:\n  more/*.yaml: {}\nmatching:\n  a: {content: '{{ .Vars.a }}{{ .Env.OS }}', matches: 1debian}\n",
        )
        .with("tests/more/", "")
        .with("tests/more/one.yaml", "file:\n  /etc/passwd: {exists: true}\n")
        .with("tests/more/two.txt", "nonsense: true\n")
        .with("tests/vars.yaml", "a: 1\n")
        .with("tests/test_web.py", "def test_a(host): pass\n")
        .with("tests/conftest.py", "\n")
        .with("tests/helpers.py", "\n");
    let recipe = read(tests, files).unwrap();
    let kinds = kinds(&recipe);
    let names: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["goss", "tap bats --tap /opt", "tap tests/check.sh -v", "junit suite", "testinfra"]);
    let TestKind::Goss(sources) = kinds[0].1 else { panic!("{kinds:?}") };
    assert_eq!(sources.files.keys().collect::<Vec<_>>(), ["tests/goss.yaml", "tests/more/one.yaml"]);
    assert_eq!(sources.read().unwrap().len(), 2);
    let TestKind::Tap { run: Runner::Command { user, .. } } = kinds[1].1 else { panic!("{kinds:?}") };
    assert_eq!(user, "app");
    let TestKind::Testinfra { files, .. } = kinds[4].1 else { panic!("{kinds:?}") };
    assert_eq!(files.keys().collect::<Vec<_>>(), ["tests/conftest.py", "tests/helpers.py", "tests/test_web.py"]);
    let within: Vec<u64> = recipe.suite.tests.iter().map(|test| test.within.as_secs()).collect();
    assert_eq!(within, [10, 300, 300, 300, 300]);
}

#[test]
fn unit_files_of_tests_are_part_of_the_suite() {
    let digest = |included: &'static str| {
        let files = Files::default().with("g.yaml", "gossfile:\n  h.yaml: {}\n").with("h.yaml", included);
        read("[[test]]\ngoss = \"g.yaml\"\n", files).unwrap().suite.digest()
    };
    let one = "file:\n  /a: {exists: true}\n";
    assert_eq!(digest(one), digest(one));
    assert_ne!(digest(one), digest("file:\n  /a: {exists: false}\n"));
    let helper = |text: &'static str| {
        let files = Files::default().with("t.py", "def test_a(host): pass\n").with("conftest.py", text);
        read("[[test]]\ntestinfra = \"t.py\"\n", files).unwrap().suite.digest()
    };
    assert_ne!(helper("x = 1\n"), helper("x = 2\n"));
}

#[test]
fn unit_a_wrong_goss_file_is_told_with_file_and_line() {
    for (files, wanted) in [
        (
            vec![("g.yaml", "file:\n  /a:\n    exists: true\n    modes: 1\n")],
            "5: g.yaml:4: `modes` is not an attribute of a file",
        ),
        (vec![("g.yaml", "fille:\n  /a: {exists: true}\n")], "5: g.yaml:1: `fille` is not a kind of resource"),
        (vec![("g.yaml", "file:\n  /a: {exists: {nott: true}}\n")], "5: g.yaml:2: `nott` is not a matcher"),
        (
            vec![("g.yaml", "\n{{ range .Vars.x }}\n")],
            "5: g.yaml:2: the template `{{ range .Vars.x }}` is not supported",
        ),
        (vec![("g.yaml", "gossfile:\n  h.yaml: {}\n"), ("h.yaml", "a: b: c\n")], "5: h.yaml:1: this is not YAML"),
        (vec![("g.yaml", "gossfile:\n  h.yaml: {}\n")], "5: g.yaml:2: there is no file `h.yaml`"),
        (
            vec![("g.yaml", "gossfile:\n  ../h.yaml: {}\n")],
            "5: g.yaml:2: `../h.yaml` leads out of the recipe's directory",
        ),
        (vec![("g.yaml", "gossfile:\n  /etc/goss.yaml: {}\n")], "5: g.yaml:2: `/etc/goss.yaml` is absolute"),
        (vec![("g.yaml", "gossfile:\n  none*.yaml: {}\n")], "5: g.yaml:2: no file fits `none*.yaml`"),
        (
            vec![("g.yaml", "gossfile:\n  g.yaml: {}\nfile: {/a: {exists: true}}\n")],
            "5: g.yaml:1: more than 50 files are included",
        ),
    ] {
        let files = files.into_iter().fold(Files::default(), |files, (path, text)| files.with(path, text));
        let wrong = read("[[test]]\ngoss = \"g.yaml\"\n", files).unwrap_err();
        assert!(wrong[0].starts_with(wanted), "{wanted}: {wrong:?}");
    }
    let wrong = read("[[test]]\ngoss = \"tests/binary\"\n", Files::default()).unwrap_err();
    assert!(wrong[0].contains("not a text in UTF-8 (line 1)"), "{wrong:?}");
    let wrong = read("[[test]]\ntap = \"x\"\narguments = [\"a\"]\n", Files::default()).unwrap_err();
    assert!(wrong[0].contains("`arguments` has no meaning here"), "{wrong:?}");
    let wrong = read("[[test]]\njunit = { script = \"tests/check.sh\" }\n", Files::default()).unwrap_err();
    assert!(wrong[0].contains("has no `report`"), "{wrong:?}");
}
