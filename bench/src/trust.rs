//! The scene of the trust bundle: how soon a changed trust source has reached the last volume, and what that costs.

use crate::Failure;
use crate::load::percentile;
use crate::process;
use crate::report::TrustChange;
use crate::scenes::{Bench, say};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the source changes.
const CHANGES: usize = 50;
/// A change that takes longer counts as lost.
const TIMEOUT: Duration = Duration::from_mins(1);

impl Bench {
    /// Changes the file of a trust source again and again, and waits each time until every volume has the new anchors.
    pub(crate) async fn trust(&self) -> Result<TrustChange, Failure> {
        let roots = [self.a_root("t1").await?, self.a_root("t2").await?];
        let both = roots.concat();
        let source = self.root.join("roots.pem");
        fs::write(&source, &roots[0])?;
        let node = self.node_with("t", &[&format!("--ca-source={}", source.display())]).await?;
        let pods = node.pods(self.count(250), &[])?;
        node.publish(&pods, 50).await?;
        let changes = self.count(CHANGES);
        say(&format!("{changes} changes of the trust source of {} volumes", pods.count()));
        let (mut to_last, before) = (Vec::new(), process::cpu(node.id())?);
        for number in 0..changes {
            let generations = pods.generations()?;
            replace(&source, if number % 2 == 0 { &both } else { &roots[0] })?;
            let begun = Instant::now();
            while pods.generations()?.iter().zip(&generations).any(|(now, before)| now == before) {
                if begun.elapsed() > TIMEOUT {
                    return Err("a changed trust source has not reached every volume within a minute".into());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            to_last.push(begun.elapsed());
        }
        let cpu = process::cpu(node.id())?.saturating_sub(before).as_secs_f64() * 1e3;
        to_last.sort();
        let handed_over = (changes * pods.count()) as f64;
        node.unpublish(&pods, 50).await?;
        node.stop()?;
        Ok(TrustChange {
            volumes: pods.count(),
            changes,
            p50_ms: percentile(&to_last, 50).as_secs_f64() * 1e3,
            p99_ms: percentile(&to_last, 99).as_secs_f64() * 1e3,
            driver_cpu_ms: cpu / changes as f64,
            driver_cpu_ms_per_volume: cpu / handed_over,
        })
    }

    /// A root certificate, PEM: that of a driver's own CA.
    async fn a_root(&self, name: &str) -> Result<String, Failure> {
        let node = self.node_with(name, &[]).await?;
        let pods = node.pods(1, &[])?;
        node.publish(&pods, 1).await?;
        let root = fs::read_to_string(pods.file(0, "ca.crt"))?;
        node.unpublish(&pods, 1).await?;
        node.stop()?;
        Ok(root)
    }
}

/// Replaces a file at once, so that the driver never reads half of it.
fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    let next = file.with_extension("next");
    fs::write(&next, text)?;
    Ok(fs::rename(next, file)?)
}
