//! What a server can not do, tried as root inside with all the capabilities it is left.

use crate::bench::{Bench, IDLE, image};

fn hostile(script: &str) -> String {
    let bench = Bench::new();
    bench.launch("hostile", image(IDLE));
    bench.shell("hostile", script)
}

/// What is masked is a null device, which swallows what is written to it.
#[test]
fn root_nothing_undeclared_can_be_written_even_by_root_inside() {
    let script = "for place in / /etc /etc/hosts /etc/hostname /bin /bin/busybox /var /var/data /dev /dev/null.x /sys \
                  /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/1/oom_score_adj /root; do \
                  if [ -d $place ]; then touch $place/x 2>/dev/null && echo wrote in $place; \
                  elif [ -c $place ]; then continue; \
                  else (echo x > $place) 2>/dev/null && echo wrote $place; fi; done; true";
    assert_eq!(hostile(script), "");
}

#[test]
fn root_every_mount_is_read_only_or_declared() {
    let mounts =
        hostile("while read -r _ path _ options _; do case $options in rw*) echo $path;; esac; done < /proc/mounts");
    let mut writable: Vec<_> = mounts.lines().collect();
    writable.sort_unstable();
    writable.dedup();
    // Masked files show /dev/null of a file system that is writable by nobody; /proc itself holds the processes.
    let expected = ["/dev/mqueue", "/dev/pts", "/dev/shm", "/proc", "/run", "/tmp", "/var/tmp"];
    assert_eq!(writable, expected, "{mounts}");
}

#[test]
fn root_mounts_devices_namespaces_and_kernel_settings_are_refused() {
    let attempts = [
        "mount -t tmpfs none /mnt",
        "mount -o remount,rw /",
        "mount --bind /tmp /etc",
        "umount /proc/sys",
        "mknod /tmp/disk b 8 0",
        "mknod /tmp/mem c 1 1",
        "unshare -U true",
        "unshare -m true",
        "hostname other",
        "chroot / true",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "dmesg | grep .",
        "ip link set lo down",
        "cat /proc/kcore | head -c 1 | grep -a .",
        "ls /sys/firmware/* 2>/dev/null",
        "insmod /tmp/x.ko",
        "swapoff -a && grep . /proc/swaps | grep -v Filename",
    ];
    let bench = Bench::new();
    bench.launch("hostile", image(IDLE));
    for attempt in attempts {
        let output = bench.shell_as("hostile", "root", attempt);
        assert_ne!(output.exit, 0, "{attempt}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn root_the_hosts_files_processes_and_pid_1_are_out_of_reach() {
    let bench = Bench::new();
    bench.launch("hostile", image(IDLE));
    let own = std::process::id().to_string();
    let script = "ls /; ls -d /proc/[0-9]*; cat /proc/1/environ /proc/1/maps /proc/1/fd/* 2>&1 | sort | uniq -c; \
                  ls -l /proc/1/fd /proc/1/root /proc/1/cwd 2>&1; kill -9 1; kill -TERM 1; echo x > /proc/1/mem";
    let text = bench.shell("hostile", script);
    assert!(!text.contains(&format!("/proc/{own}")), "{text}");
    assert!(!text.contains("home") && !text.contains("boot"), "{text}");
    assert!(text.contains("Permission denied"), "{text}");
    assert_eq!(bench.shell("hostile", "echo alive"), "alive\n");
    // Set-user-id programs give nothing, and no file there belongs to the host's root.
    let user = bench.shell_as(
        "hostile",
        "web",
        "touch /tmp/mine && chmod 4755 /tmp/mine && grep NoNewPrivs /proc/self/status",
    );
    assert_eq!(String::from_utf8_lossy(&user.stdout), "NoNewPrivs:\t1\n");
}

#[test]
fn root_ids_inside_are_unprivileged_ids_of_the_host() {
    let bench = Bench::new();
    let seen = bench.launch("mapped", image(IDLE));
    let status = std::fs::read_to_string(format!("/proc/{}/status", seen.record.pid)).unwrap();
    let uid: u32 = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(uid >= 0x4000_0000, "{uid}");
    let capabilities = bench.shell("mapped", "grep CapBnd /proc/self/status");
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SETFCAP.
    assert_eq!(capabilities, "CapBnd:\t00000000800005fb\n");
    assert!(status.contains("Seccomp:\t2"), "{status}");
}

#[test]
fn root_pid_1_holds_only_its_own_files() {
    let bench = Bench::new();
    let seen = bench.launch("descriptors", image(IDLE));
    let directory = format!("/proc/{}/fd", seen.record.pid);
    let mut targets: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .collect();
    targets.sort();
    for target in &targets {
        let known = ["/dev/null", "anon_inode:[signalfd]", "pipe:[", "socket:["];
        let own = target.contains("/spool/descriptors/") || target.ends_with("/descriptors/ending.json");
        assert!(own || known.iter().any(|known| target.starts_with(known)), "{target}");
        assert!(!std::path::Path::new(target).is_dir(), "a directory of the host: {target}");
    }
    let inside = bench.shell("descriptors", "ls /proc/self/fd | wc -l");
    assert_eq!(inside.trim(), "4", "standard streams, and the one that lists them");
}
