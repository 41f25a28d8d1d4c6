//! Users and groups, from `/etc/passwd` (passwd(5)) and `/etc/group` (group(5)).

use kiln_model::goss::Value;

use super::{Eyes, Seen, nothing};

/// A line of `/etc/passwd`.
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
    shell: String,
}

/// A line of `/etc/group`.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) gid: u32,
    members: Vec<String>,
}

fn user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
    let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
    Some(User { name: name.to_owned(), uid, gid, home: home.to_owned(), shell: shell.to_owned() })
}

fn group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields[..] else { return None };
    let members = members.split(',').map(str::to_owned).collect();
    Some(Group { name: name.to_owned(), gid: gid.parse().ok()?, members })
}

impl Eyes<'_> {
    pub(super) async fn users(self) -> Result<Vec<User>, String> {
        Ok(self.text("/etc/passwd").await?.lines().filter_map(user).collect())
    }

    pub(super) async fn groups(self) -> Result<Vec<Group>, String> {
        Ok(self.text("/etc/group").await?.lines().filter_map(group).collect())
    }

    pub(super) async fn user(self, name: &str) -> Seen {
        const ALL: [&str; 6] = ["exists", "uid", "gid", "home", "groups", "shell"];
        let (users, groups) = match (self.users().await, self.groups().await) {
            (Ok(users), Ok(groups)) => (users, groups),
            (Err(reason), _) | (_, Err(reason)) => return nothing(&ALL, &reason),
        };
        let Some(user) = users.into_iter().find(|user| user.name == name) else {
            let mut seen = nothing(&ALL, &format!("there is no user `{name}`"));
            seen.insert("exists", Ok(Value::Bool(false)));
            return seen;
        };
        Seen::from([
            ("exists", Ok(Value::Bool(true))),
            ("uid", Ok(Value::Int(user.uid.into()))),
            ("gid", Ok(Value::Int(user.gid.into()))),
            ("groups", Ok(Value::Texts(groups_of(&user, &groups)))),
            ("home", Ok(Value::Text(user.home))),
            ("shell", Ok(Value::Text(user.shell))),
        ])
    }

    pub(super) async fn group(self, name: &str) -> Seen {
        match self.groups().await.map(|groups| groups.into_iter().find(|group| group.name == name)) {
            Err(reason) => nothing(&["exists", "gid"], &reason),
            Ok(None) => {
                let no = format!("there is no group `{name}`");
                Seen::from([("exists", Ok(Value::Bool(false))), ("gid", Err(no))])
            }
            Ok(Some(group)) => {
                Seen::from([("exists", Ok(Value::Bool(true))), ("gid", Ok(Value::Int(group.gid.into())))])
            }
        }
    }
}

fn groups_of(user: &User, groups: &[Group]) -> Vec<String> {
    let belongs = |group: &&Group| group.gid == user.gid || group.members.contains(&user.name);
    let mut names: Vec<String> = groups.iter().filter(belongs).map(|group| group.name.clone()).collect();
    names.sort();
    names
}
