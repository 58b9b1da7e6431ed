//! Connections that the rules have still to decide about, and those that they refuse. The kernel side
//! has decided what it could at the open; the rest is judged here whenever more is known of a
//! connection, at the latest when it is to be told.
//!
//! A refused one stays, empty, until its last record has come: until its close, or until the kernel
//! side has said that it takes no further notice.

use std::{collections::HashMap, sync::Arc};

use tap_common::{
    limits::ADMISSION_KNOWN,
    record::{Header, flags},
};

use super::{Entry, Key, Table, key, terms};
use crate::policy::{
    admission::{Judgement, Rulebook},
    connection::Facts,
};

/// What the table knows of rules.
#[derive(Default)]
pub(super) struct Judge {
    rulebook: Option<Rulebook>,
    /// Paths of cgroups by their number.
    cgroups: HashMap<u64, Arc<str>>,
    /// Connections that were refused since this was last asked.
    refused: Vec<Key>,
}

impl Table {
    /// A table that judges by these rules.
    #[must_use]
    pub fn with_rules(mut self, rulebook: Rulebook) -> Self {
        self.judge.rulebook = Some(rulebook);
        self
    }

    /// The path of a cgroup, before the record that names it.
    pub fn cgroup(&mut self, id: u64, path: Arc<str>) {
        let known = &mut self.judge.cgroups;
        if known.len() >= ADMISSION_KNOWN as usize && !known.contains_key(&id) {
            known.clear();
        }
        known.insert(id, path);
    }

    /// Whether rules wait for more of the connection that a record is of, or do not know it.
    pub fn is_undecided(&self, header: &Header) -> bool {
        let known = self.newest(header).and_then(|key| self.entries.get(&key));
        known.is_none_or(|entry| entry.judging.is_some())
    }

    /// Takes the connections of which the kernel side shall send no more.
    pub fn take_refused(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.judge.refused)
    }

    /// A connection has opened, or was found (`listed`): rules may have something to say of it.
    pub(super) fn begin_judging(&mut self, key: Key, listed: bool) {
        let Some(rulebook) = &self.judge.rulebook else { return };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.refused {
            // It was listed before the kernel side saw it.
            self.judge.refused.push(key);
            return;
        }
        let flags = entry.connection.flags;
        let rules = rulebook.of(usize::from(flags & flags::SECOND_RULES != 0));
        if rules.need_daemon(listed || flags & flags::PREEXISTING != 0) {
            entry.judging = Some(rules);
            self.judge(key, false);
        }
    }

    /// Judges a connection by what is known of it; `last`: no more will be.
    pub(super) fn judge(&mut self, key: Key, last: bool) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let Some(rules) = entry.judging.clone() else { return };
        let terms = terms(&self.settings, &self.identities, &self.listeners);
        let cgroup = self.judge.cgroups.get(&entry.connection.cgroup);
        match rules.judge(&entry.facts(&terms, cgroup.map(|path| &**path), last)) {
            Judgement::Undecided => {}
            Judgement::Wanted => {
                entry.judging = None;
                if entry.unannounced {
                    self.opening.push_back((self.now_ns, key));
                }
            }
            Judgement::Refused(reason, _) => {
                entry.refuse();
                // One that only a list of sockets shows may be among those that the kernel refused.
                if entry.in_storage {
                    self.counts.filtered[reason as usize] += 1;
                    self.judge.refused.push(key);
                }
            }
        }
    }

    /// The connection is to be told, as far as it is known. One that is refused is not, and goes:
    /// `true`.
    pub(super) fn is_refused_at_last(&mut self, key: Key) -> bool {
        self.judge(key, true);
        if !self.entries.get(&key).is_some_and(|entry| entry.refused) {
            return false;
        }
        self.entries.remove(&key);
        // The word on it may still wait for it.
        self.forgotten.push(key.0);
        true
    }

    /// The kernel side takes no further notice of a connection that was refused. Records that were
    /// under way may still come.
    pub(super) fn is_let_go(&mut self, header: &Header) {
        self.own.push_back((self.now_ns, key(header)));
    }
}

impl Entry {
    /// What rules may ask for.
    pub(super) fn facts<'a>(
        &'a self,
        terms: &super::Terms<'_>,
        cgroup: Option<&'a str>,
        last: bool,
    ) -> Facts<'a> {
        let (local, peer) = self.ends();
        let (protocol, hello) = self.spoken();
        Facts {
            local,
            peer,
            role: self.role(local, peer, terms),
            peer_name: self.peer_name.as_deref(),
            process: self.process.as_deref(),
            cgroup,
            protocol,
            hello,
            last,
        }
    }
}
