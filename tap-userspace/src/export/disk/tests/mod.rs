//! The store against a disk that keeps its word and one that does not: files are cut, torn, zeroed
//! and changed at every byte, and each time a new process opens what is left.

mod crashes;
mod damage;

use std::{collections::BTreeMap, fs, path::Path};

use super::*;

const ANY: Limits = Limits { batches: u64::MAX, items: u64::MAX, bytes: u64::MAX, disk: 1 << 30 };

/// A folder on a file system where waiting for the disk costs nothing, if there is one.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn open(folder: &Path) -> (Store, Recovery) {
    Store::open(folder, ANY).unwrap()
}

/// The `n`th batch: of uneven lengths, none at all among them.
fn batch(n: u32) -> (u32, Vec<u8>) {
    let len = n * 13 % 41;
    (n + 1, (0..len).map(|at| (n * 31 + at * 7) as u8).collect())
}

fn append(store: &mut Store, numbers: impl IntoIterator<Item = u32>) {
    for n in numbers {
        let (items, payload) = batch(n);
        store.append(items, &payload).unwrap();
    }
}

/// Takes a batch, which must be whole and the `n`th.
fn take(store: &mut Store, n: u32) -> Ticket {
    match store.take(3) {
        Some(Taken::Batch(ticket, bytes)) => {
            assert_eq!((ticket.items() as u32, bytes[3..].to_vec()), batch(n));
            assert_eq!(bytes[..3], [0; 3]);
            ticket
        }
        other => panic!("batch {n} is {other:?}"),
    }
}

/// Takes a batch and is done with it.
fn done(store: &mut Store, n: u32) {
    let ticket = take(store, n);
    store.finish(&ticket);
    store.mark(&ticket).unwrap();
}

/// All that is left, by number, each whole.
fn rest(store: &mut Store) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(taken) = store.take(0) {
        match taken {
            Taken::Batch(ticket, bytes) => {
                let n = ticket.items() as u32 - 1;
                assert_eq!((n + 1, bytes), batch(n));
                numbers.push(n);
            }
            Taken::Damaged(items) => panic!("{items} items cannot be read"),
        }
    }
    numbers
}

/// Files but the lock, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let named = files.map(|it| (it.file_name().into_string().unwrap(), it.path()));
    named
        .filter(|(name, _)| name != "lock")
        .map(|(name, at)| (name, fs::read(at).unwrap()))
        .collect()
}

/// Leaves these files, and no other, in the folder.
fn put(folder: &Path, content: &BTreeMap<String, Vec<u8>>) {
    for name in files(folder).keys().filter(|name| !content.contains_key(*name)) {
        fs::remove_file(folder.join(name)).unwrap();
    }
    for (name, bytes) in content {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// Opens what is there as a new process would: what was found, and what is given out.
fn reopened(folder: &Path) -> (Recovery, Vec<u32>) {
    let (mut store, recovery) = open(folder);
    let rest = rest(&mut store);
    assert_eq!(recovery.batches, rest.len() as u64);
    assert_eq!(recovery.items, rest.iter().map(|n| u64::from(n + 1)).sum::<u64>());
    (recovery, rest)
}

#[test]
fn batches_leave_in_their_order_and_once() {
    let home = folder();
    let (mut store, found) = open(&home.path().join("made/on/the/way"));
    assert_eq!(found, Recovery::default());
    append(&mut store, 0..5);
    done(&mut store, 0);
    append(&mut store, 5..7);
    done(&mut store, 1);
    // Taken and not done: the next process has it again, in its place.
    take(&mut store, 2);
    done(&mut store, 3);
    let held = store.held();
    drop(store);
    let (mut store, found) = open(&home.path().join("made/on/the/way"));
    assert_eq!(store.held(), held);
    assert_eq!((found.batches, found.items), (4, 3 + 5 + 6 + 7));
    append(&mut store, [7]);
    for n in [2, 4, 5, 6, 7] {
        done(&mut store, n);
    }
    assert!(store.take(0).is_none());
    assert_eq!(store.held(), Held::default());
    store.close();
    assert_eq!(files(&home.path().join("made/on/the/way")).len(), 0);
    assert_eq!(store.used(), 0);
}

#[test]
fn the_folder_is_private_and_of_one_process() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = folder();
    let path = home.path().join("queue");
    let (mut store, _) = open(&path);
    append(&mut store, [0]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let error = Store::open(&path, ANY).unwrap_err().to_string();
    for part in [path.to_str().unwrap(), &std::process::id().to_string(), "storage"] {
        assert!(error.contains(part), "{error}");
    }
    drop(store);
    assert_eq!(reopened(&path).1, [0]);
    // A file is no folder.
    let error = Store::open(&path.join("lock"), ANY).unwrap_err().to_string();
    assert!(error.contains("cannot be used") && error.contains("lock"), "{error}");
}

#[test]
fn every_limit_refuses_the_newest_until_there_is_room() {
    let size = |n: u32| (HEADER + batch(n).1.len()) as u64;
    let three = size(0) + size(1) + size(2);
    for limits in [
        Limits { batches: 3, ..ANY },
        Limits { items: 1 + 2 + 3 + 3, ..ANY },
        Limits { bytes: three + size(3) - 1, ..ANY },
        Limits { disk: three + size(3) - 1, ..ANY },
    ] {
        let home = folder();
        let (mut store, _) = Store::open(home.path(), limits).unwrap();
        append(&mut store, 0..3);
        for _ in 0..2 {
            let (items, payload) = batch(3);
            assert!(matches!(store.append(items, &payload), Err(Refused::Full)), "{limits:?}");
        }
        (0..3).for_each(|n| done(&mut store, n));
        append(&mut store, [3]);
        drop(store);
        assert_eq!(reopened(home.path()).1, [3], "{limits:?}");
    }
}

#[test]
fn what_an_earlier_process_was_allowed_stays() {
    let home = folder();
    let (mut store, _) = open(home.path());
    append(&mut store, 0..9);
    drop(store);
    let (mut store, found) =
        Store::open(home.path(), Limits { batches: 2, disk: 1 << 20, ..ANY }).unwrap();
    assert_eq!(found.batches, 9);
    let (items, payload) = batch(9);
    assert!(matches!(store.append(items, &payload), Err(Refused::Full)));
    assert_eq!(rest(&mut store), (0..9).collect::<Vec<_>>());
}

#[test]
fn files_are_used_up_and_their_room_is_given_back() {
    let home = folder();
    let limits = Limits { disk: 1 << 20, ..ANY };
    let (mut store, _) = Store::open(home.path(), limits).unwrap();
    let payload = vec![7; 10_000];
    let mut most = 0;
    for _ in 0..500 {
        store.append(1, &payload).unwrap();
        store.append(1, &payload).unwrap();
        for _ in 0..2 {
            let Some(Taken::Batch(ticket, _)) = store.take(0) else { panic!() };
            store.finish(&ticket);
            store.mark(&ticket).unwrap();
        }
        most = most.max(store.used());
        assert!(files(home.path()).len() <= 2);
    }
    assert!(most <= 2 * limits.segment() + 20_000, "{most}");
    // Filled to the brim it holds what it says.
    let mut count = 0;
    while store.append(1, &payload).is_ok() {
        count += 1;
    }
    assert!((95..=104).contains(&count), "{count}");
    let on_disk: u64 = files(home.path()).values().map(|bytes| bytes.len() as u64).sum();
    assert_eq!(on_disk, store.used());
}

#[test]
fn files_of_others_are_left_alone() {
    let home = folder();
    let others = ["notes.txt", "1-2.log", "00000000000000000001-zz.log", "x.log.damaged"];
    for name in others {
        fs::write(home.path().join(name), "theirs").unwrap();
    }
    let (mut store, found) = open(home.path());
    assert_eq!(found, Recovery::default());
    append(&mut store, [0]);
    done(&mut store, 0);
    store.close();
    assert_eq!(files(home.path()).len(), others.len());
}
