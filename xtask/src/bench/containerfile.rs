//! A Containerfile of which a late step changes, beside buildah with its cache: the same file, the same base, the same result.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use serde_json::Value;

use super::{
    Bench, median,
    report::{Row, Target},
};
use crate::{Outcome, command::output};

/// Twelve steps that stay, and two that change.
const FILE: &str = "FROM oci:base:t AS build
WORKDIR /build
COPY src/ src/
RUN mkdir /out && for i in 1 2 3 4 5 6 7 8; do cat src/* > /out/$i; done
RUN sha256sum /out/* > /out/sums
FROM oci:base:t
ENV MODE=fast
RUN mkdir -p /srv/app /srv/data
COPY --from=build /out/ /srv/app/
COPY src/ /srv/src/
RUN cp -r /srv/src /srv/data/
RUN chmod -R go-w /srv && chown -R 33:33 /srv/data
COPY page.html /srv/page.html
RUN sha256sum /srv/page.html > /srv/sum
EXPOSE 80
CMD [\"/bin/sh\"]
";
/// Programs of the base.
const APPLETS: [&str; 9] = ["sh", "cat", "cp", "mkdir", "chmod", "chown", "sha256sum", "rm", "ls"];

/// Where programs that build mount what every server has of its own, and leave what they mounted over.
const OWN: [&str; 8] = ["/dev", "/etc", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/run", "/sys"];

/// Rebuilds after a late change.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let world = World { bench, work: bench.work.join("containerfile") };
    world.make()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first build of each fills its cache.
    for round in 0..=bench.rounds {
        fs::write(world.project().join("page.html"), format!("page {round}\n"))?;
        let kiln = world.kiln_bakes(&world.project())?;
        let buildah = world.buildah_builds()?;
        if round > 0 {
            ours.push(kiln.0);
            theirs.push(buildah);
        }
        if round == bench.rounds {
            world.same(&kiln.1)?;
        }
    }
    world.clean()?;
    Ok(vec![Row {
        bench: "containerfile".into(),
        what: "a late step of a Containerfile changes: build, program start included".into(),
        kiln: median(ours),
        unit: "s".into(),
        peer: Some(("buildah bud --layers".into(), median(theirs))),
        target: Some(Target::RatioAtMost(0.25)),
        note: "two stages, eight steps with files, the last two change; buildah on overlay with chroot isolation; `kiln diff` of both results finds nothing but places of every server's own".into(),
    }])
}

struct World<'b> {
    bench: &'b Bench,
    work: PathBuf,
}

impl World<'_> {
    fn project(&self) -> PathBuf {
        self.work.join("project")
    }

    /// A base of busybox with 500 files of 20 KB, and a source of 200.
    fn make(&self) -> Outcome {
        remove(&self.work)?;
        let (tree, project) = (self.work.join("tree"), self.project());
        for dir in ["bin", "etc", "tmp", "usr/share/some"] {
            fs::create_dir_all(tree.join(dir))?;
        }
        fs::create_dir_all(project.join("src"))?;
        fs::copy("/usr/bin/busybox", tree.join("bin/busybox"))?;
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet))?;
        }
        for number in 0..500 {
            fs::write(tree.join(format!("usr/share/some/{number}")), format!("{number}\n").repeat(5000))?;
        }
        for number in 0..200 {
            fs::write(project.join(format!("src/{number}")), format!("source {number}\n").repeat(500))?;
        }
        let layout = project.join("base");
        let image = format!("{}:t", layout.display());
        output(Command::new("umoci").args(["init", "--layout"]).arg(&layout))?;
        output(Command::new("umoci").args(["new", "--image", &image]))?;
        output(Command::new("umoci").args(["insert", "--image", &image]).arg(&tree).arg("/"))?;
        output(Command::new("umoci").args(["config", "--image", &image, "--config.env", "PATH=/bin"]))?;
        fs::write(project.join("Containerfile"), FILE)?;
        fs::write(project.join(".dockerignore"), "base\n")?;
        fs::write(
            project.join("image.toml"),
            "name = \"site\"\n[base]\ncontainerfile = \"Containerfile\"\nnetwork = \"off\"\n",
        )?;
        fs::write(self.work.join("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
        Ok(())
    }

    fn kiln(&self) -> Command {
        let mut command = Command::new(&self.bench.kiln);
        command.arg("--state").arg(self.work.join("state"));
        command
    }

    /// Seconds, and the image.
    fn kiln_bakes(&self, project: &Path) -> Outcome<(f64, String)> {
        let start = Instant::now();
        let said = output(self.kiln().args(["bake", "--json"]).arg(project))?;
        let seconds = start.elapsed().as_secs_f64();
        let baked: Value = serde_json::from_slice(&said.stdout)?;
        let named = |key: &str| baked[key].as_str().ok_or_else(|| format!("`bake --json` says no {key}"));
        Ok((seconds, format!("{}@{}", named("name")?, named("image")?)))
    }

    fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.work.join("storage")).arg("--runroot").arg(self.work.join("runroot"));
        command.args(["--storage-driver", "overlay"]).current_dir(self.project());
        command
    }

    fn buildah_builds(&self) -> Outcome<f64> {
        let mut command = self.buildah();
        command.args(["bud", "--quiet", "--layers", "--isolation", "chroot", "--tag", "out", "--signature-policy"]);
        command.arg(self.work.join("policy.json")).args(["-f", "Containerfile", "."]);
        let start = Instant::now();
        output(&mut command)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Both results have the same files.
    fn same(&self, ours: &str) -> Outcome {
        let theirs = self.work.join("theirs");
        fs::create_dir_all(&theirs)?;
        let mut push = self.buildah();
        push.args(["push", "--quiet", "--signature-policy"]).arg(self.work.join("policy.json")).arg("localhost/out");
        output(push.arg(format!("oci:{}:t", theirs.join("layout").display())))?;
        fs::write(theirs.join("image.toml"), "name = \"theirs\"\n[base]\noci = \"oci:layout:t\"\n")?;
        let (_, theirs) = self.kiln_bakes(&theirs)?;
        let said = output(self.kiln().args(["diff", "--json", ours, &theirs]))?;
        let diff: Value = serde_json::from_slice(&said.stdout)?;
        let files = diff["files"].as_array().ok_or("`kiln diff --json` names no files")?;
        let names = files.iter().filter_map(|file| file["name"].as_str()).filter(|name| !OWN.contains(name));
        let names: Vec<_> = names.collect();
        match names.is_empty() {
            true => Ok(()),
            false => Err(format!("the two images differ at {}", names.join(", ")).into()),
        }
    }

    fn clean(&self) -> Outcome {
        output(self.buildah().args(["rmi", "--all", "--force"]))?;
        output(self.kiln().args(["down", "--purge"]))?;
        remove(&self.work)
    }
}

fn remove(path: &Path) -> Outcome {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}
