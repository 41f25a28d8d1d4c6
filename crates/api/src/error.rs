//! What the daemon says when it cannot do what it was asked.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `{"error": {"code", "message", "help"}}`: the body of every answer with a status of 400 or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// Whose fault, what happened, what to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// What was attempted and why it failed, on one line.
    pub message: String,
    /// What to try next.
    pub help: Option<String>,
}

/// The kinds of error that a program may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is not understood or contradicts itself.
    Invalid,
    /// What the request names is not there.
    NotFound,
    /// Something else is under way that excludes it.
    Conflict,
    /// Tests failed.
    TestsFailed,
    /// A rollout failed.
    RolloutFailed,
    /// Evidence is missing, foreign, tampered, failing, revoked or too old.
    Refused,
    /// A recovery drill did not meet the objectives of the fleet.
    ObjectivesMissed,
    /// What would be lost is above the limit.
    WouldLose,
    /// The host lacks something: disk, memory, addresses, an ability.
    Host,
    /// A limit of time was reached.
    TimedOut,
    /// A mistake in Kiln.
    Internal,
}

impl ErrorCode {
    /// The status of an answer with this error (RFC 9110).
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::NotFound => 404,
            Self::Conflict | Self::WouldLose => 409,
            Self::TestsFailed | Self::RolloutFailed | Self::ObjectivesMissed => 422,
            Self::Refused => 403,
            Self::Host => 507,
            Self::TimedOut => 504,
            Self::Internal => 500,
        }
    }

    /// The exit code of a program that ends with this error.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::TestsFailed | Self::RolloutFailed | Self::ObjectivesMissed | Self::Conflict | Self::WouldLose => 1,
            Self::Invalid | Self::NotFound => 2,
            Self::Refused => 3,
            Self::Host => 4,
            Self::TimedOut => 5,
            Self::Internal => 70,
        }
    }
}

impl ApiError {
    /// An error without help.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None }
    }

    /// The same error, with what to try next.
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// An error with the whole chain of its causes in the message.
    pub fn from_chain(code: ErrorCode, error: &dyn std::error::Error) -> Self {
        Self::new(code, chain(error))
    }
}

/// An error and its causes, separated by `: `.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
