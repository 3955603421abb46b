//! `kubectl certlet why`: all that is known of a pod's certificates, on one page.

use crate::args::{ClusterArgs, WhyArgs};
use crate::drivers::{self, Unasked};
use crate::kubectl::{Kubectl, KubectlError};
use crate::objects::{CertificateRequest, Csi, Event, Issuer, IssuerRef, Pod};
use crate::report::ReportedVolume;
use crate::requests::{Objects, OfVolume};
use crate::status::{self, Row};
use crate::table::{Color, paint, plain, relative, timestamp};
use crate::{Output, PluginError};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Events that are shown.
const MAX_EVENTS: usize = 10;

/// The page.
struct Page {
    text: String,
    now: Timestamp,
    color: bool,
}

/// What the driver knows of the pod.
enum Known {
    /// Its volumes.
    Volumes(Vec<ReportedVolume>),
    /// Nothing, for this reason.
    Nothing(String),
}

/// Runs the command.
pub(crate) fn run(
    kubectl: &Kubectl,
    cluster: &ClusterArgs,
    args: &WhyArgs,
    color: bool,
) -> Result<Output, PluginError> {
    let namespace = kubectl.namespace(cluster.namespace.as_ref())?;
    let objects = Objects::read(kubectl, &format!("--namespace={namespace}"), Some(&args.pod))?;
    let Some(pod) = objects.pods.first() else {
        return Err(PluginError::Usage(format!("{namespace}/{} is not there", args.pod)));
    };
    let mut notices = objects.notices.clone();
    let mut driver_names = BTreeSet::new();
    let known = ask(kubectl, cluster, pod, &mut notices, &mut driver_names)?;
    let mut page = Page { text: String::new(), now: Timestamp::now(), color };
    page.pod(pod);
    let requests = objects.of_pod(pod);
    let volumes: Vec<_> = pod.certificate_volumes(&driver_names).collect();
    if volumes.is_empty() && !pod.has_sidecar() {
        page.line("", "it has no volume of certlet, and no sidecar", Color::Yellow);
    }
    for (name, csi) in &volumes {
        page.asked_for(name, csi);
        if let Known::Volumes(reported) = &known {
            page.reported(reported.iter().filter(|volume| volume.pod_volume.as_deref() == Some(name)));
        }
        if let ([of_volume], [_]) = (requests.as_slice(), volumes.as_slice()) {
            page.request(kubectl, of_volume);
        }
    }
    if pod.has_sidecar() {
        page.title("Sidecar, container certlet");
        if let Known::Volumes(reported) = &known {
            page.reported(reported.iter());
        }
    }
    if requests.len() != 1 || volumes.len() != 1 {
        // Only the driver knows which of them is which volume's.
        for of_volume in &requests {
            page.title("Requests of one of its volumes");
            page.request(kubectl, of_volume);
        }
    }
    page.events(&objects.events_of(pod));
    notices.push(match known {
        Known::Volumes(_) => {
            "source: the driver of its node, or its sidecar, by exec, and the namespace's objects".to_owned()
        }
        Known::Nothing(why) => {
            format!("source: Pods, Events and CertificateRequests of its namespace alone: {why}")
        }
    });
    Ok(Output { text: page.text, notices, is_incomplete: false })
}

/// Asks the pod's sidecar, or the driver of its node. Adds the drivers' CSI driver names to `driver_names`.
fn ask(
    kubectl: &Kubectl,
    cluster: &ClusterArgs,
    pod: &Pod,
    notices: &mut Vec<String>,
    driver_names: &mut BTreeSet<String>,
) -> Result<Known, PluginError> {
    if pod.has_sidecar() && pod.certificate_volumes(driver_names).next().is_none() {
        return Ok(match drivers::ask_sidecar(kubectl, pod) {
            Ok(report) => {
                notices.extend(drivers::version_notice("the sidecar", &report.version));
                Known::Volumes(report.volumes)
            }
            Err(error) => Known::Nothing(error.to_string()),
        });
    }
    if pod.spec.node_name.is_empty() {
        return Ok(Known::Nothing("it has no node yet".to_owned()));
    }
    match drivers::ask_all(kubectl, cluster, Some(&pod.spec.node_name)) {
        Err(Unasked::Forbidden(why)) => {
            Ok(Known::Nothing(format!("the driver may not be asked: {}", why.trim())))
        }
        Err(Unasked::Failed(error)) => Err(error.into()),
        Ok(asked) => {
            notices.extend(asked.notices);
            driver_names.extend(asked.names);
            if asked.reports.is_empty() {
                let why = asked.missing.into_iter().map(|(node, why)| format!("{node}: {why}"));
                return Ok(Known::Nothing(why.collect::<Vec<_>>().join("; ")));
            }
            let volumes = asked.reports.into_iter().flat_map(|(_, report)| report.volumes);
            let is_its = |volume: &ReportedVolume| {
                volume.pod == pod.metadata.name && volume.namespace == pod.metadata.namespace
            };
            Ok(Known::Volumes(volumes.filter(is_its).collect()))
        }
    }
}

impl Page {
    fn title(&mut self, text: &str) {
        let _infallible = writeln!(self.text, "{}", plain(text));
    }

    /// A label and what belongs to it.
    fn line(&mut self, label: &str, text: &str, color: Color) {
        let text = paint(&plain(text), if self.color { color } else { Color::None });
        let _infallible = writeln!(self.text, "  {label:<12} {text}");
    }

    fn at(&self, at: Timestamp) -> String {
        format!("{} ({})", timestamp(at), relative(at, self.now))
    }

    fn pod(&mut self, pod: &Pod) {
        let node = if pod.spec.node_name.is_empty() { "no node yet" } else { &pod.spec.node_name };
        self.title(&format!("Pod {} on {node}, {}", pod.full_name(), pod.status.phase));
    }

    /// The attributes as the pod's author wrote them, without passwords.
    fn asked_for(&mut self, name: &str, csi: &Csi) {
        self.title(&format!("Volume {name}, driver {}", csi.driver));
        if csi.volume_attributes.is_empty() {
            self.line("asked for", "no attributes: what the operator's flags give", Color::None);
        }
        for (index, (key, value)) in csi.volume_attributes.iter().enumerate() {
            let value = if key.contains("password") { "(not shown)" } else { value };
            let label = if index == 0 { "asked for" } else { "" };
            self.line(label, &format!("{key}: {value}"), Color::None);
        }
    }

    /// What the driver says of the volume.
    fn reported<'v>(&mut self, volumes: impl Iterator<Item = &'v ReportedVolume>) {
        let mut count = 0;
        for volume in volumes {
            count += 1;
            self.row(&status::row("", volume));
        }
        if count == 0 {
            self.line("driver", "does not have it: the kubelet has not asked for it yet, or its publish has failed (see Events)", Color::Yellow);
        }
    }

    fn row(&mut self, row: &Row) {
        self.line("signer", &row.signer, Color::None);
        if row.issued_at.is_none() {
            self.line("certificate", "none yet", Color::Yellow);
        } else {
            self.line("certificate", &row.names, Color::None);
        }
        for (label, at) in [("issued", row.issued_at), ("expires", row.expires_at), ("renews", row.renews_at)]
        {
            let Some(at) = at else { continue };
            let is_over = label == "expires" && at <= self.now;
            let text = self.at(at);
            self.line(label, &text, if is_over { Color::Red } else { Color::None });
        }
        if let Some(warning) = &row.warning {
            self.line("warning", warning, Color::Yellow);
        }
        let Some(error) = &row.error else {
            return self.line("last error", "none", Color::None);
        };
        self.line("last error", error, Color::Red);
        let next = row.retries_at.map(|next| self.at(next));
        self.line("next try", &next.unwrap_or_else(|| "not known".to_owned()), Color::None);
    }

    /// The newest request of a volume, and its issuer.
    fn request(&mut self, kubectl: &Kubectl, of_volume: &OfVolume<'_>) {
        let Some(request) = of_volume.newest() else { return };
        let CertificateRequest { metadata, spec, status } = request;
        let made =
            metadata.creation_timestamp.map(|at| format!(", made {}", self.at(at))).unwrap_or_default();
        self.line("request", &format!("{}{made}", metadata.name), Color::None);
        if status.conditions.is_empty() {
            self.line("", "no conditions yet: nothing has approved or denied it", Color::Yellow);
        }
        for condition in &status.conditions {
            let is_good = (condition.status == "True")
                != (condition.r#type == "Denied" || condition.r#type == "InvalidRequest");
            self.line("", &condition.shown(), if is_good { Color::None } else { Color::Red });
        }
        self.issuer(kubectl, &spec.issuer_ref, &metadata.namespace);
    }

    fn issuer(&mut self, kubectl: &Kubectl, issuer: &IssuerRef, namespace: &str) {
        let name = format!("{} {} ({})", issuer.kind(), issuer.name, issuer.group());
        let kind = format!("{}.{}", issuer.kind(), issuer.group());
        // A request names its issuer as its author likes. A name that is a flag would be one of kubectl.
        let is_name = |text: &str| !text.starts_with('-') && !text.contains(['/', ',', ' ']);
        if !is_name(&issuer.name) || !is_name(&kind) {
            return self.line("issuer", &format!("{name}: that is no name of an object"), Color::Red);
        }
        let scope = format!("--namespace={namespace}");
        match kubectl.get::<Issuer>(&[&kind, &issuer.name, &scope]) {
            Ok(found) => {
                let ready = found.status.conditions.iter().find(|condition| condition.r#type == "Ready");
                let is_ready = ready.is_some_and(|ready| ready.status == "True");
                let shown = ready
                    .map_or_else(|| "no condition Ready yet".to_owned(), crate::objects::Condition::shown);
                self.line(
                    "issuer",
                    &format!("{name}: {shown}"),
                    if is_ready { Color::None } else { Color::Red },
                );
            }
            Err(error) if error.is_forbidden() => {
                self.line("issuer", &format!("{name}: this user may not read it"), Color::None);
            }
            Err(KubectlError::Failed(said)) => {
                self.line("issuer", &format!("{name}: {said}"), Color::Red);
            }
            Err(error) => self.line("issuer", &format!("{name}: {error}"), Color::Yellow),
        }
    }

    fn events(&mut self, events: &[&Event]) {
        self.title("Events");
        if events.is_empty() {
            self.line("", "none: the API server keeps Events for an hour", Color::None);
        }
        for event in &events[events.len().saturating_sub(MAX_EVENTS)..] {
            let at = event.at().map(|at| relative(at, self.now)).unwrap_or_default();
            let color = if event.is_warning() { Color::Yellow } else { Color::None };
            self.line(&at, &format!("{}: {}", event.reason, event.message), color);
        }
    }
}
