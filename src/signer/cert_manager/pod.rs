//! What the readiness gates need of a pod. Everything else is skipped while the pod is read: parsed whole, the 2 MiB that an
//! answer may have can take 95 MiB.

use super::gate::Gate;
use crate::kube::read_text;
use crate::model::clipped;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

/// What a pod has of that which the gates name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pod<'g> {
    /// Whether it has an IPv4 address.
    pub(super) has_ipv4: bool,
    /// Whether it has an IPv6 address.
    pub(super) has_ipv6: bool,
    /// The status of its conditions, by type. Of several with one type the first counts.
    pub(super) conditions: HashMap<&'g str, String>,
    /// The keys of its annotations whose values are not empty.
    pub(super) annotations: HashSet<&'g str>,
}

/// Longest status of a condition that is kept, in bytes. Kubernetes knows `True`, `False` and `Unknown`.
const MAX_STATUS: usize = 32;

impl<'g> Pod<'g> {
    /// Reads a pod, JSON of `v1`.
    pub(super) fn read(json: &[u8], gates: &'g [Gate]) -> Result<Self, serde_json::Error> {
        let mut pod = Self::default();
        let mut json = serde_json::Deserializer::from_slice(json);
        Reader { part: Part::Pod, gates, pod: &mut pod }.deserialize(&mut json)?;
        json.end()?;
        Ok(pod)
    }
}

/// A part of a pod that is not skipped.
#[derive(Clone, Copy)]
enum Part {
    Pod,
    Metadata,
    Annotations,
    Status,
    Addresses,
    Conditions,
}

impl Part {
    /// The part in a field of this part.
    fn field(self, name: &str) -> Option<Self> {
        match (self, name) {
            (Self::Pod, "metadata") => Some(Self::Metadata),
            (Self::Pod, "status") => Some(Self::Status),
            (Self::Metadata, "annotations") => Some(Self::Annotations),
            (Self::Status, "podIPs") => Some(Self::Addresses),
            (Self::Status, "conditions") => Some(Self::Conditions),
            _ => None,
        }
    }
}

/// Reads one part into the pod.
struct Reader<'p, 'g> {
    part: Part,
    gates: &'g [Gate],
    pod: &'p mut Pod<'g>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Address<'a> {
    #[serde(borrow)]
    ip: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
}

impl<'g> Reader<'_, 'g> {
    fn part(&mut self, part: Part) -> Reader<'_, 'g> {
        Reader { part, gates: self.gates, pod: self.pod }
    }

    fn add_address(&mut self, address: &Address<'_>) {
        match address.ip.parse() {
            Ok(IpAddr::V4(_)) => self.pod.has_ipv4 = true,
            Ok(IpAddr::V6(_)) => self.pod.has_ipv6 = true,
            Err(_) => {}
        }
    }

    fn add_condition(&mut self, condition: &Condition<'_>) {
        let kinds = self.gates.iter().filter_map(|gate| match gate {
            Gate::PodCondition { kind, .. } => Some(kind.as_str()),
            _ => None,
        });
        if let Some(kind) = kinds.into_iter().find(|kind| **kind == *condition.kind) {
            let status = || clipped(&condition.status, MAX_STATUS);
            self.pod.conditions.entry(kind).or_insert_with(status);
        }
    }

    /// The key, if a gate names it.
    fn named_annotation(&self, key: &str) -> Option<&'g str> {
        let keys = self.gates.iter().filter_map(|gate| match gate {
            Gate::PodAnnotation(key) => Some(key.as_str()),
            _ => None,
        });
        keys.into_iter().find(|named| *named == key)
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part of a pod")
    }

    /// `null`, as an empty list can be written.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key::<Cow<'_, str>>()? {
            if let Some(part) = self.part.field(&name) {
                fields.next_value_seed(self.part(part))?;
            } else if let (Part::Annotations, Some(key)) = (self.part, self.named_annotation(&name)) {
                if fields.next_value::<HasText>()?.0 {
                    self.pod.annotations.insert(key);
                }
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        match self.part {
            Part::Addresses => {
                while let Some(address) = elements.next_element()? {
                    self.add_address(&address);
                }
            }
            Part::Conditions => {
                while let Some(condition) = elements.next_element()? {
                    self.add_condition(&condition);
                }
            }
            _ => while elements.next_element::<IgnoredAny>()?.is_some() {},
        }
        Ok(())
    }
}

/// Whether a text is not empty.
struct HasText(bool);

impl<'de> Deserialize<'de> for HasText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, |text| Self(!text.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_gates_name_is_kept() {
        let gates: Vec<Gate> =
            ["pod-annotation:net", "pod-condition:Net"].iter().map(|gate| gate.parse().unwrap()).collect();
        let json = r#"{
            "kind": "Pod", "spec": {"containers": [{"name": "a", "env": [{}, {}]}]},
            "metadata": {"name": "web-0", "annotations": {"net": "up", "other": "x"}, "managedFields": [{}]},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Net", "status": "False", "message": ""},
                    {"type": "Net", "status": "True"}],
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "none"}]
            }
        }"#;
        let expected = Pod {
            has_ipv4: true,
            has_ipv6: false,
            conditions: [("Net", "False".to_owned())].into(),
            annotations: ["net"].into(),
        };
        assert_eq!(Pod::read(json.as_bytes(), &gates).unwrap(), expected);
    }

    #[test]
    fn a_pod_without_status_or_annotations_has_nothing() {
        for json in ["{}", r#"{"metadata":{"annotations":null},"status":{"podIPs":null,"conditions":[]}}"#] {
            assert_eq!(Pod::read(json.as_bytes(), &[]).unwrap(), Pod::default(), "{json}");
        }
        for json in ["", "{", "{} {}", r#"{"status":{"podIPs":[{"ip":1}]}}"#] {
            assert!(Pod::read(json.as_bytes(), &[]).is_err(), "{json}");
        }
    }
}
