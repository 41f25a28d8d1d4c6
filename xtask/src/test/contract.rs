//! What others script against, checked on `examples/hello` with the real program: the objects that `--json` prints, the exit
//! codes, the lock, and a change under load.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::Value;

use super::{
    followed::Followed,
    project::{Project, ask},
};
use crate::{
    Outcome,
    command::{output, shown},
    demo,
};

/// `examples/hello`, whose servers are up.
pub struct Contract<'a>(pub Project<'a>);

impl Contract<'_> {
    /// All of it.
    pub fn check(&self) -> Outcome {
        self.json_objects_are_the_documented_ones()?;
        self.a_changed_page_under_load_fails_no_request()?;
        self.followed_logs_have_every_server_to_its_end_by_time()?;
        self.exit_codes_are_the_documented_ones()?;
        self.a_shell_opens_in_the_tree_of_a_failed_step()?;
        self.a_lock_is_used_exactly_and_can_be_refreshed()
    }

    fn project(&self) -> Outcome<&str> {
        self.0.directory.to_str().ok_or_else(|| "the path is not UTF-8".into())
    }

    fn json(&self, arguments: &[&str]) -> Outcome<Vec<Value>> {
        let said = String::from_utf8(output(self.0.call(arguments).arg("--json"))?.stdout)?;
        if let Ok(one) = serde_json::from_str(&said) {
            return Ok(vec![one]);
        }
        said.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn json_objects_are_the_documented_ones(&self) -> Outcome {
        let baked = self.json(&["bake", self.project()?])?;
        let baked = baked.last().ok_or("`bake --json` said nothing")?;
        has(baked, &["image", "name", "seconds", "steps"])?;
        each(&baked["steps"], &["name", "cached", "seconds"])?;
        let events = self.json(&["up", self.project()?])?;
        let (last, before) = events.split_last().ok_or("`up --json` said nothing")?;
        has(last, &["result", "seconds", "endpoints"])?;
        wanted(last["result"] == "ok" && last["endpoints"].as_array().is_some_and(|all| !all.is_empty()), last)?;
        before.iter().try_for_each(|event| has(event, &["event"]))?;
        let status = self.json(&["status"])?;
        let groups = &status.first().ok_or("`status --json` said nothing")?["groups"];
        each(groups, &["name", "image", "config", "release", "desired", "ready", "rollout", "endpoints", "servers"])?;
        each(&groups[0]["servers"], &["id", "state", "release", "address", "pid", "started_at", "ready_ms"])
    }

    fn a_changed_page_under_load_fails_no_request(&self) -> Outcome {
        let (address, before) = (self.0.address()?, self.0.servers()?);
        let over = AtomicBool::new(false);
        let asked = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| ask_until(&over, address))).collect();
            let changed = demo::change_page(self.0.directory).and_then(|()| self.json(&["up", self.project()?]));
            over.store(true, Ordering::Relaxed);
            let asked = clients.into_iter().map(|client| client.join().map_err(|_| "a client panicked"));
            changed.and(asked.collect::<Result<Vec<_>, _>>().map_err(Into::into))
        })?;
        let (good, failed) = asked.iter().fold((0, 0), |(good, failed), (g, f)| (good + g, failed + f));
        eprintln!("{good} requests answered during the change, {failed} failed");
        let after = self.0.servers()?;
        let replaced = after.len() >= 3 && after.iter().all(|id| !before.contains(id));
        if failed > 0 || good == 0 || !replaced {
            return Err(format!("{failed} requests failed, {good} did not; before {before:?}, after {after:?}").into());
        }
        Ok(())
    }

    fn followed_logs_have_every_server_to_its_end_by_time(&self) -> Outcome {
        let before = self.0.servers()?;
        let mut followed = Followed::start(self.0.call(&["logs", "-f", "web", "--json"]), &before)?;
        output(&mut self.0.call(&["rebuild", "web"]))?;
        followed.until_replaced(&before, &self.0.servers()?)
    }

    fn exit_codes_are_the_documented_ones(&self) -> Outcome {
        let failing = self.0.directory.with_file_name("failing");
        demo::copy_fresh(self.0.directory, &failing)?;
        let recipe = fs::read_to_string(failing.join("image.toml"))?;
        let failing_test = "\n[[test]]\nname = \"never\"\nfile = \"/never\"\nwithin = \"100ms\"\n";
        fs::write(failing.join("image.toml"), recipe.clone() + failing_test)?;
        self.ends_with(1, &["test", failing.to_str().ok_or("the path is not UTF-8")?])?;
        fs::write(failing.join("image.toml"), recipe + "\nno_such_key = 1\n")?;
        self.ends_with(2, &["bake", failing.to_str().ok_or("the path is not UTF-8")?])?;
        self.ends_with(2, &["no-such-verb"])?;
        // Names of what is not there, to the daemon and to the file system alike.
        for arguments in [
            &["up", "no-such-directory"][..],
            &["apply", "no-such-directory"],
            &["logs", "no-such-group"],
            &["rebuild", "no-such-group"],
            &["rollback", "no-such-group"],
            &["exec", "no-such-server", "--", "true"],
            &["inspect", "no-such-image"],
            &["promote", "no-such-image", "--to", "stable"],
        ] {
            self.ends_with(2, arguments)?;
        }
        let image = self.json(&["bake", self.project()?])?.last().map(|baked| baked["image"].clone());
        let image = image.as_ref().and_then(Value::as_str).ok_or("a bake has an image")?.to_owned();
        fs::write(self.0.state.join("keys/revoked"), format!("{image}\n"))?;
        let refused = self.ends_with(3, &["promote", &format!("hello@{image}"), "--to", "stable"]);
        fs::remove_file(self.0.state.join("keys/revoked"))?;
        refused
    }

    fn ends_with(&self, code: i32, arguments: &[&str]) -> Outcome {
        let ended = self.0.call(arguments).output()?;
        if ended.status.code() == Some(code) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        Err(format!("`kiln {}` ended with {}, not {code}:\n{said}", arguments.join(" "), ended.status).into())
    }

    /// On a terminal that script(1) makes.
    fn a_shell_opens_in_the_tree_of_a_failed_step(&self) -> Outcome {
        let failing = self.0.directory.with_file_name("failing");
        let recipe = fs::read_to_string(self.0.directory.join("image.toml"))?;
        let step = "\n[[step]]\nrun = \"echo made >/made; exit 3\"\n";
        let services = recipe.find("\n# PID 1 starts").ok_or("the recipe has changed")?;
        fs::write(failing.join("image.toml"), format!("{}{step}{}", &recipe[..services], &recipe[services..]))?;
        let bake = shown(self.0.call(&["bake", "--shell-on-failure"]).arg(&failing));
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &bake, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = terminal.spawn()?;
        // Only the shell makes 42 of it: the terminal shows what is typed, too.
        let typed = "echo $(cat /made) $((40+2))\nexit\n";
        running.stdin.take().ok_or("standard input is piped")?.write_all(typed.as_bytes())?;
        let ended = running.wait_with_output()?;
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        match said.contains("made 42") && ended.status.code() == Some(1) {
            true => Ok(()),
            false => Err(format!("no shell in the failed tree ({}):\n{said}", ended.status).into()),
        }
    }

    fn a_lock_is_used_exactly_and_can_be_refreshed(&self) -> Outcome {
        let path = self.0.directory.join("kiln.lock");
        let lock = fs::read_to_string(&path)?;
        let marker = "sha256 = \"sha256:";
        let at = lock.find(marker).ok_or("a lock has hashes")? + marker.len();
        let wrong = format!("{}{}{}", &lock[..at], "0".repeat(64), &lock[at + 64..]);
        fs::write(&path, wrong)?;
        let baked = self.0.call(&["bake", "--offline", self.project()?]).output()?;
        if baked.status.success() {
            return Err("a bake went on with a package that is not the locked one".into());
        }
        output(&mut self.0.call(&["lock", "--update", self.project()?]))?;
        let refreshed = fs::read_to_string(&path)?;
        if !refreshed.contains(&lock[at..at + 64]) {
            return Err("`kiln lock --update` did not bring the archive's hash back".into());
        }
        Ok(())
    }
}

/// Asks again and again: answers with a status of 200, and others.
fn ask_until(over: &AtomicBool, address: SocketAddr) -> (u64, u64) {
    let (mut good, mut failed) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        match ask(address, "GET / HTTP/1.1\r\n", "") {
            Ok((200, page)) if page.contains("</html>") => good += 1,
            _ => failed += 1,
        }
    }
    (good, failed)
}

fn has(object: &Value, keys: &[&str]) -> Outcome {
    wanted(keys.iter().all(|key| object.get(key).is_some()), object)
}

fn each(list: &Value, keys: &[&str]) -> Outcome {
    let items = list.as_array().filter(|items| !items.is_empty()).ok_or("a list is empty or not there")?;
    items.iter().try_for_each(|item| has(item, keys))
}

fn wanted(good: bool, object: &Value) -> Outcome {
    if good { Ok(()) } else { Err(format!("this is not as documented: {object:#}").into()) }
}
