//! A volume on the node's file systems: its generations, record, checkpoint and bind mount.

use super::applied::AppliedSpec;
use super::mounts::Mounts;
use super::targets::Targets;
use super::volume::Volume;
use super::{MountError, Opened, StoreOptions, tmpfs};
use crate::credential::{Credential, Current, Follower};
use crate::model::{CertificateSpec, Failure, FailureKind, Files, KeystorePassword, VolumeId, hex};
use crate::platform::cores;
use crate::sink::files;
use crate::store::{Record, Shared, Size, Store, TrustRecord, Want};
use crate::trust::TrustBundle;
use crate::x509::{Crl, PrivateKey};
use aws_lc_rs::rand;
use secrecy::SecretString;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Store and mounts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct VolumeFiles {
    pub(crate) store: Arc<Store>,
    pub(super) mounts: Targets,
}

/// Whether a volume is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Mounted at its target.
    Mounted,
    /// Not mounted, but the target's parent directory still exists: a publish may come.
    Expected,
    /// The target's parent directory is gone, and so is the pod.
    Gone,
}

impl VolumeFiles {
    /// Opens the node's store, or adopts the one of an earlier process.
    pub(crate) fn open(options: &StoreOptions) -> Result<(Self, Opened), MountError> {
        let (store, view, opened) = tmpfs::open(options)?;
        let mounts = Targets::Mounted(Arc::new(Mounts::new(store.root().to_owned(), view)));
        Ok((Self { store: Arc::new(store), mounts }, opened))
    }

    /// Opens the store of a sidecar in the directory that its pod sees. Also returns warnings.
    pub(crate) fn open_inside(directory: &Path) -> Result<(Self, Vec<String>), MountError> {
        let (store, mut warnings) = Store::open_inside(directory)?;
        warnings.extend(tmpfs::swap_warning(directory)?);
        let store = Arc::new(store);
        Ok((Self { mounts: Targets::Unmounted(Arc::clone(&store)), store }, warnings))
    }

    /// Runs file system work off the async threads.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let files = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&files)).await;
        done.map_err(|error| ended_early(&error))?
    }

    /// Writes a credential with a trust bundle as the volume's next generation, and swaps it in atomically. No signer is
    /// involved, so this also writes a new trust bundle alone. Returns the generation's number.
    pub(super) fn write_generation(
        &self,
        volume: &Volume,
        spec: &CertificateSpec,
        current: &Current,
    ) -> Result<u64, Failure> {
        let password = self.keystore_password(volume, spec)?;
        let group = volume.group(spec);
        let mut new = files::encode(&current.credential, &current.trust, spec, group, password.as_ref())?;
        volume.account.check_size(&new)?;
        let crls = self.shared_crls(&current.trust)?;
        new.extend(crls.as_ref().zip(spec.files.crl.as_deref()).map(|(crls, name)| crls.file(name)));
        let store = self.store.capacity()?;
        let generation = store.generation(&new);
        let mut besides = volume.with_record(|record| store.besides_generation(record));
        if password.is_some() {
            besides = besides.plus(Size { bytes: store.page, inodes: 1 });
        }
        // A socket is an inode without contents. So is the directory of generations that no pod sees.
        let Files { socket, is_socket_only, .. } = &spec.files;
        let inodes = u64::from(socket.is_some()) + u64::from(*is_socket_only);
        besides = besides.plus(Size { bytes: 0, inodes });
        let is_renewal = volume.with_record(|record| record.issued.is_some());
        let after = generation.plus(besides);
        let promise = volume
            .account
            .promise(&store, &Want { is_renewal, after, extra: after, record: besides.bytes })?;
        self.prepare_generations(volume, spec)?;
        let (number, retained) = if promise.examine {
            self.store.write_generation_examined(&volume.id, &new)?
        } else {
            (self.store.write_generation(&volume.id, &new)?, Size::default())
        };
        volume.account.settle(after);
        volume.account.retain(retained);
        Ok(number)
    }

    /// Before a generation is written: those of a volume that is handed over by its socket only are outside of what its pod sees.
    pub(super) fn prepare_generations(&self, volume: &Volume, spec: &CertificateSpec) -> Result<(), Failure> {
        if spec.files.is_socket_only {
            self.store.keep_unmounted(&volume.id)?;
        }
        Ok(())
    }

    /// The file with the CRLs of a trust bundle, if it has any. All volumes with the same CRLs share it.
    fn shared_crls(&self, trust: &TrustBundle) -> Result<Option<Shared<'_>>, Failure> {
        if trust.crls.is_empty() {
            return Ok(None);
        }
        let name = files::name_of_crls(&trust.crls);
        Ok(Some(self.store.share(&name, || files::crls_pem(&trust.crls))?))
    }

    /// The trust bundle with the CRLs of the volume, if it asks for them: those of the CAs of this credential and this trust bundle.
    pub(super) fn with_crls(
        &self,
        volume: &Volume,
        applied: &AppliedSpec,
        credential: &Credential,
        trust: &Arc<TrustBundle>,
    ) -> Result<Arc<TrustBundle>, Failure> {
        applied.crls.follow(credential.chain(), &trust.anchors);
        applied.crls.add_to(trust, || {
            Ok(self.read_back(volume)?.map(|current| current.trust.crls.clone()).unwrap_or_default())
        })
    }

    /// The password of the volume's keystores, if it names one. A random one is made when it is first needed.
    fn keystore_password(
        &self,
        volume: &Volume,
        spec: &CertificateSpec,
    ) -> Result<Option<SecretString>, Failure> {
        let source = match &spec.files.password {
            None => return Ok(None),
            Some(KeystorePassword::Given(password)) => return Ok(Some(password.clone())),
            Some(source) => source,
        };
        match (self.store.password(&volume.id)?, source) {
            (Some(kept), _) => Ok(Some(kept)),
            (None, KeystorePassword::File(_)) => {
                let password = random_password()?;
                self.store.keep_password(&volume.id, &password)?;
                Ok(Some(password))
            }
            (None, _) => Err(password_is_gone()),
        }
    }

    /// Counts what the volume uses, after a failure that can have left some of it.
    pub(super) fn measure(&self, volume: &Volume) {
        match self.store.size(&volume.id) {
            Ok(size) => volume.account.settle(size),
            Err(error) => {
                tracing::warn!(volume = %volume.id, %error, "the size of a volume could not be measured");
            }
        }
    }

    /// Counts what all these volumes use, on all cores, because a restart waits for it.
    pub(super) fn measure_all(&self, volumes: &[Arc<Volume>]) {
        std::thread::scope(|scope| {
            for part in volumes.chunks(volumes.len().div_ceil(cores()).max(1)) {
                scope.spawn(|| part.iter().for_each(|volume| self.measure(volume)));
            }
        });
    }

    /// Writes the credential in use with another trust bundle as a new generation, and its record.
    pub(super) fn write_trust(
        &self,
        volume: &Volume,
        current: Current,
        trust: TrustRecord,
    ) -> Result<(), Failure> {
        let generation = self.write_generation(volume, &volume.spec(), &current)?;
        let mut record = volume.record();
        let before = record.issued.as_mut().map(|issued| {
            issued.trust = trust;
            std::mem::replace(&mut issued.generation, generation)
        });
        self.store.write_record(&record)?;
        // A renewal that waits for its signer still replaces the same certificate.
        if let Some(checkpoint) = self.store.checkpoint(&volume.id)?
            && checkpoint.follows() == before
        {
            checkpoint.follow(generation)?;
        }
        volume.set_record(record);
        volume.set_rejection(None);
        volume.live.publish(current);
        Ok(())
    }

    /// Follows the volume's credential.
    pub(super) async fn follow(&self, volume: Arc<Volume>) -> Result<Follower, Failure> {
        self.run(move |files| volume.live.follow(|| files.read_back(&volume))).await
    }

    /// Reads the credential in use with its trust bundle back from the live generation.
    pub(super) fn read_back(&self, volume: &Volume) -> Result<Option<Current>, Failure> {
        let applied = volume.applied();
        let (spec, crl) = (&applied.spec, &applied.spec.files.crl);
        let read = self.store.read_generation(&volume.id, |generation| {
            // Lists that are in memory are not read: they can have megabytes.
            let is_known = |lists: &Vec<Arc<Crl>>| {
                let name = files::name_of_crls(lists);
                crl.as_ref().is_some_and(|file| self.store.is_shared_as(generation, file, &name))
            };
            let known = applied.crls.known().into_iter().find(is_known);
            let file = crl.as_deref().filter(|_| known.is_none());
            let Some((credential, mut trust)) = files::read(generation, spec, file)? else {
                return Ok(None);
            };
            trust.crls.extend(known.unwrap_or_default());
            Ok::<_, Failure>(Some(Current { credential: Arc::new(credential), trust: Arc::new(trust) }))
        })?;
        Ok(read.flatten())
    }

    /// The private key in use. Without one that can be read, the next certificate gets a new key.
    pub(super) fn key_in_use(&self, volume: &Volume) -> Option<PrivateKey> {
        match self.read_back(volume) {
            Ok(current) => current.and_then(|current| Arc::into_inner(current.credential)).map(|own| own.key),
            Err(error) => {
                tracing::warn!(volume = %volume.id, %error, "the private key in use cannot be read; a new one is made");
                None
            }
        }
    }

    /// Binds the volume at its target.
    pub(super) fn bind(&self, record: &Record) -> Result<(), Failure> {
        Ok(self.mounts.bind(&record.volume_id, &record.target)?)
    }

    /// Whether a reader finds this volume at `target`.
    pub(super) async fn is_bound(&self, id: &VolumeId, target: &Path) -> Result<bool, Failure> {
        let (id, target) = (id.clone(), target.to_owned());
        self.run(move |files| Ok(files.mounts.is_bound(&id, &target)?)).await
    }

    /// Whether the volume is mounted, or can still be. Blocks this thread.
    pub(super) fn presence_now(&self, id: &VolumeId, target: &Path) -> Result<Presence, Failure> {
        Ok(if self.mounts.is_bound(id, target)? {
            Presence::Mounted
        } else if target.parent().is_some_and(Path::exists) {
            Presence::Expected
        } else {
            Presence::Gone
        })
    }

    /// Whether the volume is mounted, may still be mounted, or has lost its pod.
    pub(super) async fn presence(&self, volume: &Volume) -> Result<Presence, Failure> {
        let (id, target) = (volume.id.clone(), volume.with_record(|record| record.target.clone()));
        self.run(move |files| files.presence_now(&id, &target)).await
    }
}

/// The password from a Secret is neither in the store nor in the request.
pub(super) fn password_is_gone() -> Failure {
    Failure::permanent("the keystore's password is not in the store any more: restart the pod")
}

/// 32 random bytes, in hexadecimal.
fn random_password() -> Result<SecretString, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(bytes.as_mut()).map_err(|_| Failure::transient("the system has no random numbers"))?;
    Ok(SecretString::from(hex(bytes.as_ref())))
}

/// The task that did the work panicked, which is a bug, or was cancelled.
pub(super) fn ended_early(error: &tokio::task::JoinError) -> Failure {
    Failure::new(
        FailureKind::Internal,
        format!("internal error: the task for the volume ended early: {error}"),
    )
}
