//! Files, mount points.

use kiln_model::goss::Value;
use md5::Digest as _;
use rustix::fs::FileType;
use sha2::Digest as _;

use super::{Eyes, MAX_BYTES, Seen, nothing, said};

const FILE: [&str; 14] = [
    "exists", "mode", "owner", "uid", "group", "gid", "linkedto", "filetype", "contains", "contents", "size", "md5",
    "sha256", "sha512",
];
const MOUNT: [&str; 6] = ["exists", "opts", "vfs-opts", "source", "filesystem", "usage"];
/// A file larger than this is not hashed.
const MAX_HASHED: u64 = 256 << 20;

impl Eyes<'_> {
    /// Contents are read, and hashes made, only where they are wanted.
    pub(super) async fn file(self, path: &str, wanted: &[&str]) -> Seen {
        match self.real_path(path).await {
            Ok(path) => self.file_at(&path, wanted).await,
            Err(reason) => nothing(&FILE, &reason),
        }
    }

    /// `~` and `~user` are their homes, as for a shell of root.
    async fn real_path(self, path: &str) -> Result<String, String> {
        let Some(named) = path.strip_prefix('~') else {
            return Ok(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") });
        };
        let (name, rest) = named.split_once('/').unwrap_or((named, ""));
        let name = if name.is_empty() { "root" } else { name };
        let user = self.users().await?.into_iter().find(|user| user.name == name);
        let user = user.ok_or_else(|| format!("there is no user `{name}`"))?;
        Ok(format!("{}/{rest}", user.home))
    }

    async fn file_at(self, path: &str, wanted: &[&str]) -> Seen {
        let (status, target) = match self.facts.link(self.server, path).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                let mut seen = nothing(&FILE, &format!("{path} is absent"));
                seen.insert("exists", Ok(Value::Bool(false)));
                return seen;
            }
            Err(error) => return nothing(&FILE, &said(error)),
        };
        let wants = |property: &str| wanted.contains(&property);
        let mut seen = Seen::from([
            ("exists", Ok(Value::Bool(true))),
            ("mode", Ok(Value::Text(format!("{:04o}", status.mode & 0o7777)))),
            ("uid", Ok(Value::Int(status.uid.into()))),
            ("gid", Ok(Value::Int(status.gid.into()))),
            ("linkedto", target.map(Value::Text).ok_or_else(|| format!("{path} is not a symbolic link"))),
            ("filetype", Ok(Value::Text(file_type(status.mode).to_owned()))),
            ("size", Ok(Value::Int(i64::try_from(status.size).unwrap_or(i64::MAX)))),
        ]);
        if wants("owner") {
            seen.insert("owner", self.user_name(status.uid).await);
        }
        if wants("group") {
            seen.insert("group", self.group_name(status.gid).await);
        }
        for property in ["contains", "contents"].into_iter().filter(|property| wants(property)) {
            seen.insert(property, self.contents(path).await);
        }
        if ["md5", "sha256", "sha512"].into_iter().any(wants) {
            seen.extend(self.hashes(path, status.size).await);
        }
        seen
    }

    async fn user_name(self, uid: u32) -> Result<Value, String> {
        let found = self.users().await?.into_iter().find(|user| user.uid == uid);
        found.map(|user| Value::Text(user.name)).ok_or_else(|| format!("user {uid} has no name"))
    }

    async fn group_name(self, gid: u32) -> Result<Value, String> {
        let found = self.groups().await?.into_iter().find(|group| group.gid == gid);
        found.map(|group| Value::Text(group.name)).ok_or_else(|| format!("group {gid} has no name"))
    }

    async fn contents(self, path: &str) -> Result<Value, String> {
        let bytes =
            self.read(path, MAX_BYTES + 1).await?.ok_or_else(|| format!("{path} is not a file that can be read"))?;
        if bytes.len() > MAX_BYTES {
            return Err(format!("{path} is longer than {MAX_BYTES} bytes, which is as far as contents are looked at"));
        }
        Ok(Value::Text(String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn hashes(self, path: &str, size: u64) -> Seen {
        let hashes = ["md5", "sha256", "sha512"];
        if size > MAX_HASHED {
            return nothing(
                &hashes,
                &format!("{path} is longer than {MAX_HASHED} bytes, which is as far as files are hashed"),
            );
        }
        let bytes = match self.read(path, MAX_HASHED as usize).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return nothing(&hashes, &format!("{path} is not a file that can be read")),
            Err(reason) => return nothing(&hashes, &reason),
        };
        let hex = |bytes: &[u8]| Ok(Value::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect()));
        Seen::from([
            ("md5", hex(&md5::Md5::digest(&bytes))),
            ("sha256", hex(&sha2::Sha256::digest(&bytes))),
            ("sha512", hex(&sha2::Sha512::digest(&bytes))),
        ])
    }

    pub(super) async fn mount(self, path: &str) -> Seen {
        let mounts = match self.text("/proc/1/mountinfo").await {
            Ok(mounts) => mounts,
            Err(reason) => return nothing(&MOUNT, &reason),
        };
        let Some(mount) = mounts.lines().filter_map(Mount::read).find(|mount| mount.path == path) else {
            // As in goss: that there is no such mount is an error, and so never as expected.
            return nothing(&MOUNT, &format!("there is no mount at {path}"));
        };
        let usage = match self.facts.usage(self.server, path).await {
            Ok(used) => used.map(|used| Value::Int(used.into())).ok_or_else(|| format!("{path} is absent")),
            Err(error) => Err(said(error)),
        };
        Seen::from([
            ("exists", Ok(Value::Bool(true))),
            ("opts", Ok(Value::Texts(mount.options))),
            ("vfs-opts", Ok(Value::Texts(mount.super_options))),
            ("source", Ok(Value::Text(mount.source))),
            ("filesystem", Ok(Value::Text(mount.filesystem))),
            ("usage", usage),
        ])
    }
}

fn file_type(mode: u32) -> &'static str {
    match FileType::from_raw_mode(mode) {
        FileType::Symlink => "symlink",
        FileType::CharacterDevice => "character-device",
        FileType::BlockDevice => "block-device",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        FileType::Directory => "directory",
        _ => "file",
    }
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
struct Mount {
    path: String,
    options: Vec<String>,
    filesystem: String,
    source: String,
    super_options: Vec<String>,
}

impl Mount {
    fn read(line: &str) -> Option<Self> {
        let (first, second) = line.split_once(" - ")?;
        let mut first = first.split(' ').skip(4);
        let (path, options) = (plain(first.next()?), first.next()?);
        let mut second = second.splitn(3, ' ');
        let (filesystem, source) = (second.next()?, plain(second.next()?));
        let super_options = second.next().unwrap_or_default();
        let mut unique = Vec::new();
        for option in parts(options) {
            if !unique.contains(&option) {
                unique.push(option);
            }
        }
        Some(Self { path, options: unique, filesystem: plain(filesystem), source, super_options: parts(super_options) })
    }
}

/// Splits at commas outside of double quotes.
fn parts(options: &str) -> Vec<String> {
    let mut quoted = false;
    let split = options.split(|c| {
        quoted ^= c == '"';
        !quoted && c == ','
    });
    split.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn plain(field: &str) -> String {
    let mut text = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(meant) => {
                text.push(meant);
                rest = &after[3..];
            }
            None => {
                text.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_a_line_of_mountinfo_is_read() {
        let mount =
            Mount::read("36 35 98:0 /x /mnt\\0402 rw,rw,noatime master:1 - ext3 /dev/root rw,errors=\"a,b\"").unwrap();
        assert_eq!(
            (mount.path.as_str(), mount.filesystem.as_str(), mount.source.as_str()),
            ("/mnt 2", "ext3", "/dev/root")
        );
        assert_eq!(
            (mount.options, mount.super_options),
            (vec!["rw".to_owned(), "noatime".into()], vec!["rw".to_owned(), "errors=\"a,b\"".into()])
        );
        assert!(Mount::read("broken").is_none());
    }
}
