//! The attributes of one volume: sorted by name, then read one by one while faults are collected.

use super::context::MAX_BYTES;
use super::defaults::{OperatorDefaults, PodIp, SpiffeIds};
use super::errors::{AttributeError, AttributeErrors, named};
use super::passwords::may_hold_password;
use super::rows::{Key, TABLE};
use super::table::{Default, Presence, Row};
use super::values::list;
use super::values::names::is_annotation_key;
use super::values::template::{self, OwnValues, Values};
use crate::model::{
    CertificateFacts, Dialect, Doubts, RawAttributes, WorkloadIdentity, nearest_name, parse_duration, shown,
};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// Limit on the values of one volume that can have variables, with these replaced. They are the names in the certificate: AWS
/// Private CA accepts signing requests of as many bytes, and a volume that waits for its issuer keeps them several times.
const MAX_EXPANDED_BYTES: usize = 32 * 1024;

/// An element of `ip-sans` that stands for the pod's address, which is not known yet.
pub(super) const POD_IP: &str = "${POD_IP}";

/// The attributes of one volume. A method that returns `None`, or fewer elements than given, has added a fault. The only
/// exception is an attribute without value and default.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) dialect: Dialect,
    /// Whether an earlier process has published the volume.
    pub(super) is_stored: bool,
    /// The certificate in use of such a volume.
    pub(super) in_use: Option<&'a CertificateFacts>,
    pub(super) pod: &'a WorkloadIdentity,
    /// What the operator's flags give to the volume.
    pub(super) defaults: &'a OperatorDefaults,
    /// The SPIFFE IDs of the volume's class, or of the flags.
    pub(super) spiffe_ids: Option<&'a SpiffeIds>,
    /// An empty value counts as missing, as in cert-manager's csi-driver.
    given: BTreeMap<Key, &'a str>,
    /// Attributes for the `CertificateRequest`, which certlet only copies.
    pub(super) annotations: BTreeMap<String, String>,
    /// Bytes of all values so far with their variables replaced: a pod's name can be 28 times as long as its variable.
    expanded_bytes: usize,
    pub(super) faults: Vec<AttributeError>,
    /// What is doubtful and served all the same, under a peer's prefix.
    pub(super) doubts: Doubts,
}

impl<'a> Fields<'a> {
    /// Sorts the attributes by name. Fails if they have both prefixes.
    pub(super) fn new(
        raw: &'a RawAttributes,
        pod: &'a WorkloadIdentity,
        defaults: &'a OperatorDefaults,
    ) -> Result<Self, AttributeErrors> {
        let mut fields = Self {
            dialect: dialect(raw, defaults.dialect).map_err(|fault| AttributeErrors::new(vec![fault]))?,
            is_stored: false,
            in_use: None,
            pod,
            defaults,
            spiffe_ids: defaults.spiffe_ids.as_ref(),
            given: BTreeMap::new(),
            annotations: BTreeMap::new(),
            expanded_bytes: 0,
            faults: Vec::new(),
            doubts: Doubts::default(),
        };
        for (key, value) in raw.map() {
            fields.add(key, value).unwrap_or_else(|fault| fields.faults.push(fault));
        }
        Ok(fields)
    }

    /// The same, of a volume that an earlier process has published.
    pub(super) fn of_stored(self, in_use: Option<&'a CertificateFacts>) -> Self {
        Self { is_stored: true, in_use, ..self }
    }

    /// The same, with the SPIFFE IDs of the volume's class; none: the class has none of its own.
    pub(super) fn with_ids(self, ids: Option<&'a SpiffeIds>) -> Self {
        Self { spiffe_ids: ids.or(self.spiffe_ids), ..self }
    }

    fn add(&mut self, key: &str, value: &'a str) -> Result<(), AttributeError> {
        let (dialect, ours) = (self.dialect, self.dialect.prefix());
        // What `take_mistyped` takes out, in a volume that comes another way.
        if dialect.is_peers() && may_hold_password(key, dialect) {
            return Ok(());
        }
        match key.split_once('/') {
            None if dialect.is_peers() => {
                self.doubts.add(&shown(key), "has no prefix, and is ignored");
            }
            None => return Err(AttributeError::new(key, "has no prefix", format!("{ours}/NAME"))),
            Some((prefix, name)) if prefix == ours => {
                let row = TABLE.iter().find(|row| row.name == name && row.belongs_to(dialect));
                match row {
                    Some(row) if !self.is_allowed(row) => {
                        let problem =
                            format!("is ignored unless the operator allows it: --spiffe-attributes={name}");
                        self.doubts.add(&shown(key), &problem);
                    }
                    Some(row) if !value.is_empty() => drop(self.given.insert(row.key, value)),
                    Some(_) => {}
                    None if dialect.is_peers() => {
                        let nearest = nearest(name, dialect);
                        self.doubts.add(&shown(key), &format!("is not a known attribute, and is ignored (the nearest known one is {nearest})"));
                    }
                    None => return Err(AttributeError::unknown(key, &nearest(name, dialect))),
                }
            }
            Some(_) if dialect == Dialect::Certlet => {
                return Err(AttributeError::new(
                    key,
                    "is not an attribute, and annotations are not accepted with the prefix csi.certlet.io/",
                    "csi.certlet.io/NAME; annotations of the CertificateRequest only with the prefix \
                     csi.cert-manager.io/",
                ));
            }
            Some(_) if dialect == Dialect::CsiDriverSpiffe => {
                let problem = "is ignored, because this driver has no attributes of that prefix";
                self.doubts.add(&shown(key), problem);
            }
            Some((group, name)) if !is_annotation_key(group, name) => {
                return Err(AttributeError::new(
                    key,
                    "cannot be an annotation of the CertificateRequest",
                    "a host name, a slash, and at most 63 letters, digits, `-`, `_` and `.`",
                ));
            }
            Some(_) => {
                self.annotations.insert(key.to_owned(), value.to_owned());
            }
        }
        Ok(())
    }

    /// Whether the operator allows an attribute of the volume's prefix.
    fn is_allowed(&self, row: &Row) -> bool {
        if self.dialect != Dialect::CsiDriverSpiffe || row.options.csi_driver_spiffe == Presence::Always {
            return true;
        }
        self.defaults.svid.attributes.iter().any(|allowed| allowed.as_str() == row.name)
    }

    /// The value as written.
    pub(super) fn given(&self, key: Key) -> Option<&'a str> {
        self.given.get(&key).copied()
    }

    /// The value, or else the default, with its variables replaced.
    fn text(&mut self, key: Key) -> Option<String> {
        let default = match key.row().default(self.dialect) {
            Default::Value(value) => Some(value),
            Default::None | Default::Derived(_) => None,
        };
        let text = self.given(key).or(default)?;
        if !key.row().has_variables(self.dialect) {
            return Some(text.to_owned());
        }
        let pod_ip = self.pod_ip(key);
        let values = Values {
            pod: self.pod,
            own: (!self.dialect.is_peers()).then(|| OwnValues {
                node_name: self
                    .defaults
                    .node_name
                    .as_deref()
                    .ok_or("and the name of the node is not known here (--node-name)"),
                pod_ip: pod_ip.as_deref().map_err(|why| *why),
            }),
        };
        let expanded = template::expand(text, values).or_else(|problem| {
            if !self.dialect.is_peers() {
                return Err(problem);
            }
            let served = template::expand_as_go(text, values)?;
            self.doubt_value(key, text, &format!("{problem}, which is removed"));
            Ok(served)
        });
        // Addresses without variables were never counted, and many are accepted.
        let is_counted = key != Key::IpSans || text.contains('$');
        let expanded = expanded.and_then(|expanded| {
            if !is_counted {
                return Ok(expanded);
            }
            self.expanded_bytes = self.expanded_bytes.saturating_add(expanded.len());
            // An earlier build accepted as much as a volume may have without variables.
            let limit = if self.is_stored { MAX_BYTES } else { MAX_EXPANDED_BYTES };
            if self.expanded_bytes <= limit {
                return Ok(expanded);
            }
            Err(format!(
                "makes the values of the volume longer than {limit} bytes together, with variables replaced"
            ))
        });
        expanded.map_err(|problem| self.invalid_value(key, text, &problem)).ok()
    }

    /// What `${POD_IP}` stands for in an attribute: the address, or [`POD_IP`] as long as it is not known. A volume that was published
    /// before keeps it, whatever the operator's flags are today.
    fn pod_ip(&self, key: Key) -> Result<Cow<'static, str>, &'static str> {
        match self.defaults.pod_ip {
            _ if key != Key::IpSans => Err("which is for ip-sans alone"),
            PodIp::Known(address) => Ok(address.to_string().into()),
            PodIp::Unknown if !self.is_stored => {
                Err("and the pod's address is not known here: on a node it needs \
                 --pod-readiness-gate=pod-ip:any, in a sidecar --pod-ip")
            }
            PodIp::Unknown | PodIp::Read => Ok(POD_IP.into()),
        }
    }

    /// The value after a check.
    pub(super) fn checked<T>(&mut self, key: Key, check: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.checked_or(key, &check, &check)
    }

    /// The value after a check. Under a peer's prefix, and in a volume that was published before, what does not pass is served all
    /// the same if it passes `served`.
    pub(super) fn checked_or<T>(
        &mut self,
        key: Key,
        check: impl Fn(&str) -> Result<T, String>,
        served: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key)?;
        self.accepted(key, &text, &check, &served)
    }

    fn accepted<T>(
        &mut self,
        key: Key,
        text: &str,
        check: &impl Fn(&str) -> Result<T, String>,
        served: &impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let problem = match check(text) {
            Ok(value) => return Some(value),
            Err(problem) if self.dialect.is_peers() || self.is_stored => match served(text) {
                Ok(value) => {
                    self.doubt_value(key, text, &problem);
                    return Some(value);
                }
                Err(problem) => problem,
            },
            Err(problem) => problem,
        };
        self.invalid_value(key, text, &problem);
        None
    }

    /// The value of a required attribute after a check.
    pub(super) fn required<T>(
        &mut self,
        key: Key,
        accepted: &str,
        check: impl Fn(&str) -> Result<T, String>,
        served: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.given(key).is_none() {
            self.faults.push(AttributeError::missing(key.full(self.dialect), accepted));
        }
        self.checked_or(key, check, served)
    }

    /// The elements of a list, each after a check. Elements that fail are skipped.
    pub(super) fn list<T>(&mut self, key: Key, check: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        self.list_or(key, list::split_at_commas, &check, &check)
    }

    /// The elements of a list, each after a check. Under a peer's prefix, the list is split by `split`, and an element that does
    /// not pass is served all the same if it passes `served`.
    ///
    /// Earlier builds split the lists of a peer's volumes by our own rules. See [`list::split_stored`].
    pub(super) fn list_or<T>(
        &mut self,
        key: Key,
        split: impl Fn(&str) -> Result<Vec<String>, String>,
        check: impl Fn(&str) -> Result<T, String>,
        served: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let elements = match self.dialect {
            Dialect::Certlet => self.checked(key, list::split),
            Dialect::CertManager if self.is_stored => {
                let passes = |element: &str| check(element).is_ok() || served(element).is_ok();
                self.checked(key, |text| list::split_stored(text, &split, passes))
            }
            Dialect::CertManager | Dialect::CsiDriverSpiffe => self.checked(key, split),
        };
        let elements = elements.unwrap_or_default();
        elements.iter().filter_map(|element| self.accepted(key, element, &check, &served)).collect()
    }

    pub(super) fn switch(&mut self, key: Key) -> Option<bool> {
        self.checked(key, |text| text.parse().map_err(|_| "is neither true nor false".into()))
    }

    pub(super) fn duration(&mut self, key: Key) -> Option<Duration> {
        self.checked(key, parse_duration)
    }

    /// Adds the fault that a value breaks the attribute's rule, together with others.
    pub(super) fn invalid(&mut self, key: Key, value: &str, problem: &str) {
        self.faults.push(self.broken_rule(key, value, problem));
    }

    /// Adds the fault that a value breaks the attribute's rule by itself.
    fn invalid_value(&mut self, key: Key, value: &str, problem: &str) {
        self.faults.push(self.broken_rule(key, value, problem).of_value());
    }

    fn broken_rule(&self, key: Key, value: &str, problem: &str) -> AttributeError {
        let (row, value) = (key.row(), Self::shown(key, value));
        AttributeError::new(key.full(self.dialect), format_args!("{value} {problem}"), row.rule)
    }

    /// A value as a message shows it.
    fn shown(key: Key, value: &str) -> String {
        if key.row().options.secret { "(value not shown)".into() } else { shown(value) }
    }

    /// Adds that a value is served though it breaks the attribute's rule.
    pub(super) fn doubt_value(&mut self, key: Key, value: &str, problem: &str) {
        self.doubts.add(&key.full(self.dialect), &format!("{} {problem}", Self::shown(key, value)));
    }

    /// Adds a doubt for each of `keys` that is given.
    pub(super) fn ignore(&mut self, keys: &[Key], problem: &str) {
        for key in keys.iter().filter(|key| self.given.contains_key(key)) {
            self.doubts.add(&key.full(self.dialect), problem);
        }
    }

    /// Adds a fault for each of `keys` that is given.
    pub(super) fn refuse(&mut self, keys: &[Key], problem: &str, accepted: &str) {
        let given = keys.iter().filter(|key| self.given.contains_key(key));
        self.faults.extend(given.map(|key| AttributeError::new(key.full(self.dialect), problem, accepted)));
    }
}

/// The prefix of a volume; `usual` if it has no known one.
///
/// csi-driver-spiffe ignores what has another prefix than its own, and cert-manager's csi-driver takes it for annotations. So each of
/// the two prefixes wins over the other one under its driver's name. Neither is served together with ours.
pub(super) fn dialect(raw: &RawAttributes, usual: Dialect) -> Result<Dialect, AttributeError> {
    let first = |dialect: Dialect| {
        raw.map().keys().find(|key| key.split_once('/').is_some_and(|(prefix, _)| prefix == dialect.prefix()))
    };
    let peers = match usual {
        Dialect::CsiDriverSpiffe => [Dialect::CsiDriverSpiffe, Dialect::CertManager],
        Dialect::CertManager | Dialect::Certlet => [Dialect::CertManager, Dialect::CsiDriverSpiffe],
    };
    let theirs = peers.into_iter().find_map(|peer| Some((peer, first(peer)?)));
    match (theirs, first(Dialect::Certlet)) {
        (Some((peer, theirs)), Some(ours)) => Err(AttributeError::new(
            ours,
            format_args!("is in the same volume as {}", named(theirs.clone())),
            format_args!("one prefix for the whole volume, csi.certlet.io/ or {}/", peer.prefix()),
        )),
        (Some(_), None) if usual == Dialect::CsiDriverSpiffe => Ok(usual),
        (Some((peer, _)), None) => Ok(peer),
        (None, Some(_)) => Ok(Dialect::Certlet),
        (None, None) => Ok(usual),
    }
}

/// The known attribute with the nearest name, with its prefix. One that exists under our prefix only is named with that.
fn nearest(name: &str, dialect: Dialect) -> String {
    if TABLE.iter().any(|row| row.name == name) {
        return format!("{}/{name}", Dialect::Certlet.prefix());
    }
    let names = TABLE.iter().filter(|row| row.belongs_to(dialect)).map(|row| row.name);
    format!("{}/{}", dialect.prefix(), nearest_name(name, names).unwrap_or_default())
}
