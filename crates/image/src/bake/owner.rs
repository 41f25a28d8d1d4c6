//! Owners by name, as the image itself names its users and groups.

use std::path::Path;

use crate::{
    store::{
        StoreError,
        objects::{Repo, Tree},
    },
    tree::read,
};

/// At most this many bytes of `/etc/passwd` and `/etc/group` are read.
const LIMIT: u64 = 4 << 20;

/// A user and a group of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Looks up `user`, `user:group` or numbers; a user alone brings its primary group. The inner error says what is wrong.
pub(super) fn find(tree: &Tree, repo: &Repo, text: &str) -> Result<Result<Owner, String>, StoreError> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    if user == "root" && group.is_none_or(|group| group == "root") {
        return Ok(Ok(Owner { uid: 0, gid: 0 }));
    }
    let passwd = read(tree, repo, Path::new("/etc/passwd"), LIMIT)?.unwrap_or_default();
    let groups = match group {
        Some(_) => read(tree, repo, Path::new("/etc/group"), LIMIT)?.unwrap_or_default(),
        None => Vec::new(),
    };
    Ok(choose(&passwd, &groups, user, group))
}

fn choose(passwd: &[u8], groups: &[u8], user: &str, group: Option<&str>) -> Result<Owner, String> {
    let known = fields(passwd, user);
    let uid = number(user).or_else(|| number(known.as_ref()?.get(2)?));
    let uid =
        uid.ok_or_else(|| format!("the image has no user `{user}`: add it in a step before, or write a number"))?;
    let gid = match group {
        None => known.as_ref().and_then(|fields| number(fields.get(3)?)).or_else(|| number(user)),
        Some(group) => number(group).or_else(|| number(fields(groups, group)?.get(2)?)),
    };
    let named = group.unwrap_or(user);
    let gid =
        gid.ok_or_else(|| format!("the image has no group `{named}`: add it in a step before, or write a number"))?;
    match uid < 65_536 && gid < 65_536 {
        true => Ok(Owner { uid, gid }),
        false => Err(format!("{uid}:{gid} is no owner: a server has only the ids 0 to 65535")),
    }
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The fields of the line that begins with this name.
fn fields(file: &[u8], name: &str) -> Option<Vec<String>> {
    let text = String::from_utf8_lossy(file);
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    Some(line.split(':').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_owners_are_found_as_the_image_names_them() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:34:www:/var/www:/usr/sbin/nologin\n";
        let groups = b"root:x:0:\nadm:x:4:syslog\n";
        let find = |user, group| choose(passwd, groups, user, group).map(|o| (o.uid, o.gid));
        assert_eq!(find("www-data", None), Ok((33, 34)));
        assert_eq!(find("www-data", Some("adm")), Ok((33, 4)));
        assert_eq!(find("1000", None), Ok((1000, 1000)));
        assert_eq!(find("1000", Some("7")), Ok((1000, 7)));
        assert!(find("nobody", None).is_err());
        assert!(find("root", Some("nobody")).is_err());
        assert!(find("70000", None).is_err());
    }
}
