//! Who a connection is: its xid, and the trace and span ids that both ends of it derive alike.

use std::{cell::Cell, fmt, hash::Hasher as _};

use siphasher::{
    sip::SipHasher24 as SipHasher,
    sip128::{Hasher128 as _, SipHasher24},
};

use super::model::{Identity, Role};
use crate::config::file::{Trace, TraceIdentity};

/// A 20-character connection id in the format of xid: 4 bytes of Unix seconds, 3 of machine, 2 of
/// process, 3 of counter, in lower-case base32hex (<https://github.com/rs/xid>). Machine and
/// process are random for each start of tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Xid(pub [u8; 12]);

impl Xid {
    /// Its 20 characters.
    pub fn encode(self) -> [u8; 20] {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
        let mut out = [0; 20];
        let mut bits: u32 = 0;
        let mut have = 0;
        let mut at = 0;
        for byte in self.0 {
            bits = bits << 8 | u32::from(byte);
            have += 8;
            while have >= 5 {
                have -= 5;
                out[at] = ALPHABET[(bits >> have) as usize & 31];
                at += 1;
            }
        }
        out[at] = ALPHABET[(bits << (5 - have)) as usize & 31];
        out
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = self.encode();
        f.write_str(std::str::from_utf8(&encoded).map_err(|_| fmt::Error)?)
    }
}

/// Makes the ids of one start of tap.
#[derive(Debug)]
pub struct Identities {
    kind: TraceIdentity,
    /// Fleet secret, so that a peer cannot choose its trace id by its sequence number.
    key: [u8; 16],
    /// Another tap on this host derives the same span ids, so ours are drawn.
    random_spans: bool,
    /// Machine and process part of the xids.
    start: [u8; 5],
    counter: Cell<u32>,
    /// State of a generator for ids that are drawn (SplitMix64), seeded from the system.
    random: Cell<u64>,
}

impl Identities {
    /// Ids as the configuration wants them.
    pub fn new(trace: &Trace, random_spans: bool) -> Self {
        let mut seed = [0; 16];
        // Without the system's randomness the ids are still unique on this host.
        if getrandom::fill(&mut seed).is_err() {
            seed[..4].copy_from_slice(&std::process::id().to_le_bytes());
        }
        let [a, b, c, d, e, f, g, h, rest @ ..] = seed;
        Self {
            kind: trace.identity,
            key: trace.key.as_ref().map_or([0; 16], |key| stretch(&key.0)),
            random_spans,
            start: [rest[0], rest[1], rest[2], rest[3], rest[4]],
            counter: Cell::new(u32::from_le_bytes([rest[5], rest[6], rest[7], 0])),
            random: Cell::new(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
        }
    }

    /// A new connection's id, and trace and span ids for the case that none are derived.
    pub fn draw(&self, wall_ns: u64) -> (Xid, Identity) {
        let seconds = ((wall_ns / 1_000_000_000) as u32).to_be_bytes();
        let count = self.counter.get().wrapping_add(1);
        self.counter.set(count);
        let mut xid = [0; 12];
        xid[..4].copy_from_slice(&seconds);
        xid[4..9].copy_from_slice(&self.start);
        xid[9..].copy_from_slice(&count.to_be_bytes()[1..]);
        let mut trace_id = [0; 16];
        trace_id[..8].copy_from_slice(&self.next().to_be_bytes());
        trace_id[8..].copy_from_slice(&self.next().max(1).to_be_bytes());
        if self.kind == TraceIdentity::Xray {
            trace_id[..4].copy_from_slice(&seconds);
        }
        let span_id = self.next().max(1).to_be_bytes();
        (Xid(xid), Identity { trace_id, span_id, peer_span_id: None })
    }

    /// The ids that both ends of a connection derive from its initial sequence numbers, where ids
    /// are shared.
    pub fn derive(&self, client_isn: u32, server_isn: u32, role: Role) -> Option<Identity> {
        if self.kind != TraceIdentity::Shared {
            return None;
        }
        let trace_id = derived(&self.key, client_isn, server_isn, 0);
        let span = |role: Role| {
            let mark = match role {
                Role::Client => 1,
                Role::Server => 2,
            };
            let [a, b, c, d, e, f, g, h, ..] = derived(&self.key, client_isn, server_isn, mark);
            [a, b, c, d, e, f, g, h]
        };
        let peer = match role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        let span_id = if self.random_spans { self.next().max(1).to_be_bytes() } else { span(role) };
        Some(Identity { trace_id, span_id, peer_span_id: Some(span(peer)) })
    }

    fn next(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Identity {
    /// Span id of the connection's `number`th exchange, not zero. It is derived from the
    /// connection's own, which differs for each end, each tap and each segment; so does this.
    pub fn child(&self, number: u32) -> [u8; 8] {
        let mut hasher = SipHasher::new_with_key(&self.trace_id);
        hasher.write(&self.span_id);
        hasher.write(&number.to_be_bytes());
        hasher.finish().max(1).to_be_bytes()
    }
}

/// SipHash-2-4 with 128 bits over both initial sequence numbers, the client's first, and a mark.
/// The bytes are fixed: taps of different versions on both ends must agree.
fn derived(key: &[u8; 16], client_isn: u32, server_isn: u32, mark: u8) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(&client_isn.to_be_bytes());
    hasher.write(&server_isn.to_be_bytes());
    hasher.write(&[mark]);
    let mut id = hasher.finish128().as_u128().to_be_bytes();
    // An id of zeros is no id (W3C Trace Context §3.2.2.3).
    id[7] |= u8::from(id[..8] == [0; 8]);
    id
}

/// A secret of any length as a hash key.
fn stretch(secret: &str) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(b"tap.trace.key.v1");
    hasher.write(secret.as_bytes());
    hasher.finish128().as_u128().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::file::Secret;

    fn identities(kind: TraceIdentity, key: Option<&str>) -> Identities {
        Identities::new(&Trace { identity: kind, key: key.map(|key| Secret(key.into())) }, false)
    }

    #[test]
    fn both_ends_agree_and_link_each_other() {
        let (one, other) = (
            identities(TraceIdentity::Shared, Some("fleet")),
            identities(TraceIdentity::Shared, Some("fleet")),
        );
        let client = one.derive(1, 2, Role::Client).unwrap();
        let server = other.derive(1, 2, Role::Server).unwrap();
        assert_eq!(client.trace_id, server.trace_id);
        assert_eq!(client.peer_span_id, Some(server.span_id));
        assert_eq!(server.peer_span_id, Some(client.span_id));
        assert_ne!(client.span_id, server.span_id);
        let foreign = identities(TraceIdentity::Shared, None).derive(1, 2, Role::Client).unwrap();
        assert_ne!(foreign.trace_id, client.trace_id);
    }

    #[test]
    fn derived_ids_never_change() {
        let id = identities(TraceIdentity::Shared, None).derive(0x0102_0304, 5, Role::Client);
        let id = id.unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let told = [hex(&id.trace_id), hex(&id.span_id), hex(&id.peer_span_id.unwrap())];
        assert_eq!(told, KNOWN);
    }

    /// Printed once, and kept: the ids of the sequence numbers above.
    const KNOWN: [&str; 3] =
        ["a2346ebcaba5debdd459a7051a88491f", "b454a384d341172c", "cd8a5b7530425628"];

    #[test]
    fn children_have_ids_of_their_own() {
        let identities = identities(TraceIdentity::Shared, None);
        let mut spans = HashSet::new();
        let connections = [(1, 2), (1, 3), (2, 1)].into_iter().flat_map(|(client, server)| {
            [Role::Client, Role::Server].map(|role| identities.derive(client, server, role))
        });
        // A second tap on the host draws its span ids.
        let random = Identities::new(&Trace::default(), true).derive(1, 2, Role::Client);
        for identity in connections.chain([random]).flatten() {
            spans.insert(identity.span_id);
            spans.extend((0..20_000).map(|number| identity.child(number)));
        }
        assert_eq!(spans.len(), 7 * 20_001);
        // Known once, and kept: a replay tells the same.
        let id = identities.derive(0x0102_0304, 5, Role::Client).unwrap();
        assert_eq!([0, 1].map(|number| u64::from_be_bytes(id.child(number))), KNOWN_CHILDREN);
    }

    const KNOWN_CHILDREN: [u64; 2] = [11_867_978_857_096_553_448, 10_441_007_936_615_162_014];

    #[test]
    fn only_shared_ids_are_derived() {
        for kind in [TraceIdentity::Random, TraceIdentity::Xray] {
            assert_eq!(identities(kind, None).derive(1, 2, Role::Client), None);
        }
        let (_, xray) = identities(TraceIdentity::Xray, None).draw(1_700_000_000 * 1_000_000_000);
        assert_eq!(xray.trace_id[..4], 1_700_000_000u32.to_be_bytes());
    }

    #[test]
    fn a_million_connections_have_ids_of_their_own() {
        let identities = identities(TraceIdentity::Shared, None);
        let mut spans = HashSet::new();
        let mut xids = HashSet::new();
        for n in 0..1_000_000u32 {
            spans.insert(derived(&[0; 16], n, n.wrapping_mul(7), 1)[..8].to_vec());
            xids.insert(identities.draw(0).0);
        }
        assert_eq!((spans.len(), xids.len()), (1_000_000, 1_000_000));
    }

    #[test]
    fn an_xid_is_written_as_others_write_it() {
        // The example of rs/xid's documentation.
        let id = Xid([0x4d, 0x88, 0xe1, 0x5b, 0x60, 0xf4, 0x86, 0xe4, 0x28, 0x41, 0x2d, 0xc9]);
        assert_eq!(id.to_string(), "9m4e2mr0ui3e8a215n4g");
    }
}
