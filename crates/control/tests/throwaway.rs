//! Throwaway services: real ones, used by their own clients, and gone afterwards.
#![allow(missing_docs)]

use std::{
    collections::BTreeMap, fs, net::IpAddr, os::unix::fs::PermissionsExt as _, path::Path, process::Command,
    time::Duration,
};

use kiln_control::throwaway::{Kind, Throwaway, answers, sweep};
use kiln_model::config::ConfigValue;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    directory
}

fn fields(service: &Throwaway) -> BTreeMap<String, String> {
    let text = |value: &ConfigValue| match value {
        ConfigValue::Text(text) => text.clone(),
        other => format!("{other:?}"),
    };
    service.fields.iter().map(|(key, value)| (key.to_string(), text(value))).collect()
}

fn below(directory: &Path) -> usize {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let works = |pid: &fs::DirEntry| fs::read_link(pid.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
    pids.filter(works).count()
}

fn psql(service: &Throwaway, password: &str) -> std::process::Output {
    let fields = fields(service);
    let port = service.address.port().to_string();
    Command::new("psql")
        .args(["-h", &fields["host"], "-p", &port, "-U", &fields["user"], "-d", &fields["database"], "-w", "-Atc"])
        .arg("create table t (n int); insert into t values (42); select n from t")
        .env("PGPASSWORD", password)
        .output()
        .unwrap()
}

#[test]
fn host_a_throwaway_postgresql_is_used_and_gone() {
    let all = directory();
    let service = Throwaway::start(Kind::Postgresql, HERE, all.path()).unwrap();
    let password = fields(&service)["password"].clone();
    let output = psql(&service, &password);
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("42\n"), "{output:?}");
    assert!(!psql(&service, "wrong").status.success(), "the password is asked for");
    let pid = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let own = pid.filter(|path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(all.path())));
    for process in own {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        assert!(!status.contains("Uid:\t0\t"), "it runs as root: {status}");
        let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        assert!(!line.contains(&password), "its password is an argument");
    }
    drop(service);
    assert_eq!((below(all.path()), fs::read_dir(all.path()).unwrap().count()), (0, 0));
}

#[test]
fn host_a_throwaway_redis_is_used_and_gone() {
    let all = directory();
    let service = Throwaway::start(Kind::Redis, HERE, all.path()).unwrap();
    let (password, port) = (fields(&service)["password"].clone(), service.address.port().to_string());
    let ask = |password: &str| {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &port, "SET", "a", "1"]).env("REDISCLI_AUTH", password);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(ask(&password), "OK\n");
    assert!(!ask("wrong").starts_with("OK"));
    drop(service);
    assert_eq!((below(all.path()), fs::read_dir(all.path()).unwrap().count()), (0, 0));
}

#[test]
fn host_what_a_killed_daemon_left_is_swept() {
    let all = directory();
    let services = [Kind::Redis, Kind::Postgresql].map(|kind| Throwaway::start(kind, HERE, all.path()).unwrap());
    let addresses = services.each_ref().map(|service| service.address);
    // As if this process had been killed: nobody drops them.
    services.into_iter().for_each(std::mem::forget);
    assert!(below(all.path()) >= 2);
    sweep(all.path()).unwrap();
    assert_eq!((below(all.path()), fs::read_dir(all.path()).unwrap().count()), (0, 0));
    assert!(answers(Kind::Redis, addresses[0], Duration::from_secs(1)).is_err());
    // Another service at the port is not mistaken for one.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let late = std::time::Instant::now();
    assert!(answers(Kind::Postgresql, address, Duration::from_millis(300)).is_err());
    assert!(late.elapsed() < Duration::from_secs(2));
}
