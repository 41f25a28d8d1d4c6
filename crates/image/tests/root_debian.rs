//! A Debian base from the real archive: resolved, fetched, unpacked and configured, then looked at from inside.
//! Needs root, the network, and util-linux's `unshare` in place of the build sandbox.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use kiln_image::debian::{self, Archives, KeyFiles, Options, Script, Tree, Use};
use kiln_model::{
    Digest,
    recipe::{DebianBase, Distribution},
};

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
        distribution: Distribution::Debian,
        suite: suite.into(),
        packages: packages.iter().map(|name| (*name).to_owned()).collect(),
        mirror: "http://deb.debian.org/debian".into(),
        security_mirror: Some("http://deb.debian.org/debian-security".into()),
        components: vec!["main".into()],
        keyring: None,
        repositories: Vec::new(),
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
    let archives = Archives::refresh(base, &KeyFiles::default(), &cache, Use::Network, now, &|_| ()).unwrap();
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
    assert_sound(&tree);
    tree.inside("nginx -t");
    assert!(tree.inside("getent passwd www-data").contains("/usr/sbin/nologin"));
    assert!(!directory.path().join("usr/sbin/policy-rc.d").exists());
}

/// Resolves and installs more packages into a tree that has some.
fn add(base: &DebianBase, tree: &Chroot, wanted: &[&str]) -> usize {
    let archives =
        Archives::refresh(base, &KeyFiles::default(), &cache(), Use::Network, jiff::Timestamp::now(), &|_| ()).unwrap();
    let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let root = debian::root::Root::new(tree.open().unwrap());
    let there = debian::database::installed_in(&root).unwrap();
    let set = debian::resolve(&archives, &there, &wanted).unwrap();
    let debs = debian::fetch(&set, base, &cache(), Use::Network, &|_| ()).unwrap();
    let options = Options { source_date_epoch: EPOCH };
    debian::install(&debs, tree, &options, &|_| ()).unwrap_or_else(|error| panic!("{error:?}"));
    set.len()
}

/// dpkg and a second look agree that everything is installed and as shipped.
fn assert_sound(tree: &Chroot) {
    assert_eq!(tree.inside("dpkg --audit"), "");
    assert_eq!(tree.inside("dpkg -V"), "");
    assert_eq!(tree.inside("dpkg-query -W -f '${db:Status-Abbrev}\n' | sort -u").trim(), "ii");
    assert_eq!(tree.inside("cat /var/lib/dpkg/triggers/Unincorp 2>/dev/null || true"), "");
}

#[test]
fn root_packages_go_over_a_base_and_its_triggers_run() {
    let directory = tempfile::tempdir().unwrap();
    let base = base("bookworm", &[]);
    let tree = bake(&base, directory.path());
    fs::create_dir_all(directory.path().join("etc/redis")).unwrap();
    fs::write(directory.path().join("etc/redis/redis.conf"), "port 7000\n").unwrap();
    assert!(add(&base, &tree, &["redis-server", "python3-venv", "ca-certificates"]) > 10);
    assert_eq!(tree.inside("dpkg -V || true").trim(), "??5?????? c /etc/redis/redis.conf");
    assert_eq!(tree.inside("dpkg --audit"), "");
    assert_eq!(fs::read_to_string(directory.path().join("etc/redis/redis.conf")).unwrap(), "port 7000\n");
    assert!(tree.inside("redis-server --version").contains("v=7"));
    assert_eq!(tree.inside("python3 -c 'import venv, ssl; print(1)'").trim(), "1");
    assert!(tree.inside("grep -c BEGIN /etc/ssl/certs/ca-certificates.crt").trim().parse::<u32>().unwrap() > 100);
    assert!(tree.inside("id redis").contains("uid="));
    add(&base, &tree, &["man-db"]);
    assert_eq!(add(&base, &tree, &["man-db", "redis-server"]), 0);
    add(&base, &tree, &["nano"]);
    assert!(tree.inside("man -w nano").contains("nano.1"), "man-db's trigger has run");
}

#[test]
fn root_a_trixie_base_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let tree = bake(&base("trixie", &["nginx-light", "openssh-server"]), directory.path());
    assert_sound(&tree);
    tree.inside("nginx -t");
}

#[test]
fn root_two_installations_of_one_set_are_the_same() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let base = base("bookworm", &["nginx-light", "adduser"]);
    let [one, other] = directories.each_ref().map(|directory| {
        bake(&base, directory.path());
        census(directory.path())
    });
    let differing = one.iter().filter(|(name, text)| other.get(*name) != Some(text));
    assert_eq!(differing.collect::<Vec<_>>(), []);
    assert_eq!(one.len(), other.len());
}

/// What is not the same in a tree that mmdebstrap makes, and why.
const DIFFERENCES: [(&str, &str); 13] = [
    ("/dev/", "mmdebstrap makes device nodes; a server gets its own /dev"),
    ("/etc/apt/", "mmdebstrap writes its sources and apt's directories; apt is not installed"),
    ("/etc/fstab", "mmdebstrap writes an empty one"),
    ("/etc/hostname", "mmdebstrap copies the host's"),
    ("/etc/resolv.conf", "mmdebstrap copies the host's"),
    ("/etc/shells", "the same lines, in the order in which dpkg configured dash, bash and debianutils"),
    ("/run/lock", "mmdebstrap makes it; a server gets its own /run"),
    ("/var/cache/apt", "apt is not installed"),
    ("/var/cache/debconf/config.dat-old", "a backup"),
    ("/var/cache/debconf/templates.dat-old", "a backup"),
    ("/var/lib/apt", "apt is not installed"),
    ("/var/lib/dpkg/", "backups, and the status in another order: see below"),
    ("/var/log/", "logs"),
];

/// Below `/var/lib/dpkg/`, which is compared apart from this.
const DATABASE_DIFFERENCES: [&str; 4] =
    ["/var/lib/dpkg/arch", "/var/lib/dpkg/diversions-old", "/var/lib/dpkg/status", "/var/lib/dpkg/status-old"];

/// Kind, mode, owner, group and content or target of everything in a tree.
fn census(tree: &Path) -> BTreeMap<String, String> {
    let entries = walkdir::WalkDir::new(tree).min_depth(1).into_iter().map(Result::unwrap);
    entries
        .map(|entry| {
            let (metadata, path) = (entry.metadata().unwrap(), entry.path());
            let name = format!("/{}", path.strip_prefix(tree).unwrap().display());
            let content = match entry.file_type() {
                kind if kind.is_file() => Digest::of(&fs::read(path).unwrap()).short(),
                kind if kind.is_symlink() => fs::read_link(path).unwrap().display().to_string(),
                kind if kind.is_dir() => "directory".into(),
                _ => format!("device {:x}", metadata.rdev()),
            };
            (name, format!("{:o} {}:{} {content}", metadata.mode(), metadata.uid(), metadata.gid()))
        })
        .collect()
}

/// The same packages by mmdebstrap, from the same mirror; none where it is not installed.
fn by_mmdebstrap(base: &DebianBase, directory: &Path) -> Option<PathBuf> {
    Command::new("mmdebstrap").arg("--version").output().ok()?;
    let suite = &base.suite;
    let security = base.security_mirror.as_deref()?;
    let sources = format!(
        "deb {mirror} {suite} main\ndeb {mirror} {suite}-updates main\ndeb {security} {suite}-security main\n",
        mirror = base.mirror,
    );
    let (list, tree) = (directory.join("sources.list"), directory.join("peer"));
    fs::write(&list, sources).unwrap();
    let include = format!("--include={}", base.packages.join(","));
    let command = ["--variant=essential", "--mode=root", &include, suite];
    let output = Command::new("mmdebstrap").args(command).arg(&tree).arg(&list).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(tree)
}

/// The lines of a file, sorted.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn root_the_tree_is_what_mmdebstrap_makes() {
    let directory = tempfile::tempdir().unwrap();
    let base = base("bookworm", &["nginx-light"]);
    let Some(peer) = by_mmdebstrap(&base, directory.path()) else {
        eprintln!("not compared: mmdebstrap is not installed");
        return;
    };
    let own = directory.path().join("own");
    fs::create_dir(&own).unwrap();
    bake(&base, &own);
    for file in ["etc/shells", "var/lib/dpkg/status"] {
        assert_eq!(lines(&own.join(file)), lines(&peer.join(file)), "{file}");
    }
    let (own, peer) = (census(&own), census(&peer));
    let explained = |name: &str| match name.starts_with("/var/lib/dpkg/") {
        true => DATABASE_DIFFERENCES.contains(&name),
        false => DIFFERENCES.iter().any(|(start, _reason)| name.starts_with(start)),
    };
    let mut differences = Vec::new();
    for name in own.keys().chain(peer.keys().filter(|name| !own.contains_key(*name))).filter(|name| !explained(name)) {
        let (own, peer) = (own.get(name), peer.get(name));
        if own != peer {
            differences.push(format!("{name}: {} / {}", own.map_or("-", |t| t), peer.map_or("-", |t| t)));
        }
    }
    assert!(differences.is_empty(), "own / mmdebstrap's:\n{}", differences.join("\n"));
}
