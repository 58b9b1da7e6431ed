//! Who a connection is: its xid, and trace and span ids that both ends of it derive alike. In:
//! both initial sequence numbers, the role, the fleet's key. Out: [`Xid`] and [`Identity`].
//!
//! | what | how |
//! | --- | --- |
//! | trace id | SipHash-2-4-128(key, client's ISN ‖ server's ISN) |
//! | span id of a role | first half of SipHash-2-4-128(key, client's ISN ‖ server's ISN ‖ role) |
//! | span id of a later segment | first half of SipHash-2-4-128(key 0, span id ‖ segment) |
//!
//! All numbers are big-endian, the role is one byte (1 client, 2 server), the key is zero without
//! `trace.key`. It is the contract between taps on different hosts: a change of it splits the
//! traces of a fleet while it is rolled out.
#![forbid(unsafe_code)]

use std::{
    fmt,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use serde::Deserialize;
use siphasher::sip128::SipHasher24;

use super::model::{Identity, Role};

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

/// Makes the [`Xid`]s of one run of tap.
#[derive(Debug)]
pub struct Xids {
    place: [u8; 5],
    counter: AtomicU32,
}

impl Xids {
    /// A generator with random machine and process parts and a random begin of its counter.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let [m0, m1, m2, p0, p1, counter @ ..] = random;
        Ok(Self::with_parts([m0, m1, m2, p0, p1], u24(counter)))
    }

    /// A generator with known parts: its ids are the same in each run.
    pub const fn with_parts(place: [u8; 5], counter: u32) -> Self {
        Self { place, counter: AtomicU32::new(counter) }
    }

    /// The next id, for a connection that opened at `unix_seconds`.
    pub fn next(&self, unix_seconds: u64) -> Xid {
        let [_, _, _, _, t0, t1, t2, t3] = unix_seconds.to_be_bytes();
        let [m0, m1, m2, p0, p1] = self.place;
        let [_, c0, c1, c2] = self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Xid([t0, t1, t2, t3, m0, m1, m2, p0, p1, c0, c1, c2])
    }
}

const fn u24(bytes: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

/// How connections get their trace ids (`trace.identity`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceIdentity {
    /// Derived from the initial sequence numbers: both ends agree.
    #[default]
    Shared,
    /// Random.
    Random,
    /// Random, the first 32 bits being Unix time, as AWS X-Ray wants.
    Xray,
}

impl TraceIdentity {
    /// Its value in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Random => "random",
            Self::Xray => "xray",
        }
    }
}

const NO_KEY: [u8; 16] = [0; 16];

/// The identity that both ends of a connection agree on. `key` is `trace.key`, which keeps a peer
/// that chooses its sequence number from choosing the trace id, and so the head sampler's answer.
pub fn derive(client_isn: u32, server_isn: u32, role: Role, key: Option<&[u8; 16]>) -> Identity {
    let hasher = SipHasher24::new_with_key(key.unwrap_or(&NO_KEY));
    let [c0, c1, c2, c3] = client_isn.to_be_bytes();
    let [s0, s1, s2, s3] = server_isn.to_be_bytes();
    let span = |role| {
        let hash = hasher.hash(&[c0, c1, c2, c3, s0, s1, s2, s3, role_byte(role)]);
        first_half(hash.as_bytes())
    };
    let peer = match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    };
    Identity {
        trace_id: not_zero(hasher.hash(&[c0, c1, c2, c3, s0, s1, s2, s3]).as_bytes()),
        span_id: span(role),
        peer_span_id: Some(span(peer)),
    }
}

impl Identity {
    /// The identity of segment `number` of this connection: the same trace, a span id of its own.
    /// The link stays on the peer's first segment, the one that surely exists.
    pub fn segment(self, number: u32) -> Self {
        if number == 0 {
            return self;
        }
        let [a, b, c, d, e, f, g, h] = self.span_id;
        let [n0, n1, n2, n3] = number.to_be_bytes();
        let hash =
            SipHasher24::new_with_key(&NO_KEY).hash(&[a, b, c, d, e, f, g, h, n0, n1, n2, n3]);
        Self { span_id: first_half(hash.as_bytes()), ..self }
    }
}

/// Makes identities that nobody else derives: for connections older than tap, whose initial
/// sequence numbers are not known, and where `trace.identity` asks for it.
///
/// One read of the kernel's random numbers at start keys a SipHash over a counter; a system call
/// per connection would cost more than the rest of its open.
#[derive(Debug)]
pub struct RandomIds {
    key: [u8; 16],
    counter: AtomicU64,
}

impl RandomIds {
    /// A generator keyed from the kernel's random numbers.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        Ok(Self::with_key(key))
    }

    /// A generator with a known key: its ids are the same in each run.
    pub const fn with_key(key: [u8; 16]) -> Self {
        Self { key, counter: AtomicU64::new(0) }
    }

    /// A random identity.
    pub fn random(&self) -> Identity {
        Identity {
            trace_id: not_zero(self.draw()),
            span_id: first_half(self.draw()),
            peer_span_id: None,
        }
    }

    /// A random identity whose trace id begins with `unix_seconds`.
    pub fn xray(&self, unix_seconds: u64) -> Identity {
        let mut identity = self.random();
        let [_, _, _, _, time @ ..] = unix_seconds.to_be_bytes();
        identity.trace_id[..4].copy_from_slice(&time);
        identity.trace_id = not_zero(identity.trace_id);
        identity
    }

    fn draw(&self) -> [u8; 16] {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        SipHasher24::new_with_key(&self.key).hash(&number.to_be_bytes()).as_bytes()
    }
}

const fn role_byte(role: Role) -> u8 {
    match role {
        Role::Client => 1,
        Role::Server => 2,
    }
}

const fn first_half(hash: [u8; 16]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = hash;
    not_zero([a, b, c, d, e, f, g, h])
}

/// W3C and OTLP hold an id of zeros for absent.
const fn not_zero<const N: usize>(mut id: [u8; N]) -> [u8; N] {
    let mut at = 0;
    while at < N {
        if id[at] != 0 {
            return id;
        }
        at += 1;
    }
    id[N - 1] = 1;
    id
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const KEY: [u8; 16] = *b"fleet-wide-key-1";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn xid_is_written_as_rs_xid_writes_it() {
        // The example of github.com/rs/xid's README and its id_test.go.
        let id = Xid([0x4d, 0x88, 0xe1, 0x5b, 0x60, 0xf4, 0x86, 0xe4, 0x28, 0x41, 0x2d, 0xc9]);
        assert_eq!(id.to_string(), "9m4e2mr0ui3e8a215n4g");
        assert_eq!(Xid([0; 12]).to_string(), "00000000000000000000");
        assert_eq!(Xid([0xff; 12]).to_string(), "vvvvvvvvvvvvvvvvvvvg");
    }

    #[test]
    fn xids_differ_and_sort_by_time() {
        let xids = Xids::with_parts([1, 2, 3, 4, 5], 0x00ff_ffff);
        let first = xids.next(0x1_6000_0000);
        assert_eq!(first, Xid([0x60, 0, 0, 0, 1, 2, 3, 4, 5, 0xff, 0xff, 0xff]));
        let second = xids.next(0x1_6000_0000);
        assert_eq!(second, Xid([0x60, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0]));
        assert!(xids.next(0x6000_0001).to_string() > first.to_string());
        let (a, b) = (Xids::new().expect("random"), Xids::new().expect("random"));
        assert_ne!(a.next(1).0[4..9], b.next(1).0[4..9]);
    }

    #[test]
    fn both_roles_agree() {
        for key in [None, Some(&KEY)] {
            for (client, server) in [(0, 0), (1, 2), (u32::MAX, 0), (0x1234_5678, 0x9abc_def0)] {
                let here = derive(client, server, Role::Client, key);
                let there = derive(client, server, Role::Server, key);
                assert_eq!(here.trace_id, there.trace_id);
                assert_ne!(here.span_id, there.span_id);
                assert_eq!(here.peer_span_id, Some(there.span_id));
                assert_eq!(there.peer_span_id, Some(here.span_id));
            }
        }
    }

    #[test]
    fn the_derivation_never_changes() {
        // Computed by a second implementation (Python, checked against the reference vectors of
        // github.com/veorq/SipHash).
        let plain = derive(0x1234_5678, 0x9abc_def0, Role::Client, None);
        assert_eq!(hex(&plain.trace_id), "6f975d565885d1ae7083c281dd0b042b");
        assert_eq!(hex(&plain.span_id), "e36a108509c8a55b");
        assert_eq!(hex(&plain.peer_span_id.expect("shared")), "cad8db25030623e5");
        let keyed = derive(0x1234_5678, 0x9abc_def0, Role::Server, Some(&KEY));
        assert_eq!(hex(&keyed.trace_id), "1f3f2f7645f2ebb9e8512afa16611067");
        assert_eq!(hex(&keyed.span_id), "fb2397746bed7e2f");
        let later = plain.segment(1);
        assert_eq!(hex(&later.span_id), "f5de07ae8d55677f");
    }

    #[test]
    fn order_key_and_absence_of_key_matter() {
        let base = derive(1, 2, Role::Client, None).trace_id;
        assert_ne!(base, derive(2, 1, Role::Client, None).trace_id);
        assert_ne!(base, derive(1, 2, Role::Client, Some(&KEY)).trace_id);
        assert_eq!(base, derive(1, 2, Role::Client, Some(&NO_KEY)).trace_id);
    }

    #[test]
    fn a_million_span_ids_do_not_collide() {
        let mut seen = HashSet::with_capacity(1_000_000);
        for n in 0..500_000u32 {
            // Sequence numbers of a kernel are spread; neighbours are the harder case for a hash.
            let identity = derive(n, !n, Role::Client, None);
            assert!(seen.insert(identity.span_id));
            assert!(seen.insert(identity.peer_span_id.expect("shared")));
        }
    }

    #[test]
    fn segments_share_the_trace_only() {
        let first = derive(1, 2, Role::Client, None);
        assert_eq!(first.segment(0), first);
        let (second, third) = (first.segment(1), first.segment(2));
        assert_eq!(second.trace_id, first.trace_id);
        assert_eq!(second.peer_span_id, first.peer_span_id);
        assert_eq!(HashSet::from([first.span_id, second.span_id, third.span_id]).len(), 3);
    }

    #[test]
    fn random_identities_have_no_peer() {
        let ids = RandomIds::new().expect("random");
        let (a, b) = (ids.random(), ids.random());
        assert_ne!(a, b);
        assert_eq!(a.peer_span_id, None);
        assert_ne!(RandomIds::new().expect("random").random(), RandomIds::with_key(KEY).random());
        assert_eq!(RandomIds::with_key(KEY).random(), RandomIds::with_key(KEY).random());
        let xray = ids.xray(0x6543_2100);
        assert_eq!(hex(&xray.trace_id[..4]), "65432100");
        assert_ne!(xray.trace_id[4..], [0; 12]);
    }

    #[test]
    fn no_id_is_zero() {
        assert_eq!(not_zero([0; 8]), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(not_zero([0, 1]), [0, 1]);
        assert_eq!(first_half([0; 16]), [0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
