//! What an operator should know about the cluster although nothing fails. `certlet status` and an Event on the node show it.

use tokio::sync::watch;

/// Said when a request was approved without a look at its names.
pub(super) const APPROVED_UNCHECKED: &str = "cert-manager's own approver approves every CertificateRequest, so whoever may create \
    one gets any name from the issuer; accepted: approver-policy, with disableAutoApproval=true in cert-manager's chart \
    (docs/security.md)";

/// The notices of this process.
#[derive(Debug, Default)]
pub(super) struct Notices {
    approved_unchecked: watch::Sender<bool>,
    /// Why the newest version of the file of classes is not in force.
    class_fault: watch::Sender<Option<String>>,
}

impl Notices {
    /// A request of this node was approved by an approver that approves every request.
    #[cfg(feature = "kubernetes")]
    pub(super) fn approved_unchecked(&self) {
        self.approved_unchecked.send_if_modified(|noticed| !std::mem::replace(noticed, true));
    }

    /// The newest version of the file of classes is not valid, or is again.
    pub(super) fn class_fault(&self, fault: Option<String>) {
        self.class_fault.send_if_modified(|last| {
            let has_changed = *last != fault;
            *last = fault;
            has_changed
        });
    }

    /// Follows what is wrong with the file of classes.
    #[cfg(feature = "kubernetes")]
    pub(super) fn class_faults(&self) -> watch::Receiver<Option<String>> {
        self.class_fault.subscribe()
    }

    /// All notices so far, for `certlet status`.
    pub(super) fn all(&self) -> Option<String> {
        let approved = self.approved_unchecked.borrow().then(|| APPROVED_UNCHECKED.to_owned());
        let all: Vec<String> = approved.into_iter().chain(self.class_fault.borrow().clone()).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Resolves when a request has been approved unchecked.
    #[cfg(feature = "kubernetes")]
    pub(super) async fn until_approved_unchecked(&self) {
        let mut noticed = self.approved_unchecked.subscribe();
        // The sender lives as long as `self`.
        let _noticed = noticed.wait_for(|noticed| *noticed).await;
    }
}
