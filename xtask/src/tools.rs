//! Programs that tests and benchmarks need on the host, and the Debian packages that have them. Kiln itself needs none.

pub mod trixie;
pub mod unpacked;

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use crate::{
    Outcome,
    command::{is_root, run, which},
};

/// A program (its name, or a file of it by its absolute path), and where it comes from.
pub struct Tool {
    pub program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// What the tests need.
pub const TEST: &[Tool] = &[
    tool("cc", "build-essential"),
    tool("make", "build-essential"),
    tool("perl", "perl"),
    tool("busybox", "busybox-static"),
    tool("etcd", "etcd-server"),
    tool("etcdctl", "etcd-client"),
    tool("ip", "iproute2"),
    tool("java", "default-jre-headless"),
    tool("curl", "curl"),
    tool("ldd", "libc-bin"),
    tool("nsenter", "util-linux"),
    tool("nft", "nftables"),
    tool("nginx", "nginx-light"),
    tool("openssl", "openssl"),
    tool("pgrep", "procps"),
    tool("python3", "python3"),
    tool("pg_ctlcluster", "postgresql"),
    tool("/usr/lib/python3/dist-packages/kazoo/client.py", "python3-kazoo"),
    tool("/usr/lib/python3/dist-packages/prometheus_client/parser.py", "python3-prometheus-client"),
    tool("/usr/lib/python3/dist-packages/jsonschema/validators.py", "python3-jsonschema"),
    tool("/usr/lib/python3/dist-packages/testinfra/plugin.py", "python3-testinfra"),
    tool("/usr/lib/python3/dist-packages/google/protobuf/json_format.py", "python3-protobuf"),
    tool("protoc", "protobuf-compiler"),
    tool("rpmbuild", "rpm"),
    tool("/usr/share/java/zookeeper.jar", "zookeeper"),
    tool("redis-server", "redis-server"),
    tool("unshare", "util-linux"),
    tool("docker-registry", "docker-registry"),
    tool("skopeo", "skopeo"),
    tool("buildah", "buildah"),
    tool("umoci", "umoci"),
    tool("podman", "podman"),
    tool("runc", "runc"),
    tool("htpasswd", "apache2-utils"),
    tool("qemu-system-x86_64", "qemu-system-x86"),
    tool("mke2fs", "e2fsprogs"),
    tool("mkfs.xfs", "xfsprogs"),
    tool("depmod", "kmod"),
    tool("xz", "xz-utils"),
    tool("strip", "binutils"),
    tool("script", "bsdutils"),
    tool("dpkg-deb", "dpkg"),
    tool("dpkg-scanpackages", "dpkg-dev"),
    tool("ar", "binutils"),
    tool("gpg", "gpg"),
    tool("gpgconf", "gpgconf"),
    tool("gpg-agent", "gpg-agent"),
    tool("rsyslogd", "rsyslog"),
    tool("/usr/lib/x86_64-linux-gnu/rsyslog/imrelp.so", "rsyslog-relp"),
    tool("/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_ossl.so", "rsyslog-openssl"),
    tool("logger", "bsdutils"),
    // What syslog-ng needs, which is unpacked and not installed (`unpacked`).
    tool("/usr/lib/x86_64-linux-gnu/libivykis.so.0", "libivykis0"),
    tool("/usr/lib/x86_64-linux-gnu/libnet.so.1", "libnet1"),
    tool("/usr/lib/x86_64-linux-gnu/libwrap.so.0", "libwrap0"),
    tool("/usr/lib/x86_64-linux-gnu/libpcre.so.3", "libpcre3"),
    tool("/usr/lib/x86_64-linux-gnu/libjson-c.so.5", "libjson-c5"),
    tool("/usr/lib/x86_64-linux-gnu/libglib-2.0.so.0", "libglib2.0-0"),
    // What the programs of an NFS server need, which are unpacked for the guest.
    tool("/lib/x86_64-linux-gnu/libtirpc.so.3", "libtirpc3"),
    tool("/usr/lib/x86_64-linux-gnu/libnsl.so.2", "libnsl2"),
    tool("/lib/x86_64-linux-gnu/libcap.so.2", "libcap2"),
    tool("/etc/protocols", "netbase"),
    tool("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
];

/// What the benchmarks need.
pub const BENCH: &[Tool] = &[
    tool("nginx", "nginx-light"),
    tool("wrk", "wrk"),
    tool("fio", "fio"),
    tool("igzip", "isal"),
    tool("zstd", "zstd"),
    tool("haproxy", "haproxy"),
    tool("runc", "runc"),
    tool("mmdebstrap", "mmdebstrap"),
    tool("dpkg-deb", "dpkg"),
    tool("dpkg-scanpackages", "dpkg-dev"),
    tool("ar", "binutils"),
    tool("gpg", "gpg"),
    tool("gpgconf", "gpgconf"),
    tool("gpg-agent", "gpg-agent"),
    tool("docker-registry", "docker-registry"),
    tool("skopeo", "skopeo"),
    tool("umoci", "umoci"),
    tool("podman", "podman"),
    tool("buildah", "buildah"),
    tool("/usr/bin/busybox", "busybox-static"),
    tool("openssl", "openssl"),
    tool("rsyslogd", "rsyslog"),
    tool("/usr/lib/x86_64-linux-gnu/rsyslog/imrelp.so", "rsyslog-relp"),
    tool("logger", "bsdutils"),
];

/// What to do about a missing program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Say which packages to install.
    Say,
    /// Install them with apt-get.
    Install,
}

impl Missing {
    /// Installs when asked to, or on a machine of continuous integration.
    pub fn from_flag(install: bool) -> Self {
        let ci = env::var_os("CI").is_some_and(|value| value == "true");
        if install || ci { Self::Install } else { Self::Say }
    }
}

/// Makes sure that the programs are there.
pub fn need(tools: &[Tool], missing: Missing) -> Outcome {
    let packages = missing_packages(tools);
    if packages.is_empty() {
        return Ok(());
    }
    if missing == Missing::Install && is_root() && which("apt-get").is_some() {
        install(&packages)?;
        let still = missing_packages(tools);
        return if still.is_empty() { Ok(()) } else { Err(format!("still missing: {}", still.join(" ")).into()) };
    }
    let list = packages.join(" ");
    Err(format!("programs are missing on this host. Install them, as root:\n\n    apt-get install --no-install-recommends {list}\n\nor let this command do it with `--install`").into())
}

fn missing_packages(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> = tools.iter().filter(|t| which(t.program).is_none()).map(|t| t.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Installs packages without leaving a service running.
fn install(packages: &[&str]) -> Outcome {
    let _forbidden = ServicesForbidden::begin()?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt().args(["update", "--quiet"]))?;
    run(apt().args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages))
}

/// While it lives, maintainer scripts start no service: `policy-rc.d` answers 101 (invoke-rc.d(8)). One that is there
/// already stays as it is.
struct ServicesForbidden(Option<&'static Path>);

impl ServicesForbidden {
    fn begin() -> Outcome<Self> {
        let policy = Path::new("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self(None));
        }
        fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
        Ok(Self(Some(policy)))
    }
}

impl Drop for ServicesForbidden {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.map(fs::remove_file) {
            eprintln!("/usr/sbin/policy-rc.d could not be removed: {error}");
        }
    }
}
