//! The server's direction of RESP: replies with their kind. Bodies are passed over; nesting costs a
//! counter, no stack.
#![forbid(unsafe_code)]

use super::resp::{Line, Step, Word, number};

/// A top-level value of the server's.
#[derive(Debug, Default)]
pub struct Value {
    /// Its first byte; `|` for attributes, which stand before the value they belong to.
    pub kind: u8,
    /// `_`, `$-1` or `*-1`.
    pub null: bool,
    /// The line of a simple string or error; the begin of a bulk error or of the first element of
    /// an array or push where that is a bulk or simple string.
    pub word: Word,
    /// The last integer inside.
    pub integer: Option<i64>,
    /// Bytes on the wire.
    pub bytes: u64,
}

/// The server's direction.
#[derive(Debug)]
pub struct Replies {
    line: Line,
    /// Values that are still to come until the top-level one is complete.
    left: u64,
    /// Bytes of a bulk body and its line end.
    body: u64,
    /// The bulk body goes into `value.word`.
    wanted: bool,
    /// Values seen of the top-level one, itself included.
    seen: u64,
    pub value: Value,
}

impl Replies {
    pub fn new() -> Self {
        Self {
            line: Line::new(),
            left: 0,
            body: 0,
            wanted: false,
            seen: 0,
            value: Value::default(),
        }
    }

    /// Walks to the end of the next top-level value.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Step {
        loop {
            let before = bytes.len();
            if before == 0 && (self.body > 0 || self.left != 0 || !self.complete()) {
                return Step::More;
            }
            if self.complete() {
                self.seen = 0;
                return Step::Done;
            }
            if !self.inside() {
                self.value = Value::default();
                self.left = 1;
            }
            let fine = if self.body > 0 { self.body(bytes) } else { self.line(bytes) };
            self.value.bytes += (before - bytes.len()) as u64;
            match fine {
                None => return Step::Bad,
                Some(false) => return Step::More,
                Some(true) => {}
            }
        }
    }

    /// All of a value has passed, and it was not told yet.
    const fn complete(&self) -> bool {
        self.seen > 0 && self.left == 0 && self.body == 0
    }

    /// Whether a value has begun and not ended.
    pub const fn inside(&self) -> bool {
        self.seen > 0 || self.left > 0
    }

    /// `Some(false)`: the piece is used up.
    fn body(&mut self, bytes: &mut &[u8]) -> Option<bool> {
        let taken = usize::try_from(self.body).unwrap_or(usize::MAX).min(bytes.len());
        let (part, rest) = bytes.split_at(taken);
        *bytes = rest;
        if self.wanted {
            let text = usize::try_from(self.body.saturating_sub(2)).unwrap_or(usize::MAX);
            self.value.word.append(&part[..text.min(part.len())]);
        }
        self.body -= taken as u64;
        Some(self.body == 0)
    }

    fn line(&mut self, bytes: &mut &[u8]) -> Option<bool> {
        let line = match self.line.take(bytes) {
            Ok(Some(line)) => line,
            Ok(None) => return Some(false),
            Err(()) => return None,
        };
        let (kind, rest) = line.split_first()?;
        let top = self.seen == 0;
        let first = self.seen == 1 && matches!(self.value.kind, b'*' | b'>');
        self.seen = self.seen.saturating_add(1);
        self.left = self.left.checked_sub(1)?;
        if top {
            self.value.kind = *kind;
        }
        self.wanted = false;
        let mut more = 0;
        match kind {
            b'+' | b'-' => {
                if top || first {
                    self.value.word = Word::new(rest);
                }
            }
            b':' => self.value.integer = Some(number(rest)?),
            b'_' => self.value.null |= top,
            b',' | b'#' | b'(' => {}
            b'$' | b'!' | b'=' => match number(rest)? {
                len @ 0.. => {
                    self.body = len.unsigned_abs() + 2;
                    self.wanted = first || (top && *kind == b'!');
                }
                -1 => self.value.null |= top,
                _ => return None,
            },
            b'*' | b'~' | b'>' => match number(rest)? {
                len @ 0.. => more = len.unsigned_abs(),
                -1 => self.value.null |= top,
                _ => return None,
            },
            b'%' => more = u64::try_from(number(rest)?).ok()?.checked_mul(2)?,
            // Attributes come on top of the value they stand before; before a reply they are told
            // as a value of their own.
            b'|' => {
                more = u64::try_from(number(rest)?).ok()?.checked_mul(2)?;
                more = more.checked_add(u64::from(!top))?;
            }
            _ => return None,
        }
        self.left = self.left.checked_add(more)?;
        Some(true)
    }

    /// Passes over `missing` bytes inside a bulk; says how many lie beyond.
    pub fn miss(&mut self, missing: u64) -> u64 {
        let taken = missing.min(self.body);
        self.value.word.cut |= self.wanted && taken > 0;
        self.wanted &= taken == 0;
        self.value.bytes += taken;
        self.body -= taken;
        missing - taken
    }

    /// Forgets the value under way.
    pub fn reset(&mut self) {
        self.line.reset();
        (self.left, self.body, self.seen) = (0, 0, 0);
    }
}
