//! Connections that go on: segments of long ones, closes that were lost, the end of tap.

use std::collections::HashSet;

use tap_common::record::{Close, Header};

use super::{Entry, Key, LINGER_NS, Table, key, terms};

impl Table {
    /// Whether some connection is older than a segment may be, so that a snapshot is wanted.
    pub fn wants_segments(&mut self) -> bool {
        while let Some(&(since, key)) = self.ages.front() {
            if self.now_ns.saturating_sub(since) < self.settings.max_age_ns {
                return false;
            }
            if self.entries.contains_key(&key) {
                return true;
            }
            self.ages.pop_front();
        }
        false
    }

    /// Takes in a snapshot of all open connections: ends the segments that are due, and finds
    /// closes that were lost. Says which connections began a new segment, and how many turns each
    /// had: they may send turn records again.
    pub fn snapshot(&mut self, snapshot: &[Close]) -> Vec<(Header, u32)> {
        self.reconcile(snapshot);
        for close in snapshot {
            // Its open was lost.
            if let Some(entry) = self.entries.get_mut(&key(&close.header)).filter(|it| !it.known) {
                entry.learn(&close.connection);
                self.begin_judging(key(&close.header), false);
                self.tell(key(&close.header));
            }
        }
        let mut renewed = Vec::new();
        let due_before = self.now_ns.saturating_sub(self.settings.max_age_ns);
        let mut due = HashSet::new();
        while let Some(&(since, key)) = self.ages.front() {
            if since > due_before {
                break;
            }
            self.ages.pop_front();
            due.insert(key);
        }
        for close in snapshot {
            if due.remove(&key(&close.header)) && self.cut(close) {
                renewed.push((close.header, close.turns[0].saturating_add(close.turns[1])));
            }
        }
        // What the kernel has no state for: idle since before tap.
        for key in due {
            self.cut_without_word(key);
        }
        renewed
    }

    fn cut(&mut self, close: &Close) -> bool {
        let key = key(&close.header);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.learn(&close.connection);
        }
        if self.is_refused_at_last(key) {
            return false;
        }
        let terms = terms(&self.settings, &self.identities, &self.listeners);
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        if entry.closing.is_some() {
            return false;
        }
        entry.announce(&terms, &mut self.told);
        self.finished.push(entry.cut(close, &terms));
        self.ages.push_back((self.now_ns, key));
        true
    }

    fn cut_without_word(&mut self, key: Key) {
        if self.is_refused_at_last(key) {
            return;
        }
        let terms = terms(&self.settings, &self.identities, &self.listeners);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.closing.is_some() {
            return;
        }
        if entry.known {
            let lost = entry.in_storage;
            self.finished.push(entry.give_up(key.0, self.now_ns, lost, &terms));
            self.ages.push_back((self.now_ns, key));
        } else {
            self.push_out(key);
        }
    }

    /// An entry that the kernel must have state for, and has none, is closed: its close was lost.
    /// The snapshot is as new as the records read so far, so a connection that opened since is
    /// spared by its age.
    fn reconcile(&mut self, snapshot: &[Close]) {
        let open: HashSet<_> = snapshot.iter().map(|close| key(&close.header)).collect();
        let settled = self.now_ns.saturating_sub(LINGER_NS * 20);
        let is_lost = |key: &Key, entry: &Entry| {
            let quiet = entry.closing.is_none() && entry.since_ns < settled;
            entry.in_storage && quiet && !open.contains(key)
        };
        let entries = self.entries.iter();
        let lost: Vec<Key> =
            entries.filter(|(key, entry)| is_lost(key, entry)).map(|(key, _)| *key).collect();
        for key in lost {
            self.counts.closes_found += 1;
            self.push_out(key);
        }
    }

    /// A connection that its source follows no further goes out with what that says of it.
    pub fn give_up(&mut self, close: &Close) {
        let key = key(&close.header);
        if let Some(mut entry) = self.entries.remove(&key) {
            entry.learn(&close.connection);
            let terms = terms(&self.settings, &self.identities, &self.listeners);
            entry.announce(&terms, &mut self.told);
            entry.leave(self.now_ns, &terms, &mut self.told);
            self.finished.push(entry.cut(close, &terms));
        }
    }

    /// The end: everything that is open goes out with what the last snapshot says of it.
    pub fn flush(&mut self, snapshot: &[Close]) {
        for (_, key) in std::mem::take(&mut self.own) {
            let gone = self.entries.remove(&key);
            self.counts.own += u64::from(gone.is_some_and(|entry| !entry.refused));
        }
        for close in snapshot {
            // A connect in progress has sent no record yet: its entry is made here.
            let key = key(&close.header);
            let entry = self.entry(key);
            let known = entry.known;
            if entry.closing.is_some() {
                continue;
            }
            entry.learn(&close.connection);
            if !known {
                self.begin_judging(key, false);
            }
            if !self.is_refused_at_last(key)
                && let Some(mut entry) = self.entries.remove(&key)
            {
                let terms = terms(&self.settings, &self.identities, &self.listeners);
                entry.announce(&terms, &mut self.told);
                entry.leave(self.now_ns, &terms, &mut self.told);
                self.finished.push(entry.cut(close, &terms));
            }
        }
        let rest: Vec<Key> = self.entries.keys().copied().collect();
        for key in rest {
            self.push_out(key);
        }
    }
}
