//! What the readiness gates and `${POD_IP}` need of a pod, and how its containers mount the volume. Everything else is skipped while the pod is read:
//! parsed whole, the 2 MiB that an answer may have can take 95 MiB.

use super::gate::Gate;
use crate::kube::read_text;
use crate::model::{clipped, hex, sha256};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

/// What a pod has of that which the gates name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pod<'g> {
    /// Its uid.
    pub(super) uid: String,
    /// Its primary address: the first of `status.podIPs`.
    pub(super) address: Option<IpAddr>,
    /// Whether it has an IPv4 address.
    pub(super) has_ipv4: bool,
    /// Whether it has an IPv6 address.
    pub(super) has_ipv6: bool,
    /// The status of its conditions, by type. Of several with one type the first counts.
    pub(super) conditions: HashMap<&'g str, String>,
    /// The keys of its annotations whose values are not empty.
    pub(super) annotations: HashSet<&'g str>,
    /// The first of its containers that mount the volume.
    pub(super) containers: Vec<Container>,
    /// Whether its `securityContext` has an `fsGroup`.
    pub(super) has_fs_group: bool,
    /// The `runAsUser` of its `securityContext`.
    pub(super) user: Option<i64>,
}

/// A container that mounts the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Container {
    /// Its name.
    pub(super) name: String,
    /// The `runAsUser` of its `securityContext`.
    pub(super) user: Option<i64>,
    /// Whether it mounts a part of the volume by `subPath`.
    pub(super) has_sub_path: bool,
    is_of_volume: bool,
}

/// So many containers are kept, and so many bytes of a name.
const MAX_CONTAINERS: usize = 16;
const MAX_NAME: usize = 63;

/// The kubelet's id of an inline volume: a hash of the pod's uid and the volume's name.
fn inline_volume_id(pod_uid: &str, name: &str) -> String {
    format!("csi-{}", hex(&sha256(&[pod_uid.as_bytes(), name.as_bytes()])))
}

/// Longest status of a condition that is kept, in bytes. Kubernetes knows `True`, `False` and `Unknown`.
const MAX_STATUS: usize = 32;

impl<'g> Pod<'g> {
    /// Reads a pod, JSON of `v1`, for its volume with this id.
    pub(super) fn read(
        json: &[u8],
        gates: &'g [Gate],
        volume: VolumeOfPod<'_>,
    ) -> Result<Self, serde_json::Error> {
        let mut pod = Self::default();
        let mut json = serde_json::Deserializer::from_slice(json);
        Reader { part: Part::Pod, gates, volume, pod: &mut pod }.deserialize(&mut json)?;
        json.end()?;
        pod.containers.retain(|container| container.is_of_volume);
        Ok(pod)
    }
}

/// A volume, and the pod that it belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct VolumeOfPod<'a> {
    /// The volume's id.
    pub(super) id: &'a str,
    /// The pod's uid.
    pub(super) pod_uid: &'a str,
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
    Spec,
    Security,
    Containers,
    Container,
    ContainerSecurity,
    Mounts,
}

impl Part {
    /// The part in a field of this part.
    fn field(self, name: &str) -> Option<Self> {
        match (self, name) {
            (Self::Pod, "metadata") => Some(Self::Metadata),
            (Self::Pod, "status") => Some(Self::Status),
            (Self::Pod, "spec") => Some(Self::Spec),
            (Self::Spec, "securityContext") => Some(Self::Security),
            (Self::Spec, "containers" | "initContainers") => Some(Self::Containers),
            (Self::Container, "securityContext") => Some(Self::ContainerSecurity),
            (Self::Container, "volumeMounts") => Some(Self::Mounts),
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
    volume: VolumeOfPod<'p>,
    pod: &'p mut Pod<'g>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mount<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    sub_path: Cow<'a, str>,
    #[serde(borrow)]
    sub_path_expr: Cow<'a, str>,
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
        Reader { part, gates: self.gates, volume: self.volume, pod: self.pod }
    }

    fn add_mount(&mut self, mount: &Mount<'_>) {
        if inline_volume_id(self.volume.pod_uid, &mount.name) == self.volume.id
            && let Some(container) = self.pod.containers.last_mut()
        {
            container.is_of_volume = true;
            container.has_sub_path |= !mount.sub_path.is_empty() || !mount.sub_path_expr.is_empty();
        }
    }

    /// Keeps a field of this part. False if it is none that is kept.
    fn keep<'de, A: MapAccess<'de>>(&mut self, name: &str, fields: &mut A) -> Result<bool, A::Error> {
        match (self.part, name) {
            (Part::Metadata, "uid") => {
                self.pod.uid = clipped(&fields.next_value::<Cow<'_, str>>()?, MAX_NAME);
            }
            (Part::Security, "fsGroup") => {
                self.pod.has_fs_group = fields.next_value::<Option<i64>>()?.is_some();
            }
            (Part::Security, "runAsUser") => self.pod.user = fields.next_value()?,
            (Part::Container | Part::ContainerSecurity, _) => {
                let Some(container) = self.pod.containers.last_mut() else { return Ok(false) };
                match (self.part, name) {
                    (Part::Container, "name") => {
                        container.name = clipped(&fields.next_value::<Cow<'_, str>>()?, MAX_NAME);
                    }
                    (Part::ContainerSecurity, "runAsUser") => container.user = fields.next_value()?,
                    _ => return Ok(false),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn add_address(&mut self, address: &Address<'_>) {
        let Ok(address) = address.ip.parse::<IpAddr>() else { return };
        match address {
            IpAddr::V4(_) => self.pod.has_ipv4 = true,
            IpAddr::V6(_) => self.pod.has_ipv6 = true,
        }
        self.pod.address.get_or_insert(address);
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
            } else if !self.keep(&name, &mut fields)? {
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
            Part::Containers => {
                self.pod.containers.push(Container::default());
                while elements.next_element_seed(self.part(Part::Container))?.is_some() {
                    // One that does not mount the volume makes room for the next, and so does one too many.
                    let containers = &mut self.pod.containers;
                    containers.retain(|container| container.is_of_volume);
                    containers.truncate(MAX_CONTAINERS);
                    containers.push(Container::default());
                }
                self.pod.containers.pop();
            }
            Part::Mounts => {
                while let Some(mount) = elements.next_element()? {
                    self.add_mount(&mount);
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

    const NONE: VolumeOfPod<'static> = VolumeOfPod { id: "csi-0", pod_uid: "u" };

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
            address: Some([10, 0, 0, 1].into()),
            has_ipv4: true,
            has_ipv6: false,
            conditions: [("Net", "False".to_owned())].into(),
            annotations: ["net"].into(),
            ..Pod::default()
        };
        assert_eq!(Pod::read(json.as_bytes(), &gates, NONE).unwrap(), expected);
    }

    #[test]
    fn containers_that_mount_the_volume_are_kept_with_their_users() {
        let id = inline_volume_id("u-1", "tls");
        let json = r#"{"spec": {
            "initContainers": [{"name": "init", "volumeMounts": [{"name": "tls", "mountPath": "/tls"}]}],
            "containers": [
                {"name": "other", "securityContext": {"runAsUser": 5}, "volumeMounts": [{"name": "data", "subPath": "x"}]},
                {"volumeMounts": [{"name": "tls", "subPath": "tls.crt"}], "securityContext": {"runAsUser": 7}, "name": "web"},
                {"name": "last"}
            ],
            "securityContext": {"runAsUser": 1000, "fsGroup": 2000}
        }}"#;
        let pod = Pod::read(json.as_bytes(), &[], VolumeOfPod { id: &id, pod_uid: "u-1" }).unwrap();
        let container = |name: &str, user, has_sub_path| Container {
            name: name.into(),
            user,
            has_sub_path,
            is_of_volume: true,
        };
        assert_eq!(pod.containers, [container("init", None, false), container("web", Some(7), true)]);
        assert_eq!((pod.user, pod.has_fs_group), (Some(1000), true));
        let other = Pod::read(json.as_bytes(), &[], VolumeOfPod { id: &id, pod_uid: "u-2" }).unwrap();
        assert!(other.containers.is_empty());
    }

    #[test]
    fn a_pod_without_status_or_annotations_has_nothing() {
        for json in ["{}", r#"{"metadata":{"annotations":null},"status":{"podIPs":null,"conditions":[]}}"#] {
            assert_eq!(Pod::read(json.as_bytes(), &[], NONE).unwrap(), Pod::default(), "{json}");
        }
        for json in ["", "{", "{} {}", r#"{"status":{"podIPs":[{"ip":1}]}}"#] {
            assert!(Pod::read(json.as_bytes(), &[], NONE).is_err(), "{json}");
        }
    }
}
