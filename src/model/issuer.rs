//! The operator's issuer: that of the flags, or while it exists that of a ConfigMap, which may change at any time.

use super::spec::IssuerRef;
use std::fmt::{self, Display};
use std::sync::Arc;
use tokio::sync::watch;

/// A ConfigMap with the keys `issuer-name`, `issuer-kind` and `issuer-group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeConfigMap {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

impl Display for RuntimeConfigMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What is known of the operator's issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CurrentIssuer {
    /// The ConfigMap has not been read yet.
    Unread,
    /// There is none.
    Missing,
    /// It is this one.
    Named(IssuerRef),
}

impl From<Option<IssuerRef>> for CurrentIssuer {
    fn from(issuer: Option<IssuerRef>) -> Self {
        issuer.map_or(Self::Missing, Self::Named)
    }
}

/// The issuer of volumes that name none. Clones share what is known of it.
#[derive(Clone, Debug)]
pub struct OperatorIssuer {
    of_flags: Option<IssuerRef>,
    config_map: Option<RuntimeConfigMap>,
    current: Arc<watch::Sender<CurrentIssuer>>,
}

impl Default for OperatorIssuer {
    /// There is none.
    fn default() -> Self {
        Self::new(None, None)
    }
}

impl OperatorIssuer {
    /// The issuer of the flags, and the ConfigMap that wins over it.
    pub fn new(of_flags: Option<IssuerRef>, config_map: Option<RuntimeConfigMap>) -> Self {
        let current =
            if config_map.is_some() { CurrentIssuer::Unread } else { CurrentIssuer::from(of_flags.clone()) };
        Self { of_flags, config_map, current: Arc::new(watch::Sender::new(current)) }
    }

    /// Whether the operator names an issuer, or a ConfigMap that may name one.
    pub(crate) fn is_configured(&self) -> bool {
        self.of_flags.is_some() || self.config_map.is_some()
    }

    /// The ConfigMap that wins over the flags.
    pub(crate) fn config_map(&self) -> Option<&RuntimeConfigMap> {
        self.config_map.as_ref()
    }

    /// The issuer of the flags.
    pub(crate) fn of_flags(&self) -> Option<&IssuerRef> {
        self.of_flags.as_ref()
    }

    /// Makes known what the issuer is now.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn set(&self, issuer: CurrentIssuer) {
        self.current.send_if_modified(|current| {
            let is_new = *current != issuer;
            *current = issuer;
            is_new
        });
    }

    /// Follows the issuer.
    pub(crate) fn subscribe(&self) -> watch::Receiver<CurrentIssuer> {
        self.current.subscribe()
    }
}
