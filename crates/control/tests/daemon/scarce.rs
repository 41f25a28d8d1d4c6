//! A host that runs out of memory or of processes: limits around the daemon with all its servers, as the host is around them.

use std::{io::Write as _, path::Path, time::Duration};

use kiln_api::Event;
use kiln_model::ImageManifest;
use kiln_sys::cgroup::{Group, Host, Limits};

use crate::bench::{Bench, assert_ok, endpoint, request};

/// As good as none.
const PLENTY: Limits = Limits { memory: Some(1 << 40), cpu_millis: None, pids: Some(1_000_000) };

/// The control groups of a daemon's servers, with room for the daemon itself.
struct Scarce {
    cgroups: Host,
    name: String,
    guests: Vec<u32>,
}

impl Scarce {
    fn of(bench: &Bench) -> Self {
        let run_dir = bench.run_dir();
        let id = run_dir.file_name().unwrap().to_str().unwrap();
        Self { cgroups: Host::detect().unwrap(), name: format!("kiln/{id}"), guests: Vec::new() }
    }

    fn all(&self) -> Group {
        self.cgroups.group(&self.name)
    }

    fn guest_room(&self) -> Group {
        self.cgroups.group(&format!("{}/daemon", self.name))
    }

    /// What these processes take counts as well.
    fn take_in(&mut self, pids: &[u32]) {
        self.guest_room().create().unwrap();
        move_to(&self.guest_room(), pids);
        self.guests.extend(pids);
    }

    /// Whether any process of a server was ended for want of memory.
    fn has_killed(&self) -> bool {
        self.all().children().unwrap().iter().any(|name| {
            name.starts_with("slot-") && self.cgroups.group(&format!("{}/{name}", self.name)).limit_hits().memory
        })
    }
}

impl Drop for Scarce {
    /// The daemon removes its control groups with all that is in them: it must not be in one.
    fn drop(&mut self) {
        self.all().limit(&PLENTY).unwrap_or_default();
        if !self.guests.is_empty() {
            move_to(&self.cgroups.group(""), &self.guests);
            println!("left the control groups: {:?}", self.guest_room().remove(Duration::from_secs(10)));
        }
    }
}

fn move_to(group: &Group, pids: &[u32]) {
    let entrance = group.entrance().unwrap();
    for pid in pids {
        for mut procs in &entrance.v1 {
            procs.write_all(pid.to_string().as_bytes()).unwrap_or_default();
        }
        if let Some(directory) = &entrance.v2 {
            let path = Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(directory).to_string());
            std::fs::write(path.join("cgroup.procs"), pid.to_string()).unwrap_or_default();
        }
    }
}

/// At SIGUSR1 its service starts many programs that are each much smaller than a daemon.
fn greedy(manifest: &mut ImageManifest) {
    let script = "eat() { i=0; while [ $i -lt 20 ]; do i=$((i + 1)); dd if=/dev/zero bs=8M count=4 2>/dev/null | sleep 60 & done; }; \
                  trap eat USR1; httpd -f -p 8080 -h /www & web=$!; \
                  while kill -0 $web; do wait $web; done";
    let service = manifest.services.values_mut().next().unwrap();
    service.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
}

/// The first process that a server's PID 1 started.
fn service_of(pid: u32) -> rustix::process::Pid {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let first = children.split_whitespace().next().unwrap().parse().unwrap();
    rustix::process::Pid::from_raw(first).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_where_the_host_has_no_memory_left_servers_end_and_neither_daemon_nor_gateway() {
    let mut bench = Bench::new().await;
    let image = bench.image("greedy", "page", |manifest, _| greedy(manifest));
    let (last, _) = bench.apply(image).await;
    assert_ok(&last);
    let at = endpoint(&last);
    let (daemon, gateway) = (bench.daemon.id(), bench.gateway().await);

    let mut host = Scarce::of(&bench);
    host.take_in(&[daemon, gateway]);
    let room = host.all().usage().memory.unwrap() + (100 << 20);
    host.all().limit(&Limits { memory: Some(room), ..PLENTY }).unwrap();
    for server in bench.group().await.servers {
        rustix::process::kill_process(service_of(server.pid.unwrap()), rustix::process::Signal::USR1).unwrap();
    }
    bench.until("the kernel ended something", |_| host.has_killed()).await;
    host.all().limit(&PLENTY).unwrap();

    assert_eq!(bench.daemon.try_wait().unwrap(), None, "the daemon was ended: {}", bench.log());
    assert_eq!(bench.gateway().await, gateway, "the gateway was ended");
    bench.until("three servers serve", |group| group.ready == 3).await;
    assert_eq!(bench.page(&at).await, "page");
    drop(host);
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_host_without_processes_says_so_and_goes_on_when_there_are_some() {
    let mut bench = Bench::new().await;
    let image = bench.image("first", "page", |_, _| ());
    let (last, _) = bench.apply(image).await;
    assert_ok(&last);
    let at = endpoint(&last);

    let host = Scarce::of(&bench);
    let used = u32::try_from(host.all().usage().pids.unwrap()).unwrap();
    host.all().limit(&Limits { pids: Some(used), ..PLENTY }).unwrap();
    let mut more = request(image);
    more.fleet.groups.values_mut().next().unwrap().count = 20;
    let last = bench.client.apply(&more).await.unwrap().finish(|_| ()).await.unwrap();
    let Event::Result { error: Some(error), .. } = &last else { panic!("{last:?}") };
    assert!(error.message.contains("the host is out of memory, processes or file descriptors"), "{error:?}");
    // A place that was made ahead and went may have made room for another server.
    assert!((3..20).contains(&bench.group().await.ready), "what runs goes on");

    host.all().limit(&PLENTY).unwrap();
    bench.until("all servers serve", |group| group.ready == 20).await;
    assert_eq!(bench.page(&at).await, "page");
    drop(host);
    bench.purge().await;
}
