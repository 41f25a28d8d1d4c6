//! From the engine's call to the first answer of nginx, beside the same nginx started bare and by runc.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, lchown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::{Value, json};

use super::{
    Bench,
    kiln::Kiln,
    median, median_of,
    peers::{self, Process},
    report::{Row, Target},
};
use crate::{
    Outcome,
    command::{output, which},
};

/// Launches, as `ready_ms` of each server says.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let kiln = Kiln::fresh(bench, "launch", "hello")?;
    kiln.edit("fleet.toml", "count = 3", "count = 1")?;
    kiln.up()?;
    kiln.keep_downloads(bench)?;
    let ours = median(launches(bench, &kiln)?);
    let copy = Copy::of(bench, &kiln)?;
    let bare = copy.bare(bench)?;
    let row = |peer: Option<(String, f64)>, target, note: &str| Row {
        bench: "launch",
        what: "launch of nginx to its first 200".into(),
        kiln: ours,
        unit: "ms",
        peer,
        target,
        note: note.into(),
    };
    let mut rows = vec![row(Some(("the same nginx, bare".into(), bare)), Some(Target::RatioAtMost(1.5)), "warm")];
    rows.push(match which("runc") {
        None => row(None, None, "runc is not installed"),
        Some(_) => {
            let runc = copy.runc(bench)?;
            row(Some(("runc run, same root".into(), runc)), Some(Target::RatioAtMost(1.0 / 3.0)), "warm")
        }
    });
    if which("incus").is_none() {
        rows.push(row(None, None, "Incus is not installed"));
    }
    Ok(rows)
}

fn launches(bench: &Bench, kiln: &Kiln) -> Outcome<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..bench.rounds {
        kiln.json(&["rebuild", "web"])?;
        times.extend(kiln.ready_servers()?.iter().filter_map(|server| server["ready_ms"].as_f64()));
    }
    if times.is_empty() { Err("no server says `ready_ms`".into()) } else { Ok(times) }
}

/// Milliseconds from a start to the first 200.
fn timed(port: u16, start: impl FnOnce() -> Outcome<Process>) -> Outcome<f64> {
    let begin = Instant::now();
    let process = start()?;
    peers::wait(([127, 0, 0, 1], port).into())?;
    let time = begin.elapsed().as_secs_f64() * 1e3;
    process.end()?;
    Ok(time)
}

/// The same nginx with the same configuration, on other ports: Debian's on the host, and the server's root for runc.
struct Copy {
    bundle: PathBuf,
    port: u16,
}

impl Copy {
    fn of(bench: &Bench, kiln: &Kiln) -> Outcome<Self> {
        let bundle = bench.work.join("launch/copy");
        if bundle.exists() {
            fs::remove_dir_all(&bundle)?;
        }
        fs::create_dir_all(&bundle)?;
        let pid = kiln.ready_servers()?.first().and_then(|s| s["pid"].as_u64()).ok_or("the server says no pid")?;
        let root = bundle.join("rootfs");
        copy_root(pid, &root)?;
        let port = peers::free_port()?;
        let text = fs::read_to_string(root.join("etc/nginx/nginx.conf"))?;
        let text = text.replace("listen 80 ", &format!("listen 127.0.0.1:{port} "));
        fs::write(root.join("etc/nginx/nginx.conf"), &text)?;
        // On the host: its own mime.types and temporary directories, which are the same package's; the server's pages.
        let (pid, pages) = (bundle.join("pid").display().to_string(), root.join("var/www/html").display().to_string());
        let text = text.replace("/run/nginx.pid", &pid).replace("/var/www/html", &pages);
        fs::write(bundle.join("nginx.conf"), text)?;
        fs::write(bundle.join("config.json"), specification(&bundle)?)?;
        Ok(Self { bundle, port })
    }

    fn bare(&self, bench: &Bench) -> Outcome<f64> {
        let program = which("nginx").ok_or("nginx is not installed")?;
        let mut command = Command::new(program);
        command.arg("-c").arg(self.bundle.join("nginx.conf")).args(NGINX).stderr(Stdio::null());
        median_of(bench.rounds, || timed(self.port, || peers::spawn(&mut command)))
    }

    /// `runc run` on the host's network, which spares runc the making of one.
    fn runc(&self, bench: &Bench) -> Outcome<f64> {
        let mut number = 0;
        median_of(bench.rounds, || {
            number += 1;
            let name = format!("kiln-bench-{}-{number}", std::process::id());
            let mut command = Command::new("runc");
            command.args(["run", "--bundle"]).arg(&self.bundle).arg(&name).stderr(Stdio::null());
            let time = timed(self.port, || peers::spawn(&mut command));
            output(Command::new("runc").args(["delete", "--force", &name]))?;
            time
        })
    }
}

const NGINX: [&str; 2] = ["-g", "daemon off;"];
/// What Debian's nginx needs to become `www-data`.
const CAPABILITIES: [&str; 5] = ["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE", "CAP_KILL"];

/// runc's own default, with nginx as the program, a root that can be written and no network namespace.
fn specification(bundle: &Path) -> Outcome<String> {
    output(Command::new("runc").arg("spec").arg("--bundle").arg(bundle))?;
    let path = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(path)?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/usr/sbin/nginx", NGINX[0], NGINX[1]]);
    spec["root"]["readonly"] = json!(false);
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] = json!(CAPABILITIES);
    }
    let namespaces = spec["linux"]["namespaces"].as_array_mut().ok_or("a specification has namespaces")?;
    namespaces.retain(|namespace| namespace["type"] != "network");
    let mounts = spec["mounts"].as_array_mut().ok_or("a specification has mounts")?;
    mounts.retain(|mount| mount["destination"] != "/sys");
    Ok(serde_json::to_string_pretty(&spec)?)
}

/// The root of a running server, with owners as seen inside.
fn copy_root(pid: u64, to: &Path) -> Outcome {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let base = fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    let base: u32 = base.split_whitespace().nth(1).and_then(|b| b.parse().ok()).ok_or("no uid_map")?;
    fs::create_dir_all(to)?;
    for top in ["bin", "etc", "lib", "lib64", "sbin", "usr", "var"] {
        if root.join(top).symlink_metadata().is_ok() {
            output(Command::new("cp").arg("-a").arg(root.join(top)).arg(to))?;
        }
    }
    for empty in ["dev", "proc", "sys", "tmp", "run"] {
        fs::create_dir_all(to.join(empty))?;
    }
    shift(to, base)
}

fn shift(path: &Path, base: u32) -> Outcome {
    let found = path.symlink_metadata()?;
    lchown(path, Some(found.uid().saturating_sub(base)), Some(found.gid().saturating_sub(base)))?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            shift(&entry?.path(), base)?;
        }
    }
    Ok(())
}
