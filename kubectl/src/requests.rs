//! What the objects of a namespace show: Pods, Events and CertificateRequests.

use crate::certificate::{self, Certificate};
use crate::kubectl::{Kubectl, KubectlError};
use crate::objects::{CertificateRequest, Condition, Event, List, Pod};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// certlet's annotation with the id of the volume.
const VOLUME_ANNOTATION: &str = "certlet.io/volume-id";

/// The objects of a namespace, or of all.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) pods: Vec<Pod>,
    pub(crate) events: Vec<Event>,
    pub(crate) requests: Vec<CertificateRequest>,
    /// What this user may not read.
    pub(crate) notices: Vec<String>,
}

/// The requests of one volume, the newest first.
#[derive(Debug)]
pub(crate) struct OfVolume<'o> {
    pub(crate) requests: Vec<&'o CertificateRequest>,
}

impl Objects {
    /// Reads them. `scope` is a flag of kubectl.
    pub(crate) fn read(kubectl: &Kubectl, scope: &str, pod: Option<&str>) -> Result<Self, KubectlError> {
        let pods = match pod {
            Some(name) => vec![kubectl.get::<Pod>(&["pod", name, scope])?],
            None => kubectl.get::<List<Pod>>(&["pods", scope])?.items,
        };
        let mut objects = Self { pods, ..Self::default() };
        let on_pod =
            pod.map(|name| format!("--field-selector=involvedObject.kind=Pod,involvedObject.name={name}"));
        let mut args = vec!["events", scope];
        args.extend(on_pod.as_deref());
        objects.events = optional(kubectl.get(&args), "Events", &mut objects.notices)?;
        let requests = kubectl.get(&["certificaterequests.cert-manager.io", scope]);
        objects.requests = optional(requests, "CertificateRequests", &mut objects.notices)?;
        Ok(objects)
    }

    /// The requests of a pod, by volume.
    pub(crate) fn of_pod(&self, pod: &Pod) -> Vec<OfVolume<'_>> {
        let mut volumes: BTreeMap<&str, Vec<&CertificateRequest>> = BTreeMap::new();
        for request in &self.requests {
            let is_owner =
                |owner: &crate::objects::Owner| owner.kind == "Pod" && owner.uid == pod.metadata.uid;
            if request.metadata.owner_references.iter().any(is_owner) {
                let id = request.metadata.annotations.get(VOLUME_ANNOTATION).map_or("", String::as_str);
                volumes.entry(id).or_default().push(request);
            }
        }
        let mut volumes: Vec<_> = volumes.into_values().map(|requests| OfVolume { requests }).collect();
        for of_volume in &mut volumes {
            of_volume.requests.sort_by_key(|request| Reverse(request.metadata.creation_timestamp));
        }
        volumes
    }

    /// The Events of a pod that are about its certificates, the oldest first.
    pub(crate) fn events_of(&self, pod: &Pod) -> Vec<&Event> {
        let about = self.events.iter().filter(|event| event.is_about(pod) && event.is_of_certificates());
        let mut events: Vec<&Event> = about.collect();
        events.sort_by_key(|event| event.at());
        events
    }

    /// The newest of these Events if it is a warning, and younger than the certificate in use.
    pub(crate) fn last_warning(&self, pod: &Pod, since: Option<Timestamp>) -> Option<String> {
        let last = self.events_of(pod).into_iter().next_back()?;
        let is_young = since.is_none_or(|since| last.at().is_none_or(|at| at >= since));
        (last.is_warning() && is_young).then(|| format!("{}: {}", last.reason, last.message))
    }
}

/// The items; none, with a notice, if this user may not read them or the cluster has no such kind.
fn optional<T>(
    read: Result<List<T>, KubectlError>,
    kind: &str,
    notices: &mut Vec<String>,
) -> Result<Vec<T>, KubectlError> {
    match read {
        Ok(list) => Ok(list.items),
        Err(error) => {
            let has_no_kind = |said: &str| said.contains("the server doesn't have a resource type");
            if !error.is_forbidden() && !matches!(&error, KubectlError::Failed(said) if has_no_kind(said)) {
                return Err(error);
            }
            notices.push(format!("{kind} cannot be read: {error}"));
            Ok(Vec::new())
        }
    }
}

impl OfVolume<'_> {
    /// The newest request.
    pub(crate) fn newest(&self) -> Option<&CertificateRequest> {
        self.requests.first().copied()
    }

    /// The newest certificate that a request has.
    pub(crate) fn certificate(&self) -> Option<Certificate> {
        self.requests.iter().find_map(|request| certificate::read(&request.status.certificate))
    }

    /// Why the newest request has no certificate; none: it has one.
    pub(crate) fn waits_for(&self) -> Option<String> {
        let request = self.newest()?;
        if !request.status.certificate.is_empty() {
            return None;
        }
        let name = &request.metadata.name;
        let conditions = &request.status.conditions;
        let is = |of: &str, status: &str| {
            let matches = move |condition: &&Condition| condition.r#type == of && condition.status == status;
            conditions.iter().find(matches)
        };
        let told =
            is("Denied", "True").or_else(|| is("InvalidRequest", "True")).or_else(|| is("Ready", "False"));
        Some(match told {
            Some(condition) => format!("request {name}: {}", condition.shown()),
            None if is("Approved", "True").is_none() => {
                format!("request {name} waits for its approval")
            }
            None => format!("request {name} is approved, and waits for its issuer"),
        })
    }
}
