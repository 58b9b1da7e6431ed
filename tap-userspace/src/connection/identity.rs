//! Who a connection is: its xid, and trace and span ids that both ends of it derive alike.

use std::fmt;

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

/// stand-in
pub struct Identities { count: std::cell::Cell<u32>, random: bool }
impl Identities {
    /// x
    pub fn new(_t: &crate::config::file::Trace, random: bool) -> Self { Self { count: Default::default(), random } }
    /// x
    pub fn draw(&self, wall_ns: u64) -> (Xid, super::model::Identity) {
        let n = self.count.get() + 1; self.count.set(n);
        let mut x = [0u8; 12];
        x[..4].copy_from_slice(&((wall_ns / 1_000_000_000) as u32).to_be_bytes());
        x[8..].copy_from_slice(&n.to_be_bytes());
        let mut t = [1u8; 16]; t[..4].copy_from_slice(&n.to_be_bytes());
        (Xid(x), super::model::Identity { trace_id: t, span_id: [1; 8], peer_span_id: None })
    }
    /// x
    pub fn derive(&self, c: u32, s: u32, role: super::model::Role) -> Option<super::model::Identity> {
        let _ = self.random;
        use std::hash::Hasher as _;
        let h = |r: u8| { let mut h = siphasher::sip::SipHasher24::new(); h.write_u32(c); h.write_u32(s); h.write_u8(r); h.finish().to_be_bytes() };
        let r = |role| if role == super::model::Role::Client { 1 } else { 2 };
        let o = if role == super::model::Role::Client { 2 } else { 1 };
        let mut t = [0; 16]; t[..8].copy_from_slice(&h(3)); t[8..].copy_from_slice(&h(4));
        Some(super::model::Identity { trace_id: t, span_id: h(r(role)), peer_span_id: Some(h(o)) })
    }
}
