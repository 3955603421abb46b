//! Makes private keys.

use crate::model::{Failure, KeyAlgorithm};
use crate::x509::PrivateKey;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Makes keys. RSA and P-521 keys, which take long, use all cores but one.
pub(super) struct KeyMaker {
    slow_keys: Arc<Semaphore>,
}

impl KeyMaker {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { slow_keys: Arc::new(Semaphore::new(cores.saturating_sub(1).max(1))) }
    }

    /// Makes a key; on the blocking pool if that takes long.
    pub(super) async fn make(&self, algorithm: KeyAlgorithm) -> Result<PrivateKey, Failure> {
        let generate =
            move || PrivateKey::generate(algorithm).map_err(|error| Failure::transient(error.to_string()));
        if !algorithm.is_slow_to_make() {
            return generate();
        }
        let stopping = || Failure::transient("the driver is shutting down");
        let permit = Arc::clone(&self.slow_keys).acquire_owned().await.map_err(|_| stopping())?;
        let work = tokio::task::spawn_blocking(move || {
            // The work owns the permit, because it goes on if the caller gives up.
            let _permit = permit;
            generate()
        });
        work.await.map_err(|_| stopping())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_of_rsa_keys_does_not_block_other_keys() {
        let keys = Arc::new(KeyMaker::new());
        let burst: Vec<_> = (0..8)
            .map(|_| {
                let keys = Arc::clone(&keys);
                tokio::spawn(async move { keys.make(KeyAlgorithm::Rsa2048).await })
            })
            .collect();
        tokio::task::yield_now().await;
        keys.make(KeyAlgorithm::EcdsaP256).await.unwrap();
        assert!(burst.iter().any(|task| !task.is_finished()));
        for task in burst {
            task.await.unwrap().unwrap();
        }
    }
}
