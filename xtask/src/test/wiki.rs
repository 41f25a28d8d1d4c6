//! The wiki under load: every server is replaced twice, by another image and by a rebuild, while clients write pages and files. No
//! request may fail; every page that was acknowledged is in PostgreSQL afterwards, every file in the shared directory with its
//! owner, and every server's index finds the last page.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, chown},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::project::{Project, ask, database};
use crate::{Outcome, command::output};

const WRITERS: u32 = 3;
/// Of `wiki` in the image, and so on this host.
const OWNER: u32 = 900;
/// Where the fleet has the shared directory.
const UPLOADS: &str = "/srv/wiki-uploads";

/// A wiki that is up with its database.
pub struct Wiki<'a>(pub Project<'a>);

/// What a client saw.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<String>,
    failed: Vec<String>,
}

/// Gives a copy of the example a shared directory of its own.
pub fn make_uploads(directory: &Path) -> Outcome {
    let uploads = directory.join("uploads");
    fs::create_dir(&uploads)?;
    chown(&uploads, Some(OWNER), Some(OWNER))?;
    let fleet = directory.join("fleet.toml");
    let text = fs::read_to_string(&fleet)?;
    Ok(fs::write(fleet, text.replace(UPLOADS, uploads.to_str().ok_or("the path is not UTF-8")?))?)
}

impl Wiki<'_> {
    /// All of it.
    pub fn replacing_under_load_loses_no_page_and_no_file(&self) -> Outcome {
        let (address, before) = (self.0.address()?, self.0.servers()?);
        let over = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let over = &over;
            let writers = (0..WRITERS).map(|client| scope.spawn(move || write_until(over, address, client)));
            let writers: Vec<_> = writers.collect();
            let changed = self.change_the_application().and_then(|()| self.0.rebuild());
            over.store(true, Ordering::Relaxed);
            let seen = writers.into_iter().map(|writer| writer.join().map_err(|_| "a client panicked"));
            changed.and(seen.collect::<Result<Vec<_>, _>>().map_err(Into::into))
        })?;
        let after = self.0.servers()?;
        if after.len() < 2 || after.iter().any(|id| before.contains(id)) {
            return Err(format!("servers were not replaced: before {before:?}, after {after:?}").into());
        }
        self.compare(&seen)?;
        self.find_a_new_page(after.len())
    }

    fn change_the_application(&self) -> Outcome {
        let path = self.0.directory.join("app/wiki.py");
        fs::write(&path, fs::read_to_string(&path)? + "# Changed.\n")?;
        self.0.up()
    }

    fn compare(&self, seen: &[Seen]) -> Outcome {
        let failed: Vec<&String> = seen.iter().flat_map(|one| &one.failed).collect();
        let written: Vec<&String> = seen.iter().flat_map(|one| &one.acknowledged).collect();
        let rows = output(database("psql", self.0.directory).args(["-Atc", "select name from pages"]))?;
        let rows = String::from_utf8(rows.stdout)?;
        let pages: BTreeSet<&str> = rows.lines().collect();
        let lost = written.iter().filter(|name| !pages.contains(name.as_str()) || !self.has_file(name)).count();
        let count = written.len();
        eprintln!(
            "{count} pages and {count} files acknowledged during two replacements, {} failed, {lost} lost",
            failed.len()
        );
        if lost == 0 && failed.is_empty() && count > 0 {
            return Ok(());
        }
        let shown: Vec<_> = failed.iter().take(5).collect();
        Err(format!("{lost} of {count} pages and files lost, {} failed: {shown:?}", failed.len()).into())
    }

    /// A file is whole, and the wiki's.
    fn has_file(&self, name: &str) -> bool {
        let path = self.0.directory.join("uploads").join(name);
        let owner = fs::metadata(&path).map(|metadata| (metadata.uid(), metadata.gid()));
        owner.is_ok_and(|owner| owner == (OWNER, OWNER)) && fs::read_to_string(path).is_ok_and(|text| text == name)
    }

    /// Asked as often as reaches every server.
    fn find_a_new_page(&self, servers: usize) -> Outcome {
        let address = self.0.address()?;
        let put = ask(address, "PUT /pages/Last HTTP/1.1\r\n", "an immutable word")?;
        for _ in 0..4 * servers {
            let found = ask(address, "GET /search?q=immutable HTTP/1.1\r\n", "")?;
            if put.0 != 201 || found.0 != 200 || !found.1.ends_with("[\"Last\"]\n") {
                return Err(format!("the index does not find the last page: {put:?}, {found:?}").into());
            }
        }
        Ok(())
    }
}

/// Writes a page and a file of the same name again and again, and reads both.
fn write_until(over: &AtomicBool, address: SocketAddr, client: u32) -> Seen {
    let mut seen = Seen::default();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("c{client}-{number}");
        let asked = ["pages", "files"].map(|kind| ask(address, &format!("PUT /{kind}/{name} HTTP/1.1\r\n"), &name));
        let shown = ["pages", "files"].map(|kind| ask(address, &format!("GET /{kind}/{name} HTTP/1.1\r\n"), ""));
        let written = asked.iter().all(|answer| matches!(answer, Ok((201, _))));
        let read = shown.iter().all(|answer| matches!(answer, Ok((200, text)) if text.contains(&name)));
        if written {
            seen.acknowledged.push(name);
        }
        if !(written && read) {
            seen.failed.push(format!("{asked:?} {shown:?}"));
        }
        // Neither client nor server is to be measured here: both share two processors with the bake.
        std::thread::sleep(Duration::from_millis(10));
    }
    seen
}
