//! Classes of identity: what the operator gives to the volumes that name a class, and what their pods may still set.
//!
//! [`resolve`] joins the attributes of a pod with those of its class. The result is parsed as if the pod had written all of it.

mod file;

pub(crate) use file::ClassFile;

use super::context::within_limits;
use super::defaults::{OperatorDefaults, SpiffeIds};
use super::errors::{AttributeError, AttributeErrors};
use super::fields::dialect;
use super::rows::{Key, TABLE};
use crate::model::{Dialect, RawAttributes, VolumeClass, WorkloadIdentity, shown, shown_list};
use file::Class;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The operator's classes: `--classes` and `--require-class`. Clones share the file that is in force.
#[derive(Clone, Debug)]
pub struct OperatorClasses(Origin);

/// Where classes come from.
#[derive(Clone, Debug)]
enum Origin {
    /// There are none.
    Absent {
        /// Why not, for people.
        why: &'static str,
    },
    /// Those of a file.
    File {
        /// The version that is in force. Clones share it.
        current: Arc<RwLock<Arc<ClassFile>>>,
        /// `--require-class`: a volume without a class is refused.
        is_required: bool,
    },
}

impl Default for OperatorClasses {
    fn default() -> Self {
        Self(Origin::Absent { why: "the driver runs without --classes" })
    }
}

impl OperatorClasses {
    /// The classes of a file. With `is_required`, a volume without a class is refused.
    pub(crate) fn new(file: ClassFile, is_required: bool) -> Self {
        Self(Origin::File { current: Arc::new(RwLock::new(Arc::new(file))), is_required })
    }

    /// Those of a sidecar, which has none: its pod's author writes its attributes, and the operator has no file there.
    pub(crate) fn of_sidecar() -> Self {
        Self(Origin::Absent { why: "classes are for the volumes of the CSI driver, and a sidecar has none" })
    }

    /// Puts another version of the file in force. Returns whether it differs from the last one.
    pub(crate) fn set(&self, file: ClassFile) -> bool {
        let Origin::File { current, .. } = &self.0 else { return false };
        let mut current = current.write();
        let is_new = **current != file;
        if is_new {
            *current = Arc::new(file);
        }
        is_new
    }

    /// What a pod may set in a class; none: there is no such class.
    pub(crate) fn allowed(&self, name: &str) -> Option<Vec<String>> {
        let Origin::File { current, .. } = &self.0 else { return None };
        Some(current.read().class(name)?.allow.iter().cloned().collect())
    }
}

/// What a class made of the attributes of a volume before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last<'a> {
    pub(super) class: &'a VolumeClass,
    /// Whether the volume is mounted, so that its socket stays as it is.
    pub(super) is_mounted: bool,
}

/// The class of a volume with what it makes of the volume's attributes; none: the volume is of no class.
///
/// `last` is what a class made of them before: the volume is of a class, whatever its attributes say. Once it is mounted, it keeps its
/// socket.
pub(super) fn resolve(
    raw: &RawAttributes,
    pod: &WorkloadIdentity,
    defaults: &OperatorDefaults,
    last: Option<Last<'_>>,
) -> Result<Option<VolumeClass>, AttributeErrors> {
    // The parser says what is wrong with two prefixes in one volume.
    let Ok(dialect) = dialect(raw, defaults.dialect) else { return Ok(None) };
    let named = raw.value(&Key::Class.full(Dialect::Certlet)).filter(|name| !name.is_empty());
    let (file, is_required) = match &defaults.classes.0 {
        Origin::File { current, is_required } => (Arc::clone(&current.read()), *is_required),
        Origin::Absent { why } => {
            let last = last.map(|last| last.class.name.as_str());
            let Some(name) = named.or(last) else { return Ok(None) };
            let problem = format!("{} is not a class: {why}", shown(name));
            return Err(refused(&problem, "no class, but the attributes that it would give"));
        }
    };
    let is_bare = dialect == Dialect::Certlet && raw.map().values().all(String::is_empty);
    let default = file.default_class().filter(|_| is_bare);
    let usable = || usable_by(&file, pod);
    let Some(name) = named.or(default) else {
        return match last {
            Some(last) => {
                let name = shown(&last.class.name);
                let problem = format!("was the default class {name}, and there is no default class any more");
                Err(refused(&problem, &usable()))
            }
            None if is_required => Err(refused("is required (--require-class)", &usable())),
            None => Ok(None),
        };
    };
    let Some(class) = file.class(name) else {
        return Err(refused(&format!("{} is not a class", shown(name)), &usable()));
    };
    if !class.is_for(pod) {
        let [name, account, namespace] = [name, &pod.service_account, &pod.namespace].map(shown);
        let problem =
            format!("the class {name} is not for the service account {account} in the namespace {namespace}");
        return Err(refused(&problem, &usable()));
    }
    let mounted = last.filter(|last| last.is_mounted).map(|last| last.class);
    Ok(Some(class.of_volume(name, joined(name, class, raw, mounted)?)))
}

/// The SPIFFE IDs of a class; none: those of the driver.
pub(super) fn spiffe_ids(class: &VolumeClass, defaults: &OperatorDefaults) -> Option<SpiffeIds> {
    let VolumeClass { trust_domain, spiffe_id_template: template, .. } = class;
    if trust_domain.is_none() && template.is_none() {
        return None;
    }
    // A file whose classes make no IDs is not put in force.
    SpiffeIds::of_class(trust_domain.as_deref(), template.as_deref(), defaults.spiffe_ids.as_ref())?.ok()
}

/// A fault of the attribute `class`.
fn refused(problem: &str, accepted: &str) -> AttributeErrors {
    AttributeErrors::new(vec![AttributeError::new(Key::Class.full(Dialect::Certlet), problem, accepted)])
}

/// The classes that a pod may use, for people. It does not tell a pod what others have.
fn usable_by(file: &ClassFile, pod: &WorkloadIdentity) -> String {
    let names: Vec<&str> =
        file.classes().filter(|(_, class)| class.is_for(pod)).map(|(name, _)| name).collect();
    if names.is_empty() { "no class is for this pod".to_owned() } else { shown_list(&names, ", ") }
}

/// The attributes of pod and class together.
fn joined(
    name: &str,
    class: &Class,
    raw: &RawAttributes,
    mounted: Option<&VolumeClass>,
) -> Result<RawAttributes, AttributeErrors> {
    let mut joined: BTreeMap<String, String> = class.attributes().collect();
    let mut faults = Vec::new();
    let own_key = Key::Class.full(Dialect::Certlet);
    // Clients of a running pod are connected to its socket, and its directory has the shape that fits.
    let kept = [Key::SocketFile, Key::Files].map(|key| key.full(Dialect::Certlet));
    let is_kept = |key: &String| mounted.is_some() && kept.contains(key);
    // An empty value counts as missing.
    let of_pod =
        raw.map().iter().filter(|(key, value)| **key != own_key && !value.is_empty() && !is_kept(key));
    for (key, value) in of_pod {
        // The parser says what is wrong with an unknown attribute.
        let row = TABLE.iter().find(|row| row.key.full(Dialect::Certlet) == *key);
        match row.filter(|row| !class.allow.contains(row.name)) {
            None => drop(joined.insert(key.clone(), value.clone())),
            Some(row) => faults.push(not_allowed(row.key, name, class, joined.contains_key(key))),
        }
    }
    joined.insert(own_key, name.to_owned());
    if let Some(mounted) = mounted {
        for key in kept {
            match mounted.attributes.map().get(&key) {
                Some(value) => drop(joined.insert(key, value.clone())),
                None => drop(joined.remove(&key)),
            }
        }
    }
    let joined: RawAttributes = joined.into_iter().collect();
    faults.extend(within_limits(&joined).err());
    if faults.is_empty() { Ok(joined) } else { Err(AttributeErrors::new(faults)) }
}

/// The fault that a pod sets what its class does not allow.
fn not_allowed(key: Key, name: &str, class: &Class, is_given: bool) -> AttributeError {
    let name = shown(name);
    let problem = if is_given {
        format!("is decided by the class {name}, and a pod cannot change it")
    } else {
        format!("cannot be set by a pod of the class {name}")
    };
    let allowed: Vec<&str> = class.allow.iter().map(String::as_str).collect();
    let allowed = if allowed.is_empty() { "nothing".to_owned() } else { shown_list(&allowed, ", ") };
    AttributeError::new(
        key.full(Dialect::Certlet),
        problem,
        format_args!("remove it; pods of this class may set: {allowed}"),
    )
}

#[cfg(test)]
mod tests;
