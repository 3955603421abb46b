//! Measures what certlet adds to the issuer's own time. A bare client creates CertificateRequests and watches them. The driver
//! gets the same number of certificates from the same cert-manager issuer, through its CSI socket.
//!
//! Both share the machine with the API server, etcd and cert-manager, which do most of the work. The pods are real objects, so
//! that the garbage collector does not delete their requests. A scheduling gate keeps them from being scheduled.

mod bare;
mod driver;
mod load;

use clap::Parser;
use driver::Driver;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, Resource};
use load::{Load, Measured};
use serde_json::json;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// Any error that ends the measurement.
type Failure = Box<dyn Error + Send + Sync>;

/// Measures certlet beside a bare client of the same cert-manager issuer. The cluster is that of KUBECONFIG.
#[derive(Debug, Parser)]
struct Args {
    /// The driver's binary.
    #[arg(long, env = "CERTLET_BIN", value_name = "FILE")]
    certlet: PathBuf,
    /// The `ClusterIssuer` that signs.
    #[arg(long, default_value = "e2e-ca")]
    issuer: String,
    /// A namespace that nothing else uses.
    #[arg(long, env = "NS", default_value = "certlet-bench")]
    namespace: String,
    /// Volumes of the largest run.
    #[arg(long, default_value_t = 250)]
    volumes: usize,
    /// How often each load is repeated.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    // This must happen before the first thread starts. The driver's mounts are then removed when this process ends.
    certlet_kubelet::namespace::enter()?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(args))
}

async fn run(args: Args) -> Result<(), Failure> {
    let client = Client::try_default().await?;
    let pods = make_pods(&client, &args.namespace, args.volumes).await?;
    let loads = [
        Load { in_flight: 1, count: args.volumes.min(50) },
        Load { in_flight: 10, count: args.volumes.min(150) },
        Load { in_flight: 50, count: args.volumes },
    ];
    println!(
        "{:<10} {:>9} {:>7} {:>9} {:>9} {:>9} {:>14} {:>14}",
        "", "in flight", "count", "p50 ms", "p99 ms", "per second", "client CPU ms", "driver CPU ms"
    );
    let mut driver = Driver::start(&args.certlet, &args.issuer).await?;
    let mut findings = Vec::new();
    for load in loads {
        findings.push(compare(&client, &driver, &pods, &args, load).await?);
    }
    println!("\n{}", findings.join("\n"));
    let all = Load { in_flight: 50, count: args.volumes };
    driver.measure(&pods, all).await?;
    println!("after all loads above, with {} volumes: {}", args.volumes, driver.report().await?);
    driver.unpublish(&pods).await?;
    settle(&client, &args.namespace).await?;
    driver.stop().await?;
    let mut driver = Driver::start(&args.certlet, &args.issuer).await?;
    driver.measure(&pods, all).await?;
    let after = Duration::from_secs(15);
    let (first, then) = (driver.idle_millicores(after).await?, driver.idle_millicores(after).await?);
    println!("idle after {} publishes at once: {first:.2} millicores for 15 s, then {then:.2}", args.volumes);
    println!("a new driver after {} publishes: {}", args.volumes, driver.report().await?);
    let left = requests(&client, &args.namespace).await?;
    println!("CertificateRequests left for {} volumes: {left}", args.volumes);
    driver.unpublish(&pods).await?;
    settle(&client, &args.namespace).await?;
    driver.stop().await?;
    let pods: Api<Pod> = Api::namespaced(client, &args.namespace);
    pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await?;
    Ok(())
}

/// Measures both under one load, and returns a line that says what the driver adds.
async fn compare(
    client: &Client,
    driver: &Driver,
    pods: &[Pod],
    args: &Args,
    load: Load,
) -> Result<String, Failure> {
    let (mut bare, mut ours) = (Measured::default(), Measured::default());
    let mut shares = Vec::new();
    for round in 0..args.rounds {
        let (mut bare_rate, mut our_rate) = (0.0, 0.0);
        // The two alternate, and each goes first as often as the other. So both are affected alike when the machine changes, and
        // when cert-manager is busy for a while with its own Events after many requests.
        for is_bare in [round % 2 == 0, round % 2 != 0] {
            if is_bare {
                let measured = bare::measure(client, &args.namespace, &args.issuer, pods, load).await?;
                bare_rate = measured.rate();
                bare.add(measured);
            } else {
                let measured = driver.measure(pods, load).await?;
                our_rate = measured.rate();
                ours.add(measured);
                driver.unpublish(&pods[..load.count]).await?;
            }
            settle(client, &args.namespace).await?;
        }
        shares.push(100.0 * our_rate / bare_rate);
    }
    print(&bare, "bare", load);
    print(&ours, "certlet", load);
    let (share, error) = mean(&shares);
    Ok(format!(
        "{:>2} in flight: certlet adds {:.1} ms to the median and reaches {share:.1} % of the bare client's rate (standard error \
         {error:.1}, {} rounds); certlet and its caller used {:.1} % of the machine's CPU, the bare client {:.1} %",
        load.in_flight,
        ours.percentile(50) - bare.percentile(50),
        shares.len(),
        ours.share_of_machine(),
        bare.share_of_machine(),
    ))
}

/// The mean of the numbers, and its standard error.
fn mean(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0) / count).sqrt())
}

fn print(measured: &Measured, who: &str, load: Load) {
    let [client, driver] = measured.cpu();
    println!(
        "{who:<10} {:>9} {:>7} {:>9.1} {:>9.1} {:>9.1} {client:>14.2} {driver:>14.2}",
        load.in_flight,
        measured.count(),
        measured.percentile(50),
        measured.percentile(99),
        measured.rate(),
    );
}

/// Pods that are never scheduled.
async fn make_pods(client: &Client, namespace: &str, count: usize) -> Result<Vec<Pod>, Failure> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut pods = Vec::with_capacity(count);
    for n in 0..count {
        let pod = serde_json::from_value(json!({
            "metadata": { "name": format!("bench-{n}") },
            "spec": {
                "schedulingGates": [{ "name": "certlet.io/bench" }],
                "containers": [{ "name": "none", "image": "none" }],
            },
        }))?;
        pods.push(api.create(&PostParams::default(), &pod).await?);
    }
    Ok(pods)
}

async fn requests(client: &Client, namespace: &str) -> Result<usize, Failure> {
    Ok(bare::api(client, namespace)
        .list_metadata(&ListParams::default())
        .await?
        .items
        .iter()
        .filter(|request| request.meta().deletion_timestamp.is_none())
        .count())
}

/// Waits until no request is left, and then four seconds more for the controllers to become idle.
async fn settle(client: &Client, namespace: &str) -> Result<(), Failure> {
    for _ in 0..600 {
        if requests(client, namespace).await? == 0 {
            tokio::time::sleep(Duration::from_secs(4)).await;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Err(format!("{} requests are left", requests(client, namespace).await?).into())
}
