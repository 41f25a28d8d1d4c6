//! A throwaway Redis: in memory only.

use std::{io, path::Path};

use super::{
    Place, Started, ThrowawayError,
    program::{User, command, give},
};

const PROGRAM: &str = "/usr/bin/redis-server";

pub(super) fn start(place: &Place<'_>) -> Result<Started, ThrowawayError> {
    if !Path::new(PROGRAM).exists() {
        return Err(ThrowawayError::NoProgram { kind: "redis", program: PROGRAM, package: "redis-server" });
    }
    let user = User::named("redis");
    let failed = |source: io::Error| ThrowawayError::Directory { path: place.directory.to_owned(), source };
    give(place.directory, user).map_err(failed)?;
    let (listen, port) = (place.address.ip(), place.address.port());
    // The password stands in a file: arguments are seen by everybody.
    let settings = format!("bind {listen}\nport {port}\nsave \"\"\nappendonly no\nrequirepass {}\n", place.password);
    let file = place.directory.join("redis.conf");
    std::fs::write(&file, settings).map_err(failed)?;
    give(&file, user).map_err(failed)?;
    let child =
        command(Path::new(PROGRAM), place.directory, user).map_err(failed)?.arg(&file).spawn().map_err(failed)?;
    Ok((child, Vec::new()))
}
