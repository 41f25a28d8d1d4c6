//! A plain Debian 13 in QEMU: another kernel than this host's, control groups of version 2, no network, and Kiln on it.
//!
//! The host of the other tests may have a newer kernel or version 1 groups, and users have neither. The guest boots
//! Debian's kernel under emulation (nothing of the host is needed for that, and it is slow), runs the tests of servers and
//! of the build sandbox, and then the main job from packages that were downloaded before.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    Outcome,
    command::{build_kiln, cargo, is_root, output, root},
    demo,
};

/// Debian's own mirror; a proxy of the environment is used by apt-get.
const ARCHIVE: &str =
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main\n";
const KERNEL: &str = "linux-image-cloud-amd64";
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
/// The guest needs about one minute; an emulated one on a busy machine several.
const LIMIT_SECONDS: &str = "1500";
/// What volumes need of a host, and the `logger` that the tests of `/dev/log` talk with.
const PROGRAMS: [&str; 5] = ["mke2fs", "e2fsck", "resize2fs", "mkfs.xfs", "logger"];
/// An NFS server for the guest: from the packages that are unpacked in `target/tools`.
const NFS_PROGRAMS: [&str; 4] = [
    "nfs-kernel-server/usr/sbin/exportfs",
    "nfs-kernel-server/usr/sbin/rpc.mountd",
    "nfs-kernel-server/usr/sbin/rpc.nfsd",
    "rpcbind/sbin/rpcbind",
];
const NFS: &str = include_str!("guest/nfs.sh");
const INIT: &str = include_str!("guest/init.sh");
const CHECKS: &str = include_str!("guest/checks.sh");
/// Finds the disk, which the kernel has a module for.
const FIRST: &str = "#!/bin/busybox sh\n\
    /bin/busybox mount -t proc proc /proc\n\
    /bin/busybox mount -t devtmpfs dev /dev\n\
    /bin/busybox insmod /virtio_blk.ko\n\
    /bin/busybox mount -t ext4 /dev/vda /root\n\
    exec /bin/busybox switch_root /root /sbin/init\n";

/// Boots it and reads what it says. `cache` is a state directory's, with the packages of `examples/hello`.
pub fn run(cache: &Path) -> Outcome {
    if !is_root() {
        return Err("the guest's disk is made as root. `--no-guest` leaves it out".into());
    }
    eprintln!("\n# guest");
    let guest = Guest { work: root().join("target/guest") };
    let kernel = guest.kernel()?;
    guest.disk(&kernel, cache)?;
    guest.first_disk(&kernel)?;
    guest.boot(&kernel)
}

struct Guest {
    work: PathBuf,
}

/// Debian's kernel package, unpacked.
struct Kernel {
    image: PathBuf,
    /// `lib/modules/VERSION`.
    modules: PathBuf,
}

impl Guest {
    /// Downloads the kernel once; apt-get checks its signature against Debian's keys.
    fn kernel(&self) -> Outcome<Kernel> {
        let tree = self.work.join("kernel");
        if !tree.join("boot").exists() {
            let apt = self.work.join("apt");
            fs::create_dir_all(apt.join("lists"))?;
            fs::write(apt.join("sources.list"), ARCHIVE)?;
            output(self.apt("apt-get").arg("update"))?;
            let shown = output(self.apt("apt-cache").args(["depends", "--important", KERNEL]))?;
            let shown = String::from_utf8(shown.stdout)?;
            let package = shown.split_whitespace().find(|word| word.starts_with("linux-image-") && *word != KERNEL);
            let package = package.ok_or("Debian's kernel package names no kernel")?;
            let download = self.work.join("download");
            fresh(&download)?;
            output(self.apt("apt-get").args(["download", package]).current_dir(&download))?;
            fresh(&tree)?;
            output(Command::new("dpkg-deb").arg("-x").arg(only(&download)?).arg(&tree))?;
        }
        let image = fs::read_dir(tree.join("boot"))?.flatten().map(|entry| entry.path());
        let image =
            image.into_iter().find(|path| name(path).starts_with("vmlinuz")).ok_or("no kernel in the package")?;
        Ok(Kernel { image, modules: only(&tree.join("usr/lib/modules"))? })
    }

    fn apt(&self, program: &str) -> Command {
        let apt = self.work.join("apt");
        let mut command = Command::new(program);
        for (key, value) in [
            ("Dir::Etc::sourcelist", apt.join("sources.list").display().to_string()),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::State::lists", apt.join("lists").display().to_string()),
            ("Dir::Cache", apt.display().to_string()),
            ("APT::Sandbox::User", "root".into()),
        ] {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        command
    }

    /// The guest's disk: busybox, the kernel's modules, Kiln, its tests, and what they need.
    fn disk(&self, kernel: &Kernel, cache: &Path) -> Outcome {
        let tree = self.work.join("disk");
        fresh(&tree)?;
        for directory in [
            "bin",
            "dev",
            "etc/ssl/certs",
            "lib64",
            LIBRARIES,
            "proc",
            "root",
            "run",
            "sbin",
            "sys",
            "tmp",
            "var",
            "guest/state",
        ] {
            fs::create_dir_all(tree.join(directory))?;
        }
        busybox(&tree)?;
        for file in ["etc/passwd", "etc/group", "etc/mke2fs.conf", "etc/ssl/certs/ca-certificates.crt"] {
            fs::copy(Path::new("/").join(file), tree.join(file))?;
        }
        fs::write(tree.join("etc/resolv.conf"), "nameserver 192.0.2.1\n")?;
        let modules = tree.join("lib/modules").join(name(&kernel.modules));
        demo::copy_fresh(&kernel.modules, &modules)?;
        output(Command::new("depmod").arg("-b").arg(&tree).arg(name(&kernel.modules)))?;
        for (program, to) in programs()? {
            install(&program, &tree, to)?;
        }
        for program in PROGRAMS {
            let found = crate::command::which(program).ok_or_else(|| format!("{program} is not installed"))?;
            // Busybox has some of that name, of which Kiln knows nothing.
            fs::remove_file(tree.join("bin").join(program)).or_else(absent)?;
            install(&found, &tree, &format!("bin/{program}"))?;
        }
        for program in NFS_PROGRAMS {
            let program = root().join("target/tools").join(program);
            install(&program, &tree, &format!("sbin/{}", name(&program)))?;
        }
        // For the tests of what `rpcbind` and the lock manager call by name.
        for file in ["etc/netconfig", "etc/rpc", "etc/protocols", "etc/services"] {
            fs::copy(Path::new("/").join(file), tree.join(file))?;
        }
        executable(&tree.join("guest/nfs.sh"), NFS)?;
        executable(&tree.join("sbin/init"), INIT)?;
        executable(&tree.join("guest/checks.sh"), CHECKS)?;
        demo::copy_fresh(cache, &tree.join("guest/state/cache"))?;
        demo::copy_fresh(&root().join("examples/hello"), &tree.join("guest/hello"))?;
        let disk = self.work.join("disk.ext4");
        fs::File::create(&disk)?.set_len(3 << 30)?;
        output(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-O", "verity", "-d"]).arg(&tree).arg(disk))?;
        Ok(fs::remove_dir_all(tree)?)
    }

    /// The initial memory file system.
    fn first_disk(&self, kernel: &Kernel) -> Outcome {
        let tree = self.work.join("first");
        fresh(&tree)?;
        for directory in ["bin", "dev", "proc", "root"] {
            fs::create_dir_all(tree.join(directory))?;
        }
        fs::copy(crate::command::which("busybox").ok_or("busybox is not installed")?, tree.join("bin/busybox"))?;
        let packed = kernel.modules.join("kernel/drivers/block/virtio_blk.ko.xz");
        fs::write(tree.join("virtio_blk.ko"), output(Command::new("xz").arg("-dc").arg(packed))?.stdout)?;
        executable(&tree.join("init"), FIRST)?;
        let pack = "find . | busybox cpio -o -H newc > ../first.cpio";
        output(Command::new("sh").args(["-c", pack]).current_dir(&tree))?;
        Ok(())
    }

    fn boot(&self, kernel: &Kernel) -> Outcome {
        let mut qemu = Command::new("timeout");
        qemu.args([LIMIT_SECONDS, "qemu-system-x86_64", "-nodefaults", "-no-reboot", "-nographic", "-serial", "stdio"]);
        // One emulating thread: with several, a kernel that patches its own code can be seen half patched.
        qemu.args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "2048"]);
        qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(self.work.join("first.cpio"));
        qemu.args(["-append", "console=ttyS0 quiet loglevel=3 panic=-1"]);
        let disk = self.work.join("disk.ext4").display().to_string();
        qemu.arg("-drive").arg(format!("file={disk},format=raw,if=virtio,cache=unsafe"));
        eprintln!("+ {}", crate::command::shown(&qemu));
        let said = qemu.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&said.stdout).replace('\r', "");
        judge(&said)
    }
}

/// The guest says `CHECK name code` after each check and `DONE` after the last.
fn judge(said: &str) -> Outcome {
    let checks: Vec<&str> = said.lines().filter(|line| line.starts_with("CHECK ")).collect();
    let bad: Vec<&&str> = checks.iter().filter(|line| !line.ends_with(" 0")).collect();
    checks.iter().for_each(|line| eprintln!("{line}"));
    if bad.is_empty() && said.lines().any(|line| line == "DONE") {
        return Ok(());
    }
    Err(format!("the guest did not pass: {bad:?}. It said:\n{said}").into())
}

/// Tests of servers and of the build sandbox, and `kiln`, with their names in the guest.
fn programs() -> Outcome<Vec<(PathBuf, &'static str)>> {
    let mut found = vec![(build_kiln(false)?, "guest/kiln")];
    let built = output(cargo().args(["test", "--workspace", "--no-run", "--message-format=json", "--quiet"]))?;
    for line in String::from_utf8(built.stdout)?.lines() {
        let message: Value = serde_json::from_str(line)?;
        let ours = message["package_id"].as_str().is_some_and(|id| id.contains("crates/runtime"));
        let to = match message["target"]["name"].as_str() {
            Some("servers") if ours => "guest/servers",
            Some("sandbox") if ours => "guest/sandbox",
            _ => continue,
        };
        found.extend(message["executable"].as_str().map(|path| (PathBuf::from(path), to)));
    }
    if found.len() == 3 { Ok(found) } else { Err("cargo names no tests of the runtime".into()) }
}

/// Copies a program and its libraries.
fn install(program: &Path, tree: &Path, to: &str) -> Outcome {
    output(Command::new("strip").arg("-o").arg(tree.join(to)).arg(program))?;
    let listed = String::from_utf8(output(Command::new("ldd").arg(program))?.stdout)?;
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = tree.join(library.trim_start_matches('/'));
        fs::create_dir_all(target.parent().ok_or("a library has a directory")?)?;
        fs::copy(library, target)?;
        // Debian has the loader here too, and tests of the sandbox start programs by it.
        fs::copy(library, tree.join(LIBRARIES).join(name(Path::new(library))))?;
    }
    Ok(())
}

fn busybox(tree: &Path) -> Outcome {
    let program = crate::command::which("busybox").ok_or("busybox is not installed")?;
    fs::copy(&program, tree.join("bin/busybox"))?;
    let applets = String::from_utf8(output(Command::new(&program).arg("--list"))?.stdout)?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("/bin/busybox", tree.join("bin").join(applet))?;
    }
    // Where the kernel looks for it.
    Ok(symlink("/bin/busybox", tree.join("sbin/modprobe"))?)
}

fn executable(path: &Path, text: &str) -> Outcome {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// An empty directory, in place of what was there.
fn fresh(directory: &Path) -> Outcome {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    Ok(fs::create_dir_all(directory)?)
}

/// The only entry of a directory.
fn only(directory: &Path) -> Outcome<PathBuf> {
    let mut entries = fs::read_dir(directory)?;
    let first = entries.next().ok_or_else(|| format!("{} is empty", directory.display()))??;
    if entries.next().is_some() {
        Err(format!("{} holds more than one", directory.display()).into())
    } else {
        Ok(first.path())
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
