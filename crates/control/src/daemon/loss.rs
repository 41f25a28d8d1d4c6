//! Before a change that somebody asks for: what would be lost, and whether that may be.
//!
//! Every verb that replaces or removes servers on purpose passes through here before anything is changed, tested or recorded. What Kiln
//! does by itself (healing, scaling, `max_age`, sources) does not: a server that does not work must never stay because of its
//! files.

use std::sync::Arc;

use kiln_api::{ApiError, ErrorCode, request::Loss};
use kiln_model::{
    GroupName, ServerId,
    loss::{Excess, Stake},
};

use super::{App, error::Failure};
use crate::loss::{GroupStake, Look, ServerAtStake, ServerStake};

/// So many servers are named in an error.
const NAMED: usize = 5;

/// A loss that somebody accepted.
#[derive(Debug, Default)]
#[must_use = "an accepted loss is recorded when the change is made"]
pub(super) struct Accepted(Vec<(GroupName, ServerId, Stake)>);

/// Looks at what would be lost with those servers, and refuses what is above the limits of their groups unless that is accepted.
pub(super) async fn weigh(
    app: &Arc<App>,
    groups: &[GroupName],
    of: impl Fn(&GroupName, &ServerAtStake) -> bool,
    loss: Loss,
) -> Result<Accepted, Failure> {
    let doomed = |group: &GroupName, server: &ServerAtStake| server.stays() && of(group, server);
    let found = app.control.at_stake(groups, doomed, Look::Declared).await?;
    let above: Vec<_> = found.iter().flat_map(above).collect();
    if above.is_empty() {
        return Ok(Accepted::default());
    }
    if loss == Loss::Refuse {
        return Err(refused(&above).into());
    }
    let taken = |(group, server, _): (&GroupStake, &ServerStake, _)| {
        (group.group.clone(), server.server.clone(), server.stake.clone())
    };
    Ok(Accepted(above.into_iter().map(taken).collect()))
}

type Above<'a> = (&'a GroupStake, &'a ServerStake, Vec<Excess>);

fn above(group: &GroupStake) -> Vec<Above<'_>> {
    let above = group.servers.iter().map(|server| (group, server, group.policy.excess(&server.stake)));
    above.filter(|(_, _, excess)| !excess.is_empty()).collect()
}

fn refused(above: &[Above<'_>]) -> ApiError {
    let one = |(_, server, excess): &Above<'_>| {
        let excess: Vec<String> = excess.iter().map(ToString::to_string).collect();
        format!("{}: {}", server.server, excess.join(", and "))
    };
    let mut said: Vec<String> = above.iter().take(NAMED).map(one).collect();
    if above.len() > NAMED {
        said.push(format!("and {} more servers", above.len() - NAMED));
    }
    let message = format!("this would lose more than the fleet says may be lost: {}", said.join("; "));
    let group = &above[0].0.group;
    ApiError::new(ErrorCode::WouldLose, message).help(format!(
        "nothing was changed; `kiln loss {group}` shows it; `--accept-loss` lets it go; what must stay belongs on a volume (`{{ volume = \"data\" }}` in \
         the recipe), and how much may go is `[group.{group}.loss]` in fleet.toml"
    ))
}

impl Accepted {
    /// Records it, right before the change begins.
    pub(super) async fn record(self, app: &Arc<App>, verb: &str) -> Result<(), Failure> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Ok(app.control.accept_loss(self.0, verb).await?),
        }
    }
}
