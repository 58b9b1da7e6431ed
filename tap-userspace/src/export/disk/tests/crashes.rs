//! A process that ends, or a host that loses power, at any byte of what it writes.

use super::*;

/// What a process does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Append(u32),
    Done(u32),
    /// Ends and begins anew.
    Restart,
}

#[test]
fn a_file_cut_at_every_byte_gives_what_was_stored_before() {
    let home = folder();
    let (mut store, _) = open(home.path());
    let mut ends = vec![0];
    for n in 0..12 {
        append(&mut store, [n]);
        ends.push(store.used() as usize);
    }
    drop(store);
    let whole = files(home.path());
    let (name, bytes) = whole.iter().next().unwrap();
    for cut in 0..=bytes.len() {
        put(home.path(), &BTreeMap::from([(name.clone(), bytes[..cut].to_vec())]));
        let stored = ends.iter().filter(|end| **end <= cut).count() as u32 - 1;
        let expected: Vec<u32> = (0..stored).collect();
        let (mut store, found) = open(home.path());
        // An append that was cut short is no damage: nobody was told that it is stored.
        assert_eq!((found.damaged_segments, found.damaged_items), (0, 0), "{cut}");
        append(&mut store, [20]);
        drop(store);
        let (_, given) = reopened(home.path());
        assert_eq!(given, [expected, vec![20]].concat(), "{cut}");
    }
}

/// States of a file on the way from `before` to `after`: each number of changed bytes from the
/// front has arrived, or from the back, the length being the new one at once or not.
fn on_the_way(before: &[u8], after: &[u8]) -> Vec<Vec<u8>> {
    let mut old = before.to_vec();
    old.resize(after.len(), 0);
    let changed: Vec<usize> =
        (0..after.len()).filter(|at| *at >= before.len() || before[*at] != after[*at]).collect();
    let mut states = Vec::new();
    for arrived in 0..=changed.len() {
        let (mut front, mut back) = (old.clone(), old.clone());
        changed[..arrived].iter().for_each(|at| front[*at] = after[*at]);
        changed[changed.len() - arrived..].iter().for_each(|at| back[*at] = after[*at]);
        let written = changed[..arrived].last().map_or(before.len(), |at| at + 1);
        states.push(front[..written.max(before.len())].to_vec());
        states.push(front);
        states.push(back);
    }
    states
}

#[test]
fn power_lost_at_every_byte_loses_nothing_and_doubles_one_batch_at_most() {
    use Step::{Append, Done, Restart};
    let script = [
        Append(0),
        Append(1),
        Done(0),
        Append(2),
        Done(1),
        Restart,
        Append(3),
        Done(2),
        Append(4),
        Append(5),
        Restart,
        Done(3),
        Append(6),
        Done(4),
        Done(5),
        Append(7),
        Done(6),
        Done(7),
        Append(8),
    ];
    let (home, other) = (folder(), folder());
    let mut store = Some(open(home.path()).0);
    let (mut waiting, mut cases) = (Vec::new(), 0);
    for step in script {
        let before = files(home.path());
        let held = waiting.clone();
        let running = store.as_mut().unwrap();
        match step {
            Append(n) => {
                append(running, [n]);
                waiting.push(n);
            }
            Done(n) => {
                done(running, n);
                waiting.retain(|other| *other != n);
            }
            Restart => {
                drop(store.take());
                store = Some(open(home.path()).0);
            }
        }
        let after = files(home.path());
        for (name, bytes) in &after {
            let none = Vec::new();
            for state in on_the_way(before.get(name).unwrap_or(&none), bytes) {
                let mut crashed = before.clone();
                crashed.insert(name.clone(), state);
                put(other.path(), &crashed);
                let (_, given) = reopened(other.path());
                // What was acknowledged before the step, and what it was about, or not.
                let about = match step {
                    Append(n) | Done(n) => Some(n),
                    Restart => None,
                };
                let mut without = given.clone();
                without.retain(|n| Some(*n) != about);
                let mut expected = held.clone();
                expected.retain(|n| Some(*n) != about);
                assert_eq!(without, expected, "{step:?}");
                assert!(given.len() <= without.len() + 1, "{step:?}: {given:?}");
                assert!(given.is_sorted(), "{step:?}: {given:?}");
                cases += 1;
            }
        }
        // After the step there is what should be, and no more.
        put(other.path(), &after);
        assert_eq!(reopened(other.path()).1, waiting, "{step:?}");
        // A file that is used up was marked so before it was deleted: as long as that has not
        // arrived, its last batch is there once more.
        let mut undeleted = before.clone();
        undeleted.extend(after.clone());
        put(other.path(), &undeleted);
        assert!(reopened(other.path()).1.iter().filter(|n| !waiting.contains(n)).count() <= 1);
    }
    assert!(cases > 1_000, "{cases}");
}

#[test]
fn a_crash_after_a_crash_changes_nothing() {
    let home = folder();
    let (mut store, _) = open(home.path());
    append(&mut store, 0..4);
    done(&mut store, 0);
    drop(store);
    for _ in 0..5 {
        // Each takes all and is killed before it is done with any.
        assert_eq!(reopened(home.path()).1, [1, 2, 3]);
    }
}
