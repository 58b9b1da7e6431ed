//! WebSocket frames (RFC 6455 §5) behind an upgrade. In: pieces of both directions. Out: at the
//! connection's end, one exchange that counts what went. Payloads are passed over unread, but for
//! a close frame's code.
//!
//! Missing bytes inside a payload are as good as seen; elsewhere the frames cannot be found again,
//! and the session is told, as `gap`, with what was counted until then.
#![forbid(unsafe_code)]

use super::exchange::{Exchange, Message, Outcome, Parser, Piece, Side, WebSocket};

/// The longest frame head: 2 bytes, 8 of length, 4 of masking key.
const HEAD_MAX: usize = 14;

/// The parser of one session. It holds no heap memory.
#[derive(Debug, Default)]
pub struct Session {
    halves: [Half; 2],
    session: WebSocket,
    bytes: [u64; 2],
    /// When the first and the last byte went.
    span_ns: Option<(u64, u64)>,
    lost: bool,
    told: bool,
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    /// A frame's head that is not whole yet.
    head: [u8; HEAD_MAX],
    /// Bytes of it that are there; `len <= HEAD_MAX`.
    len: usize,
    /// The frame whose payload is passing.
    frame: Option<Frame>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    last: bool,
    mask: [u8; 4],
    /// Payload bytes: all, and those that passed; `passed <= length`.
    length: u64,
    passed: u64,
    /// The first byte of a close frame's code.
    code: Option<u8>,
}

const CLOSE: u8 = 8;

impl Parser for Session {
    fn take(
        &mut self,
        side: Side,
        piece: Piece<'_>,
        at_ns: u64,
        _out: &mut Vec<Exchange>,
    ) -> Outcome {
        if self.lost {
            return Outcome::Lost;
        }
        let count = match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Missing(count) => count,
            Piece::End => 0,
        };
        let bytes = &mut self.bytes[side as usize];
        *bytes = bytes.saturating_add(count);
        if count > 0 {
            let (first, last) = self.span_ns.unwrap_or((at_ns, at_ns));
            self.span_ns = Some((first, last.max(at_ns)));
        }
        let sound = match piece {
            Piece::Bytes(bytes) => self.bytes(side, bytes),
            Piece::Missing(count) => self.missing(side, count),
            Piece::End => true,
        };
        self.lost = !sound;
        if sound { Outcome::Continue } else { Outcome::Lost }
    }

    fn finish(&mut self, at_ns: u64, out: &mut Vec<Exchange>) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let (began_ns, ended_ns) = self.span_ns.unwrap_or((at_ns, at_ns));
        out.push(Exchange {
            began_ns,
            ended_ns,
            bytes: self.bytes,
            message: Message::WebSocket(std::mem::take(&mut self.session)),
            gap: self.lost,
        });
    }

    fn memory(&self) -> usize {
        0
    }
}

impl Session {
    /// A session at the first byte after the upgrade.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes over bytes; `false` where they are no frames.
    fn bytes(&mut self, side: Side, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            let half = &mut self.halves[side as usize];
            let Some(frame) = &mut half.frame else {
                rest = behind;
                match half.head_byte(byte) {
                    Head::Part => {}
                    Head::Whole(frame) => self.begin(side, frame),
                    Head::Broken => return false,
                }
                continue;
            };
            if frame.opcode == CLOSE && frame.passed < 2 {
                rest = behind;
                let byte = byte ^ frame.mask[usize::from(frame.passed == 1)];
                match frame.code {
                    Some(high) if self.session.close_code.is_none() => {
                        self.session.close_code = Some(u16::from_be_bytes([high, byte]));
                    }
                    Some(_) => {}
                    None => frame.code = Some(byte),
                }
                self.pass(side, 1);
                continue;
            }
            let left = frame.length.saturating_sub(frame.passed);
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            rest = rest.get(here..).unwrap_or_default();
            self.pass(side, here as u64);
        }
        true
    }

    fn missing(&mut self, side: Side, count: u64) -> bool {
        match &self.halves[side as usize].frame {
            Some(frame) if count <= frame.length.saturating_sub(frame.passed) => {
                self.pass(side, count);
                true
            }
            _ => count == 0,
        }
    }

    fn begin(&mut self, side: Side, frame: Frame) {
        self.halves[side as usize].frame = Some(frame);
        self.pass(side, 0);
    }

    /// So many bytes of a payload passed.
    fn pass(&mut self, side: Side, count: u64) {
        let at = side as usize;
        let Some(frame) = &mut self.halves[at].frame else { return };
        frame.passed = frame.passed.saturating_add(count);
        let data = frame.opcode < CLOSE;
        if data {
            self.session.payload[at] = self.session.payload[at].saturating_add(count);
        }
        if frame.passed >= frame.length {
            self.session.frames[at] += 1;
            // A message counts once it is whole, in however many frames it came.
            self.session.messages[at] += u64::from(data && frame.last);
            self.halves[at].frame = None;
        }
    }
}

enum Head {
    Part,
    Whole(Frame),
    Broken,
}

impl Half {
    /// Adds a byte to the frame's head.
    fn head_byte(&mut self, byte: u8) -> Head {
        if let Some(place) = self.head.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
        if self.len < 2 {
            return Head::Part;
        }
        let [first, second, ..] = self.head;
        let (opcode, short) = (first & 0x0f, second & 0x7f);
        // Extensions use the reserved bits; no registered one has an opcode of its own. Control
        // frames are short and whole (§5.5).
        let control = opcode >= CLOSE;
        if matches!(opcode, 3..=7 | 11..) || (control && (short > 125 || first & 0x80 == 0)) {
            return Head::Broken;
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = second & 0x80 != 0;
        if self.len < 2 + extended + if masked { 4 } else { 0 } {
            return Head::Part;
        }
        self.len = 0;
        let be = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let length = match extended {
            0 => u64::from(short),
            _ => be(self.head.get(2..2 + extended).unwrap_or_default()),
        };
        // The most significant bit must be 0 (§5.2).
        if length >> 63 != 0 {
            return Head::Broken;
        }
        let mut mask = [0; 4];
        if let (true, Some(key)) = (masked, self.head.get(2 + extended..6 + extended)) {
            mask.copy_from_slice(key);
        }
        let last = first & 0x80 != 0;
        Head::Whole(Frame { opcode, last, mask, length, passed: 0, code: None })
    }
}

/// For the fuzzer: any bytes, cut by themselves into pieces of both sides.
#[doc(hidden)]
pub fn fuzz_websocket(bytes: &[u8]) {
    let mut parser = Session::new();
    let mut out = Vec::new();
    let mut rest = bytes;
    let mut seen = [0; 2];
    while let Some((&cut, behind)) = rest.split_first() {
        let side = if cut & 1 == 0 { Side::Client } else { Side::Server };
        let count = usize::from(cut >> 1);
        let (piece, behind) = behind.split_at(count.min(behind.len()));
        let piece = if cut == 2 { Piece::Missing(3) } else { Piece::Bytes(piece) };
        let outcome = parser.take(side, piece, 7, &mut out);
        assert!(!matches!(outcome, Outcome::Switch { .. }));
        if !parser.lost {
            seen[side as usize] += if let Piece::Bytes(bytes) = piece { bytes.len() } else { 3 };
        }
        rest = behind;
    }
    parser.finish(7, &mut out);
    parser.finish(7, &mut out);
    let [Exchange { bytes, message: Message::WebSocket(session), .. }] = &out[..] else {
        panic!("one session: {out:?}");
    };
    for side in 0..2 {
        assert!(bytes[side] >= seen[side] as u64);
        // A frame has at least two bytes that are no payload.
        let least = session.frames[side].saturating_mul(2).saturating_add(session.payload[side]);
        assert!(least <= bytes[side] && session.messages[side] <= session.frames[side]);
    }
}

#[cfg(test)]
mod tests;
