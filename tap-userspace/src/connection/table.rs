//! The table of connections: bounded, one entry per socket that is open. Comes in: records, ticks,
//! snapshots, socket listings. Goes out: finished connections.
//!
//! It reads no clock and asks nobody: the same input gives the same output, which is what makes a
//! recording replayable.

mod counts;
mod judged;
mod segments;

use std::{
    collections::{HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hashbrown::HashMap;
use tap_common::record::{self, Close, Data, Dns, Header, Lane, Open, Owner, flags};

pub use self::counts::{Counts, Exchanges};
use super::{
    batches::Batches,
    entry::{Entry, Terms, Told, address},
    identity::Identities,
    life::Life,
    model::{Connection, Identity, Role},
    transaction::Transaction,
};
use crate::{
    enrich::{names::Names, process::Process},
    protocol::{
        content::Collect,
        conversation::{DNS_PORT, DnsMessage, Interest},
    },
    source::decode::Record,
};

/// After a close whose records are not all there, how long to wait for the rest once the data ring
/// was empty.
const LINGER_NS: u64 = 50_000_000;

/// How long a connection that is older than tap and ends at once waits for the first list of the
/// host's sockets, which tells who opened it: the list of a host with 2,000 processes takes less.
const LISTING_NS: u64 = 2_000_000_000;

/// How long it waits for a connection's owner to be known to tell that it has opened: an accepted
/// one has none before its first use.
const ANNOUNCE_NS: u64 = 100_000_000;

/// What the configuration says of the table.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most entries.
    pub capacity: usize,
    /// After this long a connection's segment is exported and its next begins.
    pub max_age_ns: u64,
    /// Most events of a span.
    pub event_limit: usize,
    /// Whether it is told at once that a connection has opened.
    pub lives: bool,
    /// Whether the exchanges inside connections are read.
    pub parse: bool,
    /// Whether exchanges of databases tell their statements.
    pub statements: bool,
    /// How contents of HTTP messages are kept, if they are.
    pub collect: Option<Arc<Collect>>,
    /// The process whose connections are not traced: tap itself. 0 for none.
    pub self_tgid: u32,
}

/// Socket cookie and generation.
pub type Key = (u64, u32);

/// The table.
pub struct Table {
    settings: Settings,
    identities: Identities,
    /// One entry per connection; a socket that connects again has two while the records of the
    /// first are still under way.
    entries: HashMap<Key, Box<Entry>>,
    /// Since when, in the order of their ages.
    ages: VecDeque<(u64, Key)>,
    /// Closes that wait for records.
    waiting: VecDeque<Key>,
    /// Connections that opened without an owner, and when.
    ownerless: VecDeque<(u64, Key)>,
    /// Connections of which it is to be told that they have opened, and since when.
    opening: VecDeque<(u64, Key)>,
    /// Connections of tap itself, which no close ends, and since when that is known. They stay until
    /// the records that were under way have come.
    own: VecDeque<(u64, Key)>,
    listeners: HashSet<(IpAddr, u16)>,
    /// Names that DNS answers gave to addresses.
    names: Names,
    /// Connections that opened in this round to a peer without a name. The answer that names it may
    /// still stand in the data ring, as the life ring is read first.
    unnamed: Vec<Key>,
    /// Sockets whose connection ended before the first listing came: it may still show them.
    ended: Option<HashSet<u64>>,
    was_listed: bool,
    now_ns: u64,
    clock_offset: i64,
    /// Memory is short: payload is not looked at.
    sheds_payload: bool,
    counts: Counts,
    opened: [u64; 2],
    finished: Batches<Connection>,
    told: Told,
    /// Connections of which the kernel side should capture otherwise.
    interests: Vec<(Key, Interest)>,
    /// Connections that ended while such a word may still wait for them.
    forgotten: Vec<u64>,
    judge: judged::Judge,
}

impl Table {
    /// An empty table.
    pub fn new(settings: Settings, identities: Identities) -> Self {
        Self {
            settings,
            identities,
            entries: HashMap::new(),
            ages: VecDeque::new(),
            waiting: VecDeque::new(),
            ownerless: VecDeque::new(),
            opening: VecDeque::new(),
            own: VecDeque::new(),
            listeners: HashSet::new(),
            names: Names::default(),
            unnamed: Vec::new(),
            ended: Some(HashSet::new()),
            was_listed: false,
            now_ns: 0,
            clock_offset: 0,
            sheds_payload: false,
            counts: Counts::default(),
            opened: [0; 2],
            finished: Batches::default(),
            told: Told::default(),
            interests: Vec::new(),
            forgotten: Vec::new(),
            judge: judged::Judge::default(),
        }
    }

    /// Connections in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What it did besides.
    pub const fn counts(&self) -> Counts {
        Counts { unknown: self.told.unknown, exchanges: self.told.exchanges, ..self.counts }
    }

    /// Connections that were established while tap looked, by who opened them: the peer, this host.
    /// Those of tap itself that the kernel side could not know are among them.
    pub const fn opened(&self) -> [u64; 2] {
        self.opened
    }

    /// Takes what has finished.
    pub fn take_finished(&mut self) -> Batches<Connection> {
        std::mem::take(&mut self.finished)
    }

    /// Takes the exchanges that are over.
    pub fn take_transactions(&mut self) -> Batches<Transaction> {
        std::mem::take(&mut self.told.transactions)
    }

    /// Takes the connections that have opened. They come before the same that have finished.
    pub fn take_lives(&mut self) -> Batches<Life> {
        std::mem::take(&mut self.told.lives)
    }

    /// Takes what the kernel side should know: what to capture of connections, by cookie and
    /// generation, and cookies of which nothing waits any more.
    pub fn take_interests(&mut self) -> (Vec<(Key, Interest)>, Vec<u64>) {
        (std::mem::take(&mut self.interests), std::mem::take(&mut self.forgotten))
    }

    /// Sets the time: monotonic now, and what to add for the wall clock.
    pub const fn set_clock(&mut self, now_ns: u64, clock_offset: i64) {
        self.now_ns = now_ns;
        self.clock_offset = clock_offset;
    }

    /// Whether payload is not looked at from now on: it is the first to go where memory is short.
    pub const fn shed_payload(&mut self, shed: bool) {
        self.sheds_payload = shed;
    }

    /// Takes in one record; `process` is who the record's process is, where it names one.
    pub fn record(&mut self, record: &Record<'_>, process: Option<&Arc<Process>>) {
        match record {
            Record::Open(open) => self.open(open, process),
            Record::Owner(owner) => self.owner(owner, process),
            Record::Data(data, payload) => self.data(data, payload, process),
            Record::Close(close) => self.close(close, process),
            Record::Dns(dns, message) => self.dns(dns, message),
            Record::Exec(..) | Record::Fork(_) | Record::Exit(_) => {}
        }
    }

    /// Learns from a DNS message. What is no message, or nobody asked for, tells nothing and is
    /// counted.
    fn dns(&mut self, dns: &Dns, message: &[u8]) {
        let local = (address(dns.tuple.local), dns.tuple.local_port);
        let remote = (address(dns.tuple.remote), dns.tuple.remote_port);
        let now = dns.header.time_ns;
        let (from, to) =
            if dns.header.lane == Lane::Receive as u8 { (remote, local) } else { (local, remote) };
        self.dns_message(message, from.into(), to.into(), now);
    }

    /// Learns from a DNS message that went at `now`.
    pub fn dns_message(&mut self, message: &[u8], from: SocketAddr, to: SocketAddr, now: u64) {
        let read = if to.port() == DNS_PORT {
            self.names.query(message, from, to, now)
        } else {
            self.names.answer(message, from, to, now).map(|_| ())
        };
        if let Err(refused) = read {
            self.counts.dns_refused[refused.index()] += 1;
        }
    }

    /// What the program that opens this connection has asked for, by the DNS answers seen.
    fn name_of(&mut self, connection: &record::Connection) -> Option<Box<str>> {
        if connection.flags & flags::ACTIVE == 0 {
            return None;
        }
        let peer = address(connection.tuple.remote);
        self.names.name(peer, connection.opened_ns).map(Box::from)
    }

    fn open(&mut self, open: &Open, process: Option<&Arc<Process>>) {
        let key = key(&open.header);
        let name = self.name_of(&open.connection);
        self.opened[usize::from(open.connection.flags & flags::ACTIVE != 0)] += 1;
        if name.is_none() && open.connection.flags & flags::ACTIVE != 0 {
            self.unnamed.push(key);
        }
        let announce = self.settings.lives;
        if announce {
            self.opening.push_back((self.now_ns, key));
        }
        let entry = self.entry(key);
        entry.count(Lane::Life);
        entry.in_storage = true;
        entry.unannounced = announce;
        entry.learn(&open.connection);
        entry.peer_name = name;
        if let Some(process) = process {
            entry.process = Some(process.clone());
        } else if self.ownerless.len() < self.settings.capacity {
            self.ownerless.push_back((self.now_ns, key));
        }
        self.begin_judging(key, false);
        self.tell(key);
        self.finish_if_complete(key);
    }

    fn owner(&mut self, owner: &Owner, process: Option<&Arc<Process>>) {
        if owner.header.flags & flags::REFUSED != 0 {
            return self.is_let_go(&owner.header);
        }
        let Some(key) = self.newest(&owner.header) else { return };
        if owner.tgid != 0 && owner.tgid == self.settings.self_tgid {
            // The first use of an accepted socket shows that it is tap's own; the kernel side
            // says no more of it.
            self.own.push_back((self.now_ns, key));
            self.entry(key).unannounced = false;
            return;
        }
        let entry = self.entry(key);
        if owner.header.generation == key.1 {
            entry.count(Lane::Life);
        }
        if entry.process.is_none() {
            entry.process = process.cloned();
        }
        self.judge(key, false);
        self.finish_if_complete(key);
    }

    /// Tells what the ends of a connection have said to one another since the last time.
    fn tell(&mut self, key: Key) {
        let terms = terms(&self.settings, &self.identities, &self.listeners);
        if let Some(entry) = self.entries.get_mut(&key)
            && let Some(interest) = entry.transactions(&terms, &mut self.told)
        {
            self.interests.push((key, interest));
        }
    }

    fn data(&mut self, data: &Data, payload: &[u8], process: Option<&Arc<Process>>) {
        let key = key(&data.header);
        self.entry(key);
        let shed = self.sheds_payload && !payload.is_empty();
        self.counts.payload_shed += u64::from(shed);
        let payload = if shed { &[] } else { payload };
        let terms = terms(&self.settings, &self.identities, &self.listeners);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let closing = entry.closing.is_some();
        let receive = data.header.lane == Lane::Receive as u8;
        entry.count(if receive { Lane::Receive } else { Lane::Transmit });
        if entry.process.is_none() {
            entry.process = process.cloned();
        }
        if entry.refused {
            if closing {
                self.finish_if_complete(key);
            }
            return;
        }
        entry.data(data, payload, &terms);
        if entry.judging.is_some() {
            entry.learn_protocol();
            self.judge(key, false);
        }
        let terms = self::terms(&self.settings, &self.identities, &self.listeners);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(interest) = entry.transactions(&terms, &mut self.told) {
            self.interests.push((key, interest));
        }
        let (said, (local, peer)) = (entry.dns(), entry.ends());
        for DnsMessage { direction, at_ns, bytes } in said {
            let (from, to) =
                if direction == record::RECEIVE { (peer, local) } else { (local, peer) };
            self.dns_message(&bytes, from.into(), to.into(), at_ns);
        }
        if closing {
            self.finish_if_complete(key);
        }
    }

    fn close(&mut self, close: &Close, process: Option<&Arc<Process>>) {
        let Some(key) = self.newest(&close.header) else { return };
        let mut close = *close;
        let now = self.now_ns;
        let unlisted = self.ended.is_some();
        // A connect that failed has no open.
        let known = self.entries.get(&key).is_some_and(|entry| entry.known);
        let name = if known { None } else { self.name_of(&close.connection) };
        let entry = self.entry(key);
        entry.peer_name = entry.peer_name.take().or(name);
        if close.header.generation == key.1 {
            entry.count(Lane::Life);
            entry.learn(&close.connection);
        } else {
            // The second witness by cookie knows the socket but not its connection.
            entry.complete(&mut close);
        }
        if entry.process.is_none() {
            entry.process = process.cloned();
        }
        if !known {
            self.begin_judging(key, false);
        }
        let entry = self.entry(key);
        // The answer that made the program connect may still stand in the data ring.
        let failed = close.connection.flags & flags::ESTABLISHED == 0;
        let unnamed = failed && entry.peer_name.is_none();
        if entry.is_complete(&close) && !unnamed && !(unlisted && entry.is_preexisting()) {
            self.finish(key, &close);
        } else {
            entry.closing = Some(Box::new((close, now)));
            self.waiting.push_back(key);
        }
    }

    /// The connection of a record: what its header says, or, where that knows the socket only, the
    /// newest of that socket; `None` if there is none.
    fn newest(&self, header: &Header) -> Option<Key> {
        const TRIED: u32 = 16;
        if header.generation != u32::MAX {
            return Some(key(header));
        }
        (0..TRIED).rev().map(|g| (header.cookie, g)).find(|key| self.entries.contains_key(key))
    }

    /// The entry of a connection, made if there is none.
    fn entry(&mut self, key: Key) -> &mut Entry {
        if self.entries.len() >= self.settings.capacity && !self.entries.contains_key(&key) {
            self.evict();
        }
        // What has ended still stands in the ages; it is swept out before it outweighs the rest.
        if self.ages.len() > 2 * self.entries.len() + 4096 {
            self.ages.retain(|(_, key)| self.entries.contains_key(key));
        }
        let Self { entries, ages, identities, now_ns, clock_offset, .. } = self;
        entries.entry(key).or_insert_with(|| {
            let (id, drawn) = identities.draw(now_ns.saturating_add_signed(*clock_offset));
            ages.push_back((*now_ns, key));
            Box::new(Entry::new(*now_ns, *clock_offset, id, drawn))
        })
    }

    /// The oldest goes; where all are closed and only wait for records, the one that closed first.
    fn evict(&mut self) {
        let Self { ages, waiting, .. } = self;
        let aged = std::iter::from_fn(|| ages.pop_front().map(|(_, key)| key));
        for key in aged.chain(std::iter::from_fn(|| waiting.pop_front())) {
            if self.entries.contains_key(&key) {
                self.push_out(key);
                self.counts.evicted += 1;
                return;
            }
        }
    }

    /// Ends an entry without a close, as far as it is known.
    fn push_out(&mut self, key: Key) {
        if self.is_refused_at_last(key) {
            return;
        }
        let Some(mut entry) = self.entries.remove(&key) else { return };
        if let Some(closing) = entry.closing.take() {
            return self.export_closed(entry, &closing.0);
        }
        if entry.interest != Interest::Turns {
            self.forgotten.push(key.0);
        }
        entry.announce(&terms(&self.settings, &self.identities, &self.listeners), &mut self.told);
        if entry.known {
            let lost = entry.in_storage;
            let terms = terms(&self.settings, &self.identities, &self.listeners);
            entry.leave(self.now_ns, &terms, &mut self.told);
            self.finished.push(entry.give_up(key.0, self.now_ns, lost, &terms));
        } else {
            let terms = terms(&self.settings, &self.identities, &self.listeners);
            entry.leave(self.now_ns, &terms, &mut self.told);
            self.counts.nameless += 1;
        }
    }

    fn finish_if_complete(&mut self, key: Key) {
        let Some(entry) = self.entries.get(&key) else { return };
        let Some(closing) = entry.closing.as_deref() else { return };
        if entry.is_complete(&closing.0) && !(self.ended.is_some() && entry.is_preexisting()) {
            let close = closing.0;
            self.finish(key, &close);
        }
    }

    fn finish(&mut self, key: Key, close: &Close) {
        if self.is_refused_at_last(key) {
            return;
        }
        if let Some(entry) = self.entries.remove(&key) {
            self.export_closed(entry, close);
        }
    }

    fn export_closed(&mut self, mut entry: Box<Entry>, close: &Close) {
        if let Some(ended) = &mut self.ended {
            ended.insert(close.header.cookie);
        }
        if entry.interest != Interest::Turns {
            self.forgotten.push(close.header.cookie);
        }
        if entry.peer_name.is_none() {
            entry.peer_name = self.name_of(&entry.connection);
        }
        let terms = terms(&self.settings, &self.identities, &self.listeners);
        entry.announce(&terms, &mut self.told);
        self.finished.push(entry.close(close, &terms, &mut self.told));
    }

    /// The end of a round over the rings; `drained` tells that the data ring was empty. Finishes
    /// closes whose missing records will not come any more.
    pub fn tick(&mut self, drained: bool) {
        if self.was_listed {
            self.ended = None;
        }
        for key in std::mem::take(&mut self.unnamed) {
            let Some(connection) = self.entries.get(&key).map(|entry| entry.connection) else {
                continue;
            };
            let name = self.name_of(&connection);
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.peer_name = name;
            }
        }
        self.announce();
        while drained && let Some(&(since, key)) = self.own.front() {
            if self.now_ns.saturating_sub(since) < LINGER_NS {
                break;
            }
            self.own.pop_front();
            let gone = self.entries.remove(&key);
            self.counts.own += u64::from(gone.is_some_and(|entry| !entry.refused));
        }
        while drained && let Some(&key) = self.waiting.front() {
            if let Some(entry) = self.entries.get(&key)
                && let Some((close, read_ns)) = entry.closing.as_deref()
            {
                let unlisted = self.ended.is_some() && entry.is_preexisting();
                let patience = match unlisted {
                    true => LISTING_NS,
                    false if entry.is_complete(close) => 0,
                    false => LINGER_NS,
                };
                if self.now_ns.saturating_sub(*read_ns) < patience {
                    break;
                }
                let close = *close;
                self.finish(key, &close);
            }
            self.waiting.pop_front();
        }
    }

    /// Tells which connections have opened: once their owner is known, as it is soon.
    fn announce(&mut self) {
        let Self { opening, entries, settings, identities, listeners, told, .. } = self;
        let terms = terms(settings, identities, listeners);
        while let Some((since, key)) = opening.front() {
            if let Some(entry) = entries.get_mut(key) {
                let ownerless = entry.unannounced && entry.process.is_none();
                let late = self.now_ns.saturating_sub(*since) >= ANNOUNCE_NS;
                if ownerless && !late && opening.len() < settings.capacity {
                    return;
                }
                // Until it is decided whether it is told at all.
                if entry.judging.is_none() {
                    entry.announce(&terms, told);
                }
            }
            opening.pop_front();
        }
    }

    /// Takes in a connection from the host's list of sockets: one that is older than tap, or an
    /// owner for one that has none.
    pub fn listed(&mut self, listed: &Open, process: Option<Arc<Process>>) {
        self.was_listed = true;
        let cookie = listed.header.cookie;
        let own = listed.connection.tgid != 0 && listed.connection.tgid == self.settings.self_tgid;
        let socket = Header { generation: u32::MAX, ..listed.header };
        let known = self.newest(&socket);
        if let Some((key, entry)) = known.and_then(|key| Some((key, self.entries.get_mut(&key)?))) {
            if entry.process.is_none() {
                entry.process = process;
            }
            self.judge(key, false);
        } else if !own && !self.ended.as_ref().is_some_and(|ended| ended.contains(&cookie)) {
            let entry = self.entry(key(&listed.header));
            entry.learn(&listed.connection);
            entry.in_storage = false;
            entry.process = process;
            let key = key(&listed.header);
            self.begin_judging(key, true);
            if self.entries.get(&key).is_some_and(|entry| entry.refused) {
                self.entries.remove(&key);
            }
        }
    }

    /// Whether some connection has no owner.
    pub fn has_ownerless(&self) -> bool {
        self.entries.values().any(|entry| entry.process.is_none())
    }

    /// Whether some connection has been without an owner for a second, and no look at the host's
    /// sockets was asked for it: MPTCP's subflows are never used by a process themselves. Asks once
    /// for each.
    pub fn wants_owners(&mut self) -> bool {
        const SECOND_NS: u64 = 1_000_000_000;
        let mut wants = false;
        while let Some(&(since, key)) = self.ownerless.front()
            && self.now_ns.saturating_sub(since) > SECOND_NS
        {
            self.ownerless.pop_front();
            wants |= self.entries.get(&key).is_some_and(|entry| entry.process.is_none());
        }
        wants
    }

    /// An address and port that somebody listens on.
    pub fn listens(&mut self, address: IpAddr, port: u16) {
        self.was_listed = true;
        self.listeners.insert((address, port));
    }
}

/// The connection that a record is of.
const fn key(header: &Header) -> Key {
    (header.cookie, header.generation)
}

/// The terms on which entries become connections.
fn terms<'a>(
    settings: &'a Settings,
    identities: &'a Identities,
    listeners: &'a HashSet<(IpAddr, u16)>,
) -> Terms<'a> {
    let Settings { event_limit, parse, statements, .. } = *settings;
    let collect = &settings.collect;
    Terms { event_limit, identities, listeners, parse, statements, collect }
}

impl Terms<'_> {
    /// The ids that both ends derive, where ids are shared.
    pub fn derive(&self, client_isn: u32, server_isn: u32, role: Role) -> Option<Identity> {
        self.identities.derive(client_isn, server_isn, role)
    }

    /// Whether somebody listened on this address and port, or on all addresses, when tap started.
    pub fn listens(&self, address: IpAddr, port: u16) -> bool {
        let any = [
            address,
            std::net::Ipv4Addr::UNSPECIFIED.into(),
            std::net::Ipv6Addr::UNSPECIFIED.into(),
        ];
        any.iter().any(|address| self.listeners.contains(&(*address, port)))
    }
}
