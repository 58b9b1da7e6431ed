//! The few parts of protobuf that OTLP spans are made of, written in one pass to a byte vector.
//! Lengths are computed before what they measure where that is cheap, else patched in.

use super::{attributes::Sink, limits::Limits, semconv::Key};

/// Tag of a length-delimited field with a number below 16.
pub const fn bytes_tag(field: u8) -> u8 {
    field << 3 | 2
}

/// Tag of a varint field with a number below 16.
pub const fn varint_tag(field: u8) -> u8 {
    field << 3
}

/// Tag of a fixed64 field with a number below 16.
pub const fn fixed64_tag(field: u8) -> u8 {
    field << 3 | 1
}

/// Bytes of `value` as a varint.
pub const fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Writes a varint.
#[inline]
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    // Most are short.
    if (0x80..0x4000).contains(&value) {
        return out.extend_from_slice(&[value as u8 | 0x80, (value >> 7) as u8]);
    }
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a field of bytes, text or an encoded message.
#[inline]
pub fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(bytes_tag(field));
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Writes a fixed64 field.
#[inline]
pub fn fixed64(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(fixed64_tag(field));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes a varint field, unless it has its default.
#[inline]
pub fn uint(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(varint_tag(field));
        varint(out, value);
    }
}

/// A message whose length is not known yet: [`open`](Message::open), write, [`close`](Message::close).
#[must_use]
pub struct Message {
    begin: usize,
    guess: usize,
}

impl Message {
    /// Begins a message in `field`, with room for a length of `guess` bytes.
    #[inline]
    pub fn open(out: &mut Vec<u8>, field: u8, guess: usize) -> Self {
        Self::open_tag(out, bytes_tag(field), guess)
    }

    fn open_tag(out: &mut Vec<u8>, tag: u8, guess: usize) -> Self {
        out.push(tag);
        let begin = out.len();
        out.resize(begin + guess, 0);
        Self { begin, guess }
    }

    /// Puts the length in; what was written moves where the guess was wrong.
    #[inline]
    pub fn close(self, out: &mut Vec<u8>) {
        let content = self.begin + self.guess;
        let len = out.len() - content;
        let needed = varint_len(len as u64);
        if needed != self.guess {
            out.resize(out.len().max(self.begin + needed + len), 0);
            out.copy_within(content..content + len, self.begin + needed);
            out.truncate(self.begin + needed + len);
        }
        let mut rest = len;
        for byte in &mut out[self.begin..self.begin + needed] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        out[self.begin + needed - 1] &= 0x7f;
    }
}

/// Writes attributes as repeated `KeyValue`s and holds the limits on them.
pub struct Attributes<'a> {
    out: &'a mut Vec<u8>,
    tag: u8,
    limits: &'a Limits,
    left: u32,
    /// Attributes beyond the limit.
    pub dropped: u32,
}

impl<'a> Attributes<'a> {
    /// Attributes in `field` of the message being written, at most `count`.
    pub const fn new(out: &'a mut Vec<u8>, field: u8, limits: &'a Limits, count: u32) -> Self {
        Self { out, tag: bytes_tag(field), limits, left: count, dropped: 0 }
    }

    /// Counts one more attribute; false beyond the limit.
    #[inline]
    const fn take_one(&mut self) -> bool {
        if self.left == 0 {
            self.dropped += 1;
            return false;
        }
        self.left -= 1;
        true
    }

    /// Writes the `KeyValue` up to its `AnyValue`, which has `any` bytes; false beyond the limit.
    #[inline]
    fn key(&mut self, key: &Key, any: usize) -> bool {
        if !self.take_one() {
            return false;
        }
        let pair = key.field.len() + varint_len(any as u64) + any;
        if pair < 0x80 {
            // Nearly always; pieces written together are what makes this fast.
            self.out.extend_from_slice(&[self.tag, pair as u8]);
            self.out.extend_from_slice(key.field);
        } else {
            self.out.push(self.tag);
            varint(self.out, pair as u64);
            self.out.extend_from_slice(key.field);
        }
        true
    }
}

/// Bytes of an `AnyValue` with a string of `len` bytes.
const fn text_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// `AnyValue`'s fields.
const STRING: u8 = 1;
const BOOL: u8 = 2;
const INT: u8 = 3;
const DOUBLE: u8 = 4;
const ARRAY: u8 = 5;
const MAP: u8 = 6;

impl Sink for Attributes<'_> {
    #[inline]
    fn text(&mut self, key: &Key, value: &str) {
        let value = self.limits.cut(value);
        let any = text_len(value.len());
        if self.key(key, any) {
            if any < 0x80 {
                self.out.extend_from_slice(&[any as u8, bytes_tag(STRING), value.len() as u8]);
                self.out.extend_from_slice(value.as_bytes());
            } else {
                varint(self.out, any as u64);
                bytes(self.out, STRING, value.as_bytes());
            }
        }
    }

    #[inline]
    fn int(&mut self, key: &Key, value: i64) {
        let value = value.cast_unsigned();
        let any = 1 + varint_len(value);
        if self.key(key, any) {
            self.out.extend_from_slice(&[any as u8, varint_tag(INT)]);
            varint(self.out, value);
        }
    }

    #[inline]
    fn flag(&mut self, key: &Key, value: bool) {
        if self.key(key, 2) {
            self.out.extend_from_slice(&[2, varint_tag(BOOL), value.into()]);
        }
    }

    fn texts<'a>(&mut self, key: &Key, values: impl Iterator<Item = &'a str> + Clone) {
        let limits = self.limits;
        let any = |value: &str| text_len(limits.cut(value).len());
        let array: usize = values
            .clone()
            .map(|value| {
                let any = any(value);
                1 + varint_len(any as u64) + any
            })
            .sum();
        let any_array = 1 + varint_len(array as u64) + array;
        if self.key(key, any_array) {
            varint(self.out, any_array as u64);
            self.out.push(bytes_tag(ARRAY));
            varint(self.out, array as u64);
            for value in values {
                self.out.push(bytes_tag(1));
                varint(self.out, any(value) as u64);
                bytes(self.out, STRING, limits.cut(value).as_bytes());
            }
        }
    }

    fn double(&mut self, key: &Key, value: f64) {
        if self.key(key, 9) {
            self.out.push(9);
            fixed64(self.out, DOUBLE, value.to_bits());
        }
    }

    fn map(&mut self, key: &Key, fill: impl FnOnce(&mut Self)) {
        if !self.take_one() {
            return;
        }
        let pair = Message::open_tag(self.out, self.tag, 2);
        // The key's field ends with the tag of its value.
        self.out.extend_from_slice(&key.field[..key.field.len() - 1]);
        let any = Message::open(self.out, 2, 2);
        let map = Message::open(self.out, MAP, 2);
        let (tag, left) = (self.tag, self.left);
        (self.tag, self.left) = (bytes_tag(1), u32::MAX);
        fill(self);
        (self.tag, self.left) = (tag, left);
        map.close(self.out);
        any.close(self.out);
        pair.close(self.out);
    }

    fn named_text(&mut self, prefix: &'static str, name: &str, value: &str) {
        if !self.take_one() {
            return;
        }
        let value = self.limits.cut(value);
        let pair = Message::open_tag(self.out, self.tag, 1);
        self.out.push(bytes_tag(1));
        varint(self.out, (prefix.len() + name.len()) as u64);
        self.out.extend_from_slice(prefix.as_bytes());
        self.out.extend_from_slice(name.as_bytes());
        let any = Message::open(self.out, 2, 1);
        let array = Message::open(self.out, ARRAY, 1);
        self.out.push(bytes_tag(1));
        varint(self.out, text_len(value.len()) as u64);
        bytes(self.out, STRING, value.as_bytes());
        array.close(self.out);
        any.close(self.out);
        pair.close(self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_their_length() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u32::MAX.into(), u64::MAX] {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
            let mut slice = out.as_slice();
            assert_eq!(prost::encoding::decode_varint(&mut slice), Ok(value));
        }
    }

    #[test]
    fn messages_have_their_length_whatever_the_guess() {
        for len in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x20_0000] {
            for guess in 1..=4 {
                let mut out = vec![9; 3];
                let message = Message::open(&mut out, 2, guess);
                out.extend((0..len).map(|i| i as u8));
                message.close(&mut out);
                let mut slice = &out[4..];
                assert_eq!(out[..4], [9, 9, 9, 0x12]);
                assert_eq!(prost::encoding::decode_varint(&mut slice), Ok(len as u64));
                assert!(slice.iter().copied().eq((0..len).map(|i| i as u8)), "{len} {guess}");
            }
        }
    }
}
