//! Drives the real `kiln` through its documented command line, with a state directory of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::Bench;
use crate::{Outcome, command::output, demo};

/// One state directory. Everything made in it is removed when dropped.
pub struct Kiln {
    program: PathBuf,
    state: PathBuf,
    project: PathBuf,
}

/// How `kiln up` ended.
pub struct Up {
    /// Seconds, as Kiln says.
    pub seconds: f64,
    /// `127.0.0.1:PORT` of the first published port.
    pub port: u16,
}

impl Kiln {
    /// With a copy of an example to work on. The downloads of earlier runs are kept, the rest is fresh.
    pub fn fresh(bench: &Bench, name: &str, example: &str) -> Outcome<Self> {
        let (state, project) = (bench.work.join(name).join("state"), bench.work.join(name).join("project"));
        let kiln = Self { program: bench.kiln.clone(), state, project };
        kiln.clear()?;
        fs::create_dir_all(&kiln.state)?;
        let cache = bench.work.join("cache");
        if cache.is_dir() {
            demo::copy_fresh(&cache, &kiln.state.join("cache"))?;
        }
        demo::copy_fresh(&crate::command::root().join("examples").join(example), &kiln.project)?;
        demo::free_ports(&kiln.project)?;
        Ok(kiln)
    }

    fn clear(&self) -> Outcome {
        if self.state.exists() {
            output(&mut self.call(&["down", "--purge", "--accept-loss"]))?;
            fs::remove_dir_all(&self.state)?;
        }
        Ok(())
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The directory of the recipe and the fleet.
    pub fn project(&self) -> &Path {
        &self.project
    }

    /// Keeps the downloads for the next.
    pub fn keep_downloads(&self, bench: &Bench) -> Outcome {
        demo::copy_fresh(&self.state.join("cache"), &bench.work.join("cache"))
    }

    /// A call of the program.
    pub fn call(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--state").arg(&self.state).args(arguments);
        command
    }

    /// The object that a verb prints with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Outcome<Value> {
        let said = output(self.call(arguments).arg("--json"))?;
        let text = String::from_utf8(said.stdout)?;
        let last = text.trim_end();
        // Verbs with events print one object per line, the result last.
        serde_json::from_str(last).or_else(|_| Ok(serde_json::from_str(last.lines().last().unwrap_or_default())?))
    }

    fn in_project(&self, verb: &str) -> Outcome<Value> {
        self.json(&[verb, self.project.to_str().ok_or("the path is not UTF-8")?])
    }

    /// `kiln up`.
    pub fn up(&self) -> Outcome<Up> {
        let last = self.in_project("up")?;
        if last["result"] != "ok" {
            return Err(format!("`kiln up` ended with {last}").into());
        }
        let seconds = last["seconds"].as_f64().ok_or("`kiln up` says no seconds")?;
        Ok(Up { seconds, port: self.port()? })
    }

    /// `kiln bake`, in seconds as Kiln says.
    pub fn bake(&self) -> Outcome<f64> {
        self.in_project("bake")?["seconds"].as_f64().ok_or_else(|| "`kiln bake` says no seconds".into())
    }

    /// `kiln status`.
    pub fn status(&self) -> Outcome<Value> {
        self.json(&["status"])
    }

    /// The servers of all groups.
    pub fn servers(&self) -> Outcome<Vec<Value>> {
        let status = self.status()?;
        let groups = status["groups"].as_array().ok_or("status has groups")?;
        Ok(groups.iter().filter_map(|g| g["servers"].as_array()).flatten().cloned().collect())
    }

    /// Those that serve; what a rollout replaced may still be on its way out.
    pub fn ready_servers(&self) -> Outcome<Vec<Value>> {
        Ok(self.servers()?.into_iter().filter(|server| server["state"] == "ready").collect())
    }

    /// Waits until exactly so many servers are there and serve.
    pub fn settled(&self, count: u32) -> Outcome {
        let begin = std::time::Instant::now();
        loop {
            let mut servers = self.servers()?;
            // A spare is none of the group yet.
            servers.retain(|server| server["spare"] != true);
            if servers.len() == count as usize && servers.iter().all(|server| server["state"] == "ready") {
                return Ok(());
            }
            if begin.elapsed().as_secs() > 60 {
                return Err(format!("{count} servers are wanted, and these are there: {servers:?}").into());
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn port(&self) -> Outcome<u16> {
        let status = self.status()?;
        let endpoint = &status["groups"][0]["endpoints"][0];
        let text = endpoint.as_str().or_else(|| endpoint["address"].as_str()).ok_or("no endpoint in the status")?;
        let digits = text.trim_end_matches('/').rsplit(':').next().unwrap_or_default();
        digits.parse().map_err(|_| format!("no port in the endpoint {endpoint}").into())
    }

    /// Replaces a text in a file of the project; it must be there.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> Outcome {
        let path = self.project.join(file);
        let text = fs::read_to_string(&path)?;
        if !text.contains(from) {
            return Err(format!("{} has no `{from}`", path.display()).into());
        }
        Ok(fs::write(path, text.replace(from, to))?)
    }

    /// Changes the page.
    pub fn change_page(&self) -> Outcome {
        demo::change_page(&self.project)
    }
}

impl Drop for Kiln {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("what the benchmark made could not be removed: {error}");
        }
    }
}
