//! Every instruction of a Containerfile wrong in turn: what is said, and that all of it is said at once.

use std::collections::BTreeMap;

use kiln_model::containerfile::Containerfile;

/// Everything found in each of these instructions of a stage.
fn wrong(instructions: &[&str]) -> String {
    let mut out = String::new();
    for text in instructions {
        let whole = if text.contains("FROM") { (*text).to_owned() } else { format!("FROM scratch\n{text}\n") };
        let file = Containerfile::parse(&whole, "Containerfile");
        let faults = file.and_then(|file| file.plan(&BTreeMap::new(), None).map(drop)).err();
        let faults = faults.unwrap_or_else(|| panic!("this is accepted:\n{text}"));
        out += &format!("{text}\n");
        for fault in &faults.diagnostics {
            out += &format!("  {}:{}: {}\n    help: {}\n", fault.line, fault.column, fault.message, fault.help);
        }
    }
    out
}

#[test]
fn unit_every_instruction_wrong_in_turn() {
    insta::assert_snapshot!(wrong(&[
        "FRM scratch\nFROM scratch",
        "FROM",
        "FROM a b",
        "FROM a AS 1x",
        "FROM a AS x\nFROM b AS X",
        "FROM --platform=linux/s390x a",
        "FROM --plattform=linux a",
        "FROM A:b",
        "FROM $NONE",
        "FROM kiln:No_Name",
        "FROM oci:../x",
        "RUN",
        "RUN --network=host true",
        "RUN --network=x true",
        "RUN --security=insecure true",
        "RUN --mount=type=ssh true",
        "RUN --mount=type=cahce,target=/x true",
        "RUN --mount=type=cache true",
        "RUN --mount=type=cache,target=/x,size=1 true",
        "RUN --mount=type=cache,target=/x,sharing=all,mode=9 true",
        "RUN --mount=type=secret true",
        "RUN --mount=type=tmpfs,target=/x,size=lots true",
        "RUN --mount=type=bind,target=/x,form=a true",
        "RUN <<EOF\nx",
        "CMD",
        "LABEL a",
        "LABEL a=b =c",
        "MAINTAINER",
        "EXPOSE",
        "EXPOSE http 80/tcpp 0",
        "ENV",
        "ENV a",
        "ENV a=1 b",
        "ENV a=${b",
        "ENV a=\"b",
        "ADD a",
        "ADD https://example.org/x /x",
        "ADD --checksum=md5:1 https://example.org/x /x",
        "ADD https://example.org/a.git /x",
        "ADD --keep-git-dir a /x",
        "COPY a",
        "COPY a b c",
        "COPY --chmod=rwx a /b",
        "COPY --form=x a /b",
        "COPY --from=$x a /b",
        "COPY --from=7 a /b",
        "FROM scratch\nCOPY --from=later a /b\nFROM scratch AS later",
        "COPY --parents a /b",
        "ENTRYPOINT",
        "ENTRYPOINT --x a",
        "VOLUME",
        "VOLUME []",
        "USER",
        "WORKDIR",
        "ARG",
        "ARG 1a=b",
        "ARG a=${b:x}",
        "ONBUILD RUN true",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "HEALTHCHECK curl localhost",
        "HEALTHCHECK --interval=often CMD true",
        "HEALTHCHECK --retries=few CMD true",
        "SHELL",
        "SHELL /bin/bash -c",
        "# syntax=example.org/other:1\nFROM scratch",
        "# escape=x\nFROM scratch",
        "USER early\nFROM scratch",
    ]));
}

#[test]
fn unit_everything_wrong_is_told_at_once_with_its_line() {
    let text = "FROM scratch\nRUN --network=host a\nCOPY b\n\nWORKDR /x\nENV c=${\nONBUILD USER d\n";
    let faults = Containerfile::parse(text, "docker/Dockerfile").expect_err("wrong");
    insta::assert_snapshot!(faults.render(false, 100));
    assert_eq!(faults.diagnostics.iter().map(|fault| fault.line).collect::<Vec<_>>(), [2, 3, 5, 6, 7]);
}
