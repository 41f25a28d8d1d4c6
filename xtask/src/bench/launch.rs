//! From the engine's call to the first answer of nginx, beside the same nginx started bare and by runc.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, lchown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Bench,
    kiln::Kiln,
    median, median_of,
    peers::{self, Process},
    quantile,
    report::{Row, Target},
};
use crate::{
    Outcome,
    command::{output, which},
};

/// So long before each start: the places that Kiln keeps ready are there again.
const REST: Duration = Duration::from_millis(500);

/// So many launches, and bare starts beside them, for the slowest of a hundred.
const STARTS: usize = 100;

/// Kiln and its peers in turn, so that what disturbs the machine disturbs all of them.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let kiln = Kiln::fresh(bench, "launch", "hello")?;
    kiln.edit("fleet.toml", "count = 3", "count = 1")?;
    kiln.up()?;
    kiln.keep_downloads(bench)?;
    let copy = Copy::of(bench, &kiln)?;
    let with_runc = which("runc").is_some();
    let (mut ours, mut bare, mut runc) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        ours.push(rested(&kiln, || launch(&kiln))?);
        bare.push(rested(&kiln, || copy.bare())?);
        if with_runc {
            runc.push(rested(&kiln, || copy.runc(round))?);
        }
    }
    eprintln!("milliseconds, in order\n  kiln {ours:.2?}\n  bare {bare:.2?}\n  runc {runc:.2?}");
    let hot = median_of(bench.rounds, || copy.bare())?;
    let mut rows = rows(median(ours), median(bare), hot, with_runc.then(|| median(runc)));
    rows.push(slowest(&kiln, &copy)?);
    Ok(rows)
}

/// The slowest launch of a hundred beside the slowest bare start.
fn slowest(kiln: &Kiln, copy: &Copy) -> Outcome<Row> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        ours.push(rested(kiln, || launch(kiln))?);
        bare.push(rested(kiln, || copy.bare())?);
    }
    let of = |times: &[f64], share| quantile(times, share);
    Ok(Row {
        bench: "launch".into(),
        what: "launch of nginx to its first 200, p99".into(),
        kiln: of(&ours, 0.99),
        unit: "ms".into(),
        peer: Some(("the same nginx, bare".into(), of(&bare, 0.99))),
        target: Some(Target::RatioAtMost(3.0)),
        note: format!("{STARTS} of each; p50 {:.2} and {:.2}", of(&ours, 0.5), of(&bare, 0.5)),
    })
}

fn rows(ours: f64, bare: f64, hot: f64, runc: Option<f64>) -> Vec<Row> {
    let row = |peer: Option<(&str, f64)>, target, note: &str| Row {
        bench: "launch".into(),
        what: "launch of nginx to its first 200".into(),
        kiln: ours,
        unit: "ms".into(),
        peer: peer.map(|(name, time)| (name.into(), time)),
        target,
        note: note.into(),
    };
    let mut rows = vec![row(Some(("the same nginx, bare", bare)), Some(Target::RatioAtMost(1.2)), "warm")];
    rows.push(row(Some(("bare, again and again without a rest", hot)), None, "its caches hot, Kiln's not"));
    rows.push(match runc {
        None => row(None, None, "runc is not installed"),
        Some(runc) => row(Some(("runc run, same root", runc)), Some(Target::RatioAtMost(1.0 / 3.0)), "warm"),
    });
    if which("incus").is_none() {
        rows.push(row(None, None, "Incus is not installed"));
    }
    rows
}

/// A start after a rest, and after the same work: a processor that was just woken by a command is faster than one that
/// slept, and Kiln's own launch comes after a command.
pub fn rested(kiln: &Kiln, start: impl FnOnce() -> Outcome<f64>) -> Outcome<f64> {
    std::thread::sleep(REST);
    kiln.ready_servers()?;
    start()
}

/// One launch, as `ready_ms` of the new server says.
pub fn launch(kiln: &Kiln) -> Outcome<f64> {
    kiln.json(&["rebuild", "web"])?;
    let servers = kiln.ready_servers()?;
    servers.iter().find_map(|server| server["ready_ms"].as_f64()).ok_or_else(|| "no server says `ready_ms`".into())
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

    fn bare(&self) -> Outcome<f64> {
        let program = which("nginx").ok_or("nginx is not installed")?;
        let mut command = Command::new(program);
        command.arg("-c").arg(self.bundle.join("nginx.conf")).args(NGINX).stderr(Stdio::null());
        timed(self.port, || peers::spawn(&mut command))
    }

    /// `runc run` on the host's network, which spares runc the making of one.
    fn runc(&self, round: usize) -> Outcome<f64> {
        let name = format!("kiln-bench-{}-{round}", std::process::id());
        let mut command = Command::new("runc");
        command.args(["run", "--bundle"]).arg(&self.bundle).arg(&name).stderr(Stdio::null());
        let time = timed(self.port, || peers::spawn(&mut command));
        output(Command::new("runc").args(["delete", "--force", &name]))?;
        time
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
