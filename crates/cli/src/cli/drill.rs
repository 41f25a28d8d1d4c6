//! `kiln drill`.

use clap::{Args, Subcommand};
use kiln_model::GroupName;

/// `kiln drill`
///
/// Exit code 0 where every objective of the fleet (`[group.NAME.drill]`) was met, 1 where not.
#[derive(Debug, Subcommand)]
pub enum DrillTarget {
    /// Random servers of a group, killed all at once
    Group(DrillGroup),
    /// The gateway's process; what is under way through it is cut
    Gateway,
    /// The daemon's process, where something starts it again
    Daemon,
}

/// `kiln drill group`
#[derive(Debug, Args)]
pub struct DrillGroup {
    /// The group
    pub group: GroupName,
    /// So many servers; as the fleet says where nothing is said
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000), conflicts_with = "share")]
    pub servers: Option<u32>,
    /// Percent of the group, at least one server
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub share: Option<u32>,
    /// Let go what would be lost, although it is more than the fleet says
    #[arg(long)]
    pub accept_loss: bool,
}
