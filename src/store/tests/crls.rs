use super::{MIB, generation, mount_dir, open, open_sized, read, volume};
use crate::namespace::in_namespace;
use crate::store::{NewFile, Store, StoreError};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Writes a generation with a shared file of this text.
fn write_with(store: &Store, id: &str, text: &str) {
    let shared = store.share(&format!("name-of-{}", text.len()), || text.as_bytes().to_vec()).unwrap();
    let files: Vec<NewFile> = generation(id).into_iter().chain([shared.file("ca.crl")]).collect();
    store.write_generation(&volume(id), &files).unwrap();
}

fn shared(scratch: &Path) -> Vec<String> {
    let found = fs::read_dir(scratch.join("data/shared")).into_iter().flatten();
    found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn volumes_share_a_file_that_takes_no_space_of_theirs() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let (long, longer) = ("a".repeat(1 << 20), "b".repeat((1 << 20) + 1));
        for id in ["v", "w"] {
            write_with(&store, id, &long);
            assert_eq!(read(&store, id, "ca.crl").unwrap(), long);
            assert!(store.size(&volume(id)).unwrap().bytes < 64 << 10, "the shared file is counted for {id}");
        }
        let files = ["v", "w"].map(|id| mount_dir(scratch, id).join("ca.crl"));
        let [of_v, of_w] = [&files[0], &files[1]].map(|file| fs::metadata(file).unwrap());
        assert_eq!((of_v.ino(), of_v.nlink(), of_v.mode() & 0o777), (of_w.ino(), 3, 0o444));
        assert_eq!(store.capacity().unwrap().crls.bytes, 1 << 20);
        // Both go on to another file, and the first one goes away with the next.
        for id in ["v", "w"] {
            write_with(&store, id, &longer);
        }
        assert_eq!(read(&store, "v", "ca.crl").unwrap(), longer);
        write_with(&store, "v", "third");
        let mut left = shared(scratch);
        left.sort();
        assert_eq!(left, ["name-of-1048577", "name-of-5"]);
        store.remove(&volume("w")).unwrap();
        drop(store);
        // A restart removes what no volume has, and a file that a crash has left half done.
        fs::write(scratch.join("data/shared/name.tmp"), "half").unwrap();
        let store = open(scratch);
        assert_eq!(shared(scratch), ["name-of-5"]);
        assert_eq!(read(&store, "v", "ca.crl").unwrap(), "third");
    });
}

#[test]
fn lists_are_kept_for_the_next_process_and_have_a_limit() {
    in_namespace(|scratch| {
        let store = open_sized(scratch, 10 * MIB, 1000);
        assert!(!store.has_kept_crls() && store.kept_crl("one").unwrap().is_none());
        let list = vec![7; 3 << 20];
        store.keep_crl("one", &list, |_| true).unwrap();
        assert_eq!(store.kept_crl("one").unwrap().unwrap().as_slice(), list);
        assert!(store.has_kept_crls());
        let refused = store.keep_crl("two", &list, |_| true).unwrap_err();
        assert!(matches!(refused, StoreError::CrlsTooLarge { .. }), "{refused}");
        let refused = store.share("name", || list.clone()).err().unwrap();
        assert!(refused.to_string().ends_with("raise --store-size"), "{refused}");
        // What no source in use needs gives way.
        store.keep_crl("two", &list, |name| name == "two").unwrap();
        assert!(store.kept_crl("one").unwrap().is_none() && store.kept_crl("two").unwrap().is_some());
    });
}
