//! A disk that gives back something else than what was written.

use super::*;

/// A store of `count` batches that were all stored; where each record begins and ends.
fn stored(folder: &Path, count: u32) -> (String, Vec<u8>, Vec<std::ops::Range<usize>>) {
    let (mut store, _) = open(folder);
    let mut records = Vec::new();
    for n in 0..count {
        let begin = store.used() as usize;
        append(&mut store, [n]);
        records.push(begin..store.used() as usize);
    }
    drop(store);
    let (name, bytes) = files(folder).into_iter().next().unwrap();
    (name, bytes, records)
}

/// Opens a damaged file: batches that the damage does not touch are there, in order; others are
/// whole or not there. What is not there is told of once, and its file is kept.
fn check(folder: &Path, name: &str, bytes: &[u8], touched: impl Fn(u32) -> bool, count: u32) {
    put(folder, &BTreeMap::from([(name.to_owned(), bytes.to_vec())]));
    let (found, given) = reopened(folder);
    assert!(given.is_sorted());
    let lost: Vec<u32> = (0..count).filter(|n| !given.contains(n)).collect();
    assert!(lost.iter().all(|n| touched(*n)), "{lost:?} are lost");
    let items: u64 = lost.iter().map(|n| u64::from(n + 1)).sum();
    assert!(found.damaged_items <= items, "{found:?}");
    let aside = files(folder).contains_key(&format!("{name}.damaged"));
    assert_eq!(aside, found.damaged_segments == 1);
    // Zeros to the end look as an append that was cut short.
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    let cut = lost.contains(&(count - 1)) && last < bytes.len() - 1;
    assert!(lost.is_empty() || aside || cut, "{lost:?} are lost silently");
    let (again, still) = reopened(folder);
    assert_eq!(still, given);
    assert_eq!((again.damaged_segments, again.damaged_items), (0, 0), "told twice");
}

#[test]
fn one_bit_changed_anywhere_costs_one_batch_at_most() {
    let home = folder();
    let (name, whole, records) = stored(home.path(), 8);
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            check(home.path(), &name, &bytes, |n| records[n as usize].contains(&at), 8);
        }
    }
}

#[test]
fn zeroed_and_overwritten_pieces_cost_what_they_touch() {
    let home = folder();
    let (name, whole, records) = stored(home.path(), 40);
    let mut random = 1u64;
    for len in [1, 16, 64, 200] {
        for begin in 0..whole.len() {
            let end = (begin + len).min(whole.len());
            let touched = |n: u32| {
                let record = &records[n as usize];
                record.start < end && begin < record.end
            };
            let mut zeroed = whole.clone();
            zeroed[begin..end].fill(0);
            check(home.path(), &name, &zeroed, touched, 40);
            let mut overwritten = whole.clone();
            for byte in &mut overwritten[begin..end] {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                *byte = random as u8 | 1;
            }
            check(home.path(), &name, &overwritten, touched, 40);
        }
    }
}

#[test]
fn a_payload_that_imitates_a_batch_is_none() {
    let home = folder();
    // What a stranger could have put into a request: a whole record, by another salt.
    let fake = [&Header::new(0, 9, b"fake").unwrap().to_bytes(0)[..], b"fake"].concat();
    let (mut store, _) = open(home.path());
    store.append(1, &[&fake[..], &fake[..]].concat()).unwrap();
    append(&mut store, [3]);
    drop(store);
    let (name, mut bytes) = files(home.path()).into_iter().next().unwrap();
    bytes[9] ^= 1;
    put(home.path(), &BTreeMap::from([(name, bytes)]));
    let (found, given) = reopened(home.path());
    assert_eq!((given, found.damaged_segments), (vec![3], 1));
}

#[test]
fn damage_that_shows_while_tap_runs_is_skipped_and_set_aside() {
    let home = folder();
    let (mut store, _) = open(home.path());
    append(&mut store, 0..4);
    let name = files(home.path()).into_keys().next().unwrap();
    let path = home.path().join(&name);
    let mut bytes = fs::read(&path).unwrap();
    // The payload of the second.
    bytes[HEADER + HEADER + 1] ^= 0x80;
    fs::write(&path, bytes).unwrap();
    done(&mut store, 0);
    assert!(matches!(store.take(0), Some(Taken::Damaged(2))));
    assert_eq!(store.take_damaged_segments(), 1);
    append(&mut store, [4]);
    for n in 2..5 {
        done(&mut store, n);
    }
    assert_eq!(store.held(), Held::default());
    store.close();
    assert_eq!(files(home.path()).into_keys().collect::<Vec<_>>(), [format!("{name}.damaged")]);
    // It holds the disk that it is allowed.
    assert!(store.used() > 0);
    drop(store);
    let (store, found) = open(home.path());
    assert_eq!(found.damaged_segments, 0);
    assert!(store.used() > 0);
}

#[test]
fn files_that_cannot_be_tap_s_do_no_harm() {
    let home = folder();
    let huge = home.path().join(format!("{:020}-{:016x}.log", 3, 1));
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    let name = |number: u64| home.path().join(format!("{number:020}-{:016x}.log", 1));
    fs::write(name(4), b"tap1DONEtap1").unwrap();
    fs::create_dir(name(5)).unwrap();
    fs::write(name(u64::MAX), b"tap1").unwrap();
    let (mut store, found) = open(home.path());
    assert_eq!((found.batches, found.damaged_segments), (0, 2));
    // The sparse file counts as what it pretends to be: there is no room beside it.
    assert!(matches!(store.append(1, b"x"), Err(Refused::Full)));
}
