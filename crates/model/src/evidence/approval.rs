//! Approvals: somebody's signature that an image may go to a channel, as an in-toto Statement v1 with a predicate of Kiln's own.
//!
//! An approval is bound to the image's digest and to one channel. It says whether its signer agrees that somebody moves the channel
//! ([`Intent::Approve`]; it is kept with the image and travels with it), or moves it now ([`Intent::Promote`]; it is used once and kept
//! nowhere but in the history).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    Envelope, OpenError, SigningKey, StatementError, envelope,
    in_toto::{self, Statement},
};
use crate::{
    digest::ImageDigest,
    id::{ChannelName, KeyName},
    reason::Reason,
    trust::TrustedKey,
};

/// `predicateType` of an approval.
pub const APPROVAL: &str = "https://github.com/kiln-servers/kiln/approval/v1";

/// What whoever signs wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// Somebody may move the channel to the image.
    Approve,
    /// The channel is moved to the image, now.
    Promote,
}

/// An image may go to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The image's name.
    pub name: String,
    /// The image.
    pub image: ImageDigest,
    /// The channel.
    pub channel: ChannelName,
    /// What is wanted.
    pub intent: Intent,
    /// When it was signed.
    pub at: jiff::Timestamp,
    /// Why, where somebody said so.
    pub reason: Option<Reason>,
}

#[derive(Serialize, Deserialize)]
struct Predicate {
    channel: ChannelName,
    intent: Intent,
    at: jiff::Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
}

/// Signs an approval.
pub fn seal_approval(approval: &Approval, key: &SigningKey) -> Envelope {
    let Approval { name, image, channel, intent, at, reason } = approval.clone();
    let (predicate, predicate_type) = (Predicate { channel, intent, at, reason }, APPROVAL.to_owned());
    envelope::seal_payload(&Statement { name, image, predicate_type, predicate }.render(), key)
}

/// Whether an envelope says that it holds an approval, whoever signed it.
pub fn is_approval(envelope: &Envelope) -> bool {
    let kind = |payload: Vec<u8>| in_toto::predicate_type(&payload).ok();
    envelope::payload(envelope).ok().and_then(kind).is_some_and(|kind| kind == APPROVAL)
}

/// Returns the approval in an envelope if a trusted key signed it, with all of those that did.
pub fn open_approval(envelope: &Envelope, keys: &[TrustedKey]) -> Result<(Approval, BTreeSet<KeyName>), OpenError> {
    let (payload, signers) = envelope::open_payload(envelope, keys)?;
    Ok((parse(&payload).map_err(OpenError::Statement)?, signers))
}

fn parse(payload: &[u8]) -> Result<Approval, StatementError> {
    let Statement { name, image, predicate, .. } = Statement::<Predicate>::parse_kind(payload, APPROVAL)?;
    let Predicate { channel, intent, at, reason } = predicate;
    Ok(Approval { name, image, channel, intent, at, reason })
}
