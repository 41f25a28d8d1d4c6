//! A small tree to run commands over: busybox, and nothing else.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_runtime::sandbox::{Job, Network, Outcome, Sandbox, SandboxError, SandboxOptions, SandboxRoot, Stream, Tmp};
use kiln_sys::{
    mount::{self, Attributes, Depth},
    shelf::Template,
};
use rustix::fs::CWD;

const APPLETS: &str = "sh cat ls id chown chmod mkdir rm ln mount umount mknod chroot touch echo sleep dd stat hostname \
                       ip ps kill nsenter unshare su setsid df env pwd cp mv true false head tail wc grep seq nc \
                       sysctl readlink test ping wget nslookup yes tr od find sort timeout id rmdir tty stty";

/// A sandbox with its own directories.
pub struct Bench {
    pub sandbox: Sandbox,
    directory: PathBuf,
    owned: Option<tempfile::TempDir>,
    id: String,
    pub jobs: usize,
}

/// What came of a command.
#[derive(Debug)]
pub struct Ran {
    pub outcome: Outcome,
    pub stdout: String,
    pub stderr: String,
    pub upper: PathBuf,
}

impl Ran {
    pub fn ok(self) -> Self {
        assert_eq!(self.outcome, Outcome::Exited(0), "{self:?}");
        self
    }
}

pub fn lower(directory: &Path) {
    for name in ["bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "var"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", directory.join("bin/busybox")).unwrap();
    for applet in APPLETS.split_whitespace() {
        drop(symlink("busybox", directory.join("bin").join(applet)));
    }
    fs::write(directory.join("etc/passwd"), "root::0:0::/root:/bin/sh\nother:x:1000:1000::/home:/bin/sh\n").unwrap();
    fs::write(directory.join("etc/group"), "root:x:0:\nother:x:1000:\n").unwrap();
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut SandboxOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        lower(&directory.path().join("lower"));
        let id = format!("{:08}", std::process::id());
        fs::write(directory.path().join("id"), &id).unwrap();
        Self::at(directory.path().to_owned(), Some(directory), change)
    }

    /// The bench of another process.
    pub fn again(directory: &Path) -> Self {
        Self::at(directory.to_owned(), None, |_| {})
    }

    fn at(directory: PathBuf, owned: Option<tempfile::TempDir>, change: impl FnOnce(&mut SandboxOptions)) -> Self {
        let id = fs::read_to_string(directory.join("id")).unwrap();
        let mut options = SandboxOptions::new(&directory.join("run"), &id);
        change(&mut options);
        Self { sandbox: Sandbox::open(options).unwrap(), directory, owned, id, jobs: 0 }
    }

    pub fn id(&self) -> String {
        self.id.clone()
    }

    pub fn path(&self) -> &Path {
        self.owned.as_ref().map_or(&self.directory, |owned| owned.path())
    }

    pub fn layer(&self, name: &str) -> Template {
        let mount = mount::clone_tree(CWD, &self.path().join(name), Depth::One).unwrap();
        mount::restrict(mount.as_fd(), Depth::One, Attributes::READ_ONLY).unwrap();
        Template::new(mount).unwrap()
    }

    pub fn job(&mut self, command: &[&str]) -> Job {
        self.jobs += 1;
        let place = |name: &str| {
            let path = self.path().join(format!("{name}{}", self.jobs));
            fs::create_dir_all(&path).unwrap();
            path
        };
        Job {
            root: SandboxRoot {
                lower: vec![Box::new(self.layer("lower"))],
                upper: place("upper"),
                work: place("work"),
            },
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            environment: vec![("PATH".to_owned(), "/bin".to_owned())],
            working_directory: "/".to_owned(),
            network: Network::Off,
            binds: vec![],
            trees: Vec::new(),
            user: None,
            tmp: Tmp::Memory,
            memory: Vec::new(),
            hostname: "build".to_owned(),
            time_limit: Duration::from_secs(20),
            interactive: false,
        }
    }

    pub fn shell(&mut self, script: &str) -> Ran {
        let job = self.job(&["/bin/sh", "-c", script]);
        self.run(job).unwrap()
    }

    pub fn run(&self, job: Job) -> Result<Ran, SandboxError> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let upper = job.root.upper.clone();
        let outcome = self.sandbox.run(job, &mut |stream, bytes| match stream {
            Stream::Stdout => stdout.extend_from_slice(bytes),
            Stream::Stderr => stderr.extend_from_slice(bytes),
        })?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ran { outcome, stdout: text(stdout), stderr: text(stderr), upper })
    }
}
