//! The current credential of one workload, published on a `watch` channel that sinks follow.

use super::credential::Credential;
use crate::model::CertificateFacts;
use crate::trust::TrustBundle;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use tokio::sync::watch;

/// What a sink hands over: a credential, and the trust bundle that belongs to it at the same moment.
#[derive(Clone, Debug)]
pub struct Current {
    /// Key, leaf and chain.
    pub credential: Arc<Credential>,
    /// The anchors that the workload trusts.
    pub trust: Arc<TrustBundle>,
}

/// What a follower sees.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Facts of the current leaf; none before the first issuance.
    pub facts: Option<Arc<CertificateFacts>>,
    /// The current credential; none before the first issuance.
    pub current: Option<Current>,
}

/// The current credential of one workload. While nothing follows it, only its facts are in memory: there is no channel, and no
/// key.
#[derive(Debug, Default)]
pub(crate) struct LiveCredential(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    facts: Option<Arc<CertificateFacts>>,
    /// Made for the first follower, dropped with the last one.
    channel: Option<watch::Sender<Published>>,
}

impl LiveCredential {
    /// Publishes a new credential, or the old one with another trust bundle. Where nothing follows, the key leaves memory
    /// with the caller's own copy.
    pub(crate) fn publish(&self, current: Current) {
        let mut state = self.0.lock();
        let facts = Some(Arc::clone(&current.credential.facts));
        state.facts.clone_from(&facts);
        if let Some(channel) = &state.channel {
            channel.send_replace(Published { facts, current: Some(current) });
        }
    }

    /// Follows the credential. For the first follower, `read_back` reads it from the store. A publish at the same time waits, so
    /// that the follower sees it.
    pub(crate) fn follow<E>(
        self: &Arc<Self>,
        read_back: impl FnOnce() -> Result<Option<Current>, E>,
    ) -> Result<Follower, E> {
        let mut state = self.0.lock();
        let receiver = if let Some(channel) = &state.channel {
            channel.subscribe()
        } else {
            let current = read_back()?;
            let read = current.as_ref().map(|current| Arc::clone(&current.credential.facts));
            let facts = read.or_else(|| state.facts.clone());
            let (channel, receiver) = watch::channel(Published { facts, current });
            state.channel = Some(channel);
            receiver
        };
        Ok(Follower { receiver: Some(receiver), live: Arc::downgrade(self) })
    }

    /// The credential, if it is in memory.
    pub(crate) fn current(&self) -> Option<Current> {
        self.0.lock().channel.as_ref().and_then(|channel| channel.borrow().current.clone())
    }

    /// Drops channel and credential if nothing follows any more.
    fn release(&self) {
        let mut state = self.0.lock();
        if state.channel.as_ref().is_some_and(|channel| channel.receiver_count() == 0) {
            state.channel = None;
        }
    }
}

/// A sink's end of a channel. When the last follower is dropped, the key leaves memory.
#[derive(Debug)]
pub struct Follower {
    receiver: Option<watch::Receiver<Published>>,
    live: Weak<LiveCredential>,
}

impl Follower {
    /// What is published now.
    pub fn published(&mut self) -> Published {
        self.receiver.as_mut().map(|receiver| receiver.borrow_and_update().clone()).unwrap_or_default()
    }

    /// Waits for the next value. Returns false if the workload is gone. Cancel-safe.
    pub async fn changed(&mut self) -> bool {
        match &mut self.receiver {
            Some(receiver) => receiver.changed().await.is_ok(),
            None => false,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Dropped before the release, because the release counts the receivers.
        drop(self.receiver.take());
        if let Some(live) = self.live.upgrade() {
            live.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyAlgorithm;
    use crate::x509::PrivateKey;
    use jiff::Timestamp;
    use std::convert::Infallible;

    fn current(serial: &str, anchors: &[u8]) -> Current {
        let facts = CertificateFacts {
            serial: serial.into(),
            subject: String::new(),
            sans: Vec::new(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::UNIX_EPOCH,
        };
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let credential = Credential { key, leaf: vec![1], intermediates: Vec::new(), facts: Arc::new(facts) };
        Current {
            credential: Arc::new(credential),
            trust: Arc::new(TrustBundle { anchors: vec![anchors.to_vec()], ..TrustBundle::default() }),
        }
    }

    fn not_needed() -> Result<Option<Current>, Infallible> {
        panic!("the credential is in memory")
    }

    #[test]
    fn without_a_follower_the_facts_stay_and_the_key_leaves_memory() {
        let live = LiveCredential::default();
        let published = current("01", b"a");
        let key = Arc::downgrade(&published.credential);
        live.publish(published);
        assert!(key.upgrade().is_none(), "something still holds the key");
        assert_eq!(live.0.lock().facts.as_ref().unwrap().serial, "01");
    }

    #[tokio::test]
    async fn a_follower_gets_the_credential_read_back_and_then_every_change_whole() {
        let live = Arc::new(LiveCredential::default());
        live.publish(current("01", b"a"));
        let mut follower = live.follow(|| Ok::<_, Infallible>(Some(current("01", b"a")))).unwrap();
        assert_eq!(follower.published().current.unwrap().credential.facts.serial, "01");
        live.publish(current("02", b"b"));
        assert!(follower.changed().await);
        let seen = follower.published().current.unwrap();
        assert_eq!((seen.credential.facts.serial.as_str(), &*seen.trust.anchors[0]), ("02", b"b".as_slice()));
        let mut second = live.follow(not_needed).unwrap();
        drop(follower);
        assert!(live.current().is_some(), "somebody still follows");
        assert_eq!(second.published().current.unwrap().credential.facts.serial, "02");
        drop(live);
        assert!(!second.changed().await, "the workload is gone");
    }

    #[test]
    fn with_the_last_follower_the_key_leaves_memory() {
        let live = Arc::new(LiveCredential::default());
        let published = current("01", b"a");
        let key = Arc::downgrade(&published.credential);
        let follower = live.follow(|| Ok::<_, Infallible>(Some(published))).unwrap();
        assert!(key.upgrade().is_some());
        drop(follower);
        assert!(key.upgrade().is_none() && live.current().is_none());
    }
}
