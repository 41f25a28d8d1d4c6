//! Why a verb failed. The only place that prints an error: whose fault, what happened, what to try.

use std::{error::Error, path::PathBuf, time::Duration};

use kiln_api::{ApiError, ClientError, error::chain};
use kiln_control::{DbError, attest::AttestError, audit::AuditError, daemon::DaemonError, keys::KeysError};
use kiln_image::{
    StoreError,
    bake::{BakeError, LockProblem},
    delivery::DeliveryError,
    oci::OciError,
    registry::RegistryError,
    survey::SurveyError,
};
use kiln_model::{
    ChannelName, EnvironmentName, GroupName, ImageName, diagnostic::Diagnostics, fleet::NoVariable,
    recipe::descend::NoOrder,
};
use serde_json::json;

use crate::{exit::Exit, ui::Ui};

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A recipe or a fleet is wrong.
    #[error("{} is wrong", .0.file)]
    Wrong(Box<Diagnostics>),
    /// A file cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("could not write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The directory is no project, or not a whole one.
    #[error("there is no {file} in {}", directory.display())]
    NoFile {
        /// `image.toml` or `fleet.toml`.
        file: &'static str,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// The recipe and the fleet of a directory do not fit together.
    #[error("image.toml and fleet.toml of {} do not fit together: {reason}", directory.display())]
    Misfit {
        /// Where they are.
        directory: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The directory has no file of this environment.
    #[error("there is no {} for the environment `{environment}`", path.display())]
    NoEnvironment {
        /// The environment.
        environment: EnvironmentName,
        /// The file.
        path: PathBuf,
    },
    /// A machine could not be surveyed.
    #[error("could not survey {}", root.display())]
    Survey {
        /// The root of its files.
        root: PathBuf,
        /// Why not.
        #[source]
        source: SurveyError,
    },
    /// A variable that the fleet takes a value from is not set.
    #[error(transparent)]
    NoVariable(#[from] NoVariable),
    /// The group runs the image of another recipe.
    #[error("group `{group}` uses the image `{image}`, and the recipe in {} is of another", directory.display())]
    OtherImage {
        /// The group.
        group: GroupName,
        /// Its image.
        image: ImageName,
        /// Where the recipe is.
        directory: PathBuf,
    },
    /// No recipe can be made from it.
    #[error("no recipe can be made from it: {reason}")]
    NoImport {
        /// Why.
        reason: String,
    },
    /// Packages are named, and it is not said well on what they are to be installed.
    #[error("{reason}")]
    Packaged {
        /// Why nothing can be baked.
        reason: String,
        /// What to write.
        help: String,
    },
    /// Something is in the way.
    #[error("{} is there already", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// A word of the command line means nothing here.
    #[error("there is no {kind} `{name}` on this host")]
    Unknown {
        /// `image`, `server or group`.
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A bake failed.
    #[error(transparent)]
    Bake(#[from] BakeError),
    /// The keys of this host cannot be read or changed.
    #[error(transparent)]
    Keys(KeysError),
    /// An image could not be sent or fetched.
    #[error("{subject} {what}")]
    Delivery {
        /// The image.
        subject: String,
        /// `could not be pushed to …`.
        what: String,
        /// Why.
        #[source]
        source: Box<DeliveryError>,
    },
    /// The image store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The daemon cannot be reached, or says why not.
    #[error(transparent)]
    Daemon(#[from] ClientError),
    /// The audit log cannot be read, or was tampered with.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The history of channels cannot be read or written.
    #[error(transparent)]
    State(#[from] DbError),
    /// What descends from an image cannot be put in order.
    #[error("what descends from {base} cannot be put in order")]
    NoOrder {
        /// The image.
        base: ImageName,
        /// Why not.
        #[source]
        source: NoOrder,
    },
    /// The channel has rules, which only a promotion asks.
    #[error("channel `{channel}` has rules in kiln.toml, and this would pass them by")]
    Ruled {
        /// The channel.
        channel: ChannelName,
        /// The image that came.
        image: String,
    },
    /// The daemon cannot run.
    #[error(transparent)]
    Run(#[from] DaemonError),
    /// The daemon did not come up.
    #[error("the daemon did not come up: {reason}")]
    NoStart {
        /// Its last words.
        reason: String,
        /// Where it logs.
        log: PathBuf,
    },
    /// The daemon was asked to end and did not.
    #[error("the daemon (process {pid}) agreed to end and still runs after {} s", limit.as_secs())]
    NoEnd {
        /// Its process.
        pid: u32,
        /// So long it was waited for.
        limit: Duration,
        /// Where it logs.
        log: PathBuf,
    },
    /// Long work ended without success.
    #[error(transparent)]
    Ended(ApiError),
    /// Only root can do this.
    #[error("only root can {action}")]
    NotRoot {
        /// What needs root.
        action: &'static str,
    },
    /// A part of the host failed.
    #[error("could not {action}")]
    Host {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An image is damaged.
    #[error("{count} of the files that {image} refers to are damaged")]
    Damaged {
        /// The image.
        image: String,
        /// How many.
        count: usize,
    },
    /// What was read for `--json` could not be written out.
    #[error("could not print")]
    Print(#[source] std::io::Error),
}

impl Failure {
    /// A failed operation on the host.
    pub(crate) fn host(action: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Host { action: action.into(), source: source.into() }
    }

    /// The exit code that stands for it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NoOrder { .. } | Self::NoEnvironment { .. } | Self::NoVariable(_) | Self::OtherImage { .. } => {
                Exit::Usage
            }
            Self::NoImport { .. } | Self::Packaged { .. } => Exit::Usage,
            Self::Wrong(_) | Self::NoFile { .. } | Self::Misfit { .. } | Self::Exists { .. } | Self::Unknown { .. } => {
                Exit::Usage
            }
            Self::Survey { source: SurveyError::NoDpkg | SurveyError::TooMany { .. }, .. } => Exit::Usage,
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Exit::Usage,
            Self::Bake(error) => bake_exit(error),
            Self::Keys(KeysError::Io { .. } | KeysError::Exposed { .. } | KeysError::NotADigest { .. }) => Exit::Host,
            Self::Keys(_) => Exit::Usage,
            Self::Delivery { source, .. } if matches!(**source, DeliveryError::OtherDigest { .. }) => Exit::Usage,
            Self::Delivery { source, .. } if source.is_host() => Exit::Host,
            Self::Delivery { .. } => Exit::Failed,
            Self::Store(error) if error.is_full() => Exit::Host,
            Self::Audit(AuditError::Read { .. } | AuditError::Open(_) | AuditError::Write(_)) => Exit::Host,
            Self::Store(_)
            | Self::Audit(AuditError::Broken { .. } | AuditError::Otherwise { .. })
            | Self::Damaged { .. } => Exit::Failed,
            Self::Daemon(error) => Exit::from_code(error.exit_code()),
            Self::Ended(error) => Exit::from_code(error.code.exit_code()),
            Self::NoStart { .. } | Self::NoEnd { .. } => Exit::Unreachable,
            Self::Ruled { .. } => Exit::Refused,
            Self::Run(_)
            | Self::State(_)
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::NotRoot { .. }
            | Self::Host { .. }
            | Self::Survey { .. }
            | Self::Print(_) => Exit::Host,
        }
    }

    /// Prints it: for people to standard error, with `--json` to standard output.
    pub(crate) fn print(&self, ui: &Ui) {
        if ui.json() {
            return ui.line(&json!({ "error": self.to_json() }));
        }
        match self {
            Self::Wrong(diagnostics) => ui.error_text(&diagnostics.render(ui.colour(), ui.columns())),
            _ => ui.error(&chain(self), self.help().as_deref()),
        }
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut value = json!({ "code": self.code(), "message": chain(self), "help": self.help() });
        if let Self::Wrong(diagnostics) = self {
            value["diagnostics"] = json!(diagnostics.diagnostics);
        }
        value
    }

    /// The word for it, as in the daemon's answers.
    fn code(&self) -> serde_json::Value {
        match self {
            Self::Daemon(ClientError::Refused(error)) | Self::Ended(error) => json!(error.code),
            Self::Unknown { .. } => json!("not_found"),
            _ => json!(match self.exit() {
                Exit::Ok | Exit::Failed => "failed",
                Exit::Usage => "invalid",
                Exit::Refused => "refused",
                Exit::Host => "host",
                Exit::Unreachable => "unreachable",
                Exit::Internal | Exit::Command(_) => "internal",
            }),
        }
    }

    /// What to try next.
    fn help(&self) -> Option<String> {
        match self {
            Self::NoFile { .. } => Some("`kiln new NAME` writes a recipe and a fleet to start from".into()),
            Self::Misfit { .. } => Some("list the port in the service's `ports`, or publish one that is listed".into()),
            Self::NoEnvironment { .. } => {
                Some("write it with what differs there from fleet.toml, or leave `--env` out".into())
            }
            Self::NoVariable(missing) => Some(format!("set it for this call: `{}=… kiln …`", missing.variable)),
            Self::OtherImage { .. } => Some("name the directory of the group's own recipe".into()),
            Self::Ruled { channel, image } => {
                Some(format!("the image is here; ask with `kiln promote {image} --to {channel}`"))
            }
            Self::NoImport { .. } => {
                Some("name a Containerfile that is there, or an image: `kiln import debian:bookworm`, `kiln import oci:DIR:TAG`".into())
            }
            Self::Packaged { help, .. } => Some(help.clone()),
            Self::Bake(error) => bake_help(error).map(str::to_owned),
            Self::Exists { .. } => Some("choose another directory: nothing is overwritten".into()),
            Self::Unknown { kind: "file", .. } => None,
            Self::Unknown { .. } => Some("`kiln images` and `kiln status` show what there is".into()),
            Self::Daemon(ClientError::NoDaemon { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Some("only the user whose daemon it is may ask it: run this as root".into())
            }
            Self::Daemon(ClientError::NoDaemon { .. }) => Some(
                "`kiln up` starts one; a daemon that runs for another directory is reached with `--state DIR`".into(),
            ),
            Self::Daemon(ClientError::Refused(error)) | Self::Ended(error) => error.help.clone(),
            Self::NoStart { log, .. } | Self::NoEnd { log, .. } => Some(format!("its log is {}", log.display())),
            Self::NotRoot { .. } => Some("run it as root, for example with sudo".into()),
            Self::Keys(error) => keys_help(error).map(str::to_owned),
            Self::Delivery { source, .. } => delivery_help(source).map(str::to_owned),
            Self::Damaged { .. } => Some("bake the image again; `kiln gc` removes what is damaged and unused".into()),
            _ => None,
        }
    }
}

impl From<KeysError> for Failure {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Policy(found) => Self::Wrong(found),
            error => Self::Keys(error),
        }
    }
}

/// A statement could not be signed or read.
pub(crate) fn attest(error: AttestError) -> Failure {
    match error {
        AttestError::Store(error) => error.into(),
        AttestError::Keys(error) => error.into(),
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Wrong(Box::new(diagnostics))
    }
}

fn keys_help(error: &KeysError) -> Option<&'static str> {
    match error {
        KeysError::NoKey { .. } => Some("`kiln key list` shows the keys with their ids"),
        KeysError::Known { .. } => Some("to replace a key, revoke the old one first"),
        KeysError::Revoked { .. } => Some("ask its owner for a new key"),
        KeysError::NotAKey { .. } => Some("`kiln key export` on the other host prints it"),
        _ => None,
    }
}

fn delivery_help(error: &DeliveryError) -> Option<&'static str> {
    match error {
        DeliveryError::NotKiln { .. } => {
            Some("an image of others can be what a recipe starts from: `oci = …` in [base]")
        }
        DeliveryError::Registry(RegistryError::Unauthorized { .. }) => {
            Some("`docker login`, `podman login` and `skopeo login` write credentials that Kiln reads")
        }
        DeliveryError::Registry(_) => Some("try it again: it goes on with what is there already"),
        DeliveryError::Layer { .. } | DeliveryError::ForeignLayer { .. } => {
            Some("have its maker bake and push it again; `kiln verify` there names what is damaged")
        }
        _ => None,
    }
}

fn bake_help(error: &BakeError) -> Option<&'static str> {
    match error {
        BakeError::Lock(problem) => problem.help(),
        BakeError::Fetch { source, .. } => source.help(),
        _ => None,
    }
}

fn bake_exit(error: &BakeError) -> Exit {
    match error {
        BakeError::Lock(problem) => match **problem {
            LockProblem::File { .. } | LockProblem::Archives { .. } => Exit::Host,
            LockProblem::Parse { .. }
            | LockProblem::Missing(_)
            | LockProblem::Stale { .. }
            | LockProblem::Local(_)
            | LockProblem::NoArchive { .. }
            | LockProblem::Resolve { .. } => Exit::Usage,
        },
        BakeError::Oci { source, .. } => match **source {
            OciError::File { .. } | OciError::Registry(_) => Exit::Host,
            _ => Exit::Failed,
        },
        BakeError::NoBaseImage(_)
        | BakeError::Source { .. }
        | BakeError::Step { .. }
        | BakeError::Instruction { .. } => Exit::Usage,
        BakeError::Store(error) if !error.is_full() => Exit::Failed,
        BakeError::Store(_)
        | BakeError::Fetch { .. }
        | BakeError::StepFull { .. }
        | BakeError::Sandbox { .. }
        | BakeError::Work(_) => Exit::Host,
        BakeError::NoTool { .. } => Exit::Usage,
        BakeError::Install { .. }
        | BakeError::StepFailed { .. }
        | BakeError::Provision { .. }
        | BakeError::NotIdempotent { .. }
        | BakeError::Asked { .. }
        | BakeError::Scan { .. }
        | BakeError::Apply { .. } => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn unit_who_may_not_ask_the_daemon_is_told_so_and_not_to_start_one() {
        let help = |kind: ErrorKind| {
            let failure = ClientError::NoDaemon { socket: "kiln.sock".into(), source: kind.into() };
            Failure::Daemon(failure).help().expect("there is something to try")
        };
        assert!(help(ErrorKind::PermissionDenied).contains("as root"));
        assert!(help(ErrorKind::NotFound).contains("`kiln up`"));
    }
}
