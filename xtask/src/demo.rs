//! The main job, for a person to watch.

use std::{fs, path::Path, process::Command};

use clap::Args;

use crate::{
    Outcome,
    command::{build_kiln, is_root, root, run as run_command},
};

/// Options of `demo`.
#[derive(Args)]
pub struct Options {
    /// Where Kiln keeps its state.
    #[arg(long, default_value = "target/demo/state")]
    state: String,
    /// Leave the servers running.
    #[arg(long)]
    keep: bool,
}

/// Runs `kiln up` on a copy of the example, changes the page, and runs it again.
pub fn run(options: &Options) -> Outcome {
    if !is_root() {
        return Err("servers need root: mounts, namespaces, networks. Run `sudo -E cargo xtask demo`".into());
    }
    let kiln = build_kiln(true)?;
    let state = root().join(&options.state);
    let hello = state.parent().ok_or("the state directory needs a parent")?.join("hello");
    copy_fresh(&root().join("examples/hello"), &hello)?;
    let call = |arguments: &[&str]| {
        let mut command = Command::new(&kiln);
        command.arg("--state").arg(&state).args(arguments);
        command
    };
    let hello = hello.to_str().ok_or("the path is not UTF-8")?;
    say("A first image: Debian, nginx, a page. Baked, booted, tested, signed, launched three times.");
    run_command(&mut call(&["up", hello]))?;
    say("Now the page changes, and with it the image. All three servers are replaced.");
    change_page(Path::new(hello))?;
    run_command(&mut call(&["up", hello]))?;
    run_command(&mut call(&["status"]))?;
    if options.keep {
        let shown = format!("{} --state {}", kiln.display(), state.display());
        say(&format!("The servers go on. Look: {shown} status. Remove all: {shown} down --purge"));
        return Ok(());
    }
    say("And away again. (`--keep` leaves it running.)");
    run_command(&mut call(&["down", "--purge", "--accept-loss"]))
}

fn say(text: &str) {
    eprintln!("\n# {text}\n");
}

/// Lets every published port of a fleet be any free one, so that several can run side by side.
pub fn free_ports(directory: &Path) -> Outcome {
    let path = directory.join("fleet.toml");
    let text = fs::read_to_string(&path)?;
    let mut parts = text.split("listen = ");
    let mut free = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        free += "listen = 0";
        free += part.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    Ok(fs::write(path, free)?)
}

/// Adds a line to the first page found.
pub fn change_page(directory: &Path) -> Outcome {
    let page = find(directory, "html")?.ok_or("the example has no page")?;
    let text = fs::read_to_string(&page)?;
    let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    let line = format!("<p>Changed: {stamp}</p>\n");
    let changed = match text.find("</body>") {
        Some(end) => format!("{}{line}{}", &text[..end], &text[end..]),
        None => text + &line,
    };
    Ok(fs::write(page, changed)?)
}

fn find(directory: &Path, extension: &str) -> Outcome<Option<std::path::PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, extension)? {
                return Ok(Some(found));
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// A copy of a directory, in place of what was there.
pub fn copy_fresh(from: &Path, to: &Path) -> Outcome {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    copy(from, to)
}

fn copy(from: &Path, to: &Path) -> Outcome {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).map_err(|e| format!("cannot read {}: {e}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}
