//! Where the time of a launch goes: nginx of this host, started bare and as a server, until its first answer.
//!
//! `cargo run --release -p kiln-runtime --example launch_profile [ROUNDS]`, as root, with nginx installed. The host's own
//! root stands in for an image, so the cost of mounting one is not in here.
#![allow(missing_docs)]

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kiln_model::{
    Digest, FrozenConfig, ImageDigest, ImageManifest, VerifiedRelease,
    fleet::Limits,
    manifest::{Service, Stop, Template},
    trust,
};
use kiln_runtime::{BoxError, LaunchStep, Probe, Request, RootProvider, Runtime, RuntimeOptions};
use kiln_sys::mount;

struct HostRoot;

impl RootProvider for HostRoot {
    fn root(&self, _: &ImageDigest, users: BorrowedFd<'_>) -> Result<OwnedFd, BoxError> {
        let tree = mount::clone_tree(rustix::fs::CWD, Path::new("/"), mount::Depth::One)?;
        mount::restrict(tree.as_fd(), mount::Depth::One, mount::Attributes::READ_ONLY)?;
        mount::map_owners(tree.as_fd(), users)?;
        Ok(tree)
    }
}

fn main() {
    let rounds = std::env::args().nth(1).map_or(20, |rounds| rounds.parse().expect("a number of rounds"));
    let directory = tempfile::Builder::new().prefix("kiln-profile-").tempdir_in("/var/lib").expect("a directory");
    let config = write_config(directory.path());
    println!("{:<44} {:>9} {:>9}", "milliseconds", "shortest", "median");
    let mut bare: Vec<Duration> = (0..rounds).map(|_| bare_start(&config)).collect();
    println!("{:<44} {}", "nginx bare: exec to first answer", show(&mut bare));
    for (name, berths, templates) in
        [("prepared", 2, 0), ("not prepared", 0, 0), ("prepared, ten templates", 2, 10), ("prepared, again", 2, 0)]
    {
        println!("launch, {name}:");
        profile(directory.path(), &config, (berths, templates), rounds, &bare);
    }
}

fn write_config(directory: &Path) -> String {
    std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
    std::fs::write(directory.join("index.html"), "hello\n").expect("a page");
    let path = directory.join("nginx.conf");
    let root = directory.display();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path /tmp/kiln-{name};"));
    let config = format!(
        "daemon off; pid /tmp/kiln-nginx.pid; error_log stderr; worker_processes 1; events {{ worker_connections 64; }}\n\
         http {{ access_log off; {} server {{ listen 8099; root {root}; }} }}\n",
        temporary.join(" ")
    );
    std::fs::write(&path, config).expect("a configuration");
    path.display().to_string()
}

fn bare_start(config: &str) -> Duration {
    let start = Instant::now();
    let mut nginx =
        Command::new("/usr/sbin/nginx").args(["-c", config]).stderr(Stdio::null()).spawn().expect("nginx is installed");
    let answered = first_answer(SocketAddr::from(([127, 0, 0, 1], 8099)), start);
    rustix::process::kill_process(rustix::process::Pid::from_child(&nginx), rustix::process::Signal::TERM)
        .expect("running");
    nginx.wait().expect("its end");
    answered
}

/// Asks until the first good answer; the time since `start`.
fn first_answer(address: SocketAddr, start: Instant) -> Duration {
    loop {
        let mut answer = [0; 15];
        let asked = TcpStream::connect(address).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            stream.read_exact(&mut answer)
        });
        if asked.is_ok() && answer.ends_with(b"200 OK") {
            return start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(10), "nginx does not answer");
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn profile(directory: &Path, config: &str, kind: (usize, usize), rounds: usize, bare: &[Duration]) {
    let (berths, templates) = kind;
    let steps: Arc<Mutex<Vec<(LaunchStep, Instant)>>> = Arc::default();
    let seen = Arc::clone(&steps);
    let probe: Probe = Arc::new(move |step| seen.lock().expect("no panic").push((step, Instant::now())));
    let mut options = RuntimeOptions::for_state(directory).expect("options");
    options.berths = berths;
    options.probe = Some(probe);
    let runtime = Runtime::open(options, Arc::new(HostRoot)).expect("a runtime");
    let mut times: BTreeMap<LaunchStep, Vec<Duration>> = BTreeMap::new();
    let (mut launched, mut answered) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let waiting = Instant::now();
        while runtime.berths_ready() < berths {
            assert!(waiting.elapsed() < Duration::from_secs(20), "no place for a server could be prepared");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(100));
        steps.lock().expect("no panic").clear();
        let mut request = request(config, round);
        Arc::make_mut(&mut request.manifest).templates = (0..templates).map(template).collect();
        let start = Instant::now();
        let server = runtime.launch(&release(), &request).expect("a server");
        launched.push(start.elapsed());
        let address = server.record.address.expect("an address");
        answered.push(first_answer(SocketAddr::from((address, 8099)), start));
        let mut before = start;
        for (step, at) in steps.lock().expect("no panic").iter() {
            times.entry(*step).or_default().push(at.saturating_duration_since(before));
            before = *at;
        }
        runtime.destroy(&request.server, 1).expect("destroyed");
    }
    for (step, times) in &mut times {
        println!("  {:<42} {}", format!("to {step:?}"), show(times));
    }
    println!("  {:<42} {}", "launch call", show(&mut launched));
    println!("  {:<42} {}", "launch call to first answer", show(&mut answered));
    let ratio = |at: usize| answered[at].as_secs_f64() / bare[at].as_secs_f64();
    println!("  {:<42} {:>9.2} {:>9.2}", "times the bare start", ratio(0), ratio(rounds / 2));
    runtime.purge().expect("removed");
}

fn release() -> VerifiedRelease {
    trust::admit_for_test(ImageDigest(Digest::of(b"host")), FrozenConfig::default())
}

fn request(config: &str, round: usize) -> Request {
    let stop = Stop { signal: "SIGQUIT".into(), grace: Duration::from_secs(1) };
    let service = Service { stop, ..Service::new(["/usr/sbin/nginx", "-c", config].map(str::to_owned).to_vec()) };
    let services = BTreeMap::from([("nginx".parse().expect("a name"), service)]);
    let manifest = ImageManifest::new("nginx".parse().expect("a name"), services);
    Request {
        server: format!("web-{round}").parse().expect("a name"),
        generation: 1,
        group: None,
        slot: None,
        manifest: Arc::new(manifest),
        limits: Limits::default(),
        secrets: Arc::default(),
        volumes: Vec::new(),
        shared: Vec::new(),
        times: Default::default(),
    }
}

fn template(number: usize) -> Template {
    Template {
        path: format!("/run/app/{number}.conf"),
        source: format!("{number}.conf.j2"),
        content: "{% for n in range(50) %}\nserver {{ server.id }}-{{ n }};\n{% endfor %}\n".into(),
        user: "root".into(),
        mode: 0o644,
    }
}

/// The shortest and the middle of the times. Other work on the machine only ever adds.
fn show(times: &mut [Duration]) -> String {
    times.sort();
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    format!("{:>9.3} {:>9.3}", millis(times[0]), millis(times[times.len() / 2]))
}
