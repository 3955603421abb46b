//! Readiness gates: what must hold of a pod before a request is made for it, as in cert-manager's csi-driver.

use super::errors::{Action, sign_error};
use super::pod::{Pod, VolumeOfPod};
use crate::kube::{CallError, Caller, Cluster};
use crate::model::named::named_enum;
use crate::model::{CertificateSpec, Failure, WorkloadIdentity, jitter};
use crate::platform::Backoff;
use crate::signer::SigningRequest;
use kube::api::GetParams;
use kube::core::Request;
use std::str::FromStr;
use std::time::Duration;

/// One gate; several must all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `pod-ip:any|ipv4|ipv6`: the pod has an address of that family.
    PodIp(IpFamily),
    /// `pod-condition:TYPE[=STATUS]`: the pod has that condition.
    PodCondition {
        /// The condition's type.
        kind: String,
        /// `True`, `False` or `Unknown`.
        status: &'static str,
    },
    /// `pod-annotation:KEY`: the pod has that annotation, and it is not empty.
    PodAnnotation(String),
}

named_enum! {
    /// A family of IP addresses.
    pub enum IpFamily {
        /// Either.
        Any = "any",
        /// IPv4.
        V4 = "ipv4",
        /// IPv6.
        V6 = "ipv6",
    }
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str =
            "is not one of pod-ip:any|ipv4|ipv6, pod-condition:TYPE[=STATUS], pod-annotation:KEY";
        match text.split_once(':').filter(|(_, value)| !value.is_empty()).ok_or(FORMS)? {
            ("pod-ip", family) => IpFamily::from_name(family)
                .map(Self::PodIp)
                .ok_or_else(|| format!("address family {family:?} is not one of any, ipv4, ipv6")),
            ("pod-condition", condition) => {
                let (kind, status) = condition.split_once('=').unwrap_or((condition, ""));
                let status = if status.is_empty() { "True" } else { status };
                if kind.is_empty() {
                    return Err("names no condition type".to_owned());
                }
                ["True", "False", "Unknown"]
                    .into_iter()
                    .find(|known| status.eq_ignore_ascii_case(known))
                    .map(|status| Self::PodCondition { kind: kind.to_owned(), status })
                    .ok_or_else(|| format!("condition status {status:?} is not one of True, False, Unknown"))
            }
            ("pod-annotation", key) => Ok(Self::PodAnnotation(key.to_owned())),
            _ => Err(FORMS.to_owned()),
        }
    }
}

/// The pauses between attempts while a pod is not ready.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateBackoff {
    /// The first pause.
    pub duration: Duration,
    /// How many times longer each next pause is.
    pub factor: f64,
    /// The largest share of a pause that is added as jitter, from 0 to 1.
    pub jitter: f64,
    /// The longest pause before jitter; zero: an hour.
    pub cap: Duration,
}

impl Default for GateBackoff {
    fn default() -> Self {
        Self { duration: Duration::from_secs(1), factor: 2.0, jitter: 0.5, cap: Duration::from_secs(10) }
    }
}

impl GateBackoff {
    /// The pause after this number of earlier attempts; `jitter` is in [0, 1).
    pub(super) fn pause(&self, attempts: u32, jitter: f64) -> Duration {
        /// The cap if the operator sets none.
        const MAX_PAUSE: Duration = Duration::from_hours(1);
        let cap = if self.cap.is_zero() { MAX_PAUSE } else { self.cap };
        let backoff = Backoff::with_factor(self.duration, self.factor, cap);
        backoff.full_pause(attempts).mul_f64(1.0 + self.jitter * jitter)
    }
}

/// Reads the pod and checks all gates; an error if one is closed. Without gates no call is made. Returns what the pod's author should
/// know of how the pod uses the volume.
pub(super) async fn check(
    gates: &[Gate],
    backoff: GateBackoff,
    cluster: &Cluster,
    request: &SigningRequest<'_>,
) -> Result<Option<String>, Failure> {
    if gates.is_empty() {
        return Ok(None);
    }
    let pod = read_pod(cluster, gates, request.identity, request.id.as_str()).await?;
    let reasons: Vec<String> = gates.iter().filter_map(|gate| gate.objection(&pod)).collect();
    if reasons.is_empty() {
        return Ok(advice(&pod, request.spec));
    }
    let attempts = request.not_ready_count;
    let jitter = jitter(request.id.as_str(), &attempts.to_be_bytes());
    let message = format!("no certificate is asked for yet: {}", reasons.join("; "));
    Err(Failure::not_ready(message, backoff.pause(attempts, jitter)))
}

/// Reads a pod, for its volume with this id.
pub(super) async fn read_pod<'g>(
    cluster: &Cluster,
    gates: &'g [Gate],
    identity: &WorkloadIdentity,
    id: &str,
) -> Result<Pod<'g>, Failure> {
    let pods = Request::new(format!("/api/v1/namespaces/{}/pods", identity.namespace));
    let get = pods.get(&identity.name, &GetParams::default());
    let answer = cluster.call(Caller::Driver, get).await;
    let pod = answer.and_then(|answer| {
        let volume = VolumeOfPod { id, pod_uid: &identity.uid };
        Pod::read(&answer, gates, volume).map_err(|error| CallError::Unreadable(error.to_string()))
    });
    pod.map_err(|error| sign_error(&error, Action::ReadPod, identity))
}

/// What makes the volume useless for a container: a mount that never changes, and a key that it cannot read.
fn advice(pod: &Pod<'_>, spec: &CertificateSpec) -> Option<String> {
    let may_read_key = |user: i64| {
        user == 0
            || pod.has_fs_group
            || spec.fs_group.is_some()
            || spec.owner.is_some_and(|owner| i64::from(owner) == user)
            // Perhaps in the group of root, as the image says.
            || spec.dialect.is_peers()
    };
    let advice = pod.containers.iter().filter_map(|container| {
        let name = &container.name;
        if container.has_sub_path {
            return Some(format!(
                "the container {name} mounts a part of the volume by subPath, which stays as it is: its certificate expires; \
                 mount the directory"
            ));
        }
        let user = container.user.or(pod.user).filter(|user| !may_read_key(*user))?;
        Some(format!(
            "the container {name} runs as user {user} and cannot read the private key: set fsGroup in the pod's \
             securityContext, or the attribute owner"
        ))
    });
    let advice: Vec<_> = advice.collect();
    (!advice.is_empty()).then(|| advice.join("; "))
}

impl Gate {
    /// What the pod lacks for this gate.
    fn objection(&self, pod: &Pod<'_>) -> Option<String> {
        match self {
            Self::PodIp(family) => {
                let has = match family {
                    IpFamily::Any => pod.has_ipv4 || pod.has_ipv6,
                    IpFamily::V4 => pod.has_ipv4,
                    IpFamily::V6 => pod.has_ipv6,
                };
                let wanted = if *family == IpFamily::Any { "IP" } else { family.as_str() };
                (!has).then(|| format!("the pod has no {wanted} address yet"))
            }
            Self::PodCondition { kind, status } => match pod.conditions.get(kind.as_str()) {
                Some(found) if found == status => None,
                Some(found) => Some(format!("the pod's condition {kind} is {found}, not {status}")),
                None => Some(format!("the pod has no condition {kind} yet")),
            },
            Self::PodAnnotation(key) => {
                let has = pod.annotations.contains(key.as_str());
                (!has).then(|| format!("the pod has no annotation {key} with a value yet"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection(gate: &str, pod: &str) -> Option<String> {
        let gates = [gate.parse::<Gate>().unwrap()];
        let volume = VolumeOfPod { id: "csi-0", pod_uid: "u" };
        gates[0].objection(&Pod::read(pod.as_bytes(), &gates, volume).unwrap())
    }

    #[test]
    fn gates_read_as_in_cert_managers_csi_driver() {
        let condition = |kind: &str, status| Gate::PodCondition { kind: kind.to_owned(), status };
        assert_eq!("pod-ip:ipv6".parse(), Ok(Gate::PodIp(IpFamily::V6)));
        assert_eq!("pod-condition:Net".parse(), Ok(condition("Net", "True")));
        assert_eq!("pod-condition:Net=fAlse".parse(), Ok(condition("Net", "False")));
        assert_eq!("pod-annotation:a/b".parse(), Ok(Gate::PodAnnotation("a/b".into())));
        for odd in ["", "pod-ip", "pod-ip:", "pod-ip:v4", "pod-condition:=True", "pod-condition:A=no", "x:y"]
        {
            assert!(odd.parse::<Gate>().is_err(), "{odd}");
        }
    }

    #[test]
    fn a_gate_says_what_the_pod_lacks() {
        let pod = r#"{"metadata":{"annotations":{"net":"up","empty":""}},"status":{"podIPs":[{"ip":"10.0.0.1"}],
            "conditions":[{"type":"Net","status":"False"}]}}"#;
        for passing in ["pod-ip:any", "pod-ip:ipv4", "pod-condition:Net=False", "pod-annotation:net"] {
            assert_eq!(objection(passing, pod), None, "{passing}");
        }
        for (gate, says) in [
            ("pod-ip:ipv6", "no ipv6 address"),
            ("pod-condition:Net", "Net is False, not True"),
            ("pod-condition:Other", "no condition Other"),
            ("pod-annotation:empty", "no annotation empty"),
        ] {
            let objection = objection(gate, pod).unwrap();
            assert!(objection.contains(says), "{objection}");
        }
    }

    #[test]
    fn the_author_is_told_of_mounts_and_users_that_cannot_work() {
        let said = |pod: &str, change: fn(&mut CertificateSpec)| {
            let mut spec = crate::x509::testing::attributes();
            change(&mut spec);
            // The id of the volume `tls` of the pod `u`.
            let id = format!("csi-{}", crate::model::hex(&crate::model::sha256(&[b"u", b"tls"])));
            let pod = Pod::read(pod.as_bytes(), &[], VolumeOfPod { id: &id, pod_uid: "u" }).unwrap();
            advice(&pod, &spec).unwrap_or_default()
        };
        let pod = |security: &str, mount: &str| {
            format!(
                r#"{{"spec":{{"securityContext":{{{security}}},"containers":[{{"name":"web","volumeMounts":[{{"name":"tls"{mount}}}]}}]}}}}"#
            )
        };
        let user = pod(r#""runAsUser":1000"#, "");
        assert!(said(&user, |_| {}).contains("web runs as user 1000 and cannot read the private key"));
        assert_eq!(said(&user, |spec| spec.owner = Some(1000)), "");
        assert_eq!(said(&user, |spec| spec.fs_group = Some(7)), "");
        assert_eq!(said(&user, |spec| spec.dialect = crate::model::Dialect::CertManager), "");
        assert_eq!(said(&pod(r#""runAsUser":1000,"fsGroup":7"#, ""), |_| {}), "");
        assert_eq!(said(&pod(r#""runAsUser":0"#, ""), |_| {}), "");
        assert_eq!(said(&pod("", ""), |_| {}), "", "the user is the image's, and not known");
        let sub_path = pod("", r#","subPath":"tls.crt""#);
        assert!(said(&sub_path, |_| {}).contains("web mounts a part of the volume by subPath"));
    }

    #[test]
    fn pauses_grow_up_to_the_cap() {
        let backoff = GateBackoff { jitter: 0.0, ..GateBackoff::default() };
        let pauses: Vec<u64> = (0..6).map(|attempts| backoff.pause(attempts, 0.9).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        assert!(
            GateBackoff { cap: Duration::ZERO, ..backoff }.pause(4_000_000_000, 0.0)
                <= Duration::from_hours(1)
        );
    }
}
