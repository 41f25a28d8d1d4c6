//! A package that cannot be installed beside another one that is needed as well, or is not to run here: unpacked into `target/tools/`, where tests look.
//! apt fetches it from the host's own sources and checks it as any package; the libraries that it needs are installed.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    Outcome,
    command::{root, run},
};

/// A package, and the directory that its tree is unpacked to.
pub struct Unpacked {
    package: &'static str,
    name: &'static str,
}

/// What the tests need: syslog-ng and rsyslog conflict, and the programs of an NFS server run in the guest only.
pub const TEST: &[Unpacked] = &[
    Unpacked { package: "syslog-ng-core", name: "syslog-ng" },
    Unpacked { package: "nfs-kernel-server", name: "nfs-kernel-server" },
    Unpacked { package: "rpcbind", name: "rpcbind" },
];

impl Unpacked {
    fn path(&self) -> PathBuf {
        root().join("target/tools").join(self.name)
    }

    /// Fetches and unpacks it, if it is not there.
    pub fn fetch(&self) -> Outcome {
        if self.path().exists() {
            return Ok(());
        }
        let work = self.path().with_extension("new");
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(&work)?;
        // Not as `_apt`, which may not write here.
        let download = ["download", "--quiet", "-o", "APT::Sandbox::User=root", self.package];
        run(Command::new("apt-get").args(download).current_dir(&work))?;
        let package = fs::read_dir(&work)?.flatten().map(|entry| entry.path()).next().ok_or("apt fetched nothing")?;
        let tree = work.join("tree");
        run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&tree))?;
        fs::rename(&tree, self.path())?;
        fs::remove_dir_all(&work)?;
        Ok(())
    }
}
