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
    registry::{LAYERS, PACKINGS, Registry, Relay, sample},
    report::{Row, Target},
};
use crate::{Outcome, command::output};

/// Beside the layer of the changed file: manifest, configuration, suite, and what is asked.
const BESIDE: f64 = 100_000.0;

/// Import, import again, push and pull of a change.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let work = bench.work.join("import");
    fs::create_dir_all(&work)?;
    let registry = Registry::start(&work.join("registry"))?;
    let mut rows = Vec::new();
    for packing in PACKINGS {
        let layout = sample(&work, packing)?;
        let image = format!("{}/big/{packing}:1", registry.address);
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        output(copy.arg(format!("oci:{}:t", layout.display())).arg(format!("docker://{image}")))?;
        rows.extend(Import { bench, work: work.join(packing), image, packing, layout }.rows()?);
    }
    rows.extend(changed(bench, &work, &registry)?);
    Ok(rows)
}

struct Import<'a> {
    bench: &'a Bench,
    work: PathBuf,
    image: String,
    packing: &'static str,
    layout: PathBuf,
}

impl Import<'_> {
    /// Every figure of a round right after the other.
    fn rows(&self) -> Outcome<Vec<Row>> {
        remove(&self.work)?;
        let project = self.project(&self.image)?;
        let mut figures: [Vec<f64>; 6] = Default::default();
        for round in 0..self.bench.rounds {
            let at = self.work.join(round.to_string());
            fs::create_dir_all(&at)?;
            let round = [
                self.fresh(&project, &at)?,
                self.bake(&project, &at)?,
                // umoci reads no zstd.
                if self.packing == "zstd" { 0.0 } else { self.skopeo_and_umoci(&at)? },
                self.podman(&at)?,
                self.hashed()?,
                self.unpacked_and_hashed()?,
            ];
            figures.iter_mut().zip(round).for_each(|(figures, figure)| figures.push(figure));
        }
        remove(&self.work)?;
        let [fresh, again, copied, pulled, hashed, unpacked] = figures.map(median);
        let row = |what: &str, kiln, peer: Option<(&str, f64)>, target, note: &str| Row {
            bench: "import".into(),
            what: what.into(),
            kiln,
            unit: "s".into(),
            peer: peer.map(|(name, figure)| (name.to_owned(), figure)),
            target: Some(target),
            note: note.into(),
        };
        let what = format!("import of an OCI image of 200 MB, {}", self.packing);
        let ours = "3 layers, from a registry on loopback; Kiln's is on the disk for good when it ends";
        let alone =
            "on both processors: the packed bytes once, the unpacked ones as layer, as Kiln's layer, and as files";
        let unpacker = format!("{} and SHA-256 alone", self.unpacker());
        let mut rows = vec![
            row(&what, fresh, Some(("podman pull", pulled)), Target::RatioAtMost(1.0), ours),
            row(&what, fresh, Some(("SHA-256 alone", hashed)), Target::RatioAtMost(1.25), &format!("openssl {alone}")),
            row(
                &what,
                fresh,
                Some((unpacker.as_str(), unpacked)),
                Target::RatioAtMost(1.25),
                "the same, and each layer unpacked once by the fastest program there is, its bytes thrown away",
            ),
        ];
        if self.packing == PACKINGS[0] {
            rows.insert(
                0,
                row(&what, fresh, Some(("skopeo copy, umoci unpack", copied)), Target::RatioAtMost(1.0), ours),
            );
            let what = "import of a known image, program start included";
            rows.push(row(what, again, None, Target::AtMost(0.020), ""));
        }
        Ok(rows)
    }

    fn project(&self, image: &str) -> Outcome<PathBuf> {
        let project = self.work.join("project");
        fs::create_dir_all(&project)?;
        fs::write(project.join("image.toml"), format!("name = \"big\"\n[base]\noci = \"{image}\"\n"))?;
        Ok(project)
    }

    /// Each round has directories of its own, which stay until all is measured: ext4 without a journal makes no new file in the
    /// place of one that was removed a minute ago, and looks for another place for each, which costs all of them seconds.
    fn fresh(&self, project: &Path, at: &Path) -> Outcome<f64> {
        remove(&project.join("kiln.lock"))?;
        self.bake(project, at)
    }

    fn bake(&self, project: &Path, at: &Path) -> Outcome<f64> {
        let mut bake = Command::new(&self.bench.kiln);
        timed(bake.arg("--state").arg(at.join("state")).arg("bake").arg(project))
    }

    fn skopeo_and_umoci(&self, at: &Path) -> Outcome<f64> {
        let (layout, bundle) = (at.join("copied"), at.join("bundle"));
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]);
        copy.arg(format!("docker://{}", self.image)).arg(format!("oci:{}:t", layout.display()));
        let mut unpack = Command::new("umoci");
        unpack.args(["unpack", "--image"]).arg(format!("{}:t", layout.display())).arg(&bundle);
        Ok(timed(&mut copy)? + timed(&mut unpack)?)
    }

    fn podman(&self, at: &Path) -> Outcome<f64> {
        let storage = at.join("podman");
        let mut pull = Command::new("podman");
        pull.arg("--root").arg(storage.join("storage")).arg("--runroot").arg(storage.join("run"));
        pull.args(["--storage-driver=overlay", "--events-backend=none", "pull", "--quiet", "--tls-verify=false"]);
        timed(pull.arg(&self.image))
    }

    fn unpacker(&self) -> &'static str {
        if self.packing == "zstd" { "zstd" } else { "igzip" }
    }

    /// The layers, largest first.
    fn layers(&self) -> Outcome<Vec<PathBuf>> {
        let mut blobs = Vec::new();
        for blob in fs::read_dir(self.layout.join("blobs/sha256"))? {
            let blob = blob?;
            blobs.push((blob.metadata()?.len(), blob.path()));
        }
        blobs.sort();
        Ok(blobs.into_iter().rev().take(LAYERS.len()).map(|(_, path)| path).collect())
    }

    /// What no importer that checks and stores by digest can leave out.
    fn hashed(&self) -> Outcome<f64> {
        let [packed, plain] = self.bytes()?;
        both("openssl dgst -sha256 \"$@\"", &[&plain, &plain], "openssl dgst -sha256 \"$@\"", &[&packed, &plain])
    }

    /// What no importer of packed layers can leave out.
    fn unpacked_and_hashed(&self) -> Outcome<f64> {
        let ([packed, plain], layers) = (self.bytes()?, self.layers()?);
        let program = self.unpacker();
        let largest = format!("{program} -dc \"$1\" >/dev/null; shift; openssl dgst -sha256 \"$@\"");
        let others = format!("{program} -dc \"$1\" \"$2\" >/dev/null; shift 2; openssl dgst -sha256 \"$@\"");
        let [first, second, third] = &layers[..] else { return Err("the sample has not three layers".into()) };
        both(&largest, &[first, &plain, &packed], &others, &[second, third, &plain, &plain])
    }

    /// All packed bytes, and all unpacked ones.
    fn bytes(&self) -> Outcome<[PathBuf; 2]> {
        let (packed, plain) = (self.work.join("packed"), self.work.join("plain"));
        if !plain.exists() {
            let script =
                format!("packed=$1 plain=$2; shift 2; cat \"$@\" > $packed; {} -dc \"$@\" > $plain", self.unpacker());
            output(Command::new("sh").args(["-euc", &script, "sh"]).args([&packed, &plain]).args(self.layers()?))?;
        }
        Ok([packed, plain])
    }
}

/// How long two scripts take beside each other.
fn both(one: &str, of_one: &[&PathBuf], other: &str, of_other: &[&PathBuf]) -> Outcome<f64> {
    let script = |script: &str, arguments: &[&PathBuf]| {
        let mut command = Command::new("sh");
        command.args(["-euc", script, "sh"]).args(arguments);
        command
    };
    let start = Instant::now();
    let mut beside = script(other, of_other).stdout(Stdio::null()).spawn()?;
    output(&mut script(one, of_one))?;
    match beside.wait()?.success() {
        true => Ok(start.elapsed().as_secs_f64()),
        false => Err(format!("`{other}` failed").into()),
    }
}

/// An image of Kiln's, pushed and pulled before and after one small file of it changed.
fn changed(bench: &Bench, work: &Path, registry: &Registry) -> Outcome<Vec<Row>> {
    let relay = Relay::start(&registry.address)?;
    let project = work.join("small");
    fs::create_dir_all(&project)?;
    let base = format!("{}/big/{}:1", registry.address, PACKINGS[0]);
    let recipe = "[[step]]\ncopy = \"page.html\"\nto = \"/var/www/\"\n";
    fs::write(project.join("image.toml"), format!("name = \"small\"\n[base]\noci = \"{base}\"\n{recipe}"))?;
    let (here, there) = (work.join("state"), work.join("elsewhere"));
    [&here, &there].into_iter().try_for_each(|directory| remove(directory))?;
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
