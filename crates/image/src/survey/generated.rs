//! What Debian's own scripts and programs make, so that it is nobody's work: the reason stands beside each.

/// Directories of which nothing is looked at.
pub(super) const PASSED_OVER: &[&str] = &[
    "/proc",             // the kernel's
    "/sys",              // the kernel's
    "/dev",              // the kernel's
    "/run",              // gone at the next start
    "/tmp",              // gone at the next start
    "/var/tmp",          // nobody relies on it
    "/var/run",          // `/run`
    "/var/lock",         // `/run/lock`
    "/var/cache",        // made again
    "/var/log",          // goes to the collector
    "/var/spool/cron",   // read as what is scheduled
    "/var/lib/dpkg",     // dpkg's database
    "/var/lib/apt",      // apt's lists
    "/var/lib/ucf",      // ucf's
    "/var/lib/systemd",  // systemd's own
    "/var/lib/pam",      // pam-auth-update's
    "/var/backups",      // copies of databases
    "/lost+found",       // the file system's
    "/boot",             // a server has no kernel of its own
    "/etc/alternatives", // update-alternatives'
    "/etc/ssl/certs",    // update-ca-certificates'
];

/// Files and directories that scripts of Debian's packages make, beside those that [`Template`]s are for.
const FILES: &[&str] = &[
    "/etc/opt",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/srv",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/etc",
    "/usr/local/games",
    "/usr/local/include",
    "/usr/local/lib",
    "/usr/local/lib/python3.11",
    "/usr/local/lib/python3.11/dist-packages",
    "/usr/local/lib/python3.13",
    "/usr/local/lib/python3.13/dist-packages",
    "/usr/local/man",
    "/usr/local/sbin",
    "/usr/local/share",
    "/usr/local/share/ca-certificates",
    "/usr/local/share/man",
    "/usr/local/src",
    "/var/local",
    "/var/mail",
    "/var/opt",
    "/var/spool",
    "/var/spool/mail",
    "/var/www",
    "/var/www/html",
    "/etc/.pwd.lock",
    "/etc/.updated",
    "/etc/adjtime",
    "/etc/ca-certificates.conf",
    "/etc/ca-certificates.conf.dpkg-old",
    "/etc/dpkg/origins/default",
    "/etc/environment",
    "/etc/group",
    "/etc/group-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/hosts.allow",
    "/etc/hosts.deny",
    "/etc/inetd.conf",
    "/etc/ld.so.cache",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/mailcap",
    "/etc/passwd",
    "/etc/passwd-",
    "/etc/security/opasswd",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/shells",
    "/etc/subgid",
    "/etc/subgid-",
    "/etc/subuid",
    "/etc/subuid-",
    "/etc/timezone",
    "/etc/udev/hwdb.bin",
    "/usr/lib/locale/C.utf8",
    "/usr/lib/locale/locale-archive",
    "/usr/lib/udev/hwdb.bin",
    "/usr/share/applications/mimeinfo.cache",
    "/usr/share/info/dir",
    "/usr/share/info/dir.old",
    "/var/lib/logrotate/status",
    "/var/lib/man-db/auto-update",
    "/var/lib/private",
    "/var/lib/shells.state",
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/sbin",
    "/initrd.img",
    "/initrd.img.old",
    "/vmlinuz",
    "/vmlinuz.old",
];

/// Paths by how they begin.
const BEGINNINGS: &[&str] = &[
    "/etc/pam.d/common-", // pam-auth-update
    "/etc/rc",            // update-rc.d; `/etc/rc.local` is looked at all the same
    "/etc/apt/trusted.gpg.d/debian-archive-",
    "/usr/share/mime/",  // update-mime-database
    "/usr/lib/modules/", // depmod
    "/usr/share/fonts/.uuid",
    "/var/lib/initramfs-tools/",
    "/var/lib/python/", // py3compile
    "/var/lib/dbus/machine-id",
    "/var/lib/vim/addons",
    "/var/lib/xml-core/",
    "/var/lib/sgml-base/",
];

/// Paths by how they end.
const ENDINGS: &[&str] = &[
    "/gconv/gconv-modules.cache", // iconvconfig
    "/gtk-3.0/3.0.0/immodules.cache",
    "/gdk-pixbuf-2.0/2.10.0/loaders.cache",
    "/gio/modules/giomodule.cache",
    "/schemas/gschemas.compiled",
    "/icon-theme.cache",
    ".dpkg-old",  // what dpkg replaced
    ".dpkg-dist", // what dpkg did not put in place
    ".dpkg-new",
    ".ucf-old",
    ".ucf-dist",
];

/// What is this machine's own.
const OWN: &[&str] = &[
    "/etc/fstab",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/machine-id",
    "/etc/mtab",
    "/etc/network/interfaces",
    "/etc/resolv.conf",
    "/etc/ssh/ssh_host_",
    "/etc/netplan/",
    "/etc/systemd/network/",
    "/etc/udev/rules.d/70-persistent-net.rules",
    "/swapfile",
    "/swap.img",
];

/// Files that a package's script copies from a file of the package: changed if they are not like it.
pub(super) const TEMPLATES: &[Template] = &[
    Template { path: "/etc/motd", from: "/usr/share/base-files/motd", package: "base-files" },
    Template { path: "/etc/profile", from: "/usr/share/base-files/profile", package: "base-files" },
    Template { path: "/root/.bashrc", from: "/usr/share/base-files/dot.bashrc", package: "base-files" },
    Template { path: "/root/.profile", from: "/usr/share/base-files/dot.profile", package: "base-files" },
    Template {
        path: "/var/www/html/index.nginx-debian.html",
        from: "/usr/share/nginx/html/index.html",
        package: "nginx-common",
    },
    Template { path: "/etc/nsswitch.conf", from: "/usr/share/libc-bin/nsswitch.conf", package: "libc-bin" },
];

/// See [`TEMPLATES`].
#[derive(Debug)]
pub(super) struct Template {
    pub(super) path: &'static str,
    pub(super) from: &'static str,
    pub(super) package: &'static str,
}

/// Whether it is in a directory of which nothing is looked at.
pub(super) fn is_passed_over(path: &str) -> bool {
    PASSED_OVER.iter().any(|over| path.strip_prefix(over).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Whether Debian's scripts make it.
pub(super) fn is_generated(path: &str) -> bool {
    let by_runlevel = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit() || c == 'S') && rest.contains(".d");
    let beginning = BEGINNINGS.iter().any(|beginning| match path.strip_prefix(beginning) {
        Some(rest) if *beginning == "/etc/rc" => by_runlevel(rest),
        Some(_) => true,
        None => false,
    });
    let bytecode = path.ends_with(".pyc") && path.contains("/__pycache__/") && path.starts_with("/usr/");
    beginning
        || bytecode
        || FILES.contains(&path)
        || ENDINGS.iter().any(|ending| path.ends_with(ending))
        || TEMPLATES.iter().any(|template| template.path == path)
}

/// Whether it is this machine's own.
pub(super) fn is_own(path: &str) -> bool {
    OWN.iter().any(|own| match own.ends_with(['/', '_']) {
        true => path.starts_with(own),
        false => path == *own,
    })
}

/// Whether apt's sources, which a base of Kiln has of its own, are meant.
pub(super) fn is_apt_source(path: &str) -> bool {
    path == "/etc/apt/sources.list"
        || path == "/etc/apt/sources.list.d/debian.sources"
        || path == "/etc/apt/sources.list.d/ubuntu.sources"
}
