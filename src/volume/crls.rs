//! The CRLs of volumes: handed over without an issuance when they change.

use super::VolumeFiles;
use super::applied::AppliedSpec;
use super::context::Context;
use super::issue::{Issuance, TRUST_TIMEOUT};
use super::trust::hand_over;
use crate::credential::Obtained;
use crate::model::Failure;
use std::sync::Arc;

impl Context {
    /// Hands over CRLs that have changed, until shutdown.
    pub(super) async fn follow_crls(&self) {
        let following = async {
            loop {
                self.crls.changed().await;
                let pause = hand_over(&self.registry.all(), |volume| volume.applied().crls.has_changed());
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = following => {}
            () = self.crls.watch_ends() => {}
        }
    }
}

impl Issuance {
    /// Waits for the CRLs of a new certificate, which can name other distribution points than the last one.
    pub(super) async fn wait_for_crls(
        &self,
        applied: &Arc<AppliedSpec>,
        obtained: &Obtained,
    ) -> Result<(), Failure> {
        if !applied.crls.is_asked_for() {
            return Ok(());
        }
        let chain: Vec<Vec<u8>> = obtained.credential.chain().map(<[u8]>::to_vec).collect();
        let sources = applied.joined_sources().ok().flatten();
        let of_sources = sources.iter().flat_map(|sources| &sources.anchors);
        let anchors: Vec<Vec<u8>> = of_sources.chain(&obtained.trust.anchors).cloned().collect();
        let following = Arc::clone(applied);
        let follow = move |_: &VolumeFiles| {
            following.crls.follow(chain.iter().map(Vec::as_slice), &anchors);
            Ok(())
        };
        self.context.files.run(follow).await?;
        applied.crls.read_within(TRUST_TIMEOUT).await;
        Ok(())
    }
}
