//! Steps for Ansible and Puppet, beside the same tools of Debian over the same tree, started by hand.

use std::{fs, path::PathBuf, process::Command, time::Instant};

use super::{
    Bench, debs,
    kiln::Kiln,
    median,
    report::{Row, Target},
};
use crate::{Outcome, command::output};

/// Files that each tool writes.
const FILES: usize = 20;

/// A tool, and what it is told.
struct Tool {
    name: &'static str,
    /// Beside the recipe, with everything in its directory.
    source: &'static str,
    /// How it is called in a tree that has it.
    call: &'static [&'static str],
    /// What it does in a round.
    text: fn(usize) -> String,
}

const TOOLS: [Tool; 2] = [
    Tool {
        name: "ansible",
        source: "tool/site.yml",
        call: &["ansible-playbook", "-c", "local", "-i", "localhost,", "/mnt/tool/site.yml"],
        text: playbook,
    },
    Tool {
        name: "puppet",
        source: "tool/site.pp",
        call: &["puppet", "apply", "--color=false", "/mnt/tool/site.pp"],
        text: manifest,
    },
];

/// One row for each.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    TOOLS.iter().map(|tool| row(bench, tool)).collect()
}

fn row(bench: &Bench, tool: &Tool) -> Outcome<Row> {
    let kiln = Kiln::fresh(bench, "provision", "hello")?;
    let recipe = format!(
        "name = \"hello\"\n[base]\ndebian = \"bookworm\"\npackages = [\"passwd\"]\n[[step]]\nname = \"tool\"\n{} = \"{}\"\n\
         idempotent = false\n",
        tool.name, tool.source
    );
    fs::write(kiln.project().join("image.toml"), recipe)?;
    fs::create_dir_all(kiln.project().join("tool"))?;
    let write = |round| fs::write(kiln.project().join(tool.source), (tool.text)(round));
    write(0)?;
    // The first bake makes the tool's tree as well.
    step(&kiln)?;
    kiln.keep_downloads(bench)?;
    let tree = Tree::with(bench, &kiln, tool)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        write(round)?;
        ours.push(step(&kiln)?);
        theirs.push(tree.run(&kiln, tool)?);
    }
    tree.remove()?;
    Ok(Row {
        bench: "provision".into(),
        what: format!("a step for {} that changed, its second run left out", tool.name),
        kiln: median(ours),
        unit: "s".into(),
        peer: Some((format!("{}, by hand in a tree that has it", tool.call[0]), median(theirs))),
        target: Some(Target::RatioAtMost(1.05)),
        note: format!("a user and {FILES} files; Kiln's time is the step's, with sandbox, layer and store"),
    })
}

/// Bakes; the seconds of the step.
fn step(kiln: &Kiln) -> Outcome<f64> {
    let baked = kiln.json(&["bake", kiln.project().to_str().ok_or("the path is not UTF-8")?])?;
    let steps = baked["steps"].as_array().ok_or("`bake --json` names no steps")?;
    let step = steps.iter().find(|step| step["name"] == "tool").ok_or("the step is not named")?;
    if step["cached"] == true {
        return Err("the step was not carried out".into());
    }
    Ok(step["seconds"].as_f64().ok_or("the step has no time")?)
}

fn playbook(round: usize) -> String {
    let file = |number| {
        format!(
            "  - name: file {number}\n    copy: {{ dest: /srv/{number}, content: \"{{{{ greeting }}}} {round}\\n\" }}\n"
        )
    };
    let files: String = (0..FILES).map(file).collect();
    format!(
        "- hosts: all\n  vars: {{ greeting: hello }}\n  tasks:\n  - name: user\n    user: {{ name: app, system: true }}\n{files}"
    )
}

fn manifest(round: usize) -> String {
    let file = |number| format!("file {{ '/srv/{number}': content => \"${{greeting}} {round}\\n\" }}\n");
    let files: String = (0..FILES).map(file).collect();
    format!("$greeting = 'hello'\nuser {{ 'app': ensure => present, system => true }}\n{files}")
}

/// A tree of Debian that has the tool, made by mmdebstrap from the packages that Kiln downloaded.
struct Tree {
    work: PathBuf,
}

impl Tree {
    fn with(bench: &Bench, kiln: &Kiln, tool: &Tool) -> Outcome<Self> {
        let tree = Self { work: bench.work.join(format!("provision-{}", tool.name)) };
        tree.remove()?;
        fs::create_dir_all(&tree.work)?;
        let mirror = debs::mirror(&kiln.state().join("cache"), &tree.work.join("mirror"))?;
        let mut command = Command::new("mmdebstrap");
        command.args(["--mode=root", "--variant=essential", "--format=directory", "--quiet"]);
        command.arg(format!("--include={}", wanted(tool)));
        command.args(["bookworm".as_ref(), tree.work.join("tree").as_os_str()]);
        command.arg(format!("deb [trusted=yes] copy:{} ./", mirror.directory.display()));
        output(&mut command)?;
        Ok(tree)
    }

    /// Runs the tool over a fresh copy; the tool's own seconds.
    fn run(&self, kiln: &Kiln, tool: &Tool) -> Outcome<f64> {
        let place = |name: &str| -> Outcome<PathBuf> {
            let path = self.work.join(name);
            if path.exists() {
                fs::remove_dir_all(&path)?;
            }
            fs::create_dir(&path)?;
            Ok(path)
        };
        let (upper, work, point) = (place("upper")?, place("work")?, place("point")?);
        let script = format!(
            "mount -t overlay overlay -o lowerdir={tree},upperdir={upper},workdir={work} {point} && \
             mount --rbind /dev {point}/dev && mount -t proc proc {point}/proc && mount -t tmpfs run {point}/run && \
             mount --rbind {project} {point}/mnt && exec chroot {point} \"$@\"",
            tree = self.work.join("tree").display(),
            upper = upper.display(),
            work = work.display(),
            point = point.display(),
            project = kiln.project().display(),
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script, "sh"]).args(tool.call);
        command.env("LC_ALL", "C.UTF-8");
        let start = Instant::now();
        output(&mut command)?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn remove(&self) -> Outcome {
        if self.work.exists() {
            fs::remove_dir_all(&self.work)?;
        }
        Ok(())
    }
}

fn wanted(tool: &Tool) -> &'static str {
    if tool.name == "ansible" { "passwd,ansible" } else { "passwd,puppet-agent" }
}
