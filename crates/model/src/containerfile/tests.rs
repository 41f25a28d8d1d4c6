//! Files as people write them, and as nobody should.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Containerfile {
    Containerfile::parse(text, "Containerfile").unwrap_or_else(|faults| panic!("{faults}"))
}

fn kinds(text: &str) -> Vec<Kind> {
    let file = parsed(&format!("FROM scratch\n{text}"));
    file.stages[0].instructions.iter().map(|instruction| instruction.kind.clone()).collect()
}

fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn unit_lines_go_on_with_comments_and_empty_lines_between_them() {
    let text =
        "# escape=`\n# syntax=docker/dockerfile:1\nFROM scratch\nRUN a `\n  # comment\n\n  b `\n  c\\\nUSER me\n";
    let file = parsed(text);
    let [run, user] = &file.stages[0].instructions[..] else { panic!("{file:?}") };
    assert_eq!(
        run.kind,
        Kind::Run(Box::new(Run {
            command: Command::Shell("a   b   c\\".into()),
            heredocs: vec![],
            mounts: vec![],
            network: None
        }))
    );
    assert_eq!((run.place.line, user.place.line), (4, 9));
    assert_eq!(&text[user.place.span.clone()], "USER me");
    let file = parsed("FROM scratch\r\nRUN a \\\r\n b\r\n");
    let Kind::Run(run) = &file.stages[0].instructions[0].kind else { panic!("{file:?}") };
    assert_eq!(run.command, Command::Shell("a  b".into()));
}

#[test]
fn unit_a_fault_is_shown_where_it_stands_also_in_a_line_that_goes_on() {
    let text = "FROM scratch\nENV a=1 \\\n    b=${x\n";
    let faults = Containerfile::parse(text, "Containerfile").expect_err("wrong");
    let only = &faults.diagnostics[0];
    assert_eq!((only.line, only.column, only.text.as_str()), (3, 7, "${x"));
}

#[test]
fn unit_heredocs_are_texts_of_run_and_copy() {
    let found = kinds(
        "COPY <<A <<-\"B\" /x/\none $v\nA\n\t\ttwo $v\n\tB\nRUN <<EOF\nset -e\necho\nEOF\nRUN cat <<X >/y\nz\nX\n",
    );
    let [Kind::Copy(copy), Kind::Run(script), Kind::Run(cat)] = &found[..] else { panic!("{found:?}") };
    let [CopySource::Text(a), CopySource::Text(b)] = &copy.sources[..] else { panic!("{copy:?}") };
    assert_eq!((a.name.as_str(), a.content.as_str(), a.expands), ("A", "one $v\n", true));
    assert_eq!((b.name.as_str(), b.content.as_str(), b.expands), ("B", "two $v\n", false));
    assert_eq!(script.script().map(|script| script.content.as_str()), Some("set -e\necho\n"));
    assert!(cat.script().is_none() && cat.heredocs[0].content == "z\n");
    assert_eq!(kinds("RUN echo $((1<<3)) a<<b <<<x\n").len(), 1, "none of these is a heredoc");
}

#[test]
fn unit_mounts_are_read_with_all_their_words() {
    let found = kinds(
        "RUN --mount=type=cache,dst=/c,id=x,sharing=locked,mode=0700,uid=5 --mount=target=/b,from=0,src=a,rw \
         --mount=type=tmpfs,target=/t,size=64m --mount=type=secret,id=token,env=TOKEN,required --network=none true\n",
    );
    let Kind::Run(run) = &found[0] else { panic!("{found:?}") };
    assert_eq!(run.network, Some(false));
    let kinds: Vec<_> = run.mounts.iter().map(|mount| &mount.kind).collect();
    assert!(matches!(kinds[0], MountKind::Cache { sharing: Sharing::Locked, mode: 0o700, uid: 5, writable: true, .. }));
    assert!(matches!(kinds[1], MountKind::Bind { from: Some(from), writable: true, .. } if from == "0"));
    assert!(matches!(kinds[2], MountKind::Tmpfs { size: Some(size) } if size.as_bytes() == 64 << 20));
    assert!(
        matches!(kinds[3], MountKind::Secret { id, env: Some(env), required: true, .. } if id == "token" && env == "TOKEN")
    );
    assert_eq!(run.mounts[3].target.literal(), "/run/secrets/token");
}

#[test]
fn unit_only_the_stages_that_the_wanted_one_needs_are_planned() {
    let file = parsed(
        "ARG BASE=debian:bookworm\nFROM $BASE AS one\nFROM one AS two\nFROM alpine AS unneeded\nFROM scratch AS three\n\
         COPY --from=two /a /b\nCOPY --from=busybox:1 /c /d\nFROM kiln:hello@stable AS last\nRUN --mount=from=three,target=/x true\n",
    );
    let stages = |target: Option<&str>| {
        let plan = file.plan(&given(&[]), target).expect("a plan");
        let images: Vec<_> = plan.images().iter().map(ToString::to_string).collect();
        (plan.stages.iter().map(|stage| stage.index).collect::<Vec<_>>(), images.join(" "))
    };
    let both = "docker.io/library/debian:bookworm docker.io/library/busybox:1".to_owned();
    assert_eq!(stages(None), (vec![0, 1, 3, 4], both));
    assert_eq!(stages(Some("TWO")), (vec![0, 1], "docker.io/library/debian:bookworm".to_owned()));
    assert_eq!(stages(Some("2")).0, [2]);
    let plan = file.plan(&given(&[("BASE", "oci:dir:tag")]), Some("one")).expect("a plan");
    assert_eq!(plan.images()[0].to_string(), "oci:dir:tag");
    let plan = file.plan(&given(&[]), None).expect("a plan");
    assert_eq!(plan.kiln_base().map(ToString::to_string).as_deref(), Some("hello@stable"));
    assert_eq!(
        file.undeclared(["BASE", "BASES", "http_proxy", "TARGETARCH"].into_iter()),
        [("BASES", Some("BASE".to_owned()))]
    );
}

#[test]
fn unit_arguments_have_the_scope_that_the_reference_gives_them() {
    let file = parsed("ARG V=1\nARG W=$V.0\nFROM scratch\nARG V\nARG W=stage\nARG X\nENV V=env Y=$V$X\nARG Y=arg\n");
    let plan = file.plan(&given(&[("X", "given")]), None).expect("a plan");
    let mut scope = plan.scope.stage(vec![("PATH".to_owned(), "/bin".to_owned())]);
    assert_eq!(scope.value("V"), None, "it is not declared in the stage yet");
    for instruction in &file.stages[0].instructions {
        match &instruction.kind {
            Kind::Arg(list) => scope.declare(list).expect("short"),
            Kind::Env(list) => scope.set(list).expect("short"),
            other => panic!("{other:?}"),
        }
    }
    let value = |name: &str| scope.value(name).unwrap_or_default();
    assert_eq!(["V", "W", "X", "Y", "PATH"].map(value), ["env", "stage", "given", "1given", "/bin"]);
    let env: Vec<_> = scope.environment().iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["PATH=/bin", "V=env", "Y=1given"], "arguments are no part of the image");
}

#[test]
fn unit_files_that_are_too_much_are_refused_soon() {
    let faults = |text: &str| Containerfile::parse(text, "Containerfile").expect_err("too much").to_string();
    assert!(faults(&"# \n".repeat(MAX_BYTES / 3 + 1)).contains("bytes long"));
    assert!(faults(&"FROM scratch\n".repeat(MAX_INSTRUCTIONS + 1)).contains("more than 2000 instructions"));
    assert!(faults(&"FROM scratch\n".repeat(MAX_STAGES + 1)).contains("more than 200 stages"));
    let heredocs: String = (0..70).map(|number| format!("<<E{number} ")).collect();
    let ends: String = (0..70).map(|number| format!("E{number}\n")).collect();
    assert!(faults(&format!("FROM scratch\nCOPY {heredocs}/x/\n{ends}")).contains("more than 64 heredocs"));
    let bomb: String = (0..1000).map(|_| "ARG a=${a}${a}\n").collect();
    let file = parsed(&format!("ARG a=xxxxxxxxxxxxxxxx\n{bomb}FROM $a\n"));
    let error = file.plan(&given(&[]), None).expect_err("too long").to_string();
    assert!(error.contains("Containerfile:15:1: the value is longer than 131072 bytes"), "{error}");
}

proptest! {
    #[test]
    fn unit_any_text_is_read_or_its_faults_have_places(text in "(FROM [a-z:]{0,8}( AS [a-z]{1,3})?|RUN|COPY|ADD|ENV|ARG|USER|SHELL|#|--[a-z]{1,5}|[ \t\\\\\"'$={}<a-z/]{0,12}|\n|\r\n){0,30}") {
        match Containerfile::parse(&text, "Containerfile") {
            Ok(file) => {
                for stage in &file.stages {
                    prop_assert!(stage.instructions.iter().all(|i| text.is_char_boundary(i.place.span.start) && i.place.line > 0));
                }
                drop(file.plan(&BTreeMap::new(), None));
            }
            Err(faults) => prop_assert!(faults.diagnostics.iter().all(|d| d.span.end <= text.len() && !d.help.is_empty())),
        }
    }

    #[test]
    fn unit_a_command_comes_out_as_it_went_in(words in proptest::collection::vec("[a-z0-9][a-z0-9./-]{0,7}", 1..6), breaks in proptest::collection::vec(any::<bool>(), 6)) {
        let mut text = String::from("FROM scratch\nRUN");
        for (word, new_line) in words.iter().zip(&breaks) {
            text.push_str(if *new_line { " \\\n# comment\n " } else { " " });
            text.push_str(word);
        }
        let file = parsed(&text);
        let Kind::Run(run) = &file.stages[0].instructions[0].kind else { panic!("{file:?}") };
        // A word that begins with `--` in front would be a flag.
        if let Command::Shell(found) = &run.command {
            prop_assert_eq!(found.split_whitespace().collect::<Vec<_>>(), words);
        }
    }
}
