//! Bakes of small real trees: a shell and its libraries from the host, run in namespaces of their own.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use kiln_model::{
    ImageDigest, ImageManifest, Recipe, Suite,
    recipe::{Base, Step, StepKind},
};

use super::{
    BakeError, BakeEvent, BakeRequest, Baked, Difference, How, LockMode, Manner, Reproducibility, bake, chain::Chain,
    check_reproducible, run,
};
use crate::{
    layer::scan::Leftovers,
    sandbox::{Job, Outcome, Sandbox, SandboxError, Stream},
    store::Store,
};

/// 2023-10-07, as if a release file said so.
pub(crate) const EPOCH: i64 = 1_696_636_800;

/// Runs jobs with the host's `unshare`, `mount` and `chroot`: enough to bake with, no real separation.
pub(crate) struct ChrootSandbox;

impl Sandbox for ChrootSandbox {
    fn run(&self, job: Job, output: &mut dyn FnMut(Stream, &[u8])) -> Result<Outcome, SandboxError> {
        let point = tempfile::tempdir().expect("a directory");
        let mount = job.root.lower[0].mount(None).expect("a mount");
        let lower = mount.as_raw_fd();
        let (shown, _trees) = shown(&job, point.path());
        let script = format!(
            "umask 022 && mount --make-rprivate / && mount -t overlay overlay -o metacopy=off,redirect_dir=nofollow,\
             lowerdir=/proc/self/fd/{lower},upperdir={upper},workdir={work} {point} && \
             mkdir -p {point}/dev {point}/proc && mount --rbind /dev {point}/dev && mount -t proc proc {point}/proc && \
             mkdir -p {point}/run && mount -t tmpfs run {point}/run && {shown} \
             exec chroot {point} \"$@\"",
            upper = job.root.upper.display(),
            work = job.root.work.display(),
            point = point.path().display(),
        );
        rustix::io::fcntl_setfd(&mount, rustix::io::FdFlags::empty()).expect("an open descriptor");
        // The job's program is process 1, as in the real sandbox.
        let done = Command::new("timeout")
            .args(["-s", "KILL", &job.time_limit.as_secs_f64().to_string()])
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script, "sh"])
            .args(&job.command)
            .env_clear()
            .envs(job.environment)
            .stdin(Stdio::null())
            .output()
            .expect("unshare runs");
        output(Stream::Stdout, &done.stdout);
        output(Stream::Stderr, &done.stderr);
        Ok(match done.status.code() {
            Some(137) => Outcome::Signalled(9),
            Some(code) => Outcome::Exited(code),
            None => Outcome::TimedOut,
        })
    }
}

/// What is mounted below `/run` for a job, and the trees among it.
fn shown(job: &Job, point: &Path) -> (String, Vec<OwnedFd>) {
    let bind = |from: String, target: &str, how: &str| {
        let to = point.join(target.trim_start_matches('/')).display().to_string();
        format!("mkdir -p {to} && mount --bind {from} {to} && mount -o remount,bind,{how} {to} && ")
    };
    let trees: Vec<_> = job.trees.iter().map(|shown| shown.tree.mount(None).expect("a mount")).collect();
    let mounts = job.trees.iter().zip(&trees).map(|(shown, tree)| {
        rustix::io::fcntl_setfd(tree, rustix::io::FdFlags::empty()).expect("an open descriptor");
        // `mount --bind` would follow the link to the root of the host.
        let (to, empty) = (point.join(shown.target.trim_start_matches('/')), point.join("run/empty"));
        let (to, empty, fd) = (to.display(), empty.display(), tree.as_raw_fd());
        format!("mkdir -p {to} {empty} && mount -t overlay tree -o lowerdir=/proc/self/fd/{fd}:{empty} {to} && ")
    });
    let mode = |writable| if writable { "rw" } else { "ro" };
    let binds = job.binds.iter().map(|b| bind(b.source.display().to_string(), &b.target, mode(b.writable)));
    (mounts.chain(binds).collect(), trees)
}

/// A store and a recipe's directory that go away with the value.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::inside(&std::env::temp_dir())
    }
    pub(crate) fn inside(parent: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("kiln-bake-").tempdir_in(parent).expect("a directory");
        let store = Store::open(&dir.path().join("store")).expect("a store");
        fs::create_dir(dir.path().join("recipe")).expect("a directory");
        Self { dir, store }
    }
    pub(crate) fn recipe_dir(&self) -> PathBuf {
        self.dir.path().join("recipe")
    }
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.recipe_dir().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    pub(crate) fn bake(&self, recipe: &Recipe) -> Result<Baked, BakeError> {
        bake(&request(recipe, &self.recipe_dir()), &self.store, &ChrootSandbox, &|_| {})
    }
    /// A base image made from a directory.
    pub(crate) fn base(&self, from: &Path) -> ImageDigest {
        let recipe = recipe(Vec::new());
        let dir = self.recipe_dir();
        let request = request(&recipe, &dir);
        let mut chain = Chain::empty(&request, &self.store, &ChrootSandbox, &|_| {}, Manner::USUAL);
        chain.start_at(EPOCH);
        let made = |chain: &Chain<'_>, _: &str| {
            let work = crate::store::Work::new(chain.store)?;
            copy_tree(from, &work.upper());
            run::made("base", work, run::clamp(EPOCH), Leftovers::Drop)
        };
        let key = kiln_model::Digest::of(from.as_os_str().as_encoded_bytes());
        chain.perform("base", key, Duration::from_secs(1), made).expect("a base");
        chain.mount_points(&recipe.manifest).expect("mount points");
        let (image, _, _) = chain.finish().expect("an image");
        self.store
            .set_channel(&recipe.name, &"dev".parse().expect("a name"), &image)
            .expect("the image is in the store");
        image
    }
    /// A base image with a shell and a few tools.
    pub(crate) fn shell_base(&self) -> ImageDigest {
        let tree = self.dir.path().join("tree");
        shell_tree(&tree);
        self.base(&tree)
    }
}

fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().expect("cp runs");
    assert!(status.success());
}

/// `/bin/sh` and some tools of the host with the libraries they name.
pub(crate) fn shell_tree(tree: &Path) {
    for dir in ["bin", "etc", "usr/share", "var/log", "var/www", "root"] {
        fs::create_dir_all(tree.join(dir)).expect("a directory");
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var/www:/bin/sh\n")
        .expect("a file");
    fs::write(tree.join("etc/group"), "root:x:0:\nwww:x:33:\n").expect("a file");
    for program in ["sh", "cat", "ls", "mkdir", "rm", "touch", "sleep", "date", "ln", "chmod", "chown", "stat"] {
        let path = fs::canonicalize(Path::new("/bin").join(program)).expect("the host has it");
        fs::copy(&path, tree.join("bin").join(program)).expect("a copy");
        let libraries = Command::new("ldd").arg(&path).output().expect("ldd runs").stdout;
        for library in String::from_utf8_lossy(&libraries).split_whitespace().filter(|word| word.starts_with('/')) {
            let to = tree.join(library.trim_start_matches('/'));
            fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
            fs::copy(library, to).expect("a copy");
        }
    }
}

pub(crate) fn recipe(steps: Vec<Step>) -> Recipe {
    let name: kiln_model::ImageName = "sample".parse().expect("a name");
    let manifest = ImageManifest::new(name.clone(), BTreeMap::new());
    Recipe {
        name,
        base: Base::Image("sample".parse().expect("a reference")),
        sources: Default::default(),
        steps,
        manifest,
        suite: Suite::default(),
        text: kiln_model::Digest::of(b"recipe"),
    }
}

pub(crate) fn step(name: &str, kind: StepKind) -> Step {
    Step {
        name: name.into(),
        kind,
        environment: BTreeMap::new(),
        working_directory: "/".into(),
        network: false,
        time_limit: Duration::from_secs(60),
    }
}

pub(crate) fn shell(script: &str) -> Step {
    step(script, StepKind::Run { command: ["/bin/sh", "-euc", script].map(String::from).to_vec() })
}

pub(crate) fn copy(from: &str, to: &str) -> Step {
    let (from, to) = (from.to_owned(), to.to_owned());
    step("copy", StepKind::Copy { from, to, owner: "root".into(), mode: None })
}

pub(crate) fn no_registries() -> &'static crate::registry::Registries {
    static NONE: std::sync::LazyLock<crate::registry::Registries> = std::sync::LazyLock::new(Default::default);
    &NONE
}

pub(crate) fn request<'a>(recipe: &'a Recipe, directory: &'a Path) -> BakeRequest<'a> {
    BakeRequest {
        recipe,
        directory,
        cache: directory,
        lock: LockMode::Use,
        registries: no_registries(),
        offline: true,
        fresh: false,
        shell_on_failure: false,
        now: jiff::Timestamp::now(),
    }
}

/// The recipe over the base image with this digest.
pub(crate) fn over(base: ImageDigest, steps: Vec<Step>) -> Recipe {
    Recipe { base: Base::Image(format!("sample@{base}").parse().expect("a reference")), ..recipe(steps) }
}

fn read(bench: &Bench, image: &ImageDigest, path: &str) -> Option<String> {
    let tree = bench.store.tree(image).expect("a tree");
    let bytes = tree.read(Path::new(path), 1 << 20).expect("readable")?;
    Some(String::from_utf8(bytes).expect("text"))
}

#[test]
fn root_steps_are_layers_and_known_ones_are_not_run() {
    let bench = Bench::new();
    let base = bench.shell_base();
    bench.write("page.html", "hello\n");
    let steps = vec![shell("echo made > /etc/made; rm /bin/ls"), copy("page.html", "/var/www/")];
    let recipe = over(base, steps);
    let first = bench.bake(&recipe).expect("baked");
    assert_eq!(first.steps.iter().map(|step| step.cached).collect::<Vec<_>>(), [false, false, false]);
    assert_eq!(read(&bench, &first.image, "/etc/made").as_deref(), Some("made\n"));
    assert_eq!(read(&bench, &first.image, "/var/www/page.html").as_deref(), Some("hello\n"));
    assert!(bench.store.tree(&first.image).expect("a tree").entry(Path::new("/bin/ls")).is_none());
    let again = bench.bake(&recipe).expect("baked");
    assert_eq!(again.image, first.image);
    assert!(again.steps.iter().all(|step| step.cached));
    bench.write("page.html", "changed\n");
    let changed = bench.bake(&recipe).expect("baked");
    assert_eq!(changed.steps.iter().map(|step| step.cached).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(read(&bench, &changed.image, "/var/www/page.html").as_deref(), Some("changed\n"));
    println!("again {:.1} ms, changed page {:.1} ms", again.seconds * 1e3, changed.seconds * 1e3);
    let found = bench.store.verify(&changed.image, &|_, _| {}).expect("verified");
    assert!(found.is_sound(), "{:?}", found.damage);
}

#[test]
fn root_a_failed_step_shows_its_output_and_the_next_bake_goes_on() {
    let bench = Bench::new();
    let base = bench.shell_base();
    let bad = over(base, vec![shell("echo one > /etc/one"), shell("echo went wrong >&2; exit 3")]);
    let error = bench.bake(&bad).expect_err("the step fails");
    let BakeError::StepFailed { status, output, .. } = &error else { panic!("{error:?}") };
    assert_eq!((status.as_str(), output.as_str()), ("failed with exit code 3", "went wrong\n"));
    assert_eq!(
        fs::read_dir(bench.store.dir().join("work"))
            .expect("a directory")
            .flatten()
            .filter(|entry| entry.file_name() != "locks")
            .count(),
        0
    );
    let good = over(base, vec![shell("echo one > /etc/one"), shell("echo two > /etc/two")]);
    let baked = bench.bake(&good).expect("baked");
    assert_eq!(baked.steps.iter().map(|step| step.cached).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn root_a_step_that_hangs_is_ended() {
    let bench = Bench::new();
    let base = bench.shell_base();
    let mut hanging = shell("sleep 1000");
    hanging.time_limit = Duration::from_millis(300);
    let begun = Instant::now();
    let error = bench.bake(&over(base, vec![hanging])).expect_err("the step hangs");
    assert!(matches!(&error, BakeError::StepFailed { status, .. } if status == "did not end within 300ms"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn root_a_mount_shows_the_tree() {
    let bench = Bench::new();
    let base = bench.shell_base();
    let recipe = over(base, vec![shell("echo made > /etc/made; chown 33:33 /etc/made; chmod 640 /etc/made")]);
    let image = bench.bake(&recipe).expect("baked").image;
    for _ in 0..3 {
        let begun = Instant::now();
        let mount = bench.store.mount(&image, None).expect("mounted");
        println!("mount {:.2} ms", begun.elapsed().as_secs_f64() * 1e3);
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        assert_eq!(fs::read_to_string(root.join("etc/made")).expect("readable"), "made\n");
        let stat = fs::metadata(root.join("etc/made")).expect("there");
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777, stat.mtime()), (33, 33, 0o640, EPOCH));
        assert!(fs::write(root.join("etc/new"), "x").is_err());
    }
}

#[test]
fn root_warnings_and_output_are_passed_on() {
    let bench = Bench::new();
    let base = bench.shell_base();
    let seen = Mutex::new(Vec::new());
    let recipe = over(base, vec![shell("echo hello")]);
    let directory = bench.recipe_dir();
    bake(&request(&recipe, &directory), &bench.store, &ChrootSandbox, &|event| {
        seen.lock().expect("no panic").push(event);
    })
    .expect("baked");
    let seen = seen.into_inner().expect("no panic");
    assert!(seen.iter().any(|event| matches!(event, BakeEvent::Output { bytes, .. } if bytes == b"hello\n")));
}

/// Where the packages that tests download are kept.
pub(crate) fn cache() -> PathBuf {
    let dir = std::env::temp_dir().join("kiln-test-cache");
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

pub(crate) fn debian(packages: &[&str], steps: Vec<Step>) -> Recipe {
    let base = kiln_model::recipe::DebianBase {
        distribution: kiln_model::recipe::Distribution::Debian,
        suite: "bookworm".into(),
        packages: packages.iter().map(|name| (*name).to_owned()).collect(),
        mirror: "http://deb.debian.org/debian".into(),
        security_mirror: Some("http://deb.debian.org/debian-security".into()),
        components: vec!["main".into()],
        keyring: None,
        repositories: Vec::new(),
    };
    Recipe { base: Base::Debian(base), ..recipe(steps) }
}

#[test]
fn root_debian_with_a_real_server() {
    let bench = Bench::new();
    bench.write("page.html", "hello\n");
    let recipe = debian(&["nginx-light"], vec![copy("page.html", "/var/www/html/")]);
    let (dir, cache) = (bench.recipe_dir(), cache());
    let request = BakeRequest { offline: false, cache: &cache, ..request(&recipe, &dir) };
    let print = |event: BakeEvent| match event {
        BakeEvent::Output { bytes, .. } => print!("{}", String::from_utf8_lossy(&bytes)),
        event => println!("{event:?}"),
    };
    let first = bake(&request, &bench.store, &ChrootSandbox, &|event| {
        if !matches!(event, BakeEvent::Debian(crate::debian::Event::Fetch(_) | crate::debian::Event::Unpack(_))) {
            print(event);
        }
    })
    .expect("baked");
    println!("{first:#?}");
    let tree = bench.store.tree(&first.image).expect("a tree");
    println!(
        "{} paths, {:?}",
        tree.entries().len(),
        bench.store.image(&first.image).expect("readable").map(|i| i.size)
    );
    for page in ["one", "two", "three"] {
        bench.write("page.html", page);
        let begun = Instant::now();
        let baked = bake(&request, &bench.store, &ChrootSandbox, &|_| {}).expect("baked");
        println!("changed page {:.1} ms: {:?}", begun.elapsed().as_secs_f64() * 1e3, baked.steps);
    }
    let begun = Instant::now();
    bake(&request, &bench.store, &ChrootSandbox, &|_| {}).expect("baked");
    println!("again {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    let begun = Instant::now();
    let found = bench.store.verify(&first.image, &|_, _| {}).expect("verified");
    println!("verify {:.1} ms {} files {} bytes", begun.elapsed().as_secs_f64() * 1e3, found.files, found.bytes);
    assert!(found.is_sound(), "{:?}", found.damage);
}

#[test]
fn root_two_bakes_are_compared() {
    let bench = Bench::new();
    let base = bench.shell_base();
    for name in ["b", "a", "c/e", "c/d"] {
        bench.write(&format!("site/{name}"), name);
    }
    let copied =
        step("copy", StepKind::Copy { from: "site".into(), to: "/var/www".into(), owner: "www".into(), mode: None });
    let check = |steps: Vec<Step>| {
        let (recipe, dir) = (over(base, steps), bench.recipe_dir());
        check_reproducible(&request(&recipe, &dir), &bench.store, &ChrootSandbox, &|_| {}).expect("baked twice")
    };
    let good = check(vec![copied.clone(), shell("echo x > /etc/a; ln /etc/a /etc/b; mkdir /etc/d")]);
    assert!(matches!(good, Reproducibility::Same { .. }), "{good:?}");
    let different = |script: &str| match check(vec![copied.clone(), shell(script)]) {
        Reproducibility::Different(Difference { path, how, step }) => {
            assert_eq!(step, script);
            (path, how)
        }
        same => panic!("{same:?}"),
    };
    let found = different("echo same > /etc/a; date +%s > /etc/z");
    assert_eq!(found, (PathBuf::from("/etc/z"), How::Content));
    let found = different("echo x > /etc/$(date +%s)");
    assert_eq!(found.1, How::Existence);
    let found = different("touch -d @1000000000 /etc/y; touch -d @$(($(date +%s) % 1000)) /etc/z");
    assert!(matches!(found.1, How::Time(..)), "{found:?}");
    assert_eq!(bench.store.images().expect("readable").len(), 1, "no image is left of the comparison");
}
