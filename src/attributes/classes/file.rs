//! The file of classes, in YAML. An unknown field is an error, because a mistyped limit must not become no limit.

use super::super::defaults::{OperatorDefaults, SpiffeIds, SpiffeIdsError};
use super::super::errors::{AttributeError, AttributeErrors};
use super::super::parse::parse_class;
use super::super::rows::{Key, TABLE};
use crate::model::{
    Dialect, Pattern, PatternKind, RawAttributes, VolumeClass, WorkloadIdentity, nearest_name, shown,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Limit on the attributes of one class: the other half of what a volume may have is the pod's.
const MAX_CLASS_BYTES: usize = super::super::context::MAX_BYTES / 2;
/// Limit on the name of a class, that of a label's value in Kubernetes.
const MAX_NAME_BYTES: usize = 63;

/// The classes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ClassFile {
    /// The version of the format: 1.
    version: u32,
    /// The class of volumes without attributes.
    #[serde(default)]
    default: Option<String>,
    classes: BTreeMap<String, Class>,
}

/// One class.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Class {
    /// The pods that may use it; none: all.
    #[serde(default, rename = "use")]
    users: Option<Users>,
    /// By their names without prefix.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    /// Instead of `--trust-domain`.
    #[serde(default)]
    trust_domain: Option<String>,
    /// Instead of `--spiffe-id-template`.
    #[serde(default)]
    spiffe_id_template: Option<String>,
    /// The attributes that a pod may set: beside what the class gives, or instead of it.
    #[serde(default)]
    pub(super) allow: BTreeSet<String>,
}

/// The pods that may use a class. A missing list is for all pods, an empty one for none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Users {
    #[serde(default)]
    namespaces: Option<Vec<Pattern>>,
    /// As NAMESPACE/NAME.
    #[serde(default)]
    service_accounts: Option<Vec<Pattern>>,
}

impl Class {
    /// Whether a pod may use it.
    pub(super) fn is_for(&self, pod: &WorkloadIdentity) -> bool {
        let Some(Users { namespaces, service_accounts }) = &self.users else { return true };
        let fits = |patterns: &Option<Vec<Pattern>>, name: &str| {
            let fits = |pattern: &Pattern| pattern.fits(name, PatternKind::Path, pod);
            patterns.as_ref().is_none_or(|patterns| patterns.iter().any(fits))
        };
        fits(namespaces, &pod.namespace)
            && fits(service_accounts, &format!("{}/{}", pod.namespace, pod.service_account))
    }

    /// Its attributes, by their full keys. An empty value counts as missing.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (String, String)> {
        let given = self.attributes.iter().filter(|(_, value)| !value.is_empty());
        given.map(|(name, value)| (format!("{}/{name}", Dialect::Certlet.prefix()), value.clone()))
    }

    fn check(&self, defaults: &OperatorDefaults) -> Result<(), String> {
        let given = self.attributes.keys().map(|name| ("attributes", name));
        for (field, name) in given.chain(self.allow.iter().map(|name| ("allow", name))) {
            check_name(name).map_err(|problem| format!("{field}: {} {problem}", shown(name)))?;
        }
        for key in [Key::Pkcs12Password, Key::Pkcs12PasswordKey] {
            let name = key.row().name;
            if self.attributes.contains_key(name) {
                return Err(format!(
                    "attributes: {name:?} belongs to a pod; accepted: \"{}\", or {name:?} in allow",
                    Key::Pkcs12PasswordFile.row().name
                ));
            }
        }
        let bytes: usize = self.attributes().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > MAX_CLASS_BYTES {
            return Err(format!("attributes: have {bytes} bytes; accepted: at most {MAX_CLASS_BYTES}"));
        }
        self.check_spiffe_ids(defaults)
    }

    fn check_spiffe_ids(&self, defaults: &OperatorDefaults) -> Result<(), String> {
        let template = self.spiffe_id_template.as_deref();
        let ids = SpiffeIds::of_class(self.trust_domain.as_deref(), template, defaults.spiffe_ids.as_ref());
        let Some(ids) = ids else {
            let lacks_domain = template.map(|_| {
                "spiffeIdTemplate: given without a trust domain; accepted: with trustDomain, or with the driver's --trust-domain"
            });
            return lacks_domain.map_or(Ok(()), |problem| Err(problem.to_owned()));
        };
        ids.map(drop).map_err(|error| {
            let (field, value, problem) = match error {
                SpiffeIdsError::TrustDomain(value, problem) => ("trustDomain", value, problem),
                SpiffeIdsError::Template(value, problem) => ("spiffeIdTemplate", value, problem),
            };
            format!("{field}: {} {problem}; accepted: as the flag of that name", shown(&value))
        })
    }

    /// What the parser says of a volume that has nothing but this class.
    fn faults(&self, name: &str, defaults: &OperatorDefaults) -> Option<AttributeErrors> {
        let pod = WorkloadIdentity {
            namespace: "namespace".into(),
            name: "pod".into(),
            uid: "00000000-0000-0000-0000-000000000000".into(),
            service_account: "account".into(),
        };
        let named = (Key::Class.full(Dialect::Certlet), name.to_owned());
        let class = self.of_volume(name, self.attributes().chain([named]).collect());
        parse_class(&Arc::new(class), &pod, defaults).err()
    }

    /// What it makes of a volume, whose attributes and its own are these together.
    pub(super) fn of_volume(&self, name: &str, attributes: RawAttributes) -> VolumeClass {
        let (trust_domain, spiffe_id_template) = (self.trust_domain.clone(), self.spiffe_id_template.clone());
        VolumeClass { name: name.to_owned(), attributes, trust_domain, spiffe_id_template }
    }
}

/// An error if a class can neither give nor allow the attribute.
fn check_name(name: &str) -> Result<(), String> {
    let known = TABLE.iter().filter(|row| row.key != Key::Class).map(|row| row.name);
    if known.clone().any(|known| known == name) {
        return Ok(());
    }
    let nearest = nearest_name(name, known).unwrap_or_default();
    Err(format!("is not an attribute of a volume, without its prefix; the nearest is {nearest:?}"))
}

impl ClassFile {
    /// Limit on the text, that of a ConfigMap.
    pub(crate) const MAX_BYTES: u64 = 1 << 20;

    /// Parses and checks a file. Also returns what is most likely a mistake: a class whose volumes are refused unless their pods set
    /// something.
    pub(crate) fn parse(text: &str, defaults: &OperatorDefaults) -> Result<(Self, Vec<String>), String> {
        if text.len() as u64 > Self::MAX_BYTES {
            return Err(format!("is longer than {} bytes", Self::MAX_BYTES));
        }
        let file: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if file.version != 1 {
            return Err(format!("version: {}; accepted: 1", file.version));
        }
        if let Some(default) = file.default_class().filter(|default| !file.classes.contains_key(*default)) {
            let nearest = nearest_name(default, file.classes.keys().map(String::as_str));
            let nearest = nearest.map_or_else(String::new, |nearest| format!("; the nearest is {nearest:?}"));
            return Err(format!("default: {} is not one of the classes{nearest}", shown(default)));
        }
        let mut warnings = Vec::new();
        for (name, class) in &file.classes {
            if !is_class_name(name) {
                return Err(format!(
                    "classes: {}; accepted: names of at most {MAX_NAME_BYTES} characters of a-z, 0-9 and '-'",
                    shown(name)
                ));
            }
            class.check(defaults).map_err(|problem| format!("class {name:?}: {problem}"))?;
            let Some(faults) = class.faults(name, defaults) else { continue };
            // No volume of this class could be served, or none in which the pod sets nothing instead.
            if class.allow.is_empty() || faults.first().iter().any(AttributeError::is_of_value) {
                return Err(format!("class {name:?}: {faults}"));
            }
            warnings.push(format!("class {name:?}: refused unless the pod sets more: {faults}"));
        }
        Ok((file, warnings))
    }

    /// The class of volumes without attributes.
    pub(super) fn default_class(&self) -> Option<&str> {
        self.default.as_deref()
    }

    /// The class with that name.
    pub(super) fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    /// All classes, with their names.
    pub(super) fn classes(&self) -> impl Iterator<Item = (&str, &Class)> {
        self.classes.iter().map(|(name, class)| (name.as_str(), class))
    }

    /// The number of classes.
    pub(crate) fn len(&self) -> usize {
        self.classes.len()
    }
}

fn is_class_name(name: &str) -> bool {
    let is_inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.chars().all(is_inside)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
