//! The guestbook under load: every server is replaced twice, by another image and by another configuration, while clients sign.
//! No request may fail, and every entry that was acknowledged must be in PostgreSQL afterwards, once.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::project::{Project, ask, database};
use crate::{Outcome, command::output};

const SIGNERS: u32 = 4;

/// A guestbook that is up with its database.
pub struct Guestbook<'a>(pub Project<'a>);

/// What a client saw.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<String>,
    failed: Vec<String>,
    read: u64,
}

impl Guestbook<'_> {
    /// All of it.
    pub fn replacing_under_load_fails_no_request_and_loses_no_row(&self) -> Outcome {
        let (address, before) = (self.0.address()?, self.0.servers()?);
        let over = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let over = &over;
            let signers = (0..SIGNERS).map(|client| scope.spawn(move || sign_until(over, address, client)));
            let signers: Vec<_> = signers.collect();
            let changed = self.change_the_application().and_then(|()| self.change_the_title());
            over.store(true, Ordering::Relaxed);
            let seen = signers.into_iter().map(|signer| signer.join().map_err(|_| "a client panicked"));
            changed.and(seen.collect::<Result<Vec<_>, _>>().map_err(Into::into))
        })?;
        let after = self.0.servers()?;
        if after.len() < 2 || after.iter().any(|id| before.contains(id)) {
            return Err(format!("servers were not replaced: before {before:?}, after {after:?}").into());
        }
        self.compare(&seen)
    }

    fn change_the_application(&self) -> Outcome {
        let path = self.0.directory.join("app/guestbook.py");
        fs::write(&path, fs::read_to_string(&path)? + "# Changed.\n")?;
        self.0.up()
    }

    fn change_the_title(&self) -> Outcome {
        let path = self.0.directory.join("fleet.toml");
        fs::write(&path, fs::read_to_string(&path)? + "\n[group.guestbook.config]\ntitle = \"Another title\"\n")?;
        self.0.up()?;
        let (_, page) = ask(self.0.address()?, "GET / HTTP/1.1\r\n", "")?;
        let good = page.contains("<h1>Another title</h1>");
        if good { Ok(()) } else { Err(format!("the title did not arrive: {page}").into()) }
    }

    fn compare(&self, seen: &[Seen]) -> Outcome {
        let (failed, signed): (Vec<&String>, usize) = seen.iter().fold((Vec::new(), 0), |(failed, all), one| {
            (failed.into_iter().chain(&one.failed).collect(), all + one.acknowledged.len())
        });
        let rows = output(database("psql", self.0.directory).args(["-Atc", "select text from entries"]))?;
        let mut kept: BTreeMap<String, u32> = BTreeMap::new();
        String::from_utf8(rows.stdout)?.lines().for_each(|row| *kept.entry(row.to_owned()).or_default() += 1);
        let all = seen.iter().flat_map(|one| &one.acknowledged);
        let lost = all.filter(|text| kept.get(*text) != Some(&1)).count();
        let read: u64 = seen.iter().map(|one| one.read).sum();
        eprintln!(
            "{signed} entries acknowledged and {read} pages read during two replacements, {} failed, {lost} lost",
            failed.len()
        );
        if lost == 0 && failed.is_empty() && signed > 0 && read > 0 && kept.len() == signed {
            return Ok(());
        }
        let shown: Vec<_> = failed.iter().take(5).collect();
        let said = String::from_utf8(output(&mut self.0.call(&["logs", "guestbook"]))?.stdout)?;
        let said: Vec<_> = said.lines().filter(|line| line.contains("the database:")).take(5).collect();
        let (kept, failed) = (kept.len(), failed.len());
        Err(format!("{lost} of {signed} entries lost, {kept} kept, {failed} failed: {shown:?}; said: {said:?}").into())
    }
}

/// Signs and reads again and again.
fn sign_until(over: &AtomicBool, address: SocketAddr, client: u32) -> Seen {
    let mut seen = Seen::default();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("client {client} was here for the time {number}");
        match ask(address, "POST /entries HTTP/1.1\r\n", &text) {
            Ok((201, _)) => seen.acknowledged.push(text),
            other => seen.failed.push(format!("{text}: {other:?}")),
        }
        match ask(address, "GET / HTTP/1.1\r\n", "") {
            Ok((200, page)) if page.ends_with("</ul>\n") => seen.read += 1,
            other => seen.failed.push(format!("page: {other:?}")),
        }
        // Neither client nor server is to be measured here: both share two processors with the bake.
        std::thread::sleep(Duration::from_millis(5));
    }
    seen
}
