//! What is wrong with a recipe is shown with its line, the offending text and what to write instead.

mod common;

use common::recipe;

/// Everything found in these recipes, as it is printed. Each starts with what every recipe needs, unless it has a name.
fn shown(pieces: &[&str]) -> String {
    let whole = |piece: &&str| {
        let text = if piece.contains("name = \"hello\"\n") { (*piece).to_owned() } else { format!("{START}{piece}") };
        let found = recipe(&text).err().unwrap_or_else(|| panic!("this is accepted:\n{piece}"));
        found.render(false, 100)
    };
    pieces.iter().map(whole).collect::<Vec<_>>().join("--------\n")
}

const START: &str = "name = \"hello\"\nbase = { debian = \"bookworm\" }\n";

#[test]
fn unit_top_level() {
    insta::assert_snapshot!(shown(&[
        "pakages = []\nvolume = {}\n",
        "name = \"hello\"\n",
        "name = \"hello\"\nname = \"again\"\n",
        "name = \"hello\"\n[base\n",
        "name = \"hello\"\nbase = \"bookworm\"\n",
        "\n# name = \"hello\"\nname = \"Hello World\"\n[base]\ndebian = \"bookworm\"\n",
        "name = \"hello\"\nbase = { debian = \"bookworm\" }\nstep = \"x\"\nservice = 1\nwritable = true\ntest = 0.5\n",
    ]));
}

#[test]
fn unit_service_bindings() {
    insta::assert_snapshot!(shown(&[
        "[service_binding.db]\nwait = true\n",
        "[service_binding.DB]\nkind = \"PostgreSQL\"\nwait = \"yes\"\n",
        "[service_binding.db]\nkind = \"postgresql\"\nfields = { Region = \"string\", zone = \"text\", n = 1 }\n",
        "[service_binding.mail]\nkind = \"smtp\"\ntest = \"throwaway\"\n",
        "[service_binding.db]\nkind = \"redis\"\ntest = \"mock\"\nhost = \"x\"\n",
    ]));
}

#[test]
fn unit_base() {
    insta::assert_snapshot!(shown(&[
        "name = \"hello\"\n[base]\npackages = [\"nginx\"]\n",
        "name = \"hello\"\n[base]\ndebian = \"bookwrm\"\n",
        "name = \"hello\"\n[base]\ndebian = \"stable\"\n",
        "name = \"hello\"\n[base]\ndebian = \"Book Worm\"\npackages = [\"Nginx\", 1, \"curl\", \"curl=1.0\", \"a=b c\"]\n",
        "name = \"hello\"\n[base]\ndebian = \"bookworm\"\nmirror = \"ftp://x\"\nsecurity_mirror = true\ncomponents = []\n",
        "name = \"hello\"\n[base]\ndebian = \"bookworm\"\nkeyring = \"../keys.gpg\"\n",
        "name = \"hello\"\n[base]\ndebian = \"bookworm\"\nkeyring = \"missing.gpg\"\n",
        "name = \"hello\"\n[base]\ndebian = \"bookworm\"\nimage = \"web\"\n",
        "name = \"hello\"\n[base]\nimage = \"web@sha256:12\"\npackages = [\"nginx\"]\n",
        "name = \"hello\"\n[base]\noci = \"Debian:bookworm\"\nmax_size = \"1B\"\nmax_files = 0\nmax_ratio = \"200\"\n",
        "name = \"hello\"\n[base]\noci = \"oci:missing\"\nkeyring = \"keys.gpg\"\n",
        "name = \"hello\"\n[base]\noci = \"oci-archive:../image.tar\"\n",
        "name = \"hello\"\n[base]\ndebian = \"bookworm\"\nmax_size = \"1GiB\"\n",
        "name = \"hello\"\n[base]\nubuntu = \"nobel\"\n",
        "name = \"hello\"\n[base]\nubuntu = \"devel\"\n",
        "name = \"hello\"\n[base]\nubuntu = \"noble\"\ndebian = \"bookworm\"\n",
        "name = \"hello\"\n[base]\nubuntu = \"noble\"\nmax_size = \"1GiB\"\n",
        "name = \"hello\"\n[base]\ncontainerfile = \"Missingfile\"\n",
        "name = \"hello\"\n[base]\ncontainerfile = \"../Dockerfile\"\ncontext = \"/\"\nnetwork = true\nargs = { \"1\" = 2 }\nsecrets = { a = \"missing\" }\n",
        "name = \"hello\"\n[base]\ncontainerfile = \"Dockerfile\"\nimage = \"web\"\n",
        "name = \"hello\"\n[base]\ndebian = \"bookworm\"\ntarget = \"x\"\nargs = {}\n",
        "name = \"hello\"\n[base]\ncontainerfile = \"Missingfile\"\nmirror = \"http://x\"\nrepository = {}\n",
    ]));
}

#[test]
fn unit_packages_and_repositories() {
    let base = |rest: &str| format!("name = \"hello\"\n[base]\ndebian = \"bookworm\"\n{rest}");
    let pieces = [
        base("packages = [\"./missing.deb\", \"../app.deb\", \"/srv/app.deb\", \"page/app\", \"./page.deb\"]\n"),
        base("packages = [\"./app.deb\", \"app.deb\", \"./away.deb\", \"./b\\u0007.deb\"]\n"),
        base("[base.repository]\nmain = {}\nfile = { url = \"x\" }\n\"My Shop\" = 1\n"),
        base(
            "[base.repository.shop]\nurl = \"ftp://x\"\nsuite = \"a b\"\ncomponents = []\nkey = \"missing.asc\"\nkeyring = \"x\"\n",
        ),
        base(
            "[base.repository.shop]\nurl = \"https://x\"\nsuite = \"../x\"\ncomponents = [\"main\"]\nkey = \"page\"\n",
        ),
        base("repository = [\"https://x\"]\n"),
        base("[base.repository.flat]\nurl = \"https://x\"\nsuite = \"stable/\"\ncomponents = [\"main\"]\n"),
        base("[base.repository.flat]\nurl = \"https://x\"\nsuite = \"../\"\nkey = \"page\"\ncomponent = \"main\"\n"),
        base("[base.repository.flat]\nurl = \"https://x\"\nsuite = \"/deb/\"\nkey = \"missing.asc\"\n"),
        base("[base.repository.flat]\nurl = \"https://x\"\nsuite = \"binary-$(ARCH)/\"\nkey = \"missing.asc\"\n"),
    ];
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    insta::assert_snapshot!(shown(&pieces));
}

#[test]
fn unit_configuration() {
    insta::assert_snapshot!(shown(&[
        "[config.Workers]\ntype = \"integer\"\n",
        "[config.workers]\nmin = 1\n",
        "[config.workers]\ntype = \"int\"\ntyp = 1\n",
        "[config.workers]\ntype = \"integer\"\nmin = 8\ndefault = 4\n",
        "[config.greeting]\ntype = \"string\"\nmin = 1\npattern = \"(\"\n",
        "[config.password]\ntype = \"string\"\nsecret = true\nlive = true\n",
        "[config.password]\ntype = \"string\"\nsecret = true\ndefault = \"x\"\n",
        "[config.on]\ntype = \"boolean\"\noptional = true\ndefault = true\n",
        "[config.level]\ntype = \"enum\"\nvalues = [\"a\", \"a\"]\n[config.hosts]\ntype = \"list\"\n",
        "[config.workers]\ntype = \"integer\"\n[service.web]\ncommand = \"x\"\nenvironment = { W = { config = \"worker\" } }\n",
    ]));
}

#[test]
fn unit_files() {
    insta::assert_snapshot!(shown(&[
        "[file.\"/etc/app.conf\"]\ntemplate = \"app.conf.j2\"\n[config.workers]\ntype = \"integer\"\n",
        "[file.\"/run/app.conf\"]\nmode = \"0644\"\n",
        "[file.\"/run/app.conf\"]\ntemplate = \"missing.j2\"\nowner = \"app\"\n",
        "[file.\"/run/app.conf\"]\ntemplate = \"broken.j2\"\n",
        "[file.\"/run/app.conf\"]\ntemplate = \"stray.j2\"\n[config.workers]\ntype = \"integer\"\n",
    ]));
}

#[test]
fn unit_tool_steps() {
    insta::assert_snapshot!(shown(&[
        "[[step]]\nansible = \"sit.yml\"\ntool = \"host\"\nidempotent = \"maybe\"\ngroups = [\"a b\"]\nvariables = 7\n",
        "[[step]]\npuppet = \"page\"\nmodules = [\"nothing\"]\nfacts = { \"A\" = \"x\" }\n",
        "[[step]]\ncfengine = \"page\"\nbundles = \"web\"\nrun = \"true\"\n",
        "[[step]]\nchef = \"web\"\n",
        "[[step]]\nchef = [\"recipe[we b]\"]\ntool = \"archive\"\nroles = [\"a\"]\n",
        "[[step]]\ncloud-init = \"page\"\nidempotent = true\n",
    ]));
}

#[test]
fn unit_steps() {
    insta::assert_snapshot!(shown(&[
        "[[step]]\nto = \"/srv\"\n",
        "[[step]]\ncopy = \"page/\"\nrun = \"true\"\n",
        "[[step]]\ncopy = \"page/\"\n",
        "[[step]]\ncopy = \"../page\"\nto = \"srv/page\"\n",
        "[[step]]\ncopy = \"/etc\"\nto = \"/srv/../etc\"\n",
        "[[step]]\ncopy = \".\"\nto = \"/srv\"\n",
        "[[step]]\ncopy = \"pages\"\nto = \"/srv//pages\"\n",
        "[[step]]\ncopy = \"pipe\"\nto = \"/srv\\u0007\"\n",
        "[[step]]\ncopy = \"away\"\nto = \"/run/page\"\nmode = \"644x\"\nowner = \"a:b:c\"\n",
        "[[step]]\ncopy = \"page/\"\nto = \"/var/lib/app/\"\n[writable]\n\"/var/lib/app\" = { tmpfs = \"1MiB\" }\n",
        "[[step]]\nrun = \"\"\nmode = \"0644\"\nnetwork = true\ntime_limit = \"5 minutes\"\n",
        "[[step]]\nrun = []\nenvironment = { \"A B\" = \"x\", PORT = 80 }\nworking_directory = \"srv\"\n",
        "[[step]]\nrun = [\"bin/x\"]\ntime_limit = \"48h\"\nnetwork = \"yes\"\nname = \"two\\nlines\"\n",
        "[[step]]\npackages = []\n[[step]]\nremove = []\n[[step]]\nremove = [\"etc\", \"/*\", \"/a*/b\", \"/\"]\n",
    ]));
}

#[test]
fn unit_services() {
    insta::assert_snapshot!(shown(&[
        "[service.Web]\ncomand = \"nginx\"\n",
        "[service.web]\ncommand = \"nginx -g 'daemon off;\"\nuser = \"www data\"\n",
        "[service.web]\ncommand = \"cd /srv && ./run\"\nuser = 33\nrestart = \"always\"\n",
        "[service.web]\ncommand = \"./run\"\nports = [0, \"80\", { port = 80, protocol = \"https\" }]\n",
        "[service.web]\ncommand = \"nginx\"\nports = [80, 80]\n[service.api]\ncommand = \"api\"\nports = [80]\n",
        "[service.web]\ncommand = \"nginx\"\nports = [80]\nreadiness = { http = \"/\", port = 8080 }\n",
        "[service.web]\ncommand = \"nginx\"\nreadiness = { http = \"/\" }\n",
        "[service.web]\ncommand = \"nginx\"\nreadiness = { tcp = 80 }\n",
        "[service.web]\ncommand = \"nginx\"\nports = [80]\nreadiness = { tcp = 80, http = \"/\" }\n",
        "[service.web]\ncommand = \"nginx\"\nports = [80]\nreadiness = { tcp = 80, port = 80, within = \"0s\", timeout = 1 }\n",
        "[service.web]\ncommand = \"nginx\"\nports = [80]\nliveness = { tcp = 80, interval = \"0s\", failures = 0, within = \"1s\" }\n",
        "[service.web]\ncommand = \"nginx\"\nliveness = { interval = \"1s\" }\n",
        "[service.web]\ncommand = \"nginx\"\nreadiness = { command = \"\" }\nstop = { signal = \"SIGKILL\", grace = \"2h\" }\n",
        "[service.web]\ncommand = \"nginx\"\nports = [80]\nrestart = \"once\"\n",
        "[service.web]\ncommand = \"nginx\"\nhold_ready = \"2d\"\n",
    ]));
}

#[test]
fn unit_writable() {
    insta::assert_snapshot!(shown(&[
        "[writable]\n\"/var/lib/app\" = \"64MiB\"\n\"/srv\" = {}\n",
        "[writable]\n\"/var/lib/app\" = { volume = \"../data\", scale_from = \"copy\", quiesce = [] }\n",
        "[writable]\n\"/a\" = { volume = \"data\" }\n\"/b\" = { volume = \"data\" }\n\"/c\" = { tmpfs = \"1MiB\", resume = \"sync\" }\n",
        "[writable]\n\"/var/lib\" = { tmpfs = \"1MiB\" }\n\"/var/lib/app\" = { ephemeral = \"1MiB\" }\n",
        "[writable]\n\"/\" = { tmpfs = \"1MiB\" }\n\"var\" = { tmpfs = \"1MiB\" }\n\"/var/\" = { tmpfs = \"1MiB\" }\n",
        "[writable]\n\"/tmp\" = { tmpfs = \"1MiB\" }\n\"/proc/x\" = { tmpfs = \"1MiB\" }\n",
        "[writable]\n\"/srv\" = { tmpfs = \"0B\", ephemeral = \"1MiB\" }\n\"/data\" = { tmpfs = \"10 MB\", user = \"-x\", mode = \"rwx\" }\n",
        "[writable]\n\"/srv\" = { tmpfs = \"0B\" }\n\"/data\" = { tmpfs = 64, owner = \"app\" }\n",
        "[writable]\n\"/a\" = { shared = \"uploads\" }\n\"/b\" = { shared = \"uploads\" }\n",
        "[writable]\n\"/c\" = { shared = \"../x\" }\n",
        "[writable]\n\"/a\" = { shared = \"uploads\", user = \"app\", quiesce = \"sync\" }\n\"/b\" = { shared = \"x\", volume = \"x\" }\n",
    ]));
}

#[test]
fn unit_matrix_and_values_in_tests() {
    let keys = "[config.workers]\ntype = \"integer\"\nmin = 1\n[config.token]\ntype = \"string\"\nsecret = true\n\
                [config.beta]\ntype = \"boolean\"\nlive = true\ndefault = false\n[config.motto]\ntype = \"string\"\noptional = true\n";
    let with = |text: &str| format!("{keys}{text}");
    let pieces = [
        "[[test]]\nport = 80\n[[test.matrix]]\nname = \"Minimal\"\n[[test.matrix]]\nconfig = { workers = 0, worker = 1, token = 1 }\n",
        "[[test]]\nport = 80\n[[test.matrix]]\nname = \"a\"\nconfig = { workers = 1, token = \"x\" }\n[[test.matrix]]\nname = \"a\"\nconfig = { workers = 1, token = \"x\" }\nkeys = 1\n",
        "[[test]]\nport = 80\n[[test.matrix]]\nname = \"a\"\nconfig = { workers = 1, token = \"x\" }\n[[test]]\nport = 81\n",
        "[[test.matrix]]\nname = \"a\"\n[[test]]\nport = 80\n",
        "[test]\nmatrix = \"a\"\n",
        "[service_binding.db]\nkind = \"smtp\"\n[service_binding.cache]\nkind = \"redis\"\ntest = \"throwaway\"\n[[test]]\nport = 80\n[[test.matrix]]\nname = \"a\"\nconfig = { workers = 1, token = \"x\" }\nservice_binding = { db = { host = 1 }, cache = {} }\n",
        "[[test]]\ncommand = \"id\"\nstdout = { equals = { config = \"worker\" } }\n",
        "[[test]]\ncommand = \"id\"\nstdout = { equals = { config = \"beta\" } }\nstderr = { contains = { config = \"motto\" } }\n",
        "[[test]]\ncommand = \"id\"\nstdout = { matches = { config = \"workers\" } }\nstderr = { contains = { key = \"workers\" } }\n",
        "[[test]]\nscript = \"tests/check.sh\"\nsecrets = [\"workers\", \"tokn\"]\n",
        "[service.web]\ncommand = \"sleep 1\"\nenvironment = { BETA = { config = \"beta\" } }\n[config.level]\ntype = \"string\"\nlive = true\n",
    ];
    let pieces = pieces.map(with);
    insta::assert_snapshot!(shown(&pieces.each_ref().map(String::as_str)));
}

#[test]
fn unit_a_matrix_may_stand_alone_and_bindings_of_throwaway_services_need_nothing() {
    let alone = format!("{START}[[test.matrix]]\nname = \"plain\"\n");
    assert_eq!(recipe(&alone).unwrap().suite.matrix[0].name.as_str(), "plain");
    let bound = "[service_binding.db]\nkind = \"redis\"\ntest = \"throwaway\"\n[[test.matrix]]\nname = \"plain\"\n";
    assert!(recipe(&format!("{START}{bound}")).is_ok());
}

#[test]
fn unit_tests() {
    insta::assert_snapshot!(shown(&[
        "[[test]]\nname = \"x\"\n",
        "[[test]]\nhttp = \"/\"\nfile = \"/etc\"\n",
        "[[test]]\nport = 80\nuser = \"app\"\n",
        "[[test]]\nhttp = \"/\"\n",
        "[[test]]\nhttp = \"index.html\"\nport = 80\nbody = \"Hello\"\nstatus = 99\nmethod = \"get\"\n",
        "[[test]]\nhttp = \"/\"\nport = 80\nbody = { matches = \"(\" }\nheaders = { \"a b\" = { equals = \"x\" } }\n",
        "[[test]]\nhttp = \"/\"\nport = 80\nbody = { has = \"x\" }\nrequest_headers = { accept = \"a\\nb\" }\n",
        "[[test]]\nhttp = \"/\"\nport = 80\nexpect = \"x\"\n",
        "[[test]]\ntcp = 70000\nsend = 1\nexpect = []\n",
        "[[test]]\ncommand = \"nginx -t | cat\"\nexit = 256\nwithin = \"2h\"\n",
        "[[test]]\nfile = \"etc/x\"\nexists = false\nmode = \"0644\"\nsize = -1\n",
        "[[test]]\nprocess = \"/usr/sbin/nginx\"\ncount = 0\n",
        "[[test]]\npackage = \"nginx=1.0\"\ninstalled = false\nversion = \"1.0\"\n",
        "[[test]]\nscript = \"tests/none.sh\"\n[[test]]\nscript = \"tests/plain.txt\"\n[[test]]\nscript = \"tests/binary\"\n",
        "[[test]]\nscript = \"tests/\"\n[[test]]\nscript = \"../x\"\narguments = \"x\"\n",
        "[[test]]\nport = 23\nlistening = \"no\"\n[[test]]\nuser = \"app\"\nuid = 70000\nhome = \"app\"\n",
        "[[test]]\nport = 80\n[[test]]\nport = 80\n",
        "[[test]]\nname = \"kiln/root\"\nport = 80\n",
    ]));
}
