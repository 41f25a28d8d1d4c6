//! Everything Kiln made on this host, for people.

use kiln_api::host::HostInventory;

use crate::ui::table;

/// The daemon, the gateway, and every item.
pub(super) fn render(host: &HostInventory) -> String {
    let daemon = &host.daemon;
    let mut text =
        format!("daemon   pid {}  {}  since {}  run {}\n", daemon.pid, daemon.state, daemon.started_at, daemon.run);
    if let Some(gateway) = &host.gateway {
        text += &format!("gateway  pid {}  {}\n", gateway.pid, gateway.listening.join(" "));
    }
    let items: Vec<_> = host
        .items
        .iter()
        .map(|item| vec![item.kind.clone(), item.name.clone(), item.server.clone().unwrap_or_default()])
        .collect();
    text + "\n" + &table::render(&["KIND", "NAME", "SERVER"], &items)
}
