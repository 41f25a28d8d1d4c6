//! `USER`: who runs commands, as the image names its users.

use std::path::Path;

use crate::{
    sandbox::User,
    store::{
        StoreError,
        objects::{Repo, Tree},
    },
    tree::read,
};

/// At most this many bytes of `/etc/passwd` and `/etc/group` are read.
const LIMIT: u64 = 4 << 20;
/// Servers map this many ids, so an image can have no other owners.
const IDS: u32 = 65_536;

/// Somebody who runs commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) user: User,
    pub(super) home: String,
}

/// Looks up `user`, `user:group` or numbers. The inner error says what is wrong.
pub(super) fn find(tree: &Tree, repo: &Repo, text: &str) -> Result<Result<Person, String>, StoreError> {
    let passwd = read(tree, repo, Path::new("/etc/passwd"), LIMIT)?.unwrap_or_default();
    let groups = read(tree, repo, Path::new("/etc/group"), LIMIT)?.unwrap_or_default();
    Ok(choose(&String::from_utf8_lossy(&passwd), &String::from_utf8_lossy(&groups), text))
}

/// A number that no line has is a user without groups, whose group is root's, as with Docker.
fn choose(passwd: &str, groups: &str, text: &str) -> Result<Person, String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let line = |name: &str| {
        let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let mut fields = fields.filter(|fields| fields.len() >= 6);
        fields.find(|fields| fields[0] == name || (number(name).is_some() && number(fields[2]) == number(name)))
    };
    let known = line(user);
    let uid = known.as_ref().and_then(|fields| number(fields[2])).or_else(|| number(user));
    let uid =
        uid.ok_or_else(|| format!("the image has no user `{user}`: add it in a `RUN` before, or write a number"))?;
    let gid = match group {
        None => Some(known.as_ref().and_then(|fields| number(fields[3])).unwrap_or(0)),
        Some(group) => number(group).or_else(|| of_group(groups, group)),
    };
    let gid = gid.ok_or_else(|| format!("the image has no group `{}`", group.unwrap_or_default()))?;
    if uid >= IDS || gid >= IDS {
        return Err(format!("{uid}:{gid} is nobody: a server has only the ids 0 to 65535"));
    }
    let further = known.as_ref().filter(|_| group.is_none()).map(|fields| member_of(groups, fields[0]));
    let home = known.as_ref().map_or("/", |fields| fields[5]).to_owned();
    Ok(Person { user: User { uid, gid, groups: further.unwrap_or_default() }, home })
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn of_group(groups: &str, name: &str) -> Option<u32> {
    let line = groups.lines().find(|line| line.split(':').next() == Some(name))?;
    number(line.split(':').nth(2)?)
}

fn member_of(groups: &str, user: &str) -> Vec<u32> {
    let lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let has = |fields: &Vec<&str>| fields.len() >= 4 && fields[3].split(',').any(|member| member == user);
    lines.filter(has).filter_map(|fields| number(fields[2]).filter(|gid| *gid < IDS)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_users_are_found_as_docker_finds_them() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:www:/var/www:/bin/sh\n";
        let groups = "root:x:0:\nadm:x:4:www,other\nssl:x:7:www\n";
        let found = |text: &str| {
            let person = choose(passwd, groups, text)?;
            Ok::<_, String>((person.user.uid, person.user.gid, person.user.groups, person.home))
        };
        assert_eq!(found("www"), Ok((33, 34, vec![4, 7], "/var/www".into())));
        assert_eq!(found("33"), Ok((33, 34, vec![4, 7], "/var/www".into())));
        assert_eq!(found("www:adm"), Ok((33, 4, vec![], "/var/www".into())));
        assert_eq!(found("1000"), Ok((1000, 0, vec![], "/".into())));
        assert_eq!(found("1000:50"), Ok((1000, 50, vec![], "/".into())));
        assert!(found("nobody").is_err());
        assert!(found("www:none").is_err());
        assert!(found("70000").is_err());
    }
}
