//! Length-prefixed messages of one direction. In: pieces cut anywhere, and bytes that are missing.
//! Out: each message once all of it has passed, with as much of its begin as was asked for. Bodies
//! are passed over, not kept.
#![forbid(unsafe_code)]

use super::exchange::{Exchange, Outcome, Parser, Piece, Side};

/// What the first bytes of a message tell about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Too few bytes to say.
    More,
    /// It is `len` bytes long, header included; the first `keep` of them are wanted.
    Of { len: u64, keep: usize },
    /// This is no message.
    Bad,
}

/// Bytes that are no message.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad;

/// So often the framing of a connection may be lost and searched for again before there is no hope.
pub const LOSSES_MAX: u32 = 64;

/// A parser whose directions are [`Frames`].
pub trait Framed: Parser {
    /// How often the framing was lost; beyond [`LOSSES_MAX`] nothing is read any more.
    fn losses(&mut self) -> &mut u32;
    /// Takes in what the client said.
    fn client(&mut self, bytes: &[u8], at_ns: u64, out: &mut Vec<Exchange>) -> Outcome;
    /// Takes in what the server said.
    fn server(&mut self, bytes: &[u8], at_ns: u64, out: &mut Vec<Exchange>) -> Outcome;
    /// Passes over bytes of `side` that nobody captured.
    fn miss(&mut self, side: Side, missing: u64, at_ns: u64, out: &mut Vec<Exchange>) -> Outcome;
}

/// [`Parser::take`] of such a parser: the server's end is the connection's, and what is lost stays
/// lost.
pub fn take(
    parser: &mut impl Framed,
    side: Side,
    piece: Piece<'_>,
    at_ns: u64,
    out: &mut Vec<Exchange>,
) -> Outcome {
    if *parser.losses() > LOSSES_MAX {
        return Outcome::Lost;
    }
    let outcome = match (side, piece) {
        (_, Piece::Bytes([]) | Piece::Missing(0)) | (Side::Client, Piece::End) => Outcome::Continue,
        (Side::Client, Piece::Bytes(bytes)) => parser.client(bytes, at_ns, out),
        (Side::Server, Piece::Bytes(bytes)) => parser.server(bytes, at_ns, out),
        (side, Piece::Missing(missing)) => parser.miss(side, missing, at_ns, out),
        (Side::Server, Piece::End) => {
            parser.finish(at_ns, out);
            Outcome::Continue
        }
    };
    if matches!(outcome, Outcome::Lost) {
        *parser.losses() = LOSSES_MAX + 1;
        parser.finish(at_ns, out);
    }
    outcome
}

/// A message that has passed.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When its first byte went.
    pub began_ns: u64,
    /// Its first bytes, header included: `keep` of them, or all if it is shorter.
    pub head: &'a [u8],
    /// Its whole length.
    pub len: u64,
    /// Bytes of `head` are missing: it is shorter than it should be.
    pub cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Between,
    Head,
    Body { len: u64, left: u64, keep: usize, cut: bool },
}

/// Puts the messages of one direction together.
#[derive(Debug)]
pub struct Frames {
    /// The kept bytes of the message under way; at most its `keep`.
    held: Vec<u8>,
    phase: Phase,
    began_ns: u64,
}

/// No protocol's `size` needs more bytes than this to decide.
const HEADER_MAX: usize = 16;

impl Frames {
    pub const fn new() -> Self {
        Self { held: Vec::new(), phase: Phase::Between, began_ns: 0 }
    }

    /// The next message that ends within `bytes`, which is advanced. `size` is asked with at least
    /// one byte.
    pub fn next<'f, 'b: 'f>(
        &'f mut self,
        bytes: &mut &'b [u8],
        at_ns: u64,
        size: impl Fn(&[u8]) -> Size,
    ) -> Result<Option<Frame<'f>>, Bad> {
        if self.phase == Phase::Between {
            self.held.clear();
            if bytes.is_empty() {
                return Ok(None);
            }
            self.began_ns = at_ns;
            self.phase = match size(bytes) {
                Size::Bad => return Err(Bad),
                Size::More => Phase::Head,
                Size::Of { len, keep } => {
                    let len = len.max(1);
                    let end = usize::try_from(len).unwrap_or(usize::MAX);
                    if let Some((whole, rest)) = bytes.split_at_checked(end) {
                        *bytes = rest;
                        let head = whole.get(..keep).unwrap_or(whole);
                        return Ok(Some(Frame { began_ns: at_ns, head, len, cut: false }));
                    }
                    Phase::Body { len, left: len, keep, cut: false }
                }
            };
        }
        while self.phase == Phase::Head {
            let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
            *bytes = rest;
            self.held.push(*first);
            let have = self.held.len();
            match size(&self.held) {
                Size::More if have < HEADER_MAX => {}
                Size::More | Size::Bad => {
                    self.reset();
                    return Err(Bad);
                }
                Size::Of { len, keep } => {
                    let left = len.saturating_sub(have as u64);
                    self.held.truncate(keep);
                    self.phase = Phase::Body { len, left, keep, cut: false };
                }
            }
        }
        let Phase::Body { len, left, keep, cut } = self.phase else { return Ok(None) };
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (body, rest) = bytes.split_at(taken);
        *bytes = rest;
        if !cut {
            let room = keep.saturating_sub(self.held.len()).min(taken);
            self.held.extend_from_slice(&body[..room]);
        }
        let left = left - taken as u64;
        if left > 0 {
            self.phase = Phase::Body { len, left, keep, cut };
            return Ok(None);
        }
        self.phase = Phase::Between;
        Ok(Some(Frame { began_ns: self.began_ns, head: &self.held, len, cut }))
    }

    /// Passes over `missing` bytes as far as they lie inside a message of known length; says how
    /// many lie beyond. A message that ends with them is told by the next [`Frames::next`].
    pub fn miss(&mut self, missing: u64) -> u64 {
        let Phase::Body { len, left, keep, cut } = self.phase else { return missing };
        let taken = missing.min(left);
        let wanted = usize::try_from(len).unwrap_or(usize::MAX).min(keep);
        let cut = cut || (taken > 0 && self.held.len() < wanted);
        self.phase = Phase::Body { len, left: left - taken, keep, cut };
        missing - taken
    }

    /// Forgets the message under way.
    pub fn reset(&mut self) {
        self.held.clear();
        self.phase = Phase::Between;
    }

    /// Bytes of the message under way that have passed.
    pub fn passed(&self) -> u64 {
        match self.phase {
            Phase::Between => 0,
            Phase::Head => self.held.len() as u64,
            Phase::Body { len, left, .. } => len.saturating_sub(left),
        }
    }

    /// Whether a message has begun and not ended.
    pub fn inside(&self) -> bool {
        self.phase != Phase::Between
    }

    /// Heap bytes held.
    pub const fn memory(&self) -> usize {
        self.held.capacity()
    }
}

/// For the fuzzer: feeds `parser` with `bytes`, which say themselves how they are cut into pieces
/// of both sides and where some are missing; its memory stays within `memory_max`.
pub fn fuzz(mut parser: impl Parser, mut bytes: &[u8], memory_max: usize) {
    let mut out = Vec::new();
    let mut at_ns = 0;
    while let Some(([how, len], rest)) = bytes.split_first_chunk() {
        let (piece, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        bytes = rest;
        at_ns += 1;
        let side = if how & 1 == 0 { Side::Client } else { Side::Server };
        let piece = match how >> 1 {
            125 => Piece::End,
            126 => Piece::Missing(u64::MAX),
            127 => Piece::Missing(u64::from(*len)),
            _ => Piece::Bytes(piece),
        };
        let outcome = parser.take(side, piece, at_ns, &mut out);
        assert!(parser.memory() <= memory_max, "{} of {memory_max}", parser.memory());
        assert!(out.iter().all(|exchange| exchange.began_ns <= exchange.ended_ns));
        out.clear();
        if !matches!(outcome, Outcome::Continue) {
            break;
        }
    }
    parser.finish(at_ns, &mut out);
    assert!(parser.memory() <= memory_max);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte of length, which includes itself; three bytes are kept; 255 is no message.
    fn size(head: &[u8]) -> Size {
        match head {
            [] | [0] => Size::More,
            [255, ..] => Size::Bad,
            [0, n, ..] => Size::Of { len: u64::from(*n) + 2, keep: 3 },
            [n, ..] => Size::Of { len: u64::from(*n), keep: 3 },
        }
    }

    fn all(pieces: &[&[u8]]) -> Vec<(Vec<u8>, u64)> {
        let mut frames = Frames::new();
        let mut out = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let mut bytes = *piece;
            while let Ok(Some(frame)) = frames.next(&mut bytes, at as u64, size) {
                out.push((frame.head.to_vec(), frame.len));
            }
        }
        out
    }

    #[test]
    fn every_cut_gives_the_same_messages() {
        let bytes = b"\x02a\x01\x05bcde\x00\x03xyz\x00\x00\x03fg";
        let whole = all(&[bytes]);
        assert_eq!(whole.len(), 6);
        for cut in 0..=bytes.len() {
            assert_eq!(all(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(all(&single), whole);
    }

    #[test]
    fn what_is_missing_inside_a_body_is_progress() {
        for (before, missing, beyond, cut) in [
            (&b"\x08abc"[..], 4, 0, false),
            (b"\x08abc", 9, 5, false),
            (b"\x08", 7, 0, true),
            (b"", 3, 3, false),
            (b"\x00", 3, 3, false),
        ] {
            let mut frames = Frames::new();
            assert_eq!(frames.next(&mut &before[..], 1, size), Ok(None));
            assert_eq!(frames.miss(missing), beyond);
            let frame = frames.next(&mut &b""[..], 2, size).expect("no bad bytes");
            assert_eq!(frame.is_some(), before.len() > 1 || cut);
            if let Some(frame) = frame {
                assert_eq!((frame.len, frame.began_ns, frame.cut), (8, 1, cut));
            }
        }
    }

    #[test]
    fn bad_bytes_are_told() {
        assert_eq!(Frames::new().next(&mut &b"\xff"[..], 0, size), Err(Bad));
    }
}
