//! `RUN --mount=…`: what a command sees beside the tree, and what stays behind it.

use super::{Word, copy::octal, read::Reader, words};
use crate::{diagnostic::shown, size::ByteSize, text::suggest};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is seen: absolute, or below the working directory.
    pub target: Word,
    /// What is seen there.
    pub kind: MountKind,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image. What is written there is gone afterwards.
    Bind {
        /// A stage or an image; none for the context.
        from: Option<String>,
        /// Path there.
        source: Word,
        /// Whether the command may write.
        writable: bool,
    },
    /// A directory that stays on this host from one bake to the next, and in no image.
    Cache {
        /// Its name; the target by default.
        id: Option<Word>,
        /// Who may have it at the same time.
        sharing: Sharing,
        /// Whether the command may write.
        writable: bool,
        /// Mode, user and group of a new one.
        mode: u32,
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// How much.
        size: Option<ByteSize>,
    },
    /// A file that the recipe names, and that no layer holds.
    Secret {
        /// Its name in the recipe.
        id: String,
        /// Whether the bake fails without it.
        required: bool,
        /// Mode of the file.
        mode: u32,
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// The variable that has it as its value.
        env: Option<String>,
    },
}

/// Who may have a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody.
    Shared,
    /// Each has one of its own.
    Private,
    /// One after the other.
    Locked,
}

const KEYS: [&str; 20] = [
    "type",
    "target",
    "dst",
    "destination",
    "source",
    "src",
    "from",
    "rw",
    "readwrite",
    "ro",
    "readonly",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "size",
    "required",
    "env",
    "tmpfs-size",
];

/// The `key=value` pairs of one `--mount`.
struct Fields<'r, 'a> {
    reader: &'r Reader<'a>,
    at: usize,
    length: usize,
    pairs: Vec<(String, String)>,
}

pub(super) fn read(reader: &Reader<'_>, at: usize, text: &str) -> Option<Mount> {
    let fields = Fields::read(reader, at, text)?;
    let known: &[&str] = match fields.get("type").unwrap_or("bind") {
        "bind" => &["source", "from", "rw"],
        "cache" => &["id", "sharing", "mode", "uid", "gid", "rw"],
        "tmpfs" => &["size"],
        "secret" => &["id", "required", "mode", "uid", "gid", "env"],
        "ssh" => {
            return fields.wrong(
                "no step can ask the host's SSH agent",
                "give it a key with `--mount=type=secret`, or fetch the files beside the recipe",
            );
        }
        other => {
            return fields
                .wrong(&format!("`{}` is no kind of mount", shown(other)), "it is one of bind, cache, tmpfs, secret");
        }
    };
    if let Some((key, _)) =
        fields.pairs.iter().find(|(key, _)| key != "type" && key != "target" && !known.contains(&key.as_str()))
    {
        let help = format!("it takes target, {}", known.join(", "));
        return fields.wrong(&format!("this mount has no `{}`", shown(key)), &help);
    }
    fields.mount()
}

impl<'r, 'a> Fields<'r, 'a> {
    fn read(reader: &'r Reader<'a>, at: usize, text: &str) -> Option<Self> {
        let unquoted = text.trim_matches('\'');
        let mut fields = Self { reader, at, length: text.len(), pairs: Vec::new() };
        for field in words::fields(unquoted) {
            let (key, value) = field.split_once('=').unwrap_or((&field, "true"));
            let key = key.trim().to_ascii_lowercase();
            if !KEYS.contains(&key.as_str()) {
                let meant = suggest(&key, &KEYS).map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
                return fields.wrong(
                    &format!("a mount has no `{}`", shown(&key)),
                    &format!("{meant}For example `--mount=type=cache,target=/root/.cache`"),
                );
            }
            let (key, value) = match (key.as_str(), value) {
                ("dst" | "destination", value) => ("target", value),
                ("src", value) => ("source", value),
                ("tmpfs-size", value) => ("size", value),
                ("readwrite", value) => ("rw", value),
                ("ro" | "readonly", "true") => ("rw", "false"),
                ("ro" | "readonly", "false") => ("rw", "true"),
                (key, value) => (key, value),
            };
            if fields.get(key).is_some() {
                return fields.wrong(&format!("the mount says `{key}` twice"), "keep one of the two");
            }
            fields.pairs.push((key.to_owned(), value.to_owned()));
        }
        Some(fields)
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn mount(&self) -> Option<Mount> {
        let kind = match self.get("type").unwrap_or("bind") {
            "cache" => self.cache()?,
            "tmpfs" => MountKind::Tmpfs { size: self.size()? },
            "secret" => self.secret()?,
            _ => self.bind()?,
        };
        let target = match (self.get("target"), &kind) {
            (Some(target), _) if !target.is_empty() => self.word(target)?,
            (_, MountKind::Secret { id, .. }) => Word::plain(&format!("/run/secrets/{id}"), self.at),
            _ => {
                return self
                    .wrong("the mount says no `target`", "for example `--mount=type=cache,target=/root/.cache`");
            }
        };
        Some(Mount { target, kind })
    }

    fn bind(&self) -> Option<MountKind> {
        let from = self.get("from");
        if from.is_some_and(|from| from.contains('$')) {
            return self.wrong("`from` takes no variables", "give the image a stage of its own, whose `FROM` does");
        }
        let source = self.word(self.get("source").unwrap_or("/"))?;
        Some(MountKind::Bind { from: from.map(str::to_owned), source, writable: self.switch("rw", false)? })
    }

    fn cache(&self) -> Option<MountKind> {
        let sharing = match self.get("sharing").unwrap_or("shared") {
            "shared" => Sharing::Shared,
            "private" => Sharing::Private,
            "locked" => Sharing::Locked,
            other => {
                return self
                    .wrong(&format!("`{}` is no sharing", shown(other)), "it is one of shared, private, locked");
            }
        };
        let id = match self.get("id") {
            None => None,
            Some(id) => Some(self.word(id)?),
        };
        let (mode, uid, gid) = (self.mode(0o755)?, self.number("uid")?, self.number("gid")?);
        Some(MountKind::Cache { id, sharing, writable: self.switch("rw", true)?, mode, uid, gid })
    }

    fn secret(&self) -> Option<MountKind> {
        let last = self.get("target").and_then(|target| target.rsplit('/').next());
        let Some(id) = self.get("id").or(last).filter(|id| !id.is_empty() && !id.contains(['/', '\0', '$'])) else {
            return self.wrong("the secret has no `id`", "for example `--mount=type=secret,id=token`");
        };
        let env = self.get("env").map(str::to_owned);
        if let Some(Err(message)) = env.as_deref().map(crate::recipe::check_variable) {
            return self.wrong(&message, "for example `--mount=type=secret,id=token,env=TOKEN`");
        }
        Some(MountKind::Secret {
            id: id.to_owned(),
            required: self.switch("required", false)?,
            mode: self.mode(0o400)?,
            uid: self.number("uid")?,
            gid: self.number("gid")?,
            env,
        })
    }

    fn mode(&self, usual: u32) -> Option<u32> {
        let Some(text) = self.get("mode") else { return Some(usual) };
        octal(text).or_else(|| self.wrong(&format!("`{}` is no mode", shown(text)), "write octal digits: `mode=0700`"))
    }

    fn number(&self, key: &str) -> Option<u32> {
        let Some(text) = self.get(key) else { return Some(0) };
        let number = text.parse().ok().filter(|id| *id < 65_536);
        number.or_else(|| {
            self.wrong(&format!("`{key}` is no number from 0 to 65535"), &format!("for example `{key}=1000`"))
        })
    }

    fn size(&self) -> Option<Option<ByteSize>> {
        let Some(text) = self.get("size") else { return Some(None) };
        let plain = text.parse::<u64>().ok().map(ByteSize::bytes);
        // Docker's `64m` and `1g` are powers of two.
        let unit = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match text[unit.len()..].to_ascii_lowercase().as_str() {
            "k" | "kb" | "kib" => Some(10),
            "m" | "mb" | "mib" => Some(20),
            "g" | "gb" | "gib" => Some(30),
            _ => None,
        };
        let scaled = || ByteSize::bytes(unit.parse::<u64>().ok()?.checked_mul(1_u64 << factor?)?).into();
        match plain.or_else(scaled) {
            Some(size) => Some(Some(size)),
            None => self.wrong(&format!("`{}` is no size", shown(text)), "for example `size=64m`"),
        }
    }

    fn switch(&self, key: &str, usual: bool) -> Option<bool> {
        match self.get(key) {
            None => Some(usual),
            Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            Some(other) => {
                self.wrong(&format!("`{key}` is true or false, and not `{}`", shown(other)), &format!("write `{key}`"))
            }
        }
    }

    fn word(&self, text: &str) -> Option<Word> {
        match Word::parse(text, self.at, self.reader.escape) {
            Ok(word) => Some(word),
            Err(reason) => self.wrong(&format!("{reason}: `{}`", shown(text)), "for example `target=/cache/${NAME}`"),
        }
    }

    fn wrong<T>(&self, message: &str, help: &str) -> Option<T> {
        self.reader.found.report(self.reader.logical.source(self.at..self.at + self.length), message, help)
    }
}
