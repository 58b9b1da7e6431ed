//! One direction of a connection, cut into messages. In: its pieces, and of each head how the body
//! behind it is delimited. Out: [`Step`]s, one at a time. What messages mean is not known here.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::{
    chunked::{Decoder, Stand},
    head::{self, Framing},
};
use crate::protocol::exchange::Side;

/// Most bytes of a head. Servers refuse more than 8 (nginx, Apache) to 64 KiB (Envoy, HAProxy).
pub const HEAD_MAX: usize = 64 << 10;

/// The state of one direction.
#[derive(Debug)]
pub struct Half {
    side: Side,
    state: State,
    /// The head, or in `Skip` the line, that is not whole yet. `len() <= HEAD_MAX`.
    held: Vec<u8>,
    /// Bytes of `held` in which no end of a head begins.
    scanned: usize,
    /// The head's first line is whole, and is one.
    opened: bool,
    /// When the message's first byte went.
    began_ns: u64,
    /// When the last byte that was seen went.
    last_ns: u64,
    /// Empty lines before the head.
    blank: u64,
    /// Bytes were passed over since the last message, so that there may have been others.
    lost: bool,
    /// Another protocol may follow the message, so that what follows must be plausible first.
    wary: bool,
    /// Where the payload of the chunks of one step goes, if it is wanted.
    chunks: Option<Vec<u8>>,
}

#[derive(Debug)]
enum State {
    /// The framing is not known (yet, or any more): looking for a line that begins a message.
    Skip {
        /// The next byte begins a line, or a piece.
        fresh: bool,
    },
    /// Before a message's first byte.
    Between,
    /// In a head.
    Head,
    Length(u64),
    Chunked(Decoder),
    Close,
    /// The direction is over.
    Over,
}

/// What the next bytes of a direction were.
#[derive(Debug)]
pub enum Step<'a> {
    /// A part of something that is not whole yet.
    Part,
    /// A message's whole head. [`Half::body`] or [`Half::skip`] is to be called.
    Head(Head<'a>),
    /// A head that is none, or is too long; its first bytes. What follows is skipped.
    BrokenHead(Head<'a>),
    /// Bytes of the message's body.
    Body {
        /// With framing.
        wire: u64,
        /// Without.
        payload: u64,
        /// Whether it ends the message.
        stand: Stand,
    },
    /// So many bytes that belong to nothing known.
    Skipped(u64),
}

/// A head's bytes.
#[derive(Debug)]
pub struct Head<'a> {
    /// The head.
    pub bytes: Cow<'a, [u8]>,
    /// Bytes on the wire: the head, and the empty lines before it.
    pub wire: u64,
    /// When its first byte went.
    pub began_ns: u64,
    /// When its last byte went.
    pub last_ns: u64,
}

/// What missing bytes, or the direction's end, did to a message.
#[derive(Debug)]
pub enum Cut {
    /// Nothing: there was no message.
    Nothing,
    /// They were all body, and it goes on.
    Inside,
    /// So many of them were the last of the body.
    BodyEnd(u64),
    /// They cut a head short; its begin.
    Head(Head<'static>),
    /// They cut the body short.
    Body,
}

impl Half {
    /// The direction in which `side` speaks, from anywhere.
    pub const fn new(side: Side) -> Self {
        Self {
            side,
            state: State::Skip { fresh: true },
            held: Vec::new(),
            scanned: 0,
            opened: false,
            began_ns: 0,
            last_ns: 0,
            blank: 0,
            lost: false,
            wary: false,
            chunks: None,
        }
    }

    /// The payload of bodies is wanted ([`Self::payload`]).
    pub fn want_payload(&mut self) {
        self.chunks = Some(Vec::new());
    }

    /// The payload of a step's `wire` bytes, which began `rest`, where it is wanted.
    pub fn payload<'a>(&mut self, rest: &'a [u8], wire: u64, payload: u64) -> Cow<'a, [u8]> {
        let Some(chunks) = &mut self.chunks else { return Cow::Borrowed(&[]) };
        let chunks = std::mem::take(chunks);
        if wire == payload {
            let len = usize::try_from(wire).unwrap_or(usize::MAX).min(rest.len());
            return Cow::Borrowed(rest.get(..len).unwrap_or_default());
        }
        Cow::Owned(chunks)
    }

    /// A new piece begins.
    pub const fn piece(&mut self) {
        if let State::Skip { fresh } = &mut self.state {
            *fresh = true;
        }
    }

    /// Goes over some of `rest`, which is not empty. A step that takes nothing off it ends in
    /// another state, from which the next one does.
    pub fn step<'a>(&mut self, rest: &mut &'a [u8], at_ns: u64) -> Step<'a> {
        self.last_ns = at_ns;
        match &mut self.state {
            State::Skip { .. } => self.look(rest, at_ns),
            State::Between => self.between(rest, at_ns),
            State::Head => self.head(rest),
            State::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *rest = rest.get(here..).unwrap_or_default();
                *left = left.saturating_sub(here as u64);
                let end = *left == 0;
                let stand = if end { Stand::End(Vec::new()) } else { Stand::More };
                self.passed(here as u64, here as u64, stand)
            }
            State::Chunked(decoder) => {
                let progress = match &mut self.chunks {
                    None => decoder.take(rest),
                    Some(chunks) => {
                        decoder.take_with(rest, |payload| chunks.extend_from_slice(payload))
                    }
                };
                *rest = rest.get(progress.wire..).unwrap_or_default();
                self.passed(progress.wire as u64, progress.payload, progress.stand)
            }
            State::Close => {
                let wire = rest.len() as u64;
                *rest = &[];
                Step::Body { wire, payload: wire, stand: Stand::More }
            }
            State::Over => {
                *rest = &[];
                Step::Part
            }
        }
    }

    fn passed<'a>(&mut self, wire: u64, payload: u64, stand: Stand) -> Step<'a> {
        match stand {
            Stand::More => {}
            Stand::End(_) => self.next_message(),
            Stand::Broken => self.skip(),
        }
        Step::Body { wire, payload, stand }
    }

    fn next_message(&mut self) {
        self.state = if self.wary { State::Skip { fresh: true } } else { State::Between };
    }

    /// The framing is lost.
    pub fn skip(&mut self) {
        self.held = Vec::new();
        self.blank = 0;
        if !matches!(self.state, State::Over) {
            self.state = State::Skip { fresh: false };
        }
    }

    /// The head that was told last is followed by such a body. Tells whether the message is over
    /// with its head.
    pub fn body(&mut self, framing: Framing, wary: bool) -> bool {
        self.wary = wary;
        match framing {
            Framing::Length(0) => self.next_message(),
            Framing::Length(length) => self.state = State::Length(length),
            Framing::Chunked => self.state = State::Chunked(Decoder::new()),
            Framing::Close => self.state = State::Close,
            Framing::Unknown => self.skip(),
        }
        framing == Framing::Length(0)
    }

    /// Nothing follows that is of interest.
    pub fn stop(&mut self) {
        self.skip();
        self.state = State::Over;
    }

    /// Whether the framing is lost.
    pub const fn is_skipping(&self) -> bool {
        matches!(self.state, State::Skip { .. })
    }

    /// Whether messages may have been passed over since the last one that was told.
    pub const fn has_lost(&self) -> bool {
        self.lost
    }

    // === Heads ===

    fn between<'a>(&mut self, rest: &mut &'a [u8], at_ns: u64) -> Step<'a> {
        // An empty line before a request is to be ignored (RFC 9112 §2.2); httparse does it for
        // responses as well.
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.blank = self.blank.saturating_add(blank as u64);
        *rest = rest.get(blank..).unwrap_or_default();
        if rest.is_empty() {
            return Step::Part;
        }
        self.begin(at_ns);
        self.head(rest)
    }

    fn begin(&mut self, at_ns: u64) {
        self.state = State::Head;
        self.scanned = 0;
        self.opened = false;
        self.lost = false;
        self.began_ns = at_ns;
    }

    fn head<'a>(&mut self, rest: &mut &'a [u8]) -> Step<'a> {
        let before = self.held.len();
        let room = HEAD_MAX.saturating_sub(before).min(rest.len());
        let (new, _) = rest.split_at(room);
        // Mostly a head is whole in its piece, and is read from there.
        let mut held = std::mem::take(&mut self.held);
        let scan = if before == 0 {
            self.scan(new)
        } else {
            held.extend_from_slice(new);
            self.scan(&held)
        };
        let (end, whole) = match scan {
            Scan::Head(end) => (end, true),
            Scan::Broken(end) => (end, false),
            Scan::More if before + room >= HEAD_MAX => (HEAD_MAX, false),
            Scan::More => {
                if before == 0 {
                    held.extend_from_slice(new);
                }
                self.held = held;
                *rest = rest.get(room..).unwrap_or_default();
                return Step::Part;
            }
        };
        let (new, behind) = rest.split_at(end.saturating_sub(before).min(room));
        *rest = behind;
        if before == 0 {
            return self.head_done(Cow::Borrowed(new), whole);
        }
        held.truncate(end);
        self.head_done(Cow::Owned(held), whole)
    }

    fn head_done<'a>(&mut self, bytes: Cow<'a, [u8]>, whole: bool) -> Step<'a> {
        let wire = (bytes.len() as u64).saturating_add(self.blank);
        self.blank = 0;
        let head = Head { bytes, wire, began_ns: self.began_ns, last_ns: self.last_ns };
        if whole {
            Step::Head(head)
        } else {
            self.state = State::Skip { fresh: head.bytes.ends_with(b"\n") };
            Step::BrokenHead(head)
        }
    }

    /// Looks for the end of the head that begins `bytes`, from where the last look ended.
    fn scan(&mut self, bytes: &[u8]) -> Scan {
        while let Some(at) = bytes.get(self.scanned..).and_then(|new| memchr::memchr(b'\n', new)) {
            let line_end = self.scanned + at;
            if !self.opened {
                // A first line that is none is told before the head is whole: it may be the rest
                // of a body that was longer than it said, and a good head may follow.
                let line = bytes.get(..line_end).unwrap_or_default();
                if !head::first_line(self.side, line) {
                    return Scan::Broken(line_end + 1);
                }
                self.opened = true;
            }
            match bytes.get(line_end + 1..) {
                Some([b'\n', ..]) => return Scan::Head(line_end + 2),
                Some([b'\r', b'\n', ..]) => return Scan::Head(line_end + 3),
                // The end may begin here.
                Some([] | [b'\r']) | None => {
                    self.scanned = line_end;
                    return Scan::More;
                }
                Some(_) => self.scanned = line_end + 1,
            }
        }
        self.scanned = bytes.len();
        Scan::More
    }

    // === Looking for a message ===

    fn look<'a>(&mut self, rest: &mut &'a [u8], at_ns: u64) -> Step<'a> {
        let State::Skip { fresh } = self.state else { return Step::Part };
        let end = memchr::memchr(b'\n', rest).map(|at| at + 1);
        let (line, behind) = rest.split_at(end.unwrap_or(rest.len()));
        if !fresh && self.held.is_empty() {
            self.lost = true;
            *rest = behind;
            self.state = State::Skip { fresh: end.is_some() };
            return Step::Skipped(line.len() as u64);
        }
        let first = self.held.is_empty();
        if let (true, Some((_, text)), true) = (first, line.split_last(), end.is_some()) {
            if head::plausible(self.side, text) {
                self.begin(at_ns);
                return self.head(rest);
            }
            *rest = behind;
            self.lost = true;
            return Step::Skipped(line.len() as u64);
        }
        if first {
            self.began_ns = at_ns;
        }
        *rest = behind;
        let fits = line.len() <= HEAD_MAX.saturating_sub(self.held.len());
        let mut held = std::mem::take(&mut self.held);
        let skipped = (held.len() as u64).saturating_add(line.len() as u64);
        if fits {
            held.extend_from_slice(line);
            let plausible = match held.split_last() {
                Some((_, line)) if end.is_some() => head::plausible(self.side, line),
                _ => head::maybe_plausible(self.side, &held),
            };
            if plausible {
                self.held = held;
                if end.is_some() {
                    self.begin(self.began_ns);
                }
                return Step::Part;
            }
        }
        self.state = State::Skip { fresh: end.is_some() };
        self.lost = true;
        Step::Skipped(skipped)
    }

    // === Where bytes end ===

    /// Passes over `count` bytes (not 0) that nobody captured.
    pub fn miss(&mut self, count: u64) -> Cut {
        let cut = match &mut self.state {
            State::Length(left) if count < *left => {
                *left -= count;
                return Cut::Inside;
            }
            State::Length(left) if count == *left => {
                self.next_message();
                return Cut::BodyEnd(count);
            }
            State::Length(left) => Cut::BodyEnd(*left),
            State::Chunked(decoder) => {
                if decoder.miss(count) {
                    return Cut::Inside;
                }
                Cut::Body
            }
            State::Close => return Cut::Inside,
            State::Head => self.cut_head(),
            State::Skip { .. } | State::Between => Cut::Nothing,
            State::Over => return Cut::Nothing,
        };
        self.skip();
        self.lost = true;
        cut
    }

    /// The direction is over.
    pub fn end(&mut self) -> Cut {
        let cut = match &self.state {
            State::Length(_) | State::Chunked(_) => Cut::Body,
            State::Head => self.cut_head(),
            State::Close => Cut::BodyEnd(0),
            State::Skip { .. } | State::Between | State::Over => Cut::Nothing,
        };
        self.stop();
        cut
    }

    fn cut_head(&mut self) -> Cut {
        let bytes = std::mem::take(&mut self.held);
        let wire = (bytes.len() as u64).saturating_add(self.blank);
        Cut::Head(Head {
            bytes: Cow::Owned(bytes),
            wire,
            began_ns: self.began_ns,
            last_ns: self.last_ns,
        })
    }

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        let body = if let State::Chunked(decoder) = &self.state { decoder.memory() } else { 0 };
        self.held.capacity() + body
    }
}

enum Scan {
    /// The head ends here.
    Head(usize),
    /// The first line, which ends here, begins no message.
    Broken(usize),
    More,
}
