//! Users and groups of an image, from its `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! The files come from the image and are read with bounds; a line that is not as it should be is passed over, as C
//! libraries do.

/// A larger file is cut.
pub const MAX_FILE: u64 = 1 << 20;
/// A user is in at most this many groups.
pub const MAX_GROUPS: usize = 64;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name, or the number as text where the image has no such user.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// Finds a user by name or number. A number that the image does not know is a user without further groups whose group has
/// the same number; a name must be known.
pub fn find(user: &str, passwd: &str, group: &str) -> Option<User> {
    let number = user.parse::<u32>().ok();
    let entry = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?;
        (name == user || number == Some(uid)).then(|| User {
            name: name.to_owned(),
            uid,
            gid,
            groups: groups_of(name, gid, group),
            home: home.to_owned(),
        })
    });
    // Root is root also in an image without users.
    let unknown = |uid| User { name: user.to_owned(), uid, gid: uid, groups: Vec::new(), home: "/".to_owned() };
    entry.or_else(|| number.map(unknown)).or_else(|| (user == "root").then(|| unknown(0)))
}

/// The primary group is one of them, as initgroups(3) has it.
fn groups_of(name: &str, primary: u32, group: &str) -> Vec<u32> {
    let member = |line: &str| {
        let mut fields = line.split(':');
        let gid = fields.nth(2)?.parse().ok()?;
        fields.next()?.split(',').any(|member| member == name).then_some(gid)
    };
    [primary]
        .into_iter()
        .chain(group.lines().filter_map(member).filter(|gid| *gid != primary))
        .take(MAX_GROUPS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nwww-data:x:33:33::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:www-data,root\nssl:x:110:postgres\nweb:x:200:www-data\n";

    #[test]
    fn users_are_found_by_name_and_number_with_their_groups() {
        let web = find("www-data", PASSWD, GROUP).unwrap();
        assert_eq!(
            (web.uid, web.gid, web.groups.as_slice(), web.home.as_str()),
            (33, 33, &[33, 4, 200][..], "/var/www")
        );
        assert_eq!(find("33", PASSWD, GROUP), Some(web));
        assert_eq!(find("4000", PASSWD, GROUP).unwrap().gid, 4000);
        assert_eq!(find("nobody", PASSWD, GROUP), None);
        assert_eq!(find("root", "", "").unwrap().uid, 0);
    }
}
