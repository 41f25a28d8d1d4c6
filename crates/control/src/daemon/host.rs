//! What Kiln made on this host, as far as the daemon needs it: a list, and its removal.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_api::host::HostItem;
use kiln_runtime::{Phase, Runtime, RuntimeError};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What Kiln made on the host could not be listed or removed.
#[derive(Debug, thiserror::Error)]
#[error("could not {action}")]
pub struct HostError {
    /// What was tried.
    pub action: String,
    /// Why it failed.
    #[source]
    pub source: Cause,
}

/// What Kiln made on this host for one state directory. Calls block.
pub trait Host: Send + Sync + 'static {
    /// Everything.
    fn inventory(&self) -> Result<Vec<HostItem>, HostError>;
    /// Removes everything but the state directory. Servers have been destroyed before.
    fn purge(&self) -> Result<(), HostError>;
}

/// What the runtime of a state directory made.
pub struct LocalHost {
    runtime: Arc<Runtime>,
    id: String,
    run_dir: PathBuf,
}

impl LocalHost {
    /// What this runtime made. `id` is the one in the names of interfaces and control groups.
    pub fn new(runtime: Arc<Runtime>, id: String, run_dir: PathBuf) -> Self {
        Self { runtime, id, run_dir }
    }

    fn servers(&self) -> Result<Vec<HostItem>, RuntimeError> {
        let running = self.runtime.observe()?.into_iter().filter(|seen| !matches!(seen.phase, Phase::Exited { .. }));
        let process = |seen: kiln_runtime::Observed| {
            item("process", seen.record.pid.to_string(), Some(seen.record.server.to_string()))
        };
        Ok(running.map(process).collect())
    }

    fn network(&self) -> Vec<HostItem> {
        let Some(network) = self.runtime.network() else { return Vec::new() };
        let names = network.names();
        let ours = |link: &str| link == names.bridge || link.starts_with(&names.port_prefix);
        let links = names_in(Path::new("/sys/class/net")).into_iter().filter(|link| ours(link));
        links
            .map(|link| item("interface", link, None))
            .chain([item("nftables", format!("table inet {}", names.table), None)])
            .collect()
    }

    fn cgroups(&self) -> Vec<HostItem> {
        let below = |top: &Path| {
            let ours = top.join("kiln").join(&self.id);
            let slots = names_in(&ours).into_iter().map(|name| ours.join(name)).filter(|path| path.is_dir());
            let all: Vec<PathBuf> = ours.is_dir().then(|| ours.clone()).into_iter().chain(slots).collect();
            all
        };
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = [root.to_owned()].into_iter().chain(names_in(root).into_iter().map(|name| root.join(name)));
        hierarchies.flat_map(|top| below(&top)).map(|path| item("cgroup", path.display().to_string(), None)).collect()
    }
}

fn item(kind: &str, name: String, server: Option<String>) -> HostItem {
    HostItem { kind: kind.to_owned(), name, server }
}

/// Names in a directory, sorted; none where it is not there.
fn names_in(directory: &Path) -> Vec<String> {
    let entries: io::Result<Vec<fs::DirEntry>> = fs::read_dir(directory).and_then(Iterator::collect);
    let mut names: Vec<String> =
        entries.into_iter().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

impl Host for LocalHost {
    fn inventory(&self) -> Result<Vec<HostItem>, HostError> {
        let failed =
            |source: RuntimeError| HostError { action: "list the servers".to_owned(), source: Box::new(source) };
        let files = [self.run_dir.clone()].into_iter().filter(|path| path.exists());
        let files = files.map(|path| item("directory", path.display().to_string(), None));
        Ok(self
            .servers()
            .map_err(failed)?
            .into_iter()
            .chain(self.cgroups())
            .chain(self.network())
            .chain(files)
            .collect())
    }

    fn purge(&self) -> Result<(), HostError> {
        self.runtime.purge().map_err(|source| HostError {
            action: "remove what Kiln made on this host".to_owned(),
            source: Box::new(source),
        })
    }
}
