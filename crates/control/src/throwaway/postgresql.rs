//! A throwaway PostgreSQL: a fresh cluster without regard for power failures.

use std::{fs, io, path::PathBuf, process::Command};

use kiln_model::config::ConfigValue;

use super::{
    Place, Started, ThrowawayError,
    program::{User, command, give, said},
};

const KIND: &str = "postgresql";
const USER: &str = "kiln";
const DATABASE: &str = "postgres";
/// Where Debian keeps its versions.
const VERSIONS: &str = "/usr/lib/postgresql";

pub(super) fn start(place: &Place<'_>) -> Result<Started, ThrowawayError> {
    let programs =
        programs().ok_or(ThrowawayError::NoProgram { kind: KIND, program: "initdb", package: "postgresql" })?;
    let user = User::named("postgres");
    let failed = |source: io::Error| ThrowawayError::Directory { path: place.directory.to_owned(), source };
    give(place.directory, user).map_err(failed)?;
    let password = place.directory.join("password");
    fs::write(&password, place.password).map_err(failed)?;
    give(&password, user).map_err(failed)?;
    let data = place.directory.join("data");
    let mut init = command(&programs.join("initdb"), place.directory, user).map_err(failed)?;
    init.arg("-D").arg(&data).args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--no-sync"]);
    ran(init.arg("--pwfile").arg(&password), place)?;
    fs::remove_file(&password).map_err(failed)?;
    let rules = "host all all 0.0.0.0/0 scram-sha-256\nhost all all ::/0 scram-sha-256\n";
    fs::write(data.join("pg_hba.conf"), rules).map_err(failed)?;
    let mut serve = command(&programs.join("postgres"), place.directory, user).map_err(failed)?;
    serve.arg("-D").arg(&data);
    let (listen, port) = (place.address.ip(), place.address.port());
    let settings =
        [format!("listen_addresses={listen}"), format!("port={port}"), "unix_socket_directories=".to_owned()];
    let loose =
        ["fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=16MB"].map(str::to_owned);
    for setting in settings.iter().chain(&loose) {
        serve.arg("-c").arg(setting);
    }
    let child = serve.spawn().map_err(failed)?;
    let text = |text: &str| ConfigValue::Text(text.to_owned());
    Ok((child, vec![("user", text(USER)), ("database", text(DATABASE))]))
}

fn ran(command: &mut Command, place: &Place<'_>) -> Result<(), ThrowawayError> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(ThrowawayError::Start { kind: KIND, said: said(place.directory) }),
        Err(source) => Err(ThrowawayError::Directory { path: place.directory.to_owned(), source }),
    }
}

/// The programs of the newest version.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).ok()?.flatten().map(|entry| entry.path().join("bin"));
    let version = |path: &PathBuf| path.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    versions.filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists()).max_by_key(version)
}
