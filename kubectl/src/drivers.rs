//! Finds the drivers' pods, and asks them.

use crate::VERSION;
use crate::args::ClusterArgs;
use crate::kubectl::{
    ContainerRef, Kubectl, KubectlError, MAX_DRIVER_BYTES, MAX_SIDECAR_BYTES, TIMEOUT, in_parallel,
};
use crate::objects::{CONTAINER, List, Pod};
use crate::report::Report;
use crate::table::plain;
use std::collections::BTreeSet;

/// A driver's pod.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    pub(crate) node: String,
    /// Its CSI driver name; empty: the pod does not say it.
    pub(crate) name: String,
    pub(crate) container: ContainerRef,
    /// Why it cannot be asked.
    fault: Option<String>,
}

/// What the drivers say.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// By node.
    pub(crate) reports: Vec<(String, Report)>,
    /// Nodes whose driver has not answered, and why.
    pub(crate) missing: Vec<(String, String)>,
    /// What the reader should know.
    pub(crate) notices: Vec<String>,
    pub(crate) namespaces: BTreeSet<String>,
    /// The CSI driver names.
    pub(crate) names: BTreeSet<String>,
}

/// Why the drivers cannot be asked.
#[derive(Debug)]
pub(crate) enum Unasked {
    /// This user may not.
    Forbidden(String),
    Failed(KubectlError),
}

impl From<KubectlError> for Unasked {
    fn from(error: KubectlError) -> Self {
        if error.is_forbidden() { Self::Forbidden(error.to_string()) } else { Self::Failed(error) }
    }
}

/// The drivers' pods, of all nodes or of one.
///
/// Whoever may make pods can give one the labels of a driver. Pod Security keeps privileged pods to administrators, so only these are
/// believed.
pub(crate) fn find(
    kubectl: &Kubectl,
    cluster: &ClusterArgs,
    node: Option<&str>,
) -> Result<Vec<Driver>, KubectlError> {
    let selector = format!("--selector={}", cluster.driver_selector);
    let scope = cluster
        .driver_namespace
        .as_ref()
        .map_or_else(|| "--all-namespaces".to_owned(), |namespace| format!("--namespace={namespace}"));
    let on_node = node.map(|node| format!("--field-selector=spec.nodeName={node}"));
    let mut args = vec!["pods", &scope, &selector];
    args.extend(on_node.as_deref());
    let found: List<Pod> = kubectl.get(&args)?;
    Ok(found.items.iter().filter_map(driver).collect())
}

fn driver(pod: &Pod) -> Option<Driver> {
    let is_drivers = |container: &&crate::objects::Container| {
        container.name == CONTAINER && container.security_context.privileged
    };
    let container = pod.spec.containers.iter().find(is_drivers)?;
    let name = container.env.iter().find(|variable| variable.name == "CERTLET_DRIVER_NAME");
    let phase = &pod.status.phase;
    let fault = (phase != "Running").then(|| format!("its driver {} is {phase}", pod.full_name()));
    let node = if pod.spec.node_name.is_empty() { "(no node)" } else { &pod.spec.node_name };
    Some(Driver {
        node: node.to_owned(),
        name: name.map(|variable| variable.value.clone()).unwrap_or_default(),
        container: container_of(pod),
        fault,
    })
}

/// The CSI driver names of these drivers, as far as their pods say them.
pub(crate) fn names(drivers: &[Driver]) -> BTreeSet<String> {
    drivers.iter().filter(|driver| !driver.name.is_empty()).map(|driver| driver.name.clone()).collect()
}

/// certlet's container in a pod.
pub(crate) fn container_of(pod: &Pod) -> ContainerRef {
    ContainerRef {
        namespace: pod.metadata.namespace.clone(),
        pod: pod.metadata.name.clone(),
        container: CONTAINER.to_owned(),
    }
}

/// Asks the drivers of all nodes, or of one.
pub(crate) fn ask_all(
    kubectl: &Kubectl,
    cluster: &ClusterArgs,
    node: Option<&str>,
) -> Result<Asked, Unasked> {
    let drivers = find(kubectl, cluster, node)?;
    let reports = in_parallel(&drivers, |driver| match &driver.fault {
        Some(fault) => Err(KubectlError::Failed(fault.clone())),
        None => ask(kubectl, &driver.container, MAX_DRIVER_BYTES),
    });
    let mut asked = Asked { names: names(&drivers), ..Asked::default() };
    for (driver, report) in drivers.iter().zip(reports) {
        asked.namespaces.insert(driver.container.namespace.clone());
        match report {
            Ok(report) => {
                asked.notices.extend(version_notice(&driver.node, &report.version));
                let notice = report.notice.as_ref();
                asked.notices.extend(notice.map(|notice| format!("{}: {notice}", driver.node)));
                asked.reports.push((driver.node.clone(), report));
            }
            Err(error) if error.is_forbidden() => return Err(Unasked::Forbidden(error.to_string())),
            Err(error) => asked.missing.push((driver.node.clone(), plain(&error.to_string()))),
        }
    }
    if drivers.is_empty() {
        let selector = &cluster.driver_selector;
        let hint = format!(
            "no privileged pod with a container {CONTAINER} has the labels {selector} (--driver-selector)"
        );
        asked.missing.push((node.unwrap_or("all nodes").to_owned(), hint));
    }
    Ok(asked)
}

/// Asks the sidecar of a pod.
pub(crate) fn ask_sidecar(kubectl: &Kubectl, pod: &Pod) -> Result<Report, KubectlError> {
    ask(kubectl, &container_of(pod), MAX_SIDECAR_BYTES)
}

fn ask(kubectl: &Kubectl, of: &ContainerRef, max_bytes: u64) -> Result<Report, KubectlError> {
    let mut printed = kubectl.exec(of, &["certlet", "status", "--report"], TIMEOUT, max_bytes)?;
    if !printed.is_success && printed.stderr.contains("--report") {
        // A driver of an earlier release.
        printed = kubectl.exec(of, &["certlet", "status", "--json"], TIMEOUT, max_bytes)?;
    }
    if !printed.is_success {
        return Err(KubectlError::Failed(printed.stderr));
    }
    Ok(Report::parse(&printed.stdout)?)
}

/// Says that plugin and driver are of different versions.
pub(crate) fn version_notice(whose: &str, version: &str) -> Option<String> {
    let version = if version.is_empty() { "an earlier one" } else { version };
    (version != VERSION).then(|| {
        format!("{whose}: the driver's version is {version}, this plugin's is {VERSION}: what only one of them knows is not shown")
    })
}
