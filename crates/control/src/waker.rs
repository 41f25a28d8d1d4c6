//! The one task that hears from the gateway that a request waits for a group without servers, and tells the group.
//!
//! What it hears is a hint. The group looks for itself what waits, and looks by the clock as well: a hint that is lost costs time and
//! no request.

use std::{sync::Arc, time::Duration};

use crate::{group::Message, handle::Groups, shared::Shared};

/// Between two hints, however many requests come.
const PAUSE: Duration = Duration::from_millis(10);
/// A gateway that is away is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Listens for ever.
pub(crate) async fn run(shared: Arc<Shared>, groups: Groups) {
    let mut heard = 0;
    loop {
        let Ok(asked) = shared.traffic.asked(heard).await else {
            tokio::time::sleep(ASK_AGAIN).await;
            continue;
        };
        heard = asked.number;
        let mailboxes = groups.lock().await;
        for mailbox in asked.groups.iter().filter_map(|group| mailboxes.get(group)) {
            // A group that is just ending wakes nobody.
            mailbox.send(Message::Asked).ok();
        }
        drop(mailboxes);
        tokio::time::sleep(PAUSE).await;
    }
}
