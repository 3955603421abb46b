//! `kubectl certlet renew`: asks the drivers for renewals, by exec.

use crate::args::{ClusterArgs, RenewArgs};
use crate::drivers::{self, Driver};
use crate::kubectl::{
    ContainerRef, Kubectl, KubectlError, MAX_DRIVER_BYTES, MAX_SIDECAR_BYTES, Printed, TIMEOUT, in_parallel,
};
use crate::objects::{List, Pod};
use crate::table::plain;
use crate::{Output, PluginError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A command for one container.
#[derive(Debug)]
struct Job {
    container: ContainerRef,
    whose: String,
    /// None: a sidecar, which has only the certificates of its pod.
    targets: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(kubectl: &Kubectl, cluster: &ClusterArgs, args: &RenewArgs) -> Result<Output, PluginError> {
    let (jobs, mut output) = if args.all && args.all_namespaces {
        let job = |driver: Driver| Job {
            container: driver.container,
            whose: driver.node,
            targets: vec!["--all".to_owned()],
        };
        (drivers::find(kubectl, cluster, None)?.into_iter().map(job).collect(), Output::default())
    } else {
        let mut pods = pods(kubectl, cluster, args)?;
        let drivers = drivers_of(kubectl, cluster, &pods)?;
        let names = drivers::names(&drivers);
        if args.pods.is_empty() {
            pods.retain(|pod| pod.certificate_volumes(&names).next().is_some() || pod.has_sidecar());
        }
        jobs(&pods, &drivers)
    };
    let timeout = format!("--timeout={}s", args.timeout);
    let results = in_parallel(&jobs, |job| {
        let mut command = vec!["certlet", "renew", &timeout];
        command.extend(job.targets.iter().map(String::as_str));
        let max_bytes = if job.targets.is_empty() { MAX_SIDECAR_BYTES } else { MAX_DRIVER_BYTES };
        let timeout = Duration::from_secs(args.timeout.into()) + TIMEOUT;
        kubectl.exec(&job.container, &command, timeout, max_bytes)
    });
    if jobs.is_empty() && output.text.is_empty() {
        output.text.push_str("no pod with certificates\n");
        output.is_incomplete = true;
    }
    for (job, result) in jobs.iter().zip(results) {
        add(&mut output, job, result);
    }
    Ok(output)
}

fn add(output: &mut Output, job: &Job, result: Result<Printed, KubectlError>) {
    match result {
        Ok(printed) => {
            output.is_incomplete |= !printed.is_success;
            let said = if printed.stdout.is_empty() { &printed.stderr } else { &printed.stdout };
            let whose = format!("{}: ", job.whose);
            for line in said.lines().filter(|line| !line.starts_with("command terminated with exit code")) {
                // A sidecar names its pod itself. A tenant can make it name another, so the name is written here.
                let line =
                    if job.targets.is_empty() { line.strip_prefix(&whose).unwrap_or(line) } else { line };
                output.text.extend([&whose, &plain(line), "\n"]);
            }
        }
        Err(error) => {
            output.is_incomplete = true;
            output.text.extend([&job.whose, ": ", &plain(&error.to_string()), "\n"]);
        }
    }
}

/// The pods that are meant; with --all or --selector also those without certificates.
fn pods(kubectl: &Kubectl, cluster: &ClusterArgs, args: &RenewArgs) -> Result<Vec<Pod>, PluginError> {
    let scope = if args.all_namespaces {
        "--all-namespaces".to_owned()
    } else {
        format!("--namespace={}", kubectl.namespace(cluster.namespace.as_ref())?)
    };
    if args.pods.is_empty() {
        let selector = args.selector.as_ref().map(|selector| format!("--selector={selector}"));
        let mut of = vec!["pods", &scope];
        of.extend(selector.as_deref());
        return Ok(kubectl.get::<List<Pod>>(&of)?.items);
    }
    let pods: Result<Vec<Pod>, _> =
        args.pods.iter().map(|name| kubectl.get::<Pod>(&["pod", name, &scope])).collect();
    Ok(pods?)
}

/// The drivers that can serve these pods.
fn drivers_of(kubectl: &Kubectl, cluster: &ClusterArgs, pods: &[Pod]) -> Result<Vec<Driver>, KubectlError> {
    let with_csi: Vec<&Pod> = pods.iter().filter(|pod| pod.has_csi_volume()).collect();
    let Some(first) = with_csi.first() else { return Ok(Vec::new()) };
    let node = first.spec.node_name.as_str();
    let one_node = with_csi.iter().all(|pod| pod.spec.node_name == node).then_some(node);
    match drivers::find(kubectl, cluster, one_node) {
        // A sidecar needs no driver, and its user perhaps may not list them. Its pod can have a volume of another CSI driver.
        Err(error) if error.is_forbidden() => {
            let no_names = BTreeSet::new();
            let needs_drivers = pods.iter().any(|pod| pod.certificate_volumes(&no_names).next().is_some());
            if needs_drivers { Err(error) } else { Ok(Vec::new()) }
        }
        found => found,
    }
}

/// A command for each driver and each sidecar, and what is said of pods that have neither.
fn jobs(pods: &[Pod], drivers: &[Driver]) -> (Vec<Job>, Output) {
    let mut of_drivers: BTreeMap<ContainerRef, Job> = BTreeMap::new();
    let (mut jobs, mut output) = (Vec::new(), Output::default());
    let names = drivers::names(drivers);
    for pod in pods {
        let serves = |driver: &&Driver| {
            let of_driver =
                |(_, csi): (&str, &crate::objects::Csi)| driver.name.is_empty() || driver.name == csi.driver;
            driver.node == pod.spec.node_name && pod.certificate_volumes(&names).any(of_driver)
        };
        let mut is_served = false;
        for driver in drivers.iter().filter(serves) {
            is_served = true;
            let job = of_drivers.entry(driver.container.clone()).or_insert_with(|| Job {
                container: driver.container.clone(),
                whose: driver.node.clone(),
                targets: Vec::new(),
            });
            job.targets.push(pod.full_name());
        }
        if pod.has_sidecar() {
            is_served = true;
            let (container, whose) = (drivers::container_of(pod), pod.full_name());
            jobs.push(Job { container, whose, targets: Vec::new() });
        }
        if !is_served {
            output.is_incomplete = true;
            let name = pod.full_name();
            output.text.extend([
                &name,
                ": not renewed: it has no volume of a driver that runs on its node, and no sidecar\n",
            ]);
        }
    }
    jobs.extend(of_drivers.into_values());
    (jobs, output)
}
