//! A small image's tree: busybox with all that it can be called, and the files that servers have of their own.

use std::{fs, io, os::unix::fs::symlink, path::Path, process::Command};

const BUSYBOX: &str = "/bin/busybox";
const DIRECTORIES: [&str; 9] = ["bin", "etc", "proc", "sys", "dev", "run", "tmp", "var/tmp", "root"];
const FILES: [(&str, &str); 5] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/www:/bin/sh\n"),
    ("etc/group", "root:x:0:\nweb:x:33:\n"),
    ("etc/hosts", ""),
    ("etc/hostname", ""),
    ("etc/resolv.conf", ""),
];

/// Makes it in a directory, with more files, whose directories are made. Needs Debian's `busybox-static`.
pub fn tree(root: &Path, files: &[(&str, &str)]) -> io::Result<()> {
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy(BUSYBOX, root.join("bin/busybox"))?;
    let applets = Command::new(BUSYBOX).arg("--list").output()?.stdout;
    for applet in String::from_utf8_lossy(&applets).lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    for (path, content) in FILES.iter().chain(files) {
        let path = root.join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, content)?;
    }
    Ok(())
}
