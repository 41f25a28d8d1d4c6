//! Approvals: somebody's signature that an image may go to a channel, as an in-toto Statement v1 with a predicate of Kiln's own.
//!
//! An approval is bound to the image's digest and to one channel. It says whether its signer agrees that somebody moves the channel
//! ([`Intent::Approve`]; it is kept with the image and travels with it), or moves it now ([`Intent::Promote`]; it is used once and kept
//! nowhere but in the history).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    Envelope, OpenError, STATEMENT, SigningKey, StatementError, envelope,
    statement::{Descriptor, check_type, only},
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
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Descriptor>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
struct Predicate {
    channel: ChannelName,
    intent: Intent,
    at: jiff::Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
}

/// Of any statement, what says which kind it is.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

/// Signs an approval.
pub fn seal_approval(approval: &Approval, key: &SigningKey) -> Envelope {
    let Approval { name, image, channel, intent, at, reason } = approval.clone();
    let statement = Statement {
        kind: STATEMENT.to_owned(),
        subject: vec![Descriptor::new(&name, image.0)],
        predicate_type: APPROVAL.to_owned(),
        predicate: Predicate { channel, intent, at, reason },
    };
    envelope::seal_payload(&serde_json::to_vec(&statement).expect("plain data always serialises"), key)
}

/// Whether an envelope says that it holds an approval, whoever signed it.
pub fn is_approval(envelope: &Envelope) -> bool {
    let kind = |payload: Vec<u8>| serde_json::from_slice::<Kind>(&payload).ok();
    envelope::payload(envelope).ok().and_then(kind).is_some_and(|kind| kind.predicate_type == APPROVAL)
}

/// Returns the approval in an envelope if a trusted key signed it, with all of those that did.
pub fn open_approval(envelope: &Envelope, keys: &[TrustedKey]) -> Result<(Approval, BTreeSet<KeyName>), OpenError> {
    let (payload, signers) = envelope::open_payload(envelope, keys)?;
    Ok((parse(&payload).map_err(OpenError::Statement)?, signers))
}

fn parse(payload: &[u8]) -> Result<Approval, StatementError> {
    let kind: Kind = serde_json::from_slice(payload)?;
    check_type("predicateType", &kind.predicate_type, APPROVAL)?;
    let statement: Statement = serde_json::from_slice(payload)?;
    check_type("_type", &statement.kind, STATEMENT)?;
    let subject = only(statement.subject.iter(), "subject")?;
    let Predicate { channel, intent, at, reason } = statement.predicate;
    let image = ImageDigest(subject.sha256("subject")?);
    Ok(Approval { name: subject.name.clone(), image, channel, intent, at, reason })
}
