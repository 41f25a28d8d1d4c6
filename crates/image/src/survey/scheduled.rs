//! What is run at set times by somebody's wish: crontabs, scripts of cron, timers that no package brought.

use kiln_model::systemd::Unit;

use super::{Scheduled, dpkg::Database};
use crate::debian::root::Root;

pub(super) fn read(root: &Root, database: &Database) -> Vec<Scheduled> {
    let mut all = Vec::new();
    let system = crontabs_of_the_system(root, database);
    all.extend(system.into_iter().flat_map(|path| crontab(root, &path, None)));
    for (user, _) in root.list("var/spool/cron/crontabs").unwrap_or_default() {
        all.extend(crontab(root, &format!("/var/spool/cron/crontabs/{user}"), Some(&user)));
    }
    for word in ["hourly", "daily", "weekly", "monthly"] {
        all.extend(scripts(root, database, word));
    }
    all.extend(timers(root, database));
    all
}

/// Those that were written by hand: of no package, or changed.
fn crontabs_of_the_system(root: &Root, database: &Database) -> Vec<String> {
    let of_cron_d =
        root.list("etc/cron.d").unwrap_or_default().into_iter().map(|(name, _)| format!("/etc/cron.d/{name}"));
    of_cron_d.filter(|path| database.owner(path).is_none()).collect()
}

/// `crontab(5)`: five fields or `@word`, the user where the file is the system's, the command.
fn crontab(root: &Root, path: &str, user: Option<&str>) -> Vec<Scheduled> {
    let text = root.read_text(&path[1..]).unwrap_or_default();
    text.lines().filter_map(|line| entry(path, line.trim(), user)).collect()
}

fn entry(path: &str, line: &str, user: Option<&str>) -> Option<Scheduled> {
    let is_setting = line.split_once('=').is_some_and(|(name, _)| !name.trim().contains([' ', '\t', '*', '@']));
    if line.is_empty() || line.starts_with('#') || is_setting {
        return None;
    }
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        rest = after.trim_start();
        word.to_owned()
    };
    let fields = if line.starts_with('@') { 1 } else { 5 };
    let when = (0..fields).map(|_| word()).collect::<Vec<_>>().join(" ");
    let user = user.map_or_else(&mut word, str::to_owned);
    (!rest.is_empty()).then(|| Scheduled { path: path.to_owned(), when, user, command: rest.to_owned() })
}

fn scripts(root: &Root, database: &Database, word: &str) -> Vec<Scheduled> {
    let directory = format!("/etc/cron.{word}");
    let names = root.list(&directory[1..]).unwrap_or_default();
    let paths = names.into_iter().map(|(name, _)| format!("{directory}/{name}"));
    let own = paths.filter(|path| database.owner(path).is_none());
    own.map(|path| Scheduled { when: word.to_owned(), user: "root".to_owned(), command: path.clone(), path }).collect()
}

fn timers(root: &Root, database: &Database) -> Vec<Scheduled> {
    const DIRECTORY: &str = "/etc/systemd/system";
    let names = root.list(&DIRECTORY[1..]).unwrap_or_default().into_iter().map(|(name, _)| name);
    let own = names.filter(|name| name.ends_with(".timer") && database.owner(&format!("{DIRECTORY}/{name}")).is_none());
    own.filter_map(|name| {
        let path = format!("{DIRECTORY}/{name}");
        let unit = Unit::parse(&root.read_text(&path[1..]).ok()?).ok()?;
        let times: Vec<_> = unit.keys("Timer").filter(|key| key.starts_with("On")).collect();
        let when = times.iter().map(|key| format!("{key}={}", unit.last("Timer", key).unwrap_or_default()));
        let service = unit.last("Timer", "Unit").map_or_else(|| name.replace(".timer", ".service"), str::to_owned);
        Some(Scheduled { when: when.collect::<Vec<_>>().join(" "), user: "root".to_owned(), command: service, path })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::entry;

    #[test]
    fn unit_lines_of_crontabs_are_read_in_both_forms() {
        let of = |line, user| entry("/x", line, user).map(|found| [found.when, found.user, found.command]);
        let expected = ["*/5 * * * *", "app", "/opt/run --x"].map(str::to_owned);
        assert_eq!(of("*/5 * * * *  app /opt/run --x", None), Some(expected.clone()));
        assert_eq!(of("*/5 * * * * /opt/run --x", Some("app")), Some(expected));
        assert_eq!(of("@daily root a=b c", None), Some(["@daily", "root", "a=b c"].map(str::to_owned)));
        for nothing in ["", "# x", "PATH=/bin:/sbin", "MAILTO = me", "1 2 3"] {
            assert_eq!(of(nothing, None), None, "{nothing}");
        }
    }
}
