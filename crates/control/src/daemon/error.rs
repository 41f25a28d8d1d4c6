//! From the errors of the parts to what the caller is told.

use axum::{
    extract::{FromRequest, Request},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use kiln_api::{ApiError, ErrorBody, ErrorCode};
use kiln_engine::EngineError;
use serde::de::DeserializeOwned;

use crate::{
    ControlError, NotAdmitted, ReleasesError, Unsettled, VolumesError, config::ConfigError, harness::HarnessError,
    keys::KeysError, live::LiveError, reports::ProveError,
};

/// An [`ApiError`] as an answer.
#[derive(Debug)]
pub(super) struct Failure(pub(super) ApiError);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(ErrorBody { error: self.0 })).into_response()
    }
}

impl<E: IntoApi> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into_api())
    }
}

/// Errors that the caller is told of.
pub(super) trait IntoApi {
    /// Whose fault, what happened, what to try.
    fn into_api(self) -> ApiError;
}

impl IntoApi for ApiError {
    fn into_api(self) -> ApiError {
        self
    }
}

impl IntoApi for ControlError {
    fn into_api(self) -> ApiError {
        let code = match &self {
            Self::NoGroup(_) | Self::NoServer(_) => ErrorCode::NotFound,
            Self::NoEarlierRelease(_) | Self::Superseded(_) | Self::Closed => ErrorCode::Conflict,
            Self::Releases(error) => releases_code(error),
            Self::NoDataOf { .. } | Self::NoDrill { .. } => ErrorCode::Conflict,
            Self::NoVolume { .. } | Self::NoShared { .. } | Self::NoImage(_) | Self::NoConfig(_) => ErrorCode::Invalid,
            Self::Db(_) => ErrorCode::Host,
            Self::Engine(error) => engine_code(error),
        };
        ApiError::from_chain(code, &self)
    }
}

impl IntoApi for LiveError {
    fn into_api(self) -> ApiError {
        let (code, help) = match &self {
            Self::NoKey { .. } => (ErrorCode::NotFound, "`kiln config show` lists the keys of a group"),
            Self::NotLive { .. } => (ErrorCode::Invalid, "change it in fleet.toml and run `kiln up`"),
            Self::Unfit { .. } => (ErrorCode::Invalid, "nothing was changed"),
            Self::Db(_) => (ErrorCode::Host, "nothing was changed"),
        };
        ApiError::from_chain(code, &self).help(help)
    }
}

impl IntoApi for ConfigError {
    fn into_api(self) -> ApiError {
        let (code, help) = match &self {
            Self::Source { .. } => {
                (ErrorCode::Host, "nothing was changed; servers that run go on with what was frozen for them")
            }
            Self::Problems(_) => {
                (ErrorCode::Invalid, "nothing was changed; `[config.KEY]` of the recipe says what a value must be")
            }
            Self::Secrets(_) => (ErrorCode::Host, "nothing was changed"),
        };
        ApiError::from_chain(code, &self).help(help)
    }
}

impl IntoApi for ReleasesError {
    fn into_api(self) -> ApiError {
        let error = ApiError::from_chain(releases_code(&self), &self);
        match self {
            Self::NotFound { .. } => error.help("run `kiln images` to see what there is, or `kiln bake` to make it"),
            Self::Trust(_) => error.help("nothing is launched until it can be read again; `kiln key list` checks it"),
            Self::Store(_) => error.help("run `kiln verify` to look for damage, and see whether the disk is full"),
        }
    }
}

fn releases_code(error: &ReleasesError) -> ErrorCode {
    match error {
        ReleasesError::NotFound { .. } => ErrorCode::NotFound,
        ReleasesError::Store(_) | ReleasesError::Trust(_) => ErrorCode::Host,
    }
}

impl IntoApi for KeysError {
    fn into_api(self) -> ApiError {
        ApiError::from_chain(ErrorCode::Host, &self)
    }
}

impl IntoApi for NotAdmitted {
    fn into_api(self) -> ApiError {
        match self {
            Self::Refused(refusal) => ApiError::from_chain(ErrorCode::Refused, &refusal),
            Self::Unreadable(error) => error.into_api(),
        }
    }
}

impl IntoApi for ProveError {
    fn into_api(self) -> ApiError {
        match self {
            Self::Releases(error) => error.into_api(),
            Self::NoSuite { .. } => ApiError::from_chain(ErrorCode::NotFound, &self),
            Self::Matrix { .. } => ApiError::from_chain(ErrorCode::Invalid, &self).help("bake the recipe again"),
            Self::Secrets(_) | Self::Keys(_) => ApiError::from_chain(ErrorCode::Host, &self),
            Self::Refused(ref refusal) => ApiError::from_chain(ErrorCode::Refused, refusal)
                .help("nothing was launched or changed; `kiln key list` and trust.toml say who is believed"),
            Self::Harness(ref error) => ApiError::from_chain(harness_code(error), &self),
        }
    }
}

fn harness_code(error: &HarnessError) -> ErrorCode {
    match error {
        HarnessError::Launch { source, .. } | HarnessError::Destroy { source, .. } => engine_code(source),
        HarnessError::Throwaway { .. } | HarnessError::Tree { .. } => ErrorCode::Host,
    }
}

fn engine_code(error: &EngineError) -> ErrorCode {
    match error {
        EngineError::NoImage { .. } | EngineError::Unknown { .. } => ErrorCode::NotFound,
        EngineError::Stale { .. } => ErrorCode::Conflict,
        EngineError::Exhausted { .. } | EngineError::Unsupported { .. } | EngineError::Failed { .. } => ErrorCode::Host,
    }
}

impl IntoApi for VolumesError {
    fn into_api(self) -> ApiError {
        let code = match &self {
            Self::Unknown(_) | Self::NoSnapshot(_) => ErrorCode::NotFound,
            Self::Exists(_) | Self::SnapshotExists(_) | Self::Attached { .. } | Self::Wanted { .. } => {
                ErrorCode::Conflict
            }
            Self::OfGroup(_) | Self::Smaller { .. } | Self::Size { .. } | Self::Path(_) => ErrorCode::Invalid,
            Self::Engine(error) => engine_code(error),
            Self::Hook { .. } | Self::Unsupported | Self::Db(_) => ErrorCode::Host,
        };
        let error = ApiError::from_chain(code, &self);
        match &self {
            Self::Unknown(_) | Self::NoSnapshot(_) => error.help("run `kiln volume ls` to see what there is"),
            Self::Attached { .. } => {
                error.help("what has it can be scaled down or taken away first: `kiln down GROUP`")
            }
            Self::Wanted { .. } => error.help("lower the group's `count`, or take the group away: `kiln down GROUP`"),
            _ => error,
        }
    }
}

impl IntoApi for EngineError {
    fn into_api(self) -> ApiError {
        ApiError::from_chain(engine_code(&self), &self)
    }
}

impl IntoApi for super::HostError {
    fn into_api(self) -> ApiError {
        ApiError::from_chain(ErrorCode::Host, &self)
    }
}

impl IntoApi for Unsettled {
    fn into_api(self) -> ApiError {
        let code = match self {
            Self::Refused { .. } => ErrorCode::Refused,
            Self::Failed { .. } => ErrorCode::RolloutFailed,
            Self::Superseded => ErrorCode::Conflict,
        };
        ApiError::from_chain(code, &self)
    }
}

/// A JSON request body, or an [`ErrorCode::Invalid`] that says where it is wrong.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;
    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = axum::body::Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|e| ApiError::new(ErrorCode::Invalid, format!("the request body: {e}")))?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|e| ApiError::new(ErrorCode::Invalid, format!("the request is not understood: {e}")))?;
        Ok(Self(value))
    }
}
