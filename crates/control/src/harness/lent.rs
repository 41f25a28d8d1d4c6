//! The configuration that a test server is launched with: the release's own, but with throwaway services where the recipe says
//! so. Each test server has services of its own, so that a second boot finds what the first one found: nothing.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::try_join_all;
use kiln_model::{
    BindingName, Digest, FrozenConfig, ImageManifest,
    config::{ConfigKey, ConfigValue, Delivery, Frozen, SecretHash, Secrets},
    manifest::{Binding, BindingTest},
};

use super::{HarnessError, Subject};
use crate::throwaway::{self, Kind, ThrowawayError, Throwaways};

/// What a test server is launched with.
pub(super) struct Lent {
    pub(super) config: FrozenConfig,
    pub(super) subject: Subject,
    services: Vec<throwaway::Lent>,
}

impl Lent {
    /// Ends the services.
    pub(super) async fn give_back(self) {
        let services = self.services;
        if let Err(broken) = tokio::task::spawn_blocking(move || drop(services)).await {
            tracing::error!(%broken, "throwaway services could not be ended");
        }
    }
}

/// The bindings whose place throwaway services take.
fn wanted(manifest: &ImageManifest) -> impl Iterator<Item = (&BindingName, &Binding)> {
    manifest.bindings.iter().filter(|(_, binding)| binding.test == BindingTest::Throwaway)
}

/// How the configuration of the test servers differs, for the report.
pub(super) fn parameters(manifest: &ImageManifest) -> impl Iterator<Item = String> {
    wanted(manifest).map(|(name, binding)| format!("with a throwaway {} in place of `{name}`", binding.kind))
}

/// Starts the services for one test server.
pub(super) async fn lend(
    throwaways: Option<&Arc<Throwaways>>,
    subject: &Subject,
    config: &FrozenConfig,
) -> Result<Lent, HarnessError> {
    let all = wanted(&subject.manifest).map(|(name, binding)| async move {
        let lent = start(throwaways, &binding.kind).await;
        lent.map_err(|source| HarnessError::Throwaway { binding: name.clone(), source })
    });
    let services = try_join_all(all).await?;
    let (mut config, mut secrets) = (config.clone(), subject.secrets.as_ref().clone());
    for ((name, binding), lent) in wanted(&subject.manifest).zip(&services) {
        let fields = config.bindings.entry(name.clone()).or_default();
        put(binding, &lent.service.fields, fields, &mut secrets);
    }
    let subject = Subject { secrets: Arc::new(secrets), ..subject.clone() };
    Ok(Lent { config, subject, services })
}

async fn start(throwaways: Option<&Arc<Throwaways>>, kind: &str) -> Result<throwaway::Lent, ThrowawayError> {
    let found = Kind::named(kind).zip(throwaways.cloned());
    let (kind, throwaways) = found.ok_or_else(|| ThrowawayError::Nowhere { kind: kind.to_owned() })?;
    tokio::task::spawn_blocking(move || throwaways.lend(kind)).await.expect("starting a service does not panic")
}

/// Puts a service's fields in place of a binding's. A field that the recipe has beside them stays.
fn put(
    binding: &Binding,
    given: &BTreeMap<ConfigKey, ConfigValue>,
    fields: &mut BTreeMap<ConfigKey, Frozen>,
    secrets: &mut Secrets,
) {
    for (key, value) in given {
        let Some(spec) = binding.fields.0.get(key) else { continue };
        let frozen = match spec.delivery {
            Delivery::Secret => {
                // A name of its own: nothing but this server's launch looks it up.
                let hash = SecretHash(Digest::of(&rand::random::<[u8; 32]>()));
                secrets.0.insert(hash.clone(), value.clone());
                Frozen::Secret(hash)
            }
            Delivery::Open | Delivery::Live => Frozen::Value(value.clone()),
        };
        fields.insert(key.clone(), frozen);
    }
}
