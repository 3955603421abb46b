//! Readiness gates: what a pod must have before a request is made for it, as in cert-manager's csi-driver.

use crate::attributes::{PodIdentity, VolumeId};
use crate::kube::{CallError, Caller, Cluster};
use kube::api::GetParams;
use kube::core::Request;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
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

/// Which addresses count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpFamily {
    /// Either.
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str =
            "is not one of pod-ip:any|ipv4|ipv6, pod-condition:TYPE[=STATUS], pod-annotation:KEY";
        let (kind, value) = text.split_once(':').filter(|(_, value)| !value.is_empty()).ok_or(FORMS)?;
        match kind {
            "pod-ip" => match value {
                "any" => Ok(Self::PodIp(IpFamily::Any)),
                "ipv4" => Ok(Self::PodIp(IpFamily::V4)),
                "ipv6" => Ok(Self::PodIp(IpFamily::V6)),
                _ => Err(format!("address family {value:?} is not one of any, ipv4, ipv6")),
            },
            "pod-condition" => {
                let (kind, status) = value.split_once('=').unwrap_or((value, ""));
                if kind.is_empty() {
                    return Err("names no condition type".to_owned());
                }
                let status = ["True", "False", "Unknown"]
                    .into_iter()
                    .find(|known| {
                        status.eq_ignore_ascii_case(known) || (status.is_empty() && *known == "True")
                    })
                    .ok_or_else(|| {
                        format!("condition status {status:?} is not one of True, False, Unknown")
                    })?;
                Ok(Self::PodCondition { kind: kind.to_owned(), status })
            }
            "pod-annotation" => Ok(Self::PodAnnotation(value.to_owned())),
            _ => Err(FORMS.to_owned()),
        }
    }
}

/// How long to wait before a pod that was not ready is looked at again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateBackoff {
    /// The first pause.
    pub duration: Duration,
    /// How much longer each next one is.
    pub factor: f64,
    /// The share of a pause that is added by chance, from 0 to 1.
    pub jitter: f64,
    /// The longest pause before jitter; zero: none.
    pub cap: Duration,
}

impl Default for GateBackoff {
    fn default() -> Self {
        Self { duration: Duration::from_secs(1), factor: 2.0, jitter: 0.5, cap: Duration::from_secs(10) }
    }
}

impl GateBackoff {
    /// The pause after so many looks; `chance` is in [0, 1).
    fn pause(&self, looks: u32, chance: f64) -> Duration {
        /// What "no cap" comes to: nobody waits longer than this to be looked at.
        const LONGEST: Duration = Duration::from_hours(1);
        let cap = if self.cap.is_zero() { LONGEST } else { self.cap };
        let grown = self.duration.as_secs_f64() * self.factor.powi(i32::try_from(looks).unwrap_or(i32::MAX));
        let grown = if grown.is_finite() { grown.min(cap.as_secs_f64()) } else { cap.as_secs_f64() };
        Duration::from_secs_f64(grown * (1.0 + self.jitter * chance))
    }
}

/// Why a pod may not have its request yet.
pub(super) struct NotReady {
    pub(super) reason: String,
    pub(super) look_again_in: Duration,
}

/// All gates of this driver.
pub(super) struct Gates {
    all: Vec<Gate>,
    backoff: GateBackoff,
    looks: Mutex<HashMap<VolumeId, u32>>,
}

impl Gates {
    pub(super) fn new(gates: Vec<Gate>, backoff: GateBackoff) -> Self {
        Self { all: gates, backoff, looks: Mutex::default() }
    }

    /// Whether a request may be made for the volume's pod. Without gates nobody is asked.
    pub(super) async fn pass(
        &self,
        cluster: &Cluster,
        volume: &VolumeId,
        pod: &PodIdentity,
    ) -> Result<Result<(), NotReady>, CallError> {
        if self.all.is_empty() {
            return Ok(Ok(()));
        }
        let pods = Request::new(format!("/api/v1/namespaces/{}/pods", pod.namespace));
        let answer = cluster.call(Caller::Driver, pods.get(&pod.name, &GetParams::default())).await?;
        let seen: Pod =
            serde_json::from_slice(&answer).map_err(|error| CallError::Unreadable(error.to_string()))?;
        let reasons: Vec<String> = self.all.iter().filter_map(|gate| gate.objection(&seen)).collect();
        if reasons.is_empty() {
            self.forget(volume);
            return Ok(Ok(()));
        }
        let mut all = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = all.entry(volume.clone()).or_default();
        let chance = f64::from(volume.as_str().bytes().fold(0_u8, u8::wrapping_add)) / 256.0;
        let look_again_in = self.backoff.pause(*looks, chance);
        *looks = looks.saturating_add(1);
        Ok(Err(NotReady { reason: reasons.join("; "), look_again_in }))
    }

    pub(super) fn forget(&self, volume: &VolumeId) {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).remove(volume);
    }
}

impl Gate {
    /// What the pod lacks.
    fn objection(&self, pod: &Pod) -> Option<String> {
        match self {
            Self::PodIp(family) => {
                let fits = |ip: &PodIp| {
                    ip.ip.parse::<IpAddr>().is_ok_and(|ip| match family {
                        IpFamily::Any => true,
                        IpFamily::V4 => ip.is_ipv4(),
                        IpFamily::V6 => ip.is_ipv6(),
                    })
                };
                (!pod.status.pod_ips.iter().any(fits)).then(|| format!("the pod has no {family} address yet"))
            }
            Self::PodCondition { kind, status } => {
                match pod.status.conditions.iter().find(|condition| condition.kind == *kind) {
                    Some(condition) if condition.status == *status => None,
                    Some(condition) => {
                        Some(format!("the pod's condition {kind} is {}, not {status}", condition.status))
                    }
                    None => Some(format!("the pod has no condition {kind} yet")),
                }
            }
            Self::PodAnnotation(key) => {
                let has = pod.metadata.annotations.get(key).is_some_and(|value| !value.is_empty());
                (!has).then(|| format!("the pod has no annotation {key} with a value yet"))
            }
        }
    }
}

#[derive(Deserialize)]
struct Pod {
    #[serde(default)]
    metadata: PodMetadata,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Default, Deserialize)]
struct PodMetadata {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    #[serde(default)]
    conditions: Vec<PodCondition>,
}

#[derive(Deserialize)]
struct PodIp {
    ip: String,
}

#[derive(Deserialize)]
struct PodCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection(gate: &str, pod: &str) -> Option<String> {
        gate.parse::<Gate>().unwrap().objection(&serde_json::from_str(pod).unwrap())
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
    fn pauses_grow_up_to_the_cap() {
        let backoff = GateBackoff { jitter: 0.0, ..GateBackoff::default() };
        let pauses: Vec<u64> = (0..6).map(|looks| backoff.pause(looks, 0.9).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        assert!(
            GateBackoff { cap: Duration::ZERO, ..backoff }.pause(4_000_000_000, 0.0)
                <= Duration::from_hours(1)
        );
    }
}
