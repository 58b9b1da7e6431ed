//! One batch in a segment file: 24 bytes of header, then the payload. Comes in: the bytes of a
//! segment, whatever happened to them; goes out: which batches in it are whole.
//!
//! ```text
//! 0  "tap1"   4  state: "WAIT" or "DONE", written over in place
//! 8  length of the payload   12  items in it   16  CRC-32 of the payload   20  CRC-32 of 0..4, 8..20
//! ```
//!
//! Numbers are little endian. Both checksums begin with the segment's salt, which stands in its
//! file's name alone: a payload that imitates a header (it holds what strangers sent) is none.
//! The state is in no checksum: what is neither word is a state that was half written, and the
//! batch waits.

use memchr::memmem;

/// Bytes before a payload.
pub const HEADER: usize = 24;

/// Longest payload; OTLP's servers take no more in a request.
pub const LARGEST: usize = 64 << 20;

/// Where the state stands, from the record's begin.
pub const STATE_AT: u64 = 4;

/// The state of a batch that needs not be sent any more.
pub const DONE: [u8; 4] = *b"DONE";

const MAGIC: [u8; 4] = *b"tap1";
const WAITS: [u8; 4] = *b"WAIT";

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the batch needs not be sent any more.
    pub done: bool,
    /// Bytes of the payload; at most [`LARGEST`].
    pub len: u32,
    /// Items in it.
    pub items: u32,
    crc: u32,
}

impl Header {
    /// The header of a batch that waits; `None` for one that is too long.
    pub fn new(salt: u64, items: u32, payload: &[u8]) -> Option<Self> {
        let len = u32::try_from(payload.len()).ok().filter(|len| *len as usize <= LARGEST)?;
        Some(Self { done: false, len, items, crc: checksum(salt, &[payload]) })
    }

    /// Its bytes.
    pub fn to_bytes(self, salt: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(if self.done { &DONE } else { &WAITS });
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.items.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.crc.to_le_bytes());
        let own = checksum(salt, &[&MAGIC, &bytes[8..20]]);
        bytes[20..].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    /// The header at the begin of `bytes`, if there is one.
    fn parse(salt: u64, bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| bytes[at + n]));
        if bytes[..4] != MAGIC || number(20) != checksum(salt, &[&MAGIC, &bytes[8..20]]) {
            return None;
        }
        let header =
            Self { done: bytes[4..8] == DONE, len: number(8), items: number(12), crc: number(16) };
        (header.len as usize <= LARGEST).then_some(header)
    }

    /// Whether `payload` is what was stored.
    pub fn fits(&self, salt: u64, payload: &[u8]) -> bool {
        payload.len() == self.len as usize && self.crc == checksum(salt, &[payload])
    }

    /// Bytes of the whole record.
    pub const fn size(&self) -> u64 {
        HEADER as u64 + self.len as u64
    }
}

fn checksum(salt: u64, parts: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    parts.iter().for_each(|part| crc.update(part));
    crc.finalize()
}

/// What a segment holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Batches that wait and are whole, by where their records begin.
    pub waiting: Vec<(u64, Header)>,
    /// Something in it is neither a batch nor an append that was cut short.
    pub damaged: bool,
    /// Items of batches that wait but are damaged, where their headers still tell.
    pub damaged_items: u64,
}

/// Reads a segment. A record that breaks off at the end of the file, or zeros from where one would
/// begin to the end, are an append that a crash cut short: nobody was told that it is stored.
pub fn scan(salt: u64, bytes: &[u8]) -> Scan {
    let mut scan = Scan::default();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let Some(header) = Header::parse(salt, rest) else {
            if rest.len() < HEADER || rest.iter().all(|byte| *byte == 0) {
                break;
            }
            scan.damaged = true;
            match next_header(salt, rest) {
                Some(skip) => at += skip,
                None => break,
            }
            continue;
        };
        let Some(payload) = rest.get(HEADER..header.size() as usize) else { break };
        if !header.done {
            if header.fits(salt, payload) {
                scan.waiting.push((at as u64, header));
            } else {
                scan.damaged = true;
                scan.damaged_items += u64::from(header.items);
            }
        }
        at += header.size() as usize;
    }
    scan
}

/// Where the next header after the begin of `bytes` is. Each byte is looked at once, and a header
/// that is none costs 20 bytes of checksum.
fn next_header(salt: u64, bytes: &[u8]) -> Option<usize> {
    let found = memmem::find_iter(&bytes[1..], &MAGIC).map(|at| at + 1);
    let mut found = found.filter(|at| Header::parse(salt, &bytes[*at..]).is_some());
    found.next()
}

/// For the fuzzer: a segment with what `bytes` hold in it, damaged where their begin says.
pub fn fuzz_segment(bytes: &[u8]) {
    let (damage, content) = bytes.split_at(bytes.len().min(12));
    let mut segment = Vec::new();
    for (number, payload) in content.chunks(300).enumerate() {
        if let Some(header) = Header::new(7, number as u32, payload) {
            segment.extend(header.to_bytes(7));
            segment.extend(payload);
        }
    }
    for place in damage.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([place[0], place[1]]));
        if let Some(byte) = segment.get_mut(at) {
            *byte ^= place[2];
        }
    }
    for bytes in [bytes, &segment] {
        let mut end = 0;
        for (at, header) in scan(7, bytes).waiting {
            assert!(at >= end && at + header.size() <= bytes.len() as u64);
            end = at + header.size();
        }
    }
}
