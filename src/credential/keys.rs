//! Makes private keys.

use crate::model::{Failure, KeyAlgorithm};
use crate::platform::{FairSemaphore, all_cores_but_one};
use crate::x509::PrivateKey;
use jiff::Timestamp;
use std::sync::Arc;

/// Makes keys. RSA and P-521 keys, which take long, use all cores but one. They are made for one namespace after the other, so
/// that a namespace with many of them does not delay the others.
pub(super) struct KeyMaker {
    slow_keys: Arc<FairSemaphore>,
}

impl KeyMaker {
    pub(super) fn new() -> Self {
        Self { slow_keys: FairSemaphore::new(all_cores_but_one()) }
    }

    /// Makes a key; on the blocking pool if that takes long. Of one namespace, the key with the earliest `needed_by` is made first.
    pub(super) async fn make(
        &self,
        algorithm: KeyAlgorithm,
        namespace: &str,
        needed_by: Timestamp,
    ) -> Result<PrivateKey, Failure> {
        let generate =
            move || PrivateKey::generate(algorithm).map_err(|error| Failure::transient(error.to_string()));
        if !algorithm.is_slow_to_make() {
            return generate();
        }
        let permit = self.slow_keys.acquire(namespace, needed_by).await;
        let work = tokio::task::spawn_blocking(move || {
            // The work owns the permit, because it goes on if the caller gives up.
            let _permit = permit;
            generate()
        });
        work.await.map_err(|_| Failure::transient("the driver is shutting down"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(
        keys: &Arc<KeyMaker>,
        count: usize,
    ) -> Vec<tokio::task::JoinHandle<Result<PrivateKey, Failure>>> {
        let make = |_| {
            let keys = Arc::clone(keys);
            tokio::spawn(async move { keys.make(KeyAlgorithm::Rsa(2048), "hostile", Timestamp::MIN).await })
        };
        (0..count).map(make).collect()
    }

    #[tokio::test]
    async fn a_burst_of_rsa_keys_does_not_block_other_keys() {
        let keys = Arc::new(KeyMaker::new());
        let burst = burst(&keys, 8);
        tokio::task::yield_now().await;
        keys.make(KeyAlgorithm::EcdsaP256, "shop", Timestamp::MAX).await.unwrap();
        assert!(burst.iter().any(|task| !task.is_finished()));
        for task in burst {
            task.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_burst_of_rsa_keys_does_not_delay_those_of_another_namespace() {
        let keys = Arc::new(KeyMaker { slow_keys: FairSemaphore::new(1) });
        let burst = burst(&keys, 40);
        tokio::task::yield_now().await;
        keys.make(KeyAlgorithm::Rsa(2048), "innocent", Timestamp::MAX).await.unwrap();
        let made = burst.iter().filter(|task| task.is_finished()).count();
        assert!(made <= 3, "{made} keys were made before it");
        burst.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
