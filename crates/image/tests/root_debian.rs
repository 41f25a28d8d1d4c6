//! A Debian base from the real archive: resolved, fetched, unpacked and configured, then looked at from inside.
//! Needs root, the network, and util-linux's `unshare` in place of the build sandbox.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use kiln_image::debian::{self, Archives, Options, Script, Tree, Use};
use kiln_model::recipe::DebianBase;

/// A directory, with scripts run in it under `unshare` and `chroot`: no network, own processes, own mounts.
struct Chroot(PathBuf);

const ENTER: &str = r#"set -eu
tree=$1; shift
mount --make-rprivate /
mount -t proc proc "$tree/proc"
mount -t tmpfs tmpfs "$tree/dev"
for node in null zero full random urandom tty; do
    : > "$tree/dev/$node"
    mount --bind "/dev/$node" "$tree/dev/$node"
done
mount -t tmpfs tmpfs "$tree/run"
exec chroot "$tree" "$@" </dev/null
"#;

impl Chroot {
    fn output(&self, command: &[&str], environment: &[(String, String)]) -> io::Result<(bool, String)> {
        let output = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--net",
                "--ipc",
                "--uts",
                "--fork",
                "--kill-child=KILL",
                "sh",
                "-c",
                ENTER,
                "sh",
            ])
            .arg(&self.0)
            .args(command)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }

    fn inside(&self, command: &str) -> String {
        let (good, text) = self.output(&["/bin/sh", "-c", command], &[]).unwrap();
        assert!(good, "{command}: {text}");
        text
    }
}

impl Tree for Chroot {
    fn open(&self) -> io::Result<OwnedFd> {
        Ok(fs::File::open(&self.0)?.into())
    }

    fn run(&self, script: &Script) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let command: Vec<&str> = script.command.iter().map(String::as_str).collect();
        match self.output(&command, &script.environment)? {
            (true, _) => Ok(()),
            (false, text) => Err(text.into()),
        }
    }
}

fn base(suite: &str, packages: &[&str]) -> DebianBase {
    DebianBase {
        suite: suite.into(),
        packages: packages.iter().map(|name| (*name).to_owned()).collect(),
        mirror: "http://deb.debian.org/debian".into(),
        security_mirror: Some("http://deb.debian.org/debian-security".into()),
        components: vec!["main".into()],
        keyring: None,
    }
}

/// Kept between tests of one run: several of them want the same packages.
fn cache() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-cache");
    fs::create_dir_all(&directory).unwrap();
    directory
}

const EPOCH: i64 = 1_700_000_000;

fn bake(base: &DebianBase, directory: &Path) -> Chroot {
    let (cache, now) = (cache(), jiff::Timestamp::now());
    let start = Instant::now();
    let archives = Archives::refresh(base, None, &cache, Use::Network, now, &|_| ()).unwrap();
    let refreshed = start.elapsed();
    let set = debian::resolve(&archives, &[], &base.packages).unwrap();
    let resolved = start.elapsed();
    let debs = debian::fetch(&set, base, &cache, Use::Network, &|_| ()).unwrap();
    let fetched = start.elapsed();
    let tree = Chroot(directory.to_owned());
    debian::install(&debs, &tree, &Options { source_date_epoch: EPOCH }, &|_| ())
        .unwrap_or_else(|error| panic!("{error:?}"));
    let packages = set.len();
    eprintln!(
        "{packages} packages: refresh {refreshed:?}, resolve {resolved:?}, fetch {fetched:?}, install {:?}",
        start.elapsed()
    );
    tree
}

#[test]
fn root_a_base_with_nginx_is_complete_and_dpkg_agrees() {
    let directory = tempfile::tempdir().unwrap();
    let tree = bake(&base("bookworm", &["nginx-light"]), directory.path());
    assert_eq!(tree.inside("dpkg --audit"), "");
    assert_eq!(tree.inside("dpkg -V"), "");
    let states = tree.inside("dpkg-query -W -f '${db:Status-Abbrev}\n' | sort -u");
    assert_eq!(states.trim(), "ii");
    tree.inside("nginx -t");
    assert!(tree.inside("getent passwd www-data").contains("/usr/sbin/nologin"));
    assert!(!directory.path().join("usr/sbin/policy-rc.d").exists());
}
