//! The text of the recipe.

use std::fmt::Write as _;

use kiln_image::oci::Execution;
use kiln_model::{ImageName, recipe::quoted};

/// Signals that a recipe can name.
const SIGNALS: [&str; 8] = ["SIGTERM", "SIGQUIT", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGKILL"];
/// Ports on which HTTP is usual.
const HTTP: [u16; 8] = [80, 3000, 5000, 8000, 8008, 8080, 8081, 8888];

/// The top of the recipe, which says what it starts from.
pub(super) fn base(name: &ImageName, key: &str, from: &str) -> String {
    let from: String = from.chars().filter(|c| !c.is_control()).collect();
    format!(
        "# Written by `kiln import {from}`. What a person must decide is marked with DECIDE.\nname = \"{name}\"\n\n[base]\n{key}\n"
    )
}

/// The whole recipe.
pub(super) fn whole(base: &str, name: &ImageName, execution: &Execution) -> String {
    let mut out = base.to_owned();
    let ports: Vec<_> = execution.exposed_ports.keys().filter_map(|port| tcp(port)).collect();
    service(&mut out, name, execution, &ports);
    writable(&mut out, execution);
    tests(&mut out, &ports);
    out
}

fn service(out: &mut String, name: &ImageName, execution: &Execution, ports: &[u16]) {
    let command: Vec<_> = execution.entrypoint.iter().chain(&execution.cmd).map(|word| quoted(word)).collect();
    if command.is_empty() {
        out.push_str(
            "\n# DECIDE: the image does not say what it runs. Write a [service] if servers are to run something:\n\
             # [service.app]\n# command = \"/usr/bin/app --port 8080\"\n",
        );
        return;
    }
    line(out, "\n# What the image runs, as it says itself.");
    line(out, &format!("[service.{}]", service_name(name)));
    line(out, &format!("command = [{}]", command.join(", ")));
    if execution.entrypoint.iter().chain(&execution.cmd).any(|word| word == "sh" || word.ends_with("/sh")) {
        line(
            out,
            "# DECIDE: a shell stands between PID 1 and the program; `exec` in it, or the program itself here, gets signals.",
        );
    }
    user(out, &execution.user);
    if !matches!(execution.working_dir.as_str(), "" | "/") {
        line(out, &format!("working_directory = {}", quoted(&execution.working_dir)));
    }
    environment(out, &execution.env);
    listens(out, execution, ports);
    health(out, execution, ports);
    match execution.stop_signal.as_str() {
        "" => {}
        signal if SIGNALS[..7].contains(&signal) => {
            line(out, &format!("stop = {{ signal = \"{signal}\", grace = \"10s\" }}"))
        }
        signal => {
            line(out, &format!("# DECIDE: the image is stopped with {}, which a recipe cannot say.", comment(signal)))
        }
    }
}

fn user(out: &mut String, user: &str) {
    match user {
        "" | "root" | "0" | "0:0" | "root:root" => {
            line(out, "# DECIDE: the image runs as root. A user of its own is safer: user = \"app\"");
        }
        user => {
            let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
            line(out, &format!("user = {}", quoted(name)));
            if let Some(group) = group {
                line(
                    out,
                    &format!("# DECIDE: the image says group {}; a service has its user's own groups.", comment(group)),
                );
            }
        }
    }
}

/// A service has only the variables that the recipe gives it.
fn environment(out: &mut String, env: &[String]) {
    let pairs = env.iter().filter_map(|pair| pair.split_once('='));
    let named = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.is_empty();
    let pairs: Vec<_> =
        pairs.filter(|(name, _)| named(name) && !name.starts_with(|c: char| c.is_ascii_digit())).collect();
    if pairs.is_empty() {
        return;
    }
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
    line(out, "# DECIDE: what differs between environments belongs under [config], and secrets too.");
    line(out, &format!("environment = {{ {} }}", pairs.join(", ")));
}

fn listens(out: &mut String, execution: &Execution, ports: &[u16]) {
    let other: Vec<_> =
        execution.exposed_ports.keys().filter(|port| tcp(port).is_none()).map(|port| comment(port)).collect();
    if !ports.is_empty() {
        let list: Vec<_> =
            ports.iter().map(|port| format!("{{ port = {port}, protocol = \"{}\" }}", protocol(*port))).collect();
        line(out, "# DECIDE: `http` lets the gateway speak HTTP with it; `tcp` passes bytes on.");
        line(out, &format!("ports = [{}]", list.join(", ")));
    }
    if !other.is_empty() {
        line(out, &format!("# DECIDE: it also listens on {}; servers publish TCP ports only.", other.join(", ")));
    }
}

fn health(out: &mut String, execution: &Execution, ports: &[u16]) {
    let test = execution.healthcheck.as_ref().map(|health| &health.test[..]).unwrap_or_default();
    let command = match test {
        [kind, words @ ..] if kind == "CMD" && !words.is_empty() => {
            Some(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
        }
        [kind, text] if kind == "CMD-SHELL" => Some(format!("\"/bin/sh\", \"-c\", {}", quoted(text))),
        _ => None,
    };
    if let Some(command) = command {
        line(
            out,
            "# The image's health check. DECIDE: a question from outside, `{ http = \"/\" }`, needs no program in the image.",
        );
        line(out, &format!("readiness = {{ command = [{command}], within = \"30s\" }}"));
        return;
    }
    if let Some(port) = ports.first() {
        line(
            out,
            "# DECIDE: ready is what answers on its port. Better a path that says so: readiness = { http = \"/healthz\" }",
        );
        line(out, &format!("readiness = {{ tcp = {port}, within = \"30s\" }}"));
    }
}

/// Everything else of a server is read-only.
fn writable(out: &mut String, execution: &Execution) {
    let paths: Vec<_> = execution.volumes.keys().filter(|path| path.starts_with('/')).collect();
    let user = execution.user.split(':').next().unwrap_or_default();
    let user = if matches!(user, "" | "0") { String::new() } else { format!(", user = {}", quoted(user)) };
    line(
        out,
        "\n# A server's root is read-only; /run, /tmp and /var/tmp are memory. DECIDE: what else does the program write?",
    );
    if paths.is_empty() {
        line(out, "# [writable]\n# \"/var/lib/app\" = { ephemeral = \"1GiB\" }");
        return;
    }
    line(
        out,
        "# What the image calls volumes goes with the server here. DECIDE: `volume = \"data\"` outlives servers.",
    );
    line(out, "[writable]");
    for path in paths {
        let path = path.trim_end_matches('/');
        match ["/run", "/tmp", "/var/tmp", "/dev"].iter().any(|memory| path == *memory || path.is_empty()) {
            true => line(out, &format!("# {} is memory in every server.", comment(path))),
            false => line(out, &format!("{} = {{ ephemeral = \"1GiB\"{user} }}", quoted(path))),
        }
    }
}

fn tests(out: &mut String, ports: &[u16]) {
    line(out, "\n# DECIDE: what must hold before any server of it is launched?");
    match ports.first() {
        Some(port) if protocol(*port) == "http" => {
            line(out, &format!("[[test]]\nname = \"it answers\"\nhttp = \"/\"\nport = {port}\nstatus = 200"));
        }
        Some(port) => line(out, &format!("[[test]]\nname = \"it answers\"\ntcp = {port}")),
        None => line(out, "# [[test]]\n# name = \"it works\"\n# command = \"/usr/bin/app --version\""),
    }
}

/// Names of services are shorter than those of images may be.
fn service_name(name: &ImageName) -> String {
    name.as_str().chars().take(32).collect::<String>().trim_end_matches('-').to_owned()
}

fn tcp(port: &str) -> Option<u16> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    number.parse().ok().filter(|_| protocol == "tcp")
}

fn protocol(port: u16) -> &'static str {
    if HTTP.contains(&port) { "http" } else { "tcp" }
}

/// Somebody else's words in a comment.
fn comment(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("writing to a String cannot fail");
}
