//! What certlet adds to the issuer's own time: the same number of certificates from the same cert-manager issuer, by a
//! bare client that creates CertificateRequests and watches them, and through the driver's CSI socket.
//!
//! Both share the machine with the API server, etcd and cert-manager, which do most of the work. Pods are real, so that
//! the garbage collector leaves their requests alone, but held back by a scheduling gate.

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

/// Anything that ends the measuring.
type Failure = Box<dyn Error + Send + Sync>;

/// Measures certlet beside a bare client of the same cert-manager issuer. The cluster is that of KUBECONFIG.
#[derive(Debug, Parser)]
struct Args {
    /// The driver.
    #[arg(long, env = "CERTLET_BIN", value_name = "FILE")]
    certlet: PathBuf,
    /// The `ClusterIssuer`.
    #[arg(long, default_value = "e2e-ca")]
    issuer: String,
    /// A namespace of its own.
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
    // Before any thread is there: what the driver mounts goes with this process.
    certlet::demo::namespace::enter()?;
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
        "{:<10} {:>9} {:>7} {:>9} {:>9} {:>9}",
        "", "in flight", "count", "p50 ms", "p99 ms", "a second"
    );
    let mut driver = Driver::start(&args.certlet, &args.issuer).await?;
    let mut findings = Vec::new();
    for load in loads {
        let (mut bare, mut ours) = (Measured::default(), Measured::default());
        for round in 0..args.rounds {
            // In turns, and each goes first as often as the other: cert-manager is busy with its own Events for a while
            // after many requests, and whatever changes on the machine changes for both.
            for is_bare in [round % 2 == 0, round % 2 != 0] {
                if is_bare {
                    bare.add(bare::measure(&client, &args.namespace, &args.issuer, &pods, load).await?);
                } else {
                    ours.add(driver.measure(&pods, load).await?);
                    driver.unpublish(&pods[..load.count]).await?;
                }
                settle(&client, &args.namespace).await?;
            }
        }
        print(&bare, "bare", load);
        print(&ours, "certlet", load);
        findings.push(format!(
            "{:>2} in flight: certlet adds {:.1} ms to the median and has {:.0} % of the issuer's rate",
            load.in_flight,
            ours.percentile(50) - bare.percentile(50),
            100.0 * ours.rate() / bare.rate(),
        ));
    }
    println!("\n{}", findings.join("\n"));
    driver.measure(&pods, Load { in_flight: 50, count: args.volumes }).await?;
    println!("with {} volumes: {}", args.volumes, driver.report().await?);
    let left = requests(&client, &args.namespace).await?;
    println!("CertificateRequests left for {} volumes: {left}", args.volumes);
    driver.unpublish(&pods).await?;
    settle(&client, &args.namespace).await?;
    driver.stop().await?;
    let all: Api<Pod> = Api::namespaced(client, &args.namespace);
    all.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await?;
    Ok(())
}

fn print(measured: &Measured, who: &str, load: Load) {
    println!(
        "{who:<10} {:>9} {:>7} {:>9.1} {:>9.1} {:>9.1}",
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

/// Waits until no request is left, and a while more for the controllers to come to rest.
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
