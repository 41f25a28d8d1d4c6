//! An OCI image of 200 MB brought in from a registry, beside what others need for it and what hashing alone takes; and what
//! goes over when one small file of an image changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use super::{
    Bench, median,
    registry::{Registry, Relay, sample},
    report::{Row, Target},
};
use crate::{Outcome, command::output};

/// Beside the layer of the changed file: manifest, configuration, suite, and what is asked.
const BESIDE: f64 = 100_000.0;

/// Import, import again, push and pull of a change.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let work = bench.work.join("import");
    fs::create_dir_all(&work)?;
    let layout = sample(&work)?;
    let registry = Registry::start(&work.join("registry"))?;
    let image = format!("{}/big/sample:1", registry.address);
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
    output(copy.arg(format!("oci:{}:t", layout.display())).arg(format!("docker://{image}")))?;
    let import = Import { bench, work: work.clone(), image };
    let mut rows = import.rows(&layout)?;
    rows.extend(changed(bench, &work, &registry)?);
    Ok(rows)
}

struct Import<'a> {
    bench: &'a Bench,
    work: PathBuf,
    image: String,
}

impl Import<'_> {
    /// Every figure of a round right after the other.
    fn rows(&self, layout: &Path) -> Outcome<Vec<Row>> {
        let project = self.project(&self.image)?;
        let mut figures: [Vec<f64>; 5] = Default::default();
        for _ in 0..self.bench.rounds {
            let round = [
                self.fresh(&project)?,
                self.bake(&project)?,
                self.skopeo_and_umoci()?,
                self.podman()?,
                self.hashed(layout)?,
            ];
            figures.iter_mut().zip(round).for_each(|(figures, figure)| figures.push(figure));
        }
        let [fresh, again, copied, pulled, hashed] = figures.map(median);
        let row = |what: &str, kiln, peer: Option<(&str, f64)>, target, note: &str| Row {
            bench: "import".into(),
            what: what.into(),
            kiln,
            unit: "s".into(),
            peer: peer.map(|(name, figure)| (name.to_owned(), figure)),
            target: Some(target),
            note: note.into(),
        };
        let what = "import of an OCI image of 200 MB";
        let ours = "3 layers, gzip, from a registry on loopback; Kiln's is on the disk for good when it ends";
        Ok(vec![
            row(what, fresh, Some(("skopeo copy, umoci unpack", copied)), Target::RatioAtMost(1.0), ours),
            row(what, fresh, Some(("podman pull", pulled)), Target::RatioAtMost(1.0), ours),
            row(
                what,
                fresh,
                Some(("SHA-256 alone", hashed)),
                Target::RatioAtMost(1.25),
                "openssl on both processors: the packed bytes once, the unpacked ones as layer, as Kiln's layer, and as files",
            ),
            row("import of a known image, program start included", again, None, Target::AtMost(0.020), ""),
        ])
    }

    fn project(&self, image: &str) -> Outcome<PathBuf> {
        let project = self.work.join("project");
        fs::create_dir_all(&project)?;
        fs::write(project.join("image.toml"), format!("name = \"big\"\n[base]\noci = \"{image}\"\n"))?;
        Ok(project)
    }

    fn fresh(&self, project: &Path) -> Outcome<f64> {
        remove(&self.work.join("state"))?;
        remove(&project.join("kiln.lock"))?;
        self.bake(project)
    }

    fn bake(&self, project: &Path) -> Outcome<f64> {
        let mut bake = Command::new(&self.bench.kiln);
        timed(bake.arg("--state").arg(self.work.join("state")).arg("bake").arg(project))
    }

    fn skopeo_and_umoci(&self) -> Outcome<f64> {
        let (layout, bundle) = (self.work.join("copied"), self.work.join("bundle"));
        [&layout, &bundle].into_iter().try_for_each(|directory| remove(directory))?;
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]);
        copy.arg(format!("docker://{}", self.image)).arg(format!("oci:{}:t", layout.display()));
        let mut unpack = Command::new("umoci");
        unpack.args(["unpack", "--image"]).arg(format!("{}:t", layout.display())).arg(&bundle);
        let seconds = timed(&mut copy)? + timed(&mut unpack)?;
        [&layout, &bundle].into_iter().try_for_each(|directory| remove(directory))?;
        Ok(seconds)
    }

    fn podman(&self) -> Outcome<f64> {
        let storage = self.work.join("podman");
        remove(&storage)?;
        let mut pull = Command::new("podman");
        pull.arg("--root").arg(storage.join("storage")).arg("--runroot").arg(storage.join("run"));
        pull.args(["--storage-driver=overlay", "--events-backend=none", "pull", "--quiet", "--tls-verify=false"]);
        let seconds = timed(pull.arg(&self.image))?;
        remove(&storage)?;
        Ok(seconds)
    }

    /// What no importer that checks and stores by digest can leave out.
    fn hashed(&self, layout: &Path) -> Outcome<f64> {
        let (packed, plain) = (self.work.join("packed"), self.work.join("plain"));
        if !plain.exists() {
            let blobs = layout.join("blobs/sha256");
            let script = "cat $1/* > $2; for blob in $1/*; do gzip -dc $blob 2>/dev/null || true; done > $3";
            let mut make = Command::new("sh");
            output(make.args(["-euc", script, "sh"]).arg(blobs).arg(&packed).arg(&plain))?;
        }
        let openssl = |files: &[&PathBuf]| {
            let mut command = Command::new("openssl");
            command.args(["dgst", "-sha256"]).args(files);
            command
        };
        let start = Instant::now();
        let mut other = openssl(&[&plain, &plain]).stdout(Stdio::null()).spawn()?;
        output(&mut openssl(&[&packed, &plain]))?;
        other.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// An image of Kiln's, pushed and pulled before and after one small file of it changed.
fn changed(bench: &Bench, work: &Path, registry: &Registry) -> Outcome<Vec<Row>> {
    let relay = Relay::start(&registry.address)?;
    let project = work.join("small");
    fs::create_dir_all(&project)?;
    let base = format!("{}/big/sample:1", registry.address);
    let recipe = "[[step]]\ncopy = \"page.html\"\nto = \"/var/www/\"\n";
    fs::write(project.join("image.toml"), format!("name = \"small\"\n[base]\noci = \"{base}\"\n{recipe}"))?;
    let (here, there) = (work.join("state"), work.join("elsewhere"));
    remove(&there)?;
    let kiln = |state: &Path, arguments: &[&str]| {
        let mut command = Command::new(&bench.kiln);
        command.arg("--state").arg(state).args(arguments);
        command
    };
    let at = format!("{}/small/image:1", relay.address);
    let round = |page: &str| -> Outcome<((f64, f64), (f64, f64))> {
        fs::write(project.join("page.html"), page)?;
        let baked = output(kiln(&here, &["bake"]).arg(&project))?;
        let image =
            String::from_utf8(baked.stdout)?.lines().rev().find(|line| line.starts_with("sha256:")).map(str::to_owned);
        let image = format!("small@{}", image.ok_or("`kiln bake` names no image")?);
        relay.counted();
        output(&mut kiln(&here, &["push", &image, &at]))?;
        let pushed = relay.counted();
        output(&mut kiln(&there, &["pull", &at]))?;
        Ok((pushed, relay.counted()))
    };
    round("first\n")?;
    let ((sent, _), (_, fetched)) = round("second\n")?;
    let row = |what: &str, bytes: f64| Row {
        bench: "import".into(),
        what: what.into(),
        kiln: bytes / 1000.0,
        unit: "kB".into(),
        peer: None,
        // The file's own layer: two headers, one block of content, the end.
        target: Some(Target::AtMost((BESIDE + 4096.0) / 1000.0)),
        note: "image of 200 MB of which one page changed; all bytes on the wire, heads included".into(),
    };
    Ok(vec![row("push of a change: bytes to the registry", sent), row("pull of it: bytes from the registry", fetched)])
}

fn timed(command: &mut Command) -> Outcome<f64> {
    let start = Instant::now();
    output(command)?;
    Ok(start.elapsed().as_secs_f64())
}

fn remove(path: &Path) -> Outcome {
    if path.is_dir() {
        fs::remove_dir_all(path)?;
    } else if path.exists() {
        fs::remove_file(path)?;
    }
    Ok(())
}
