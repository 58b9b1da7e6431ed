//! The DNS names that programs of this host asked for. Comes in: DNS queries and responses as they
//! crossed the wire. Goes out: the name of an address.
//!
//! A response is believed only if the query it answers was seen shortly before: the same id and
//! question between the same two sockets, once. Whoever could guess that could lead the program
//! itself to another address. A name is one that was asked for, not what it is an alias of.
#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::dns::{self, Message, Name, Record};

/// Most addresses that have a name.
pub const ADDRESSES_MAX: usize = 16_384;
/// Most queries that wait for their response; more at a time than a busy resolver has under way.
pub const QUERIES_MAX: usize = 4_096;

const SECOND: u64 = 1_000_000_000;
/// How long a response is waited for: a stub resolver waits 5 seconds and asks anew (resolv.conf(5)).
const ANSWER_NS: u64 = 10 * SECOND;
/// Seconds that a TTL is brought between: a connection is opened after its name's lookup, however
/// short the TTL; and an address may be another's after an hour.
const TTL: (u32, u32) = (10, 3_600);
/// How long a name is kept past its TTL: connection pools and runtimes that cache addresses on
/// their own open connections long after it, and nobody else has a better name for the address.
const GRACE_NS: u64 = 600 * SECOND;
/// Multicast DNS (RFC 6762) answers without being asked.
const MDNS: u16 = 5353;

/// What resolvers are discovered by (RFC 9462), which names none of them.
const DISCOVERY: &str = "resolver.arpa";

/// Why a packet told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// Header or question cannot be read.
    #[error("the DNS message's header or question is broken")]
    Malformed,
    /// A response where a query should be or the other way round, or another operation.
    #[error("the DNS message is not of the kind expected")]
    Kind,
    /// Nobody asked that, or it was answered already.
    #[error("no query for the DNS response was seen")]
    Unasked,
    /// The response's error (RCODE).
    #[error("the DNS response has error code {0}")]
    Failed(u8),
    /// Multicast DNS.
    #[error("multicast DNS is not listened to")]
    Multicast,
}

impl Refused {
    /// Names of the reasons, in the order of [`Self::index`].
    pub const REASONS: [&str; 5] = ["malformed", "kind", "unasked", "failed", "multicast"];

    /// Its place among the reasons.
    pub const fn index(self) -> usize {
        match self {
            Self::Malformed => 0,
            Self::Kind => 1,
            Self::Unasked => 2,
            Self::Failed(_) => 3,
            Self::Multicast => 4,
        }
    }
}

/// The table of names.
#[derive(Debug, Default)]
pub struct Names {
    addresses: Recent<IpAddr, Known, { ADDRESSES_MAX / 2 }>,
    /// When it was asked, by a keyed hash of id, question and both sockets.
    queries: Recent<u64, u64, { QUERIES_MAX / 2 }>,
    keyed: RandomState,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    since_ns: u64,
    until_ns: u64,
}

impl Names {
    /// Takes in a query that went from a program to a server.
    pub fn query(
        &mut self,
        packet: &[u8],
        from: SocketAddr,
        to: SocketAddr,
        now_ns: u64,
    ) -> Result<(), Refused> {
        let asked = self.read(packet, from, to, false)?.1;
        self.queries.insert(asked, now_ns);
        Ok(())
    }

    /// Takes in a server's response, and tells how many addresses got a name. One that is cut (by
    /// TC, or by the capture) is read as far as it goes. CNAMEs are followed in the order they
    /// stand, as glibc's resolver does.
    pub fn answer(
        &mut self,
        packet: &[u8],
        from: SocketAddr,
        to: SocketAddr,
        now_ns: u64,
    ) -> Result<usize, Refused> {
        let (message, asked) = self.read(packet, to, from, true)?;
        let asked_ns = self.queries.remove(&asked).ok_or(Refused::Unasked)?;
        if now_ns.saturating_sub(asked_ns) > ANSWER_NS {
            return Err(Refused::Unasked);
        }
        if message.rcode != 0 {
            return Err(Refused::Failed(message.rcode));
        }
        let service = matches!(message.kind, dns::SVCB | dns::HTTPS);
        let Some(name) = message.name.text(service) else { return Ok(0) };
        if name == DISCOVERY {
            return Ok(0);
        }
        let name = Arc::<str>::from(name);
        let mut learned = 0;
        let mut chain = Chain { name: message.name, at: Message::NAME_AT, ttl: u32::MAX };
        for record in message.answers().filter(|record| record.class == dns::IN) {
            if !chain.owns(&message, &record) {
                continue;
            }
            if record.kind == dns::CNAME {
                let Some(next) = chain.follow(&message, &record) else { break };
                chain = next;
                continue;
            }
            let ttl = u64::from(chain.ttl.min(record.ttl).clamp(TTL.0, TTL.1));
            let until_ns = now_ns.saturating_add(ttl * SECOND + GRACE_NS);
            addresses(&record, |address| {
                if is_peer(address) {
                    learned += 1;
                    let (name, since_ns) = (Arc::clone(&name), now_ns);
                    self.addresses.insert(address, Known { name, since_ns, until_ns });
                }
            });
        }
        Ok(learned)
    }

    /// The name that was last asked for to come to `address`, for who goes there at `now_ns`.
    pub fn name(&mut self, address: IpAddr, now_ns: u64) -> Option<&str> {
        let known = self.addresses.get(&address.to_canonical())?;
        (known.since_ns..=known.until_ns).contains(&now_ns).then_some(&*known.name)
    }

    /// Heap bytes held, at most; counts them one by one.
    pub fn memory(&self) -> usize {
        // A name that several addresses share is counted for each.
        let names = self.addresses.values().map(|known| known.name.len() + 2 * size_of::<usize>());
        self.addresses.memory() + self.queries.memory() + names.sum::<usize>()
    }

    /// Reads a message between a client and a server, with the hash it is known by.
    fn read<'a>(
        &self,
        packet: &'a [u8],
        client: SocketAddr,
        server: SocketAddr,
        response: bool,
    ) -> Result<(Message<'a>, u64), Refused> {
        if client.port() == MDNS || server.port() == MDNS {
            return Err(Refused::Multicast);
        }
        let message = Message::read(packet).ok_or(Refused::Malformed)?;
        if message.response != response || message.opcode != 0 {
            return Err(Refused::Kind);
        }
        let sockets = [client, server].map(|end| (end.ip().to_canonical(), end.port()));
        let question = (message.name.wire(), message.kind, message.class);
        let asked = self.keyed.hash_one((message.id, sockets, question));
        Ok((message, asked))
    }
}

/// Where the aliases of the name asked for have led.
struct Chain {
    name: Name,
    /// A place in the message where it stands.
    at: usize,
    /// The least of the aliases'.
    ttl: u32,
}

impl Chain {
    /// Whether a record is about the name. Mostly its owner is a pointer to it.
    fn owns(&self, message: &Message<'_>, record: &Record<'_>) -> bool {
        dns::pointer(message.bytes, record.owner_at) == Some(self.at)
            || Name::read(message.bytes, record.owner_at)
                .is_some_and(|(owner, _)| owner == self.name)
    }

    fn follow(&self, message: &Message<'_>, alias: &Record<'_>) -> Option<Self> {
        let (name, _) = Name::read(message.bytes, alias.data_at)?;
        Some(Self { name, at: alias.data_at, ttl: self.ttl.min(alias.ttl) })
    }
}

/// The addresses that a record tells. Hints of a length that is no multiple of an address's are
/// malformed (RFC 9460, section 7.3).
fn addresses(record: &Record<'_>, mut tell: impl FnMut(IpAddr)) {
    let (v4, v6) = match record.kind {
        dns::A => (Some(record.data).filter(|v4| v4.len() == 4), None),
        dns::AAAA => (None, Some(record.data).filter(|v6| v6.len() == 16)),
        dns::SVCB | dns::HTTPS => (hints(record.data, 4), hints(record.data, 6)),
        _ => (None, None),
    };
    if let (v4, []) = v4.unwrap_or_default().as_chunks::<4>() {
        v4.iter().for_each(|bytes| tell(Ipv4Addr::from(*bytes).into()));
    }
    if let (v6, []) = v6.unwrap_or_default().as_chunks::<16>() {
        v6.iter().for_each(|bytes| tell(Ipv6Addr::from(*bytes).to_canonical()));
    }
}

/// A parameter of a service binding: `ipv4hint` (4) or `ipv6hint` (6) (RFC 9460, section 7.3).
fn hints(data: &[u8], wanted: u16) -> Option<&[u8]> {
    // Priority 0 is an alias, which has no parameters.
    dns::u16_at(data, 0).filter(|&priority| priority > 0)?;
    let mut at = dns::skip_name(data, 2)?;
    loop {
        let (key, len) = (dns::u16_at(data, at)?, dns::u16_at(data, at + 2)?);
        let value = data.get(at + 4..at + 4 + usize::from(len))?;
        if key == wanted {
            return Some(value);
        }
        at += 4 + value.len();
    }
}

/// Whether an address is one peer's. Filters answer with 0.0.0.0 or 127.0.0.1 for names they
/// block, and everybody's loopback must not be called by one of them.
const fn is_peer(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(Ipv4Addr::BROADCAST));
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast)
}

/// A map of at most twice `HALF` entries, in two generations: when the young one is full the old
/// one is forgotten. The `HALF` entries that were last inserted or used are always there; an
/// operation is O(1), amortised.
#[derive(Debug)]
struct Recent<K, V, const HALF: usize> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V, const HALF: usize> Default for Recent<K, V, HALF> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash, V, const HALF: usize> Recent<K, V, HALF> {
    fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= HALF && !self.young.contains_key(&key) {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, value);
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get(key)
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    fn values(&self) -> impl Iterator<Item = &V> {
        self.young.values().chain(self.old.values())
    }

    /// A hash map takes a byte per place beside the entry, and fills 7 of 8 places.
    fn memory(&self) -> usize {
        (self.young.capacity() + self.old.capacity()) * (size_of::<(K, V)>() + 1) * 8 / 7
    }
}

/// Takes `bytes` for messages of both sides, over UDP and over TCP in pieces, with each response's
/// question asked before. Panics where a bound is broken.
#[doc(hidden)]
pub fn fuzz_names(bytes: &[u8]) {
    use crate::protocol::exchange::Piece;

    const NAMES_BOUND: usize = 32 << 10;
    let mut names = Names::default();
    let ends = [SocketAddr::from(([192, 0, 2, 1], 4000)), SocketAddr::from(([192, 0, 2, 2], 53))];
    let mut learned = 0;
    let mut take = |packet: &[u8]| {
        let mut query = packet.to_vec();
        if let Some(flags) = query.get_mut(2) {
            *flags &= 0x7f;
        }
        let _ = names.query(&query, ends[0], ends[1], 1);
        if let Some(flags) = query.get_mut(2) {
            *flags |= 0x80;
        }
        let found = names.answer(&query, ends[1], ends[0], 2).unwrap_or(0);
        assert!(found <= packet.len() / 4, "each address takes its bytes");
        learned += found;
        assert_eq!(names.answer(&query, ends[1], ends[0], 3).unwrap_or(0), 0, "believed once");
    };
    take(bytes);
    let mut tcp = dns::DnsTcp::default();
    let mut rest = bytes;
    while let Some((&cut, after)) = rest.split_first() {
        let (now, later) = after.split_at(usize::from(cut).min(after.len()));
        match cut {
            0 => tcp.take(Piece::Missing(later.len() as u64 % 700), &mut take),
            _ => tcp.take(Piece::Bytes(now), &mut take),
        }
        assert!(tcp.memory() <= 2 * dns::DnsTcp::HELD_MAX + 4);
        rest = later;
    }
    tcp.take(Piece::End, &mut take);
    assert_eq!(tcp.memory(), 0);
    for known in names.addresses.values() {
        assert!((1..=Name::TEXT_MAX).contains(&known.name.len()));
        assert!(known.name.bytes().all(|byte| matches!(byte, b'!'..=b'~')));
        assert!(!known.name.bytes().any(|byte| byte.is_ascii_uppercase()));
    }
    assert!(names.memory() <= NAMES_BOUND + 400 * learned);
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
