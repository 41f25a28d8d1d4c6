use super::*;

const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// `name version field: value; field: value` for each line.
fn index(lines: &[&str]) -> Index {
    let text: String = lines
        .iter()
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            let (name, version) = (words.next().unwrap(), words.next().unwrap());
            let fields = words.next().unwrap_or_default().split("; ").filter(|f| !f.is_empty());
            let fields: String = fields.map(|field| format!("{field}\n")).collect();
            format!("Package: {name}\nVersion: {version}\nArchitecture: all\n{fields}Filename: pool/{name}.deb\nSize: 1\nSHA256: {HASH}\n\n")
        })
        .collect();
    Index::parse(text.as_bytes()).unwrap()
}

fn solve_with(lines: &[&str], installed: &[Installed], wanted: &[&str]) -> Result<Vec<String>, ResolveError> {
    let index = index(lines);
    let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let set = resolve_among(&[Source { archive: "main", index: &index }], installed, &wanted)?;
    Ok(set.iter().map(|package| format!("{} {}", package.name, package.version)).collect())
}

fn solve(lines: &[&str], wanted: &[&str]) -> Result<Vec<String>, ResolveError> {
    solve_with(lines, &[], wanted)
}

fn there(name: &str, version: &str) -> Installed {
    let none = String::new;
    Installed {
        name: name.into(),
        version: version.into(),
        provides: none(),
        conflicts: none(),
        breaks: none(),
        multi_arch: MultiArch::No,
    }
}

#[test]
fn essential_wanted_and_their_closure_in_order() {
    let lines = [
        "web 1 Depends: lib (>= 2), base; Recommends: extra",
        "lib 1",
        "lib 2 Pre-Depends: deep",
        "deep 1",
        "extra 1",
        "base 1 Essential: yes; Depends: lib",
        "other 1",
    ];
    assert_eq!(solve(&lines, &["web"]).unwrap(), ["base 1", "deep 1", "lib 2", "web 1"]);
    assert_eq!(solve(&lines, &[]).unwrap(), ["base 1", "deep 1", "lib 2"]);
}

#[test]
fn alternatives_prefer_what_is_needed_anyway() {
    let lines = ["web 1 Depends: a | b, c", "c 1 Depends: b", "a 1", "b 1"];
    assert_eq!(solve(&lines, &["web"]).unwrap(), ["b 1", "c 1", "web 1"]);
    let lines = ["web 1 Depends: none | a (>= 9) | b | c", "a 1", "b 1", "c 1"];
    assert_eq!(solve(&lines, &["web"]).unwrap(), ["b 1", "web 1"]);
}

#[test]
fn virtual_packages_take_the_most_important_provider() {
    let lines = ["web 1 Depends: mta", "a 1 Provides: mta", "z 1 Provides: mta; Priority: important"];
    assert_eq!(solve(&lines, &["web"]).unwrap(), ["web 1", "z 1"]);
    let error = solve(&lines, &["mta"]).unwrap_err();
    assert_eq!(error.to_string(), "`mta` is provided by several packages; name one of z, a");
}

#[test]
fn a_versioned_relation_needs_a_versioned_provider() {
    let lines =
        ["web 1 Depends: api (>= 2)", "a 1 Provides: api", "b 1 Provides: api (= 1)", "c 1 Provides: api (= 3)"];
    assert_eq!(solve(&lines, &["web"]).unwrap(), ["c 1", "web 1"]);
    assert!(solve(&lines[..3], &["web"]).is_err());
}

#[test]
fn pins_hold_and_unknown_versions_are_named() {
    let lines = ["aa 1", "aa 2", "bb 1 Depends: aa (>= 2)"];
    assert_eq!(solve(&lines, &["aa=1"]).unwrap(), ["aa 1"]);
    assert!(solve(&["aa 1"], &["aa=3"]).unwrap_err().to_string().contains("the archives have 1"));
    assert!(matches!(solve(&["aa 1", "bb 1 Depends: aa (>= 2)"], &["aa=1", "bb"]), Err(ResolveError::Unmet { .. })));
}

#[test]
fn the_newest_version_of_all_archives_wins() {
    let (main, security) = (index(&["aa 1", "bb 2"]), index(&["aa 1+deb12u1", "bb 1"]));
    let sources = [Source { archive: "main", index: &main }, Source { archive: "security", index: &security }];
    let set = resolve_among(&sources, &[], &["aa".into(), "bb".into()]).unwrap();
    let set: Vec<_> = set.iter().map(|p| (p.name.as_str(), p.archive.as_str())).collect();
    assert_eq!(set, [("aa", "security"), ("bb", "main")]);
}

#[test]
fn a_missing_package_is_named_with_who_needs_it_and_what_looks_like_it() {
    let lines = ["web 1 Depends: lib", "lib 1 Depends: gone", "gnome 1", "gone2 1"];
    let error = solve(&lines, &["web"]).unwrap_err();
    let text = "there is no package `gone` (needed by web → lib); did you mean gone2, gnome?";
    assert_eq!(error.to_string(), text);
    let error = solve(&lines, &["wib"]).unwrap_err();
    assert_eq!(error.to_string(), "there is no package `wib`; did you mean lib, web?");
}

#[test]
fn conflicts_are_avoided_where_there_is_a_choice_and_named_where_there_is_none() {
    let lines = ["web 1 Depends: a | b", "a 1 Conflicts: old", "b 1", "old 1"];
    assert_eq!(solve(&lines, &["web", "old"]).unwrap(), ["b 1", "old 1", "web 1"]);
    let lines = ["web 1 Depends: lib", "lib 1 Breaks: old (<< 2)", "old 1"];
    let error = solve(&lines, &["web", "old"]).unwrap_err();
    let text = "package `lib` (needed by web) excludes `old`: its archive says `old (<< 2)`";
    assert_eq!(error.to_string(), text);
    let own = ["mta-a 1 Provides: mta; Conflicts: mta", "web 1 Depends: mta-a"];
    assert_eq!(solve(&own, &["web"]).unwrap().len(), 2);
}

#[test]
fn qualifiers_are_honoured() {
    let lines = ["tool 1 Depends: lang:any", "lang 1 Multi-Arch: allowed", "other 1 Depends: plain:any", "plain 1"];
    assert_eq!(solve(&lines, &["tool"]).unwrap(), ["lang 1", "tool 1"]);
    assert!(solve(&lines, &["other"]).is_err());
}

#[test]
fn what_is_installed_counts_and_is_never_replaced() {
    let lines = ["web 1 Depends: lib (>= 2)", "lib 2", "base 1 Essential: yes"];
    assert_eq!(solve_with(&lines, &[there("lib", "2")], &["web"]).unwrap(), ["web 1"]);
    let error = solve_with(&lines, &[there("lib", "1")], &["web"]).unwrap_err();
    assert!(matches!(error, ResolveError::OtherVersionInstalled { .. }), "{error}");
    assert_eq!(solve_with(&lines, &[there("web", "0")], &["web"]).unwrap(), [""; 0]);
}

#[test]
fn what_is_no_name_is_refused() {
    for text in ["", "a", "Nginx", "nginx=", "nginx 1", "a;b"] {
        assert!(matches!(solve(&[], &[text]), Err(ResolveError::InvalidName(_))), "{text}");
    }
}
