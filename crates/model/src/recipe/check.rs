//! Rules for the texts in a recipe: paths, users, packages, variables, addresses.
//!
//! Each answers what is wrong in words that go into a diagnostic as they are.

use crate::diagnostic::shown;

/// Checks an absolute path inside the image: no `.`, `..`, empty parts or control characters, within the kernel's limits
/// (255 bytes a part, 4095 in all). A trailing `/` is allowed where `directory` says so.
pub(crate) fn image_path(text: &str, directory: bool) -> Result<(), String> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err(format!("`{}` is not an absolute path: it must start with `/`", shown(text)));
    };
    let rest = if directory { rest.strip_suffix('/').unwrap_or(rest) } else { rest };
    if rest.is_empty() {
        return if directory { Ok(()) } else { Err("`/` is the whole image, not a path in it".to_owned()) };
    }
    parts(text, rest)
}

/// Checks a path of the recipe's own directory: relative, staying inside.
pub(crate) fn recipe_path(text: &str) -> Result<(), String> {
    if text.starts_with('/') {
        return Err(format!("`{}` is absolute: a recipe can only use files of its own directory", shown(text)));
    }
    let rest = text.strip_prefix("./").unwrap_or(text);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() || rest == "." {
        return Err("this is the recipe's own directory: put what is copied into a directory below it".to_owned());
    }
    parts(text, rest)
}

fn parts(text: &str, rest: &str) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        return Err(format!("`{}` has a control character in it", shown(text)));
    }
    if text.len() > 4095 || rest.split('/').any(|part| part.len() > 255) {
        return Err(format!("`{}` is longer than a path can be", shown(text)));
    }
    match rest.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        None => Ok(()),
        Some("") => Err(format!("`{}` has an empty part between two `/`", shown(text))),
        Some(part) => Err(format!("`{}` has `{part}` in it: write the path that is meant", shown(text))),
    }
}

/// Checks a user's name or number.
pub(crate) fn user(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    let first = bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    let name = first && bytes.len() <= 32 && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(b));
    let number =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.parse().is_ok_and(|n: u32| n < 65_536);
    if name || number {
        return Ok(());
    }
    Err(format!(
        "`{}` cannot be a user: a user's name has 1 to 32 of letters, digits, `_`, `-`, `.` and starts with a letter or \
         `_`; its number is below 65536",
        shown(text)
    ))
}

/// Checks `user` or `user:group`.
pub(crate) fn owner(text: &str) -> Result<(), String> {
    let (name, group) = text.split_once(':').unwrap_or((text, "root"));
    user(name)
        .and(user(group))
        .map_err(|_| format!("`{}` cannot be an owner: write `user` or `user:group`", shown(text)))
}

/// Checks a package's name, with an optional `=version`.
pub(crate) fn package(text: &str) -> Result<(), String> {
    let (name, version) = text.split_once('=').unwrap_or((text, "0"));
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let good = first
        && name.len() >= 2
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    if !good {
        return Err(format!(
            "`{}` cannot be a Debian package: names have two or more of a-z, 0-9, `+`, `-`, `.`",
            shown(text)
        ));
    }
    version_text(version)
}

/// Checks a Debian version.
pub(crate) fn version_text(text: &str) -> Result<(), String> {
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-:~".contains(&b));
    if good { Ok(()) } else { Err(format!("`{}` cannot be a Debian version", shown(text))) }
}

/// Checks the name of an environment variable.
pub(crate) fn variable(text: &str) -> Result<(), String> {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if first && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(());
    }
    Err(format!("`{}` cannot be a variable: names have letters, digits and `_` and start with no digit", shown(text)))
}

/// Checks a text that becomes an argument or a variable's value: the kernel ends both at a zero byte.
pub(crate) fn argument(text: &str) -> Result<(), String> {
    if text.contains('\0') { Err("there is a zero byte in this text".to_owned()) } else { Ok(()) }
}

/// Checks the address of an archive.
pub(crate) fn address(text: &str) -> Result<(), String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let plain = |c: char| c.is_ascii_graphic() && !"?#\"<>\\^`{|}".contains(c);
    match host {
        Some(host) if !host.is_empty() && !host.starts_with('/') && host.chars().all(plain) => Ok(()),
        _ => Err(format!("`{}` is not the address of an archive: it starts with `http://` or `https://`", shown(text))),
    }
}

/// Checks permission bits: three or four octal digits.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let parsed = u32::from_str_radix(text, 8).ok().filter(|_| octal);
    parsed.ok_or_else(|| format!("`{}` is not a mode: write three or four octal digits", shown(text)))
}

/// Whether `inner` is `outer` or lies below it. Both without a trailing `/`.
pub(crate) fn is_within(inner: &str, outer: &str) -> bool {
    inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

/// The always-empty places of a server: what an image has there is never seen.
pub(crate) const HIDDEN: [&str; 6] = ["/run", "/tmp", "/var/tmp", "/dev", "/proc", "/sys"];

/// The place among [`HIDDEN`] that this path lies in.
pub(crate) fn hidden(path: &str) -> Option<&'static str> {
    let path = path.trim_end_matches('/');
    HIDDEN.into_iter().find(|place| is_within(path, place))
}
