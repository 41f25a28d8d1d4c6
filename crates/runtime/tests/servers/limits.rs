//! Limits are kept by the kernel.

use kiln_model::{ByteSize, fleet::Limits};

use crate::bench::{Bench, IDLE, image};

fn bench_with(limits: Limits) -> Bench {
    let bench = Bench::new();
    bench.try_launch("limited", 1, image(IDLE), limits).unwrap();
    bench
}

#[test]
fn root_processes_are_limited() {
    let bench = bench_with(Limits { memory: None, cpu_millis: None, pids: Some(20) });
    let text = bench.shell("limited", "for i in $(seq 40); do sleep 30 & done; wait -n 2>/dev/null; true");
    assert!(text.contains("can't fork"), "{text}");
    assert!(bench.runtime().processes(&crate::bench::id("limited")).unwrap().len() <= 20);
}

#[test]
fn root_memory_is_limited_memory_file_systems_included() {
    let bench = bench_with(Limits { memory: Some(ByteSize::mib(24)), cpu_millis: None, pids: None });
    let output = bench.shell_as("limited", "root", "dd if=/dev/zero of=/tmp/full bs=1M count=100");
    assert_ne!(output.exit, 0, "{output:?}");
}

#[test]
fn root_processor_time_is_limited() {
    let bench = bench_with(Limits { memory: None, cpu_millis: Some(100), pids: None });
    // By time and not by work, which takes very different times on different machines.
    let script = "now() { cut -d' ' -f1 /proc/uptime; }; start=$(now); end=$(( ${start%.*} + 3 )); t=$start; \
                  while [ ${t%.*} -lt $end ]; do i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; \
                  read t _ < /proc/uptime; done; read _ _ _ _ _ _ _ _ _ _ _ _ _ u s _ < /proc/self/stat; \
                  echo $((u+s)) $start $t";
    let text = bench.shell("limited", script);
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let (used, elapsed) = (numbers[0] / 100.0, numbers[2] - numbers[1]);
    assert!(elapsed > used * 3.0, "{used} s of processor time took {elapsed} s");
}

#[test]
fn root_pid_1_takes_little_memory() {
    let bench = Bench::new();
    let mut manifest = image("while :; do echo x; sleep 0.01; done");
    // Rendering must leave nothing in PID 1.
    manifest.templates = vec![kiln_model::manifest::Template {
        path: "/run/app.conf".into(),
        source: "app.conf.j2".into(),
        content: format!("{{{{ server.id }}}} {}", "x".repeat(500_000)),
        user: "root".into(),
        mode: 0o644,
    }];
    let servers = ["first", "second"].map(|name| bench.launch(name, manifest.clone()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    for server in servers {
        bench.runtime().stat(&server.record.server, "/etc").unwrap();
        bench.shell(server.record.server.as_str(), "true");
        let memory = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", server.record.pid)).unwrap();
        let kib = |field: &str| -> u64 {
            let line = memory.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let private = kib("Private_Clean:") + kib("Private_Dirty:");
        assert!(private <= 256, "{private} KiB\n{memory}");
    }
}
