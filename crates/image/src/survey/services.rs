//! Which services start by themselves, and what they would be in a recipe.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::systemd::{Unit, propose};

use super::{EnabledService, compare::resolved, dpkg::Database};
use crate::debian::root::Root;

/// Where links enable units.
const ENABLED: &str = "/etc/systemd/system";
/// Where units are, those that count first (`systemd.unit(5)`).
pub(super) const UNITS: [&str; 4] =
    ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// What serves a machine rather than those who use it, and has no place in an immutable server.
pub(super) const OF_THE_MACHINE: &[&str] = &[
    "apparmor.service",
    "apt-daily.service",
    "apt-daily-upgrade.service",
    "console-setup.service",
    "dpkg-db-backup.service",
    "e2scrub_all.service",
    "e2scrub_reap.service",
    "fstrim.service",
    "getty@tty1.service",
    "keyboard-setup.service",
    "lm-sensors.service",
    "logrotate.service",
    "man-db.service",
    "networking.service",
    "NetworkManager.service",
    "ModemManager.service",
    "pam_namespace.service",
    "rsyslog.service",
    "systemd-networkd.service",
    "systemd-pstore.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "udisks2.service",
    "unattended-upgrades.service",
    "wpa_supplicant.service",
    "grub-common.service",
    "irqbalance.service",
    "smartmontools.service",
    "lvm2-monitor.service",
    "blk-availability.service",
    "mdadm.service",
    "cloud-init.service",
    "cloud-init-local.service",
    "cloud-config.service",
    "cloud-final.service",
    "dbus.service",
];

pub(super) fn enabled(root: &Root, database: &Database) -> Vec<EnabledService> {
    let mut found = BTreeMap::new();
    let everywhere = database.of_every_debian();
    for (target, _) in root.list(&ENABLED[1..]).unwrap_or_default() {
        if !target.ends_with(".target.wants") && !target.ends_with(".target.requires") {
            continue;
        }
        for (unit, _) in root.list(&format!("{}/{target}", &ENABLED[1..])).unwrap_or_default() {
            if unit.ends_with(".service") && !OF_THE_MACHINE.contains(&unit.as_str()) {
                found.entry(unit.clone()).or_insert_with(|| service(root, database, &everywhere, &unit));
            }
        }
    }
    found.into_values().flatten().collect()
}

fn service(root: &Root, database: &Database, everywhere: &BTreeSet<&str>, name: &str) -> Option<EnabledService> {
    let (path, text) = file(root, name)?;
    let mut unit = Unit::parse(&text).ok();
    let drop_ins = format!("{ENABLED}/{name}.d");
    for (drop_in, _) in root.list(&drop_ins[1..]).unwrap_or_default() {
        let text = root.read_text(&format!("{}/{drop_in}", &drop_ins[1..])).unwrap_or_default();
        if drop_in.ends_with(".conf") && unit.as_mut().is_some_and(|unit| unit.overlay(&text).is_err()) {
            unit = None;
        }
    }
    let description = unit.as_ref().and_then(|unit| unit.last("Unit", "Description")).unwrap_or_default().to_owned();
    let package = database.owner(&database.canonical(&path)).map(str::to_owned);
    let of_every_debian = package.as_deref().is_some_and(|package| everywhere.contains(package));
    let proposal = unit.as_ref().map(propose);
    Some(EnabledService { unit: name.to_owned(), path, package, of_every_debian, description, proposal })
}

/// A unit's file; that of its template where the name has an instance. Where a unit is a link, its target's.
fn file(root: &Root, name: &str) -> Option<(String, String)> {
    let template = name.split_once('@').and_then(|(unit, rest)| Some(format!("{unit}@.{}", rest.rsplit_once('.')?.1)));
    let names = [Some(name.to_owned()), template];
    let paths = names.into_iter().flatten().flat_map(|name| UNITS.map(|directory| format!("{directory}/{name}")));
    paths.into_iter().find_map(|path| {
        let text = root.read_text(&path[1..]).ok().filter(|text| !text.is_empty())?;
        Some((followed(root, &path), text))
    })
}

fn followed(root: &Root, path: &str) -> String {
    let target = root
        .place(&path[1..])
        .ok()
        .and_then(|place| rustix::fs::readlinkat(&place.directory, place.name, Vec::new()).ok());
    target.map_or_else(|| path.to_owned(), |target| resolved(path, &target.to_string_lossy()))
}
