//! Which instructions are run again, what only some of them see, and what stays behind.

use super::world::{World, text};

/// Whether each step was known.
fn cached(baked: &serde_json::Value) -> Vec<(String, bool)> {
    let steps = baked["steps"].as_array().expect("a list");
    steps
        .iter()
        .map(|step| (step["name"].as_str().expect("a name").to_owned(), step["cached"].as_bool().expect("a flag")))
        .collect()
}

fn again(baked: &serde_json::Value) -> Vec<String> {
    cached(baked).into_iter().filter(|(name, cached)| !cached && name != "mount points").map(|(name, _)| name).collect()
}

#[test]
fn root_unchanged_instructions_are_not_run_again() {
    let world = World::new();
    world.write("a", "a");
    world.write("b", "b");
    let file = |late: &str| {
        format!(
            "FROM oci:base:v1 AS build\nCOPY a /a\nRUN cat /a > /made\nFROM oci:base:v1\nCOPY --from=build /made /made\nCOPY b /b\nRUN cat /b > /{late}\n"
        )
    };
    world.recipe(&file("late"), "", "");
    let first = world.bake();
    assert_eq!(again(&first).len(), 6, "{first:#}");
    assert!(again(&world.bake()).is_empty());
    world.recipe(&format!("# a comment moves every line\n{}", file("late")), "", "");
    assert_eq!(world.bake()["image"], first["image"], "comments count for nothing");
    world.recipe(&file("other"), "", "");
    assert_eq!(again(&world.bake()), ["[1] RUN cat /b > /other"]);
    world.write("b", "changed");
    assert_eq!(again(&world.bake()), ["[1] COPY b /b", "[1] RUN cat /b > /other"]);
    // What the first stage makes anew is the same, so that what takes it from there is known.
    world.recipe(&file("other").replace("cat /a > /made", "cat /a  > /made"), "", "");
    let rebuilt = world.bake();
    assert_eq!(again(&rebuilt), ["[build] RUN cat /a > /made"], "{rebuilt:#}");
    let reproducible = world.kiln(&["bake", "--check-reproducible"]);
    assert!(reproducible.status.success(), "{}", text(&reproducible.stderr));
}

#[test]
fn root_stages_that_the_target_does_not_need_are_not_built() {
    let world = World::new();
    world.recipe(
        "FROM oci:base:v1 AS one\nRUN echo one > /which\nFROM oci:missing:v1 AS broken\nRUN false\nFROM one AS two\nRUN echo two > /which\n",
        "target = \"two\"",
        "",
    );
    let baked = world.bake();
    assert_eq!(world.read(&baked, "/which"), "two\n");
    world.recipe("FROM oci:base:v1 AS one\nRUN echo one > /which\nFROM one\nRUN false\n", "target = \"one\"", "");
    assert_eq!(world.read(&world.bake(), "/which"), "one\n");
}

#[test]
fn root_mounts_are_seen_by_their_command_and_by_no_image() {
    let world = World::new();
    world.write("in/file", "from the context");
    world.write("token", "s3cret");
    let secrets = "secrets = { token = \"token\" }\nnetwork = \"off\"";
    let file = |number: u32| {
        format!(
            "FROM oci:base:v1 AS other\nRUN mkdir /o && echo other > /o/x\nFROM oci:base:v1\nWORKDIR /w\n\
         RUN --mount=type=bind,source=in,target=/ctx --mount=from=other,source=/o,target=o,rw \
         --mount=type=cache,target=/var/cache/c,id=c --mount=type=tmpfs,target=/mem,size=1m \
         --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN,target=/unused \
         cat /ctx/file o/x /run/secrets/token > /seen && echo $TOKEN >> /seen && echo new > o/new && touch /mem/x && \
         stat -c %a /run/secrets/token >> /seen && ! touch /ctx/new && echo {number} >> /var/cache/c/runs && cat /var/cache/c/runs >> /seen\n\
         RUN test ! -e /ctx && test ! -e o/new && test ! -e /var/cache/c/runs && test ! -e /run/secrets/token\n"
        )
    };
    world.recipe(&file(1), secrets, "");
    let baked = world.bake();
    assert_eq!(world.read(&baked, "/seen"), "from the contextother\ns3crets3cret\n400\n1\n");
    world.write("token", "changed");
    assert!(again(&world.bake()).is_empty(), "what a secret is decides nothing");
    world.recipe(&file(2), secrets, "");
    let baked = world.bake();
    assert_eq!(world.read(&baked, "/seen"), "from the contextother\nchangedchanged\n400\n1\n2\n", "the cache is kept");
    let (root, _) = world.unpacked(&baked);
    for path in ["ctx", "w/o", "var/cache", "mem", "unused"] {
        assert!(!root.join(path).exists(), "{path} was left");
    }
}

#[test]
fn root_heredocs_and_temporary_files_go_from_step_to_step_and_into_no_image() {
    let world = World::new();
    let file = "FROM oci:base:v1\nARG WHO=me\nCOPY <<A <<\"B\" /etc/\nto $WHO\nA\nto $WHO\nB\n\
        COPY one /tmp/one\nRUN cat /tmp/one > /one && echo left > /tmp/left\nRUN cat /tmp/left > /two\n\
        RUN <<EOF\n#!/bin/cat\nscript\nEOF\nRUN <<EOF\nset -e\necho one > /three\necho $WHO >> /three\nEOF\nRUN cat <<EOF > /four\nfour $WHO\nEOF\n";
    world.write("one", "one");
    world.recipe(file, "", "[[step]]\nrun = \"cat /one > /five; test -z \\\"${WHO-}\\\"; echo $GREETING >> /five\"\n");
    let baked = world.bake();
    let (root, _) = world.unpacked(&baked);
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert_eq!([read("etc/A"), read("etc/B")], ["to me\n", "to $WHO\n"]);
    assert_eq!([read("one"), read("two"), read("three"), read("four")], ["one", "left\n", "one\nme\n", "four me\n"]);
    assert_eq!(read("five"), "onehi\n", "steps of the recipe follow");
    assert_eq!(std::fs::read_dir(root.join("tmp")).expect("there").count(), 0);
}

#[test]
fn root_an_image_of_this_host_can_be_what_a_stage_starts_from() {
    let world = World::new();
    world.write(
        "first/image.toml",
        "name = \"first\"\n[base]\noci = \"oci:base:v1\"\n[[step]]\nrun = \"echo kiln > /made\"\n",
    );
    std::os::unix::fs::symlink("../base", world.dir().join("first/base")).expect("a link");
    std::fs::remove_file(world.dir().join("first/base")).expect("removed");
    super::world::run(
        std::process::Command::new("cp").arg("-a").arg(world.dir().join("base")).arg(world.dir().join("first/base")),
    );
    let first = world.kiln(&["bake", "first", "--channel", "dev"]);
    let first = if first.status.success() { first } else { world.kiln(&["bake", "first"]) };
    assert!(first.status.success(), "{}", text(&first.stderr));
    let digest = text(&first.stdout).lines().last().expect("a digest").to_owned();
    world.recipe(&format!("FROM kiln:first@{digest}\nRUN cat /made > /again\n"), "", "");
    assert_eq!(world.read(&world.bake(), "/again"), "kiln\n");
    assert!(!world.dir().join("kiln.lock").exists(), "a digest needs no lock");
}
