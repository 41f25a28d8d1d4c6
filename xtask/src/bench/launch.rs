//! From the engine's call to the first answer of nginx, beside the same nginx started bare and by runc.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, lchown},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use serde_json::{Value, json};

use super::{
    Bench,
    kiln::Kiln,
    median, median_of,
    peers::{self, Nginx, Process},
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
    let bare = bare(bench)?;
    let row = |peer: Option<(String, f64)>, target, note: &str| Row {
        bench: "launch",
        what: "launch of nginx to its first 200".into(),
        kiln: ours,
        unit: "ms",
        peer,
        target,
        note: note.into(),
    };
    let mut rows = vec![row(Some(("bare nginx".into(), bare)), Some(Target::RatioAtMost(1.5)), "warm")];
    rows.push(match which("runc") {
        None => row(None, None, "runc is not installed"),
        Some(_) => {
            let runc = runc(bench, &kiln)?;
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

fn bare(bench: &Bench) -> Outcome<f64> {
    let dir = bench.work.join("launch/bare");
    fs::create_dir_all(dir.join("pages"))?;
    fs::write(dir.join("pages/index.html"), "hello")?;
    let nginx = Nginx::prepare(&dir, &dir.join("pages"))?;
    median_of(bench.rounds, || timed(nginx.port, || nginx.start()))
}

/// Milliseconds from a start to the first 200.
fn timed(port: u16, start: impl FnOnce() -> Outcome<Process>) -> Outcome<f64> {
    let begin = Instant::now();
    let _process = start()?;
    peers::wait(([127, 0, 0, 1], port).into())?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// `runc run` of a copy of the server's root, on the host's network, which spares runc the making of one.
fn runc(bench: &Bench, kiln: &Kiln) -> Outcome<f64> {
    let bundle = bench.work.join("launch/runc");
    if bundle.exists() {
        fs::remove_dir_all(&bundle)?;
    }
    fs::create_dir_all(&bundle)?;
    let pid = kiln.ready_servers()?.first().and_then(|s| s["pid"].as_u64()).ok_or("the server says no pid")?;
    copy_root(pid, &bundle.join("rootfs"))?;
    let port = peers::free_port()?;
    fs::write(bundle.join("rootfs/bench.conf"), configuration(port))?;
    fs::write(bundle.join("config.json"), specification(&bundle)?)?;
    let mut number = 0;
    median_of(bench.rounds, || {
        number += 1;
        let name = format!("kiln-bench-{}-{number}", std::process::id());
        let time = timed(port, || peers::spawn(Command::new("runc").args(["run", "--bundle"]).arg(&bundle).arg(&name)));
        output(Command::new("runc").args(["delete", "--force", &name]))?;
        time
    })
}

fn configuration(port: u16) -> String {
    format!(
        "daemon off; master_process off; pid /tmp/pid; error_log stderr crit; events {{}}\n\
         http {{ access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;\n\
           uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;\n\
           server {{ listen 127.0.0.1:{port}; location / {{ return 200 hello; }} }} }}\n"
    )
}

/// runc's own default, with nginx as the program, a writable `/tmp` and no network namespace.
fn specification(bundle: &Path) -> Outcome<String> {
    output(Command::new("runc").arg("spec").arg("--bundle").arg(bundle))?;
    let path = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(path)?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/usr/sbin/nginx", "-e", "stderr", "-c", "/bench.conf"]);
    let namespaces = spec["linux"]["namespaces"].as_array_mut().ok_or("a specification has namespaces")?;
    namespaces.retain(|namespace| namespace["type"] != "network");
    let mounts = spec["mounts"].as_array_mut().ok_or("a specification has mounts")?;
    mounts.retain(|mount| mount["destination"] != "/sys");
    mounts.push(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }));
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
            output(Command::new("cp").args(["-a", "--one-file-system"]).arg(root.join(top)).arg(to))?;
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
