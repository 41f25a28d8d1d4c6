//! Who has an account, and who of them was made by hand.

use std::collections::BTreeMap;

use super::{SurveyError, User, dpkg::Database, text};
use crate::debian::root::Root;

/// Numbers of people and their programs (`login.defs(5)`).
const PEOPLE: std::ops::Range<u32> = 1000..60_000;

/// `/etc/passwd` and `/etc/group`.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    users: Vec<User>,
}

impl Accounts {
    pub(super) fn read(root: &Root) -> Result<Self, SurveyError> {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text(root, "/etc/group")?.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [group, _, _, members] = fields[..] else { continue };
            for member in members.split(',').filter(|member| !member.is_empty()) {
                groups.entry(member.to_owned()).or_default().push(group.to_owned());
            }
        }
        let passwd = text(root, "/etc/passwd")?;
        let users = passwd.lines().filter_map(|line| user(line, &mut groups)).collect();
        Ok(Self { users })
    }

    /// The name of a number, or the number.
    pub(super) fn name(&self, uid: u32) -> String {
        let known = self.users.iter().find(|user| user.uid == uid);
        known.map_or_else(|| uid.to_string(), |user| user.name.clone())
    }

    /// Those that neither every Debian has nor a package's script names.
    pub(super) fn by_hand(&self, root: &Root, database: &Database) -> Vec<User> {
        let master = root.read_text("usr/share/base-passwd/passwd.master").unwrap_or_default();
        let everywhere = |user: &User| master.lines().any(|line| line.split(':').next() == Some(&user.name));
        let of_a_package = |user: &User| {
            !PEOPLE.contains(&user.uid) && (database.scripts_name(&user.name) || is_of_systemd(root, &user.name))
        };
        self.users.iter().filter(|user| !everywhere(user) && !of_a_package(user)).cloned().collect()
    }
}

fn user(line: &str, groups: &mut BTreeMap<String, Vec<String>>) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.to_owned(),
        shell: shell.to_owned(),
        groups: groups.remove(name).unwrap_or_default(),
    })
}

/// Whether `sysusers.d(5)` of some package makes it.
fn is_of_systemd(root: &Root, name: &str) -> bool {
    const DIRECTORY: &str = "usr/lib/sysusers.d";
    let files = root.list(DIRECTORY).unwrap_or_default();
    files.iter().any(|(file, _)| {
        let text = root.read_text(&format!("{DIRECTORY}/{file}")).unwrap_or_default();
        text.lines().any(|line| line.split_whitespace().take(2).eq(["u", name]))
    })
}
