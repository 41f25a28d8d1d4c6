//! `[writable]`: the only paths of a server that can be written, beside the tmpfs that every server has.

use super::{check, command, text::Placed};
use crate::{
    diagnostic::shown,
    id::VolumeName,
    manifest::{Writable, WritableKind},
    size::ByteSize,
    text::{Entry, Keys, Table, Value},
};

/// The keys of a writable path.
pub(crate) const KEYS: Keys = Keys { of: "a writable path", valid: &["tmpfs", "ephemeral", "volume", "user", "mode"] };

const EXAMPLE: &str = "{ tmpfs = \"64MiB\" }";

pub(super) fn read_all<'d>(root: &Table<'d>) -> Option<Vec<Placed<'d, Writable>>> {
    let Some(value) = root.get("writable") else { return Some(vec![]) };
    let table = value.map("{ \"/var/lib/app\" = { tmpfs = \"64MiB\" } }")?;
    let read: Vec<_> = table.entries().map(|entry| read(&entry)).collect();
    let read: Vec<_> = read.into_iter().collect::<Option<_>>()?;
    none_inside_another(&read);
    Some(read)
}

fn none_inside_another(all: &[Placed<'_, Writable>]) {
    for (inner, place) in all {
        let outer =
            all.iter().find(|(outer, _)| outer.path != inner.path && check::is_within(&inner.path, &outer.path));
        if let Some((outer, there)) = outer {
            place.contradicts::<()>(
                *there,
                format!("`{}` lies inside `{}`, which is writable already", inner.path, outer.path),
                "this covers it",
                "keep one of them",
            );
        }
    }
}

fn read<'d>(entry: &Entry<'d>) -> Option<Placed<'d, Writable>> {
    let path = path(entry);
    if !entry.value.is_table() {
        return entry.value.wrong("a table that says what is there", EXAMPLE);
    }
    let table = entry.value.table(KEYS, EXAMPLE)?;
    let kind =
        table.one_of(&["tmpfs", "ephemeral", "volume"], "tmpfs = \"64MiB\"").and_then(|choice| match choice.key {
            "tmpfs" => size(&choice.value).map(|size| WritableKind::Tmpfs { size }),
            "ephemeral" => size(&choice.value).map(|size| WritableKind::Ephemeral { size }),
            _ => volume(&choice),
        });
    let user = table.get("user").map_or(Some("root".to_owned()), |v| v.checked("\"app\"", check::user));
    let mode = table.get("mode").map_or(Some(0o755), |v| command::mode(&v));
    Some((Writable { path: path?, kind: kind?, user: user?, mode: mode? }, entry.place))
}

fn path(entry: &Entry<'_>) -> Option<String> {
    let example = "for example: `\"/var/lib/app\" = { tmpfs = \"64MiB\" }`";
    let path = entry.key;
    if let Err(message) = check::image_path(path, false) {
        return entry.place.report(message, example);
    }
    match check::hidden(path) {
        None => Some(path.to_owned()),
        // A service that is not root needs a directory of its own there, which the empty /run cannot have from the image.
        Some("/run") if path != "/run" => Some(path.to_owned()),
        Some(place @ ("/run" | "/tmp" | "/var/tmp")) => entry.place.report(
            format!("`{}` is writable already: `{place}` is a tmpfs in every server", shown(path)),
            "remove this line",
        ),
        Some(place) => entry.place.report(
            format!("`{}` cannot be declared: `{place}` belongs to the kernel's interfaces", shown(path)),
            example,
        ),
    }
}

fn size(value: &Value<'_>) -> Option<ByteSize> {
    value.size(ByteSize::bytes(64 << 10)..=ByteSize::bytes(1 << 40), "\"64MiB\"")
}

fn volume(entry: &Entry<'_>) -> Option<WritableKind> {
    entry.value.parsed::<VolumeName>("\"data\"")?;
    entry.place.report(
        "volumes are not supported yet",
        "use `ephemeral = \"1GiB\"` (the image's directory, changes go with the server) or `tmpfs = \"64MiB\"` (empty memory)",
    )
}
