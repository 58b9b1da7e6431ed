//! Reads DNS messages (RFC 1035, section 4). Comes in: a UDP payload, or pieces of a TCP stream
//! ([`DnsTcp`]). Goes out: the question and the records of the answer section, as far as the bytes
//! go.
//!
//! An own reader, because simple-dns 0.13, hickory-proto 0.26 and dns-parser 0.8 take a message
//! whole or not at all, where TC or the capture may have cut it, and simple-dns reserves room for
//! as many records as the header's 12 bytes claim. domain 0.12 reads lazily and would do, but
//! brings jiff, octseq and a macro crate for what the hundred lines below do.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use crate::protocol::exchange::Piece;

/// `CNAME` (RFC 1035).
pub const CNAME: u16 = 5;
/// `A` (RFC 1035).
pub const A: u16 = 1;
/// `AAAA` (RFC 3596).
pub const AAAA: u16 = 28;
/// `SVCB` (RFC 9460).
pub const SVCB: u16 = 64;
/// `HTTPS` (RFC 9460).
pub const HTTPS: u16 = 65;
/// The Internet, the one class in use.
pub const IN: u16 = 1;

const HEADER: usize = 12;

/// A message whose header and only question are whole.
#[derive(Debug)]
pub struct Message<'a> {
    /// The packet.
    pub bytes: &'a [u8],
    /// What a response repeats.
    pub id: u16,
    /// QR: a response.
    pub response: bool,
    /// 0: a standard query.
    pub opcode: u8,
    /// 0: no error.
    pub rcode: u8,
    /// The name asked for.
    pub name: Name,
    /// The type asked for.
    pub kind: u16,
    /// The class asked for.
    pub class: u16,
    answers: u16,
    answers_at: usize,
}

impl<'a> Message<'a> {
    /// Where the question's name stands.
    pub const NAME_AT: usize = HEADER;

    /// Reads header and question. A message has one question (RFC 9619).
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let flags = u16_at(bytes, 2)?;
        if u16_at(bytes, 4)? != 1 {
            return None;
        }
        let answers = u16_at(bytes, 6)?;
        let (name, at) = Name::read(bytes, Self::NAME_AT)?;
        Some(Self {
            bytes,
            id: u16_at(bytes, 0)?,
            response: flags >> 15 == 1,
            opcode: (flags >> 11 & 0xf) as u8,
            rcode: (flags & 0xf) as u8,
            name,
            kind: u16_at(bytes, at)?,
            class: u16_at(bytes, at + 2)?,
            answers,
            answers_at: at + 4,
        })
    }

    /// The records of the answer section that are whole.
    pub const fn answers(&self) -> Records<'a> {
        Records { bytes: self.bytes, at: self.answers_at, left: self.answers }
    }
}

/// Walks over records.
#[derive(Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u16,
}

/// One resource record.
#[derive(Debug)]
pub struct Record<'a> {
    /// Where its owner's name stands.
    pub owner_at: usize,
    /// Type.
    pub kind: u16,
    /// Class.
    pub class: u16,
    /// Seconds.
    pub ttl: u32,
    /// Where its data stands.
    pub data_at: usize,
    /// Its data.
    pub data: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        self.left = self.left.checked_sub(1)?;
        let owner_at = self.at;
        let at = skip_name(self.bytes, owner_at)?;
        let data_at = at + 10;
        let len = usize::from(u16_at(self.bytes, at + 8)?);
        let data = self.bytes.get(data_at..data_at + len)?;
        self.at = data_at + len;
        // A TTL with its first bit set is 0 (RFC 2181, section 8).
        let ttl = u32::from(u16_at(self.bytes, at + 4)?) << 16;
        let ttl = ttl | u32::from(u16_at(self.bytes, at + 6)?);
        let ttl = if ttl >> 31 == 1 { 0 } else { ttl };
        let (kind, class) = (u16_at(self.bytes, at)?, u16_at(self.bytes, at + 2)?);
        Some(Record { owner_at, kind, class, ttl, data_at, data })
    }
}

/// A name as on the wire, in lower case, without compression.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    wire: [u8; Name::WIRE_MAX],
    /// Up to the root's label, which is included.
    len: usize,
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.wire() == other.wire()
    }
}

impl Name {
    /// Most bytes on the wire (RFC 1035, section 2.3.4).
    const WIRE_MAX: usize = 255;
    /// Most bytes of text. A name of ordinary characters has 253; one whose escapes need more is
    /// no host's.
    pub const TEXT_MAX: usize = 255;
    /// Most pointers in a name: one before each of the most labels.
    const POINTERS_MAX: usize = 128;

    /// Reads a name, and tells where it ends. Pointers go backwards (RFC 1035, section 4.1.4), each
    /// to before the place the last one led to, so that there is no loop (RFC 9267).
    pub fn read(bytes: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut name = Self { wire: [0; Self::WIRE_MAX], len: 0 };
        let (mut at, mut begin, mut pointers) = (at, at, 0);
        let mut end = None;
        loop {
            let len = usize::from(*bytes.get(at)?);
            match len >> 6 {
                0 => {
                    let label = bytes.get(at..=at + len)?;
                    let place = name.wire.get_mut(name.len..=name.len + len)?;
                    place.copy_from_slice(label);
                    // A length is below 64, so no letter.
                    place.make_ascii_lowercase();
                    name.len += place.len();
                    at += label.len();
                    if len == 0 {
                        return Some((name, end.unwrap_or(at)));
                    }
                }
                3 => {
                    end = end.or(Some(at + 2));
                    let target = pointer(bytes, at).filter(|&target| target < begin)?;
                    (at, begin) = (target, target);
                    pointers += 1;
                    if pointers > Self::POINTERS_MAX {
                        return None;
                    }
                }
                _ => return None,
            }
        }
    }

    /// The bytes on the wire.
    pub fn wire(&self) -> &[u8] {
        self.wire.get(..self.len).unwrap_or_default()
    }

    fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.wire();
        std::iter::from_fn(move || {
            let (&len, after) = rest.split_first().filter(|(len, _)| **len > 0)?;
            let (label, after) = after.split_at_checked(len.into())?;
            rest = after;
            Some(label)
        })
    }

    /// The name as text without its last dot, with the escapes of RFC 4343, section 2.1.
    /// `service`: without the `_port._scheme` labels before it (RFC 9460, section 2.3). None for
    /// the root, and beyond [`Name::TEXT_MAX`].
    pub fn text(&self, service: bool) -> Option<String> {
        let mut text = String::with_capacity(self.len);
        for label in self.labels().skip_while(|label| service && label.starts_with(b"_")) {
            if !text.is_empty() {
                text.push('.');
            }
            for &byte in label {
                match byte {
                    b'.' | b'\\' => text.extend(['\\', byte.into()]),
                    b'!'..=b'~' => text.push(byte.into()),
                    _ => write!(text, "\\{byte:03}").ok()?,
                }
            }
        }
        (1..=Self::TEXT_MAX).contains(&text.len()).then_some(text)
    }
}

/// Where the pointer at a place leads, if one is there.
pub fn pointer(bytes: &[u8], at: usize) -> Option<usize> {
    let pointer = u16_at(bytes, at)?;
    (pointer >> 14 == 3).then_some(usize::from(pointer & 0x3fff))
}

/// Where a name ends.
pub fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let len = *bytes.get(at)?;
        match len >> 6 {
            0 if len == 0 => return Some(at + 1),
            0 => at += 1 + usize::from(len),
            3 => return Some(at + 2),
            _ => return None,
        }
    }
}

/// The two bytes at a place.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Cuts the messages out of one direction of a TCP connection, each behind two bytes of length
/// (RFC 1035, section 4.2.2). What is cut by a hole, the end or the bound is told as far as it is
/// known; after a hole that hides where a message begins nothing more is told.
#[derive(Debug, Default)]
pub struct DnsTcp {
    /// The message that is not whole, with its length.
    buffer: Vec<u8>,
    /// Bytes of a message that are not wanted.
    skip: usize,
    lost: bool,
}

impl DnsTcp {
    /// Most bytes kept of a message that comes in pieces; a thousand addresses, where resolvers
    /// ask for answers of 1,232 bytes.
    pub const HELD_MAX: usize = 16 << 10;

    /// Takes in the next piece.
    pub fn take(&mut self, piece: Piece<'_>, sink: &mut impl FnMut(&[u8])) {
        match piece {
            _ if self.lost => {}
            Piece::Bytes(bytes) => self.bytes(bytes, sink),
            Piece::Missing(missing) => self.missing(missing, sink),
            Piece::End => {
                self.tell(sink);
                self.lost = true;
            }
        }
    }

    fn bytes(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.buffer.is_empty() && self.skip == 0 {
                // A message that is whole in the piece is not copied.
                let whole = u16_at(bytes, 0)
                    .and_then(|len| bytes.get(2..)?.split_at_checked(usize::from(len)));
                if let Some((message, rest)) = whole {
                    if !message.is_empty() {
                        sink(message);
                    }
                    bytes = rest;
                    continue;
                }
            }
            let kept = self.buffer.len();
            let wanted = match self.len() {
                _ if self.skip > 0 => self.skip,
                None => 2 - kept,
                Some(len) => 2 + len.min(Self::HELD_MAX) - kept,
            };
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            if self.skip > 0 {
                self.skip -= now.len();
                continue;
            }
            self.buffer.extend_from_slice(now);
            if let Some(len) = self.len()
                && self.buffer.len() == 2 + len.min(Self::HELD_MAX)
            {
                self.skip = 2 + len - self.buffer.len();
                self.tell(sink);
            }
        }
    }

    fn missing(&mut self, missing: u64, sink: &mut impl FnMut(&[u8])) {
        let left = match self.len() {
            _ if self.skip > 0 => self.skip,
            Some(len) => 2 + len - self.buffer.len(),
            None => 0,
        };
        self.tell(sink);
        match usize::try_from(missing).ok().and_then(|missing| left.checked_sub(missing)) {
            Some(left) => self.skip = left,
            None => self.lost = true,
        }
    }

    /// The length of the message in the buffer.
    fn len(&self) -> Option<usize> {
        u16_at(&self.buffer, 0).map(usize::from)
    }

    /// Tells what there is of the message at hand.
    fn tell(&mut self, sink: &mut impl FnMut(&[u8])) {
        let buffer = std::mem::take(&mut self.buffer);
        if let Some(message) = buffer.get(2..).filter(|message| !message.is_empty()) {
            sink(message);
        }
    }

    /// Heap bytes held.
    pub const fn memory(&self) -> usize {
        self.buffer.capacity()
    }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
