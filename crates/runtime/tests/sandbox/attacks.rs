//! Things a hostile build step would try, as system calls. They run inside the sandbox: the test program is shown there
//! and executes itself with the name of one test and [`INSIDE`] set. Each prints a line `name: refused` or
//! `name: SUCCEEDED`.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::MetadataExt,
            net::{SocketAddr, UnixStream},
        },
    },
};

/// Set inside the sandbox.
pub const INSIDE: &str = "KILN_TEST_INSIDE";
/// A listener of the test on the host has this abstract name.
pub const ABSTRACT: &str = "KILN_TEST_ABSTRACT";

fn report(name: &str, result: io::Result<()>) {
    match result {
        Ok(()) => println!("{name}: SUCCEEDED"),
        Err(error) => println!("{name}: refused ({error})"),
    }
}

fn call(name: &str, number: libc::c_long, arguments: [usize; 5]) {
    let [a, b, c, d, e] = arguments;
    // SAFETY: every call here gets integers, null pointers, or pointers to C strings and values that live until the end
    // of the program; one that unexpectedly succeeds changes nothing this program relies on.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    report(name, if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) });
}

fn text(text: &str) -> usize {
    CString::new(text).unwrap().into_raw() as usize
}

/// Tries everything.
pub fn all() {
    mounts();
    namespaces();
    kernel();
    processes();
    files();
    chroot_escape();
    sockets();
    descriptors();
}

fn mounts() {
    call("mount a tmpfs", libc::SYS_mount, [text("none"), text("/tmp"), text("tmpfs"), 0, 0]);
    call("bind the root", libc::SYS_mount, [text("/"), text("/tmp"), 0, libc::MS_BIND as usize, 0]);
    call("remount /sys", libc::SYS_mount, [0, text("/sys"), 0, (libc::MS_REMOUNT | libc::MS_BIND) as usize, 0]);
    call("unmount /proc", libc::SYS_umount2, [text("/proc"), libc::MNT_DETACH as usize, 0, 0, 0]);
    call("pivot_root", libc::SYS_pivot_root, [text("/tmp"), text("/tmp"), 0, 0, 0]);
    call("fsopen", libc::SYS_fsopen, [text("tmpfs"), 0, 0, 0, 0]);
    call("open_tree", libc::SYS_open_tree, [libc::AT_FDCWD as usize, text("/"), libc::OPEN_TREE_CLONE as usize, 0, 0]);
}

fn namespaces() {
    for (name, flag) in [("user", libc::CLONE_NEWUSER), ("mount", libc::CLONE_NEWNS), ("net", libc::CLONE_NEWNET)] {
        call(&format!("unshare {name}"), libc::SYS_unshare, [flag as usize, 0, 0, 0, 0]);
        call(&format!("clone {name}"), libc::SYS_clone, [(flag | libc::SIGCHLD) as usize, 0, 0, 0, 0]);
    }
    let own = fs::File::open("/proc/self/ns/user").unwrap();
    call("setns", libc::SYS_setns, [own.as_raw_fd() as usize, 0, 0, 0, 0]);
}

fn kernel() {
    call("init_module", libc::SYS_init_module, [0, 0, text(""), 0, 0]);
    call("kexec_load", libc::SYS_kexec_load, [0; 5]);
    call("bpf", libc::SYS_bpf, [0; 5]);
    call("perf_event_open", libc::SYS_perf_event_open, [0; 5]);
    call("add_key", libc::SYS_add_key, [text("user"), text("x"), text("y"), 1, -3isize as usize]);
    call("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0]);
    call("userfaultfd", libc::SYS_userfaultfd, [0; 5]);
    call("swapon", libc::SYS_swapon, [text("/tmp/x"), 0, 0, 0, 0]);
    call("reboot", libc::SYS_reboot, [0xfee1_dead, 672_274_793, 0, 0, 0]);
    let time = Box::leak(Box::new([0u64, 0])).as_ptr() as usize;
    call("clock_settime", libc::SYS_clock_settime, [0, time, 0, 0, 0]);
    call("sethostname", libc::SYS_sethostname, [text("x"), 1, 0, 0, 0]);
}

fn processes() {
    call("ptrace", libc::SYS_ptrace, [libc::PTRACE_TRACEME as usize, 0, 0, 0, 0]);
    call("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0]);
    let header = Box::leak(Box::new([0x2008_0522u32, 0])).as_ptr() as usize;
    let everything = Box::leak(Box::new([u32::MAX, u32::MAX, 0, 0xff, 0xff, 0])).as_ptr() as usize;
    call("capset", libc::SYS_capset, [header, everything, 0, 0, 0]);
    let others = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let others = others.filter(|name| name.parse::<u32>().is_ok_and(|pid| pid > 1)).count();
    report("see other processes", if others == 0 { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) });
}

fn files() {
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/hostname",
    ] {
        report(&format!("write {path}"), fs::OpenOptions::new().write(true).open(path).map(drop));
    }
    report("write /sys", fs::write("/sys/x", ""));
    for path in ["/dev/kmsg", "/dev/mem", "/dev/vda", "/device"] {
        report(&format!("open {path}"), fs::File::open(path).map(drop));
    }
    report(
        "read /proc/kcore",
        fs::read("/proc/kcore").and_then(|bytes| match bytes.len() {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }),
    );
    call("mknod", libc::SYS_mknod, [text("/tmp/disk"), libc::S_IFBLK as usize | 0o600, 0xfe00, 0, 0]);
    let handle = Box::leak(Box::new([0u32; 34]));
    handle[0] = 120;
    let place = handle.as_mut_ptr() as usize;
    let mut mount_id = 0i32;
    // SAFETY: the handle has room for the 120 bytes it announces, and both values outlive the call.
    let known = unsafe {
        libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, c"/etc".as_ptr(), place, &raw mut mount_id, 0)
    };
    if known == 0 {
        let root = fs::File::open("/").unwrap();
        call("open_by_handle_at", libc::SYS_open_by_handle_at, [root.as_raw_fd() as usize, place, 0, 0, 0]);
    }
    report(
        "climb through /proc/1/root",
        match fs::metadata("/proc/1/root/../..").map(|found| found.ino()) {
            Ok(inode) if inode == fs::metadata("/").unwrap().ino() => Err(io::ErrorKind::NotFound.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        },
    );
}

/// The classic way out of a chroot, for which the command has the capability: it only leads back to its own root.
fn chroot_escape() {
    let before = fs::metadata("/").unwrap().ino();
    let outside = fs::File::open("/").unwrap();
    fs::create_dir("/tmp/jail").unwrap();
    let escaped =
        rustix::process::chroot("/tmp/jail").and_then(|()| rustix::process::fchdir(&outside)).and_then(|()| {
            for _ in 0..100 {
                rustix::process::chdir("..")?;
            }
            rustix::process::chroot(".")
        });
    let changed = fs::metadata("/").is_ok_and(|root| root.ino() != before);
    report(
        "escape by chroot",
        match escaped {
            Ok(()) if changed => Ok(()),
            Ok(()) => Err(io::ErrorKind::NotFound.into()),
            Err(errno) => Err(errno.into()),
        },
    );
}

fn sockets() {
    let name = std::env::var(ABSTRACT).unwrap();
    let address = SocketAddr::from_abstract_name(name).unwrap();
    report("reach an abstract socket of the host", UnixStream::connect_addr(&address).map(drop));
    for (name, family) in [("packet", libc::AF_PACKET), ("vsock", libc::AF_VSOCK), ("alg", libc::AF_ALG)] {
        call(&format!("socket {name}"), libc::SYS_socket, [family as usize, libc::SOCK_RAW as usize, 0, 0, 0]);
    }
    call("socket raw", libc::SYS_socket, [libc::AF_INET as usize, libc::SOCK_RAW as usize, 1, 0, 0]);
    report("loopback of the host", std::net::TcpStream::connect("127.0.0.1:22").map(drop));
}

fn descriptors() {
    let open = (3..1000).filter(|number| {
        // SAFETY: F_GETFD touches no memory.
        unsafe { libc::fcntl(*number, libc::F_GETFD) >= 0 }
    });
    let inherited: Vec<i32> = open.collect();
    // The test runner's own descriptors are anonymous; one that names a file came from the host.
    let files = inherited
        .iter()
        .filter(|number| fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|target| target.is_absolute()));
    report(
        "inherit a descriptor",
        match files.count() {
            0 => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(()),
        },
    );
    // SAFETY: takes a descriptor and a pointer to one byte; the terminal's input queue is not memory of ours.
    let pushed = unsafe { libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()) };
    report("push input into a terminal", if pushed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) });
}
