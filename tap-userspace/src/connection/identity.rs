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
