//! Opening a runtime: what runs is adopted, what a crash has left is removed. And the end of all of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, TryLockError},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kiln_model::ServerId;
use kiln_sys::cgroup;

use crate::{
    Inner, RootProvider, RuntimeOptions, berth,
    error::{OnFile as _, Result},
    ground::Ground,
    network::{self, FIRST_BUILD_SLOT, Network},
    pool::Pool,
    record::{self, Files, Progress},
    server::Server,
    shared::SharedDirectories,
    volume::Volumes,
    watch::Watch,
};

pub(crate) fn open(options: RuntimeOptions, roots: Arc<dyn RootProvider>) -> Result<Inner> {
    std::fs::create_dir_all(&options.run_dir).on("make the directory", &options.run_dir)?;
    let lock = lock(&options.run_dir)?;
    let ground = Arc::new(Ground::new(&options.run_dir, &options.id)?);
    let network = options.network.clone().map(Network::open).transpose()?.map(Arc::new);
    let servers = adopt(&options, &ground)?;
    let used: BTreeSet<u16> = servers.values().map(|server| server.record.slot).collect();
    remove_strays(&ground, network.as_deref(), &used)?;
    let watch = Watch::new()?;
    for (id, server) in &servers {
        if let Some(process) = server.process() {
            watch.add(id, process)?;
        }
    }
    let block = u32::from_str_radix(&options.id, 16).unwrap_or(0);
    Ok(Inner {
        block,
        resolvers: network::resolver::name_servers(),
        roots,
        servers: Mutex::new(servers.into_iter().map(|(id, server)| (id, Arc::new(server))).collect()),
        locks: Mutex::default(),
        watch,
        volumes: Volumes::new(&options.state_dir),
        shared: SharedDirectories::new(&options.state_dir, &options.run_dir, berth::map(block, 0).base + 1),
        staged: Mutex::default(),
        pool: Pool::new(Arc::clone(&ground), network.clone(), block, options.berths, used),
        network,
        ground,
        options,
        _lock: lock,
    })
}

/// A process that is just ending, or a child that it was about to start, is waited for this long.
const HANDOVER: Duration = Duration::from_secs(3);

fn lock(run_dir: &Path) -> Result<File> {
    let path = run_dir.join("runtime.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).on("open", &path)?;
    let deadline = Instant::now() + HANDOVER;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => {
                return Err(std::io::Error::from(error))
                    .on("take over, from the process that keeps them, the servers of", run_dir);
            }
        }
    }
}

/// Servers whose launch was finished. What is left of others is removed.
fn adopt(options: &RuntimeOptions, ground: &Ground) -> Result<BTreeMap<ServerId, Server>> {
    let mut servers = BTreeMap::new();
    for id in record::known(&options.run_dir)? {
        let files = Files::new(&options.run_dir, &options.state_dir, &id);
        match files.read()? {
            Some(record) if record.progress == Progress::Launched && record.server == id => {
                let group = ground.group(record.slot);
                servers.insert(id, Server::adopt(record, group, files)?);
            }
            // Its processes are in a control group that belongs to no record, and go with it.
            _ => files.remove()?,
        }
    }
    Ok(servers)
}

/// Removes control groups, with the processes in them, and network ports that belong to no server.
fn remove_strays(ground: &Ground, network: Option<&Network>, used: &BTreeSet<u16>) -> Result<()> {
    for name in ground.cgroups.group(&ground.cgroup).children()? {
        let slot = name.strip_prefix("slot-").and_then(|slot| slot.parse::<u16>().ok());
        if let Some(slot) = slot
            && !used.contains(&slot)
        {
            tracing::info!(slot, "removing what a launch that was cut off has left");
            ground.group(slot).remove(Duration::from_secs(10))?;
        }
    }
    if let Some(network) = network {
        for port in network.list()? {
            if port.slot < FIRST_BUILD_SLOT && !used.contains(&port.slot) {
                network.detach(port.slot)?;
            }
        }
    }
    Ok(())
}

/// Removes what is left when no server is: prepared places, control groups, the network, the run directory.
pub(crate) fn remove_everything(inner: &Inner) -> Result<()> {
    let Inner { pool, ground, options, .. } = inner;
    pool.close();
    let group = |name: &str| -> cgroup::Group { ground.cgroups.group(name) };
    for name in group(&ground.cgroup).children()? {
        group(&format!("{}/{name}", ground.cgroup)).remove(Duration::from_secs(10))?;
    }
    group(&ground.cgroup).remove(Duration::from_secs(10))?;
    if let Some(network) = &options.network {
        network::purge(&network.id, &network.run_dir, &network.shared_dir)?;
    }
    std::fs::remove_dir_all(&options.run_dir).on("remove", &options.run_dir)
}
