//! The metadata service, asked by real programs from inside servers.

use std::{net::Ipv4Addr, process::Command};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
use kiln_api::status::ServerStatus;

use crate::bench::{Bench, assert_ok};

const URL: &str = "http://169.254.169.254";

/// Servers of one group, and the host's `curl` in the network namespace of each.
pub struct Servers {
    pub bench: Bench,
    pub servers: Vec<ServerStatus>,
}

impl Servers {
    pub async fn launch() -> Self {
        let bench = Bench::new().await;
        let image = bench.image("one", "hello", |_, _| ());
        let (result, _) = bench.test(image).await;
        assert_ok(&result);
        assert_ok(&bench.apply(image).await.0);
        Self::of(bench).await
    }

    /// The servers that serve. A rollout is done while those that it replaced still leave: they are waited for.
    pub async fn of(bench: Bench) -> Self {
        let group =
            bench.until("only servers that serve", |group| group.servers.iter().all(|s| s.state == "ready")).await;
        Self { bench, servers: group.servers }
    }

    pub fn command(&self, server: usize, program: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.servers[server].pid.unwrap().to_string(), "-n", "--"]).args(program);
        command
    }

    /// Status and body.
    pub fn curl(&self, server: usize, arguments: &[&str]) -> (String, String) {
        let usual = ["curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}"];
        let output = self.command(server, &[&usual, arguments].concat()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) =
            text.rsplit_once('\n').unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (status.to_owned(), body.to_owned())
    }

    pub fn token(&self, server: usize) -> String {
        let token = format!("{URL}/latest/api/token");
        let (status, token) =
            self.curl(server, &["-X", "PUT", &token, "-H", "X-aws-ec2-metadata-token-ttl-seconds: 21600"]);
        assert_eq!(status, "200", "{token}");
        token
    }

    pub fn get(&self, server: usize, token: &str, path: &str) -> (String, String) {
        self.curl(server, &["-H", &format!("X-aws-ec2-metadata-token: {token}"), &format!("{URL}{path}")])
    }

    pub fn read(&self, server: usize, path: &str) -> String {
        let (status, body) = self.get(server, &self.token(server), path);
        assert_eq!(status, "200", "{path}: {body}");
        body
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_curl_asks_in_the_documented_way() {
    let mut servers = Servers::launch().await;
    let first = servers.servers[0].clone();
    assert_eq!(servers.read(0, "/latest/meta-data/instance-id"), first.id);
    assert_eq!(Some(servers.read(0, "/2021-03-23/meta-data/local-ipv4")), first.address);
    assert_eq!(servers.read(0, "/latest/meta-data/placement/"), "availability-zone\nregion");
    assert_eq!(servers.read(0, "/latest/meta-data/tags/instance/kiln-group"), "web");
    let listing = servers.read(0, "/latest/meta-data/");
    for name in ["ami-id", "hostname", "instance-type", "local-hostname", "mac", "network/", "placement/", "tags/"] {
        assert!(listing.lines().any(|line| line == name), "{name}: {listing}");
    }
    assert!(servers.read(0, "/").lines().any(|version| version == "2021-03-23"));
    let mac = servers.read(0, "/latest/meta-data/network/interfaces/macs/");
    assert_eq!(servers.read(0, &format!("/latest/meta-data/network/interfaces/macs/{mac}device-number")), "0");
    let token = servers.token(0);
    for absent in ["/latest/user-data", "/latest/meta-data/absent", "/1999-01-01/meta-data/", "/kiln/v1/config/absent"]
    {
        assert_eq!(servers.get(0, &token, absent).0, "404", "{absent}");
    }
    servers.bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_server_without_its_own_token_gets_nothing() {
    let mut servers = Servers::launch().await;
    let path = "/latest/meta-data/instance-id";
    let token = servers.token(0);
    assert_eq!(servers.curl(0, &[&format!("{URL}{path}")]).0, "401", "without");
    assert_eq!(servers.get(1, &token, path).0, "401", "another server's");
    assert_eq!(servers.get(0, &format!("{token}A"), path).0, "401", "wrong");
    let put = format!("{URL}/latest/api/token");
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds";
    let short = servers.curl(0, &["-X", "PUT", &put, "-H", &format!("{ttl}: 1")]).1;
    assert_eq!(servers.get(0, &short, path).0, "200");
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(servers.get(0, &short, path).0, "401", "expired");
    for wrong in ["0", "21601", "-1", "x"] {
        assert_eq!(servers.curl(0, &["-X", "PUT", &put, "-H", &format!("{ttl}: {wrong}")]).0, "400", "{wrong}");
    }
    assert_eq!(servers.curl(0, &["-X", "PUT", &put]).0, "400");
    let forwarded = ["-X", "PUT", &put, "-H", &format!("{ttl}: 60"), "-H", "X-Forwarded-For: 100.64.0.9"];
    assert_eq!(servers.curl(0, &forwarded).0, "403");
    let lie = servers.curl(
        0,
        &[
            "-H",
            &format!("X-aws-ec2-metadata-token: {token}"),
            "-H",
            "X-Forwarded-For: 100.64.0.9",
            &format!("{URL}{path}"),
        ],
    );
    assert_eq!(lie, ("200".to_owned(), servers.servers[0].id.clone()), "a header is no address");
    assert_eq!(servers.curl(0, &["-X", "POST", &format!("{URL}{path}")]).0, "405");
    let long = format!("X-Long: {}", "x".repeat(20_000));
    assert_eq!(servers.curl(0, &["-H", &long, &format!("{URL}{path}")]).0, "431");
    assert_eq!(servers.curl(0, &["-X", "PUT", &put, "-d", "body"]).0, "413");
    assert_eq!(servers.get(0, &token, path).0, "200", "the service is still up");
    let other = Command::new("curl").args(["-sS", "--max-time", "2"]).arg(gateway(&servers)).output().unwrap();
    assert!(!other.status.success(), "the host itself is no server: {other:?}");
    servers.bench.purge().await;
}

/// The port itself, at the bridge.
fn gateway(servers: &Servers) -> String {
    let address: Ipv4Addr = servers.servers[0].address.as_ref().unwrap().parse().unwrap();
    format!("http://{}:254/", Ipv4Addr::from((u32::from(address) & !0xfff) + 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn root_tokens_stay_valid_when_the_daemon_is_killed_and_comes_back() {
    let mut servers = Servers::launch().await;
    let token = servers.token(0);
    let path = "/latest/meta-data/instance-id";
    servers.bench.kill_and_restart().await;
    assert_eq!(servers.get(0, &token, path), ("200".to_owned(), servers.servers[0].id.clone()));
    servers.bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_thousand_requests_at_once_and_slow_clients_are_survived() {
    let mut servers = Servers::launch().await;
    let slow = "import socket,time\ns=[]\nfor _ in range(100):\n c=socket.create_connection(('169.254.169.254',80));\
                c.send(b'GET / HTTP/1.1\\r\\n');s.append(c)\nprint('held',flush=True)\nt=time.time()\n\
                \nfor c in s:\n c.settimeout(20)\n while c.recv(1000):pass\nprint(int(time.time()-t))\n";
    let mut held = servers.command(2, &["python3", "-c", slow]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let many = "import socket,threading\ndone=[]\ngo=threading.Event()\ndef ask():\n go.wait()\n \
                c=socket.create_connection(('169.254.169.254',80),20);\
                c.send(b'GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n \
                d=c.recv(100)\n done.append(d.startswith(b'HTTP/1.1 401'))\n\
                \nthreads=[threading.Thread(target=ask) for _ in range(100)]\nfor t in threads:t.start()\ngo.set()\n\
                \nfor t in threads:t.join()\nprint(sum(done))\n";
    let asking: Vec<_> = (0..10)
        .map(|n| servers.command(n % 2, &["python3", "-c", many]).stdout(std::process::Stdio::piped()).spawn().unwrap())
        .collect();
    let answered: u32 = asking.into_iter().map(|child| text(child).trim().parse::<u32>().unwrap()).sum();
    println!("{answered} of 1000 requests were answered");
    assert!(answered >= 256, "{answered}: 128 connections of each server at a time are answered");
    let seconds = text_of(&mut held);
    assert!(seconds.lines().last().unwrap().parse::<u32>().unwrap() <= 8, "slow clients are cut off: {seconds}");
    assert_eq!(servers.read(0, "/latest/meta-data/instance-id"), servers.servers[0].id);
    servers.bench.purge().await;
}

fn text(child: std::process::Child) -> String {
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

fn text_of(child: &mut std::process::Child) -> String {
    use std::io::Read as _;
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn root_identity_tokens_are_verified_with_the_published_keys() {
    let mut servers = Servers::launch().await;
    let published = servers.bench.client.jwks().await.unwrap();
    let keys = serde_json::to_value(&published).unwrap();
    let seen: serde_json::Value = serde_json::from_str(&servers.read(1, "/kiln/v1/jwks")).unwrap();
    assert_eq!(seen, keys, "servers and the daemon's API publish the same");
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let key = VerifyingKey::try_from(&bytes(keys["keys"][0]["x"].as_str().unwrap())[..]).unwrap();
    let token = servers.read(0, "/kiln/v1/identity?audience=https://db.example");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = Signature::from_slice(&bytes(signature)).unwrap();
    key.verify(signed.as_bytes(), &signature).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&bytes(signed.split_once('.').unwrap().0)).unwrap();
    assert_eq!(header["kid"], published.keys[0].kid.as_str());
    let claims: serde_json::Value = serde_json::from_slice(&bytes(signed.split_once('.').unwrap().1)).unwrap();
    assert_eq!(claims["sub"], servers.servers[0].id.as_str());
    assert_eq!((&claims["aud"], &claims["group"]), (&"https://db.example".into(), &"web".into()));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
    let token = servers.token(0);
    for wrong in ["", "?audience=", "?audience=a%20b", "?other=x"] {
        assert_eq!(servers.get(0, &token, &format!("/kiln/v1/identity{wrong}")).0, "400", "{wrong}");
    }
    let document = servers.read(0, "/latest/dynamic/instance-identity/document");
    let signature = servers.read(0, "/latest/dynamic/instance-identity/signature");
    let signature = base64::engine::general_purpose::STANDARD.decode(signature).unwrap();
    key.verify(document.as_bytes(), &Signature::from_slice(&signature).unwrap()).unwrap();
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["instanceId"], servers.servers[0].id.as_str());
    servers.bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_peers_are_the_other_servers_of_the_group() {
    let mut servers = Servers::launch().await;
    let peers: serde_json::Value = serde_json::from_str(&servers.read(0, "/kiln/v1/peers")).unwrap();
    let mut found: Vec<_> =
        peers["peers"].as_array().unwrap().iter().map(|peer| peer["id"].as_str().unwrap()).collect();
    found.sort_unstable();
    let mut others: Vec<_> = servers.servers[1..].iter().map(|server| server.id.as_str()).collect();
    others.sort_unstable();
    assert_eq!(found, others);
    assert!(peers["peers"].as_array().unwrap().iter().all(|peer| peer["ready"] == true), "{peers}");
    servers.bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_test_servers_are_told_their_configuration_and_what_they_read_is_noted() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "hello", |manifest, suite| {
        use kiln_model::suite::{Test, TestKind};
        let script = "t=$(printf 'PUT /latest/api/token HTTP/1.1\\r\\nHost: m\\r\\n\
                      X-aws-ec2-metadata-token-ttl-seconds: 60\\r\\nConnection: close\\r\\n\\r\\n' | nc 169.254.169.254 80 | tail -n 1); \
                      printf \"GET /kiln/v1/config/motto HTTP/1.1\\r\\nHost: m\\r\\nX-aws-ec2-metadata-token: $t\\r\\nConnection: close\\r\\n\\r\\n\" \
                      | nc 169.254.169.254 80 | tail -n 1";
        let exec = TestKind::Command {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            user: "root".into(),
            exit: 0,
            stdout: vec![kiln_model::suite::TextMatch::Contains("stay calm".into())],
            stderr: Vec::new(),
        };
        let within = std::time::Duration::from_secs(5);
        suite.tests.push(Test { name: "metadata".into(), within, kind: exec });
        manifest.name = "web".parse().unwrap();
        manifest.config = crate::config::schema(&[("motto", "{ \"type\": \"string\" }")]);
    });
    let image_ref: kiln_model::fleet::ImageRef = format!("web@{image}").parse().unwrap();
    let mut group = kiln_model::Group::new(image_ref.clone());
    let motto = kiln_model::config::ConfigValue::Text("stay calm".into());
    group.config.insert("motto".parse().unwrap(), kiln_model::config::ConfigSource::Literal(motto));
    let request = kiln_api::request::TestRequest {
        image: image_ref,
        group: Some(Box::new(group)),
        directory: "/".into(),
        fresh: kiln_api::request::Fresh::Reuse,
        move_dev: false,
    };
    let stream = bench.client.test(&request).await.unwrap();
    let mut seen = Vec::new();
    let last = stream.finish(|event| seen.push(event.clone())).await.unwrap();
    assert!(
        matches!(&last, kiln_api::Event::Result { result: kiln_api::event::Outcome::Ok, .. }),
        "{seen:#?} {last:#?}"
    );
    let reads = kiln_control::reads::KeyReads::of_state(&bench.directory.path().join("state"));
    assert_eq!(reads.of_image(&image).into_iter().collect::<Vec<_>>(), ["motto"]);
    bench.purge().await;
}
