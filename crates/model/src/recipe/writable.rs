//! `[writable]`: the only paths of a server that can be written, beside the tmpfs that every server has.

use super::{check, command, text::Placed};
use crate::{
    diagnostic::shown,
    id::{SharedName, VolumeName},
    manifest::{Writable, WritableKind},
    size::ByteSize,
    text::{Entry, Keys, Table, Value},
    volume::{Hooks, ScaleFrom},
};

/// The keys of a writable path.
pub(crate) const KEYS: Keys = Keys {
    of: "a writable path",
    valid: &["tmpfs", "ephemeral", "volume", "shared", "user", "mode", "scale_from", "quiesce", "resume", "hand_over"],
};

/// The keys that only a volume has.
const OF_VOLUMES: [&str; 4] = ["scale_from", "quiesce", "resume", "hand_over"];
const SCALE_FROM: [(&str, ScaleFrom); 2] = [("empty", ScaleFrom::Empty), ("clone", ScaleFrom::Clone)];

const EXAMPLE: &str = "{ tmpfs = \"64MiB\" }";

pub(super) fn read_all<'d>(root: &Table<'d>) -> Option<Vec<Placed<'d, Writable>>> {
    let Some(value) = root.get("writable") else { return Some(vec![]) };
    let table = value.map("{ \"/var/lib/app\" = { tmpfs = \"64MiB\" } }")?;
    let read: Vec<_> = table.entries().map(|entry| read(&entry)).collect();
    let read: Vec<_> = read.into_iter().collect::<Option<_>>()?;
    none_inside_another(&read);
    names_are_distinct(&read);
    Some(read)
}

fn names_are_distinct(all: &[Placed<'_, Writable>]) {
    let name = |writable: &Writable| match &writable.kind {
        WritableKind::Volume { name, .. } => Some(format!("volume `{name}`")),
        WritableKind::Shared { name } => Some(format!("shared directory `{name}`")),
        _ => None,
    };
    for (index, (writable, place)) in all.iter().enumerate() {
        let Some(named) = name(writable) else { continue };
        if let Some((_, there)) = all[..index].iter().find(|(other, _)| name(other).as_ref() == Some(&named)) {
            place.contradicts::<()>(
                *there,
                format!("the {named} is at two places"),
                "it is here already",
                "give one of them another name",
            );
        }
    }
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
        table.one_of(&["tmpfs", "ephemeral", "volume", "shared"], "tmpfs = \"64MiB\"").and_then(|choice| match choice
            .key
        {
            "tmpfs" => size(&choice.value).map(|size| WritableKind::Tmpfs { size }),
            "ephemeral" => size(&choice.value).map(|size| WritableKind::Ephemeral { size }),
            "shared" => shared(&choice, &table),
            _ => volume(&choice, &table),
        });
    if !table.has("volume")
        && let Some(value) = OF_VOLUMES.into_iter().find_map(|key| table.get(key))
    {
        value.place.report::<()>("only a volume has this", "remove it, or write `volume = \"data\"`");
    }
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

fn volume(entry: &Entry<'_>, table: &Table<'_>) -> Option<WritableKind> {
    let name = entry.value.parsed::<VolumeName>("\"data\"");
    let scale_from = table.get("scale_from").map_or(Some(ScaleFrom::Empty), |v| v.word(&SCALE_FROM));
    let command = |key| table.get(key).map_or(Some(Vec::new()), |v| command::read(&v, command::Text::Words));
    let (quiesce, resume, hand_over) = (command("quiesce"), command("resume"), command("hand_over"));
    Some(WritableKind::Volume {
        name: name?,
        hooks: Hooks { quiesce: quiesce?, resume: resume?, hand_over: hand_over? },
        scale_from: scale_from?,
    })
}

/// What is shared belongs to the host, or to an NFS server: an image cannot say whose it is.
fn shared(entry: &Entry<'_>, table: &Table<'_>) -> Option<WritableKind> {
    let name = entry.value.parsed::<SharedName>("\"uploads\"");
    if let Some(value) = ["user", "mode"].into_iter().find_map(|key| table.get(key)) {
        return value.place.report(
            "an image does not say whose a shared directory is: that is the matter of the host which has it",
            "remove this, and give the directory to the user's number there, for example with `chown 33:33 /srv/uploads`",
        );
    }
    Some(WritableKind::Shared { name: name? })
}
