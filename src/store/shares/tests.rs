use super::*;
use crate::store::VOLUME_INODES;

const KIB: u64 = 1024;
const RECORD: u64 = 256 * KIB;
const LIMITS: ShareLimits = ShareLimits { volume_bytes: 128 * KIB, namespace_percent: 50 };

/// A store of 64 MiB as the kernel would count it: what accounts hold is used.
#[derive(Default)]
struct Disk(Vec<(Account, Size)>);

impl Disk {
    fn capacity(&self) -> Capacity {
        let total = Size { bytes: 64 * KIB * KIB, inodes: 65_536 };
        let used = self.0.iter().fold(Size::default(), |sum, (_, size)| sum.plus(*size));
        Capacity { total, free: total.minus(used), page: 4 * KIB, crls: Size::default() }
    }

    fn add(&mut self, shares: &Arc<Shares>, namespace: &str, bytes: u64) -> Result<usize, StoreError> {
        self.0.push((shares.open(namespace), Size::default()));
        let last = self.0.len() - 1;
        self.write(last, bytes, false).map(|()| last).inspect_err(|_| drop(self.0.pop()))
    }

    fn renew(&mut self, volume: usize, bytes: u64) -> Result<(), StoreError> {
        self.write(volume, bytes, true)
    }

    fn write(&mut self, volume: usize, bytes: u64, is_renewal: bool) -> Result<(), StoreError> {
        let (after, capacity) = (Size { bytes, inodes: VOLUME_INODES }, self.capacity());
        let (account, used) = self.0.get_mut(volume).unwrap();
        let promise =
            account.promise(&capacity, &Want { is_renewal, after, extra: after, record: RECORD })?;
        account.settle(after);
        *used = after;
        drop(promise);
        Ok(())
    }
}

#[test]
fn a_namespace_whose_certificates_grow_leaves_its_neighbours_what_they_need_to_renew() {
    for percent in [50, 100] {
        let shares = Shares::new(ShareLimits { namespace_percent: percent, ..LIMITS });
        let mut disk = Disk::default();
        let innocent: Vec<_> = (0..10).map(|_| disk.add(&shares, "innocent", 20 * KIB).unwrap()).collect();
        let hostile: Vec<_> = (0..600).map(|_| disk.add(&shares, "hostile", 20 * KIB).unwrap()).collect();
        let grown: Vec<_> = hostile.iter().map(|volume| disk.renew(*volume, 124 * KIB)).collect();
        assert!(grown.iter().any(Result::is_ok) && grown.iter().any(Result::is_err), "{percent} %");
        let left = disk.capacity().free.bytes;
        assert!(left > 6 * KIB * KIB, "{percent} %: {left} bytes left");
        for volume in innocent {
            disk.renew(volume, 40 * KIB).unwrap();
        }
        for volume in hostile {
            let before = disk.0.get(volume).unwrap().1.bytes;
            disk.renew(volume, before).unwrap();
        }
    }
}

#[test]
fn the_lower_half_of_the_reserve_is_for_those_within_their_equal_share() {
    let shares = Shares::new(ShareLimits { namespace_percent: 100, ..LIMITS });
    let mut disk = Disk::default();
    let large: Vec<_> = (0..56).map(|_| disk.add(&shares, "large", KIB * KIB).unwrap()).collect();
    let large = *large.last().unwrap();
    let small = disk.add(&shares, "small", 100 * KIB).unwrap();
    // Files that a pod keeps open, for example.
    disk.0.get_mut(large).unwrap().1.bytes += 5 * KIB * KIB;
    assert!(matches!(disk.renew(large, KIB * KIB), Err(StoreError::Crowded { .. })));
    disk.renew(small, 120 * KIB).unwrap();
    assert!(matches!(disk.add(&shares, "small", 100 * KIB), Err(StoreError::Reserved { .. })));
}

#[test]
fn the_record_of_a_failed_renewal_can_be_written_whoever_has_filled_the_store() {
    let shares = Shares::new(ShareLimits { namespace_percent: 100, ..LIMITS });
    let mut disk = Disk::default();
    // Alone in the store, the namespace is within its equal share, and may use the reserve.
    let volumes: Vec<_> = (0..500).map(|_| disk.add(&shares, "shop", 100 * KIB).unwrap()).collect();
    let refused = volumes.iter().find_map(|volume| disk.renew(*volume, 200 * KIB).err());
    assert!(matches!(refused, Some(StoreError::Crowded { .. })), "{refused:?}");
    // Each record may grow by a page, and copies replace them: one of the largest, and a hundredth of the store for others.
    let Capacity { total, free, .. } = disk.capacity();
    let needed = 500 * 4 * KIB + RECORD + total.percent(1).bytes;
    assert!(free.bytes >= needed, "{} of {needed} bytes left", free.bytes);
}

#[test]
fn a_namespace_takes_no_more_than_its_part_and_is_told_which_flag_says_so() {
    let shares = Shares::new(LIMITS);
    let mut disk = Disk::default();
    let admitted = (0..1000).map_while(|_| disk.add(&shares, "shop", 100 * KIB).ok()).count();
    assert_eq!(admitted, 327, "of 32 MiB");
    let error = disk.add(&shares, "shop", 100 * KIB).unwrap_err().to_string();
    assert!(error.contains("namespace shop") && error.contains("--max-store-share-per-namespace"), "{error}");
    disk.add(&shares, "other", 100 * KIB).unwrap();
    // One that is gone makes space again.
    disk.0.remove(0);
    disk.add(&shares, "shop", 100 * KIB).unwrap();
}

#[test]
fn what_is_promised_counts_until_it_is_written_or_has_failed() {
    let shares = Shares::new(LIMITS);
    let disk = Disk::default();
    let large = Size { bytes: 30 * KIB * KIB, inodes: 10 };
    let want = Want { is_renewal: false, after: large, extra: large, record: RECORD };
    let accounts = ["a", "b", "c"].map(|namespace| shares.open(namespace));
    let [first, second, third] = &accounts;
    let promises = [first, second].map(|account| account.promise(&disk.capacity(), &want));
    assert!(promises[0].is_ok() && promises[1].is_err(), "{promises:?}");
    drop(promises);
    assert!(third.promise(&disk.capacity(), &want).is_ok());
    drop(accounts);
    assert!(shares.state.lock().namespaces.is_empty());
    assert_eq!(shares.state.lock().promised, Size::default());
}

#[test]
fn what_a_namespace_keeps_open_counts_for_it_until_it_is_closed() {
    let shares = Shares::new(LIMITS);
    let mut disk = Disk::default();
    let small = disk.add(&shares, "small", 100 * KIB).unwrap();
    let large = disk.add(&shares, "large", 100 * KIB).unwrap();
    let capacity = |disk: &Disk, open: u64| {
        let Capacity { free, .. } = disk.capacity();
        Capacity { free: free.minus(Size { bytes: open, inodes: 0 }), ..disk.capacity() }
    };
    let renew = |disk: &Disk, volume: usize, open: u64| {
        let after = Size { bytes: 100 * KIB, inodes: VOLUME_INODES };
        let want = Want { is_renewal: true, after, extra: after, record: RECORD };
        disk.0.get(volume).unwrap().0.promise(&capacity(disk, open), &want).map(|promise| promise.examine)
    };
    assert!(!renew(&disk, large, 0).unwrap());
    assert!(renew(&disk, large, 2 * KIB * KIB).unwrap(), "more is in use than is accounted for");
    disk.0.get(large).unwrap().0.retain(Size { bytes: 33 * KIB * KIB, inodes: 9 });
    assert!(matches!(renew(&disk, large, 34 * KIB * KIB), Err(StoreError::NamespaceShare { .. })));
    assert!(renew(&disk, small, 34 * KIB * KIB).unwrap());
    // It closes most of it.
    assert!(renew(&disk, large, 3 * KIB * KIB).unwrap());
    assert!(!renew(&disk, large, 0).unwrap());
    assert_eq!(shares.state.lock().namespaces.get("large").unwrap().retained, Size::default());
}
