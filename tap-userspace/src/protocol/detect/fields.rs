//! Reads a head field by field. In: the bytes that there are. Out: each field's value, or at the
//! first byte that rules it out [`Stop::No`], or at their end [`Stop::More`].
//!
//! A field that is not whole is judged by the bytes it has: where no further byte could bring it
//! into its range, it is `No` at once.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;

/// Why reading ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// All was fine so far.
    More,
    /// It is something else.
    No,
}

/// A field, or why there is none.
pub(super) type Step<T> = Result<T, Stop>;

/// What of a head is still to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next byte, if it is fine.
    pub fn byte(&mut self, fine: impl Fn(u8) -> bool) -> Step<u8> {
        let (&byte, rest) = self.0.split_first().ok_or(Stop::More)?;
        if !fine(byte) {
            return Err(Stop::No);
        }
        self.0 = rest;
        Ok(byte)
    }

    /// The next `count` bytes, whatever they are.
    pub fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Stop::More)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next `count` bytes, if each is fine.
    pub fn all(&mut self, count: usize, fine: impl Fn(u8) -> bool) -> Step<&'a [u8]> {
        let there = self.0.len().min(count);
        if !self.0[..there].iter().all(|byte| fine(*byte)) {
            return Err(Stop::No);
        }
        self.take(count)
    }

    /// A big-endian number of `width` bytes, at most four.
    pub fn be(&mut self, width: usize, fine: RangeInclusive<u32>) -> Step<u32> {
        let there = self.0.len().min(width);
        let missing = 8 * (width - there) as u32;
        let least = self.0[..there].iter().fold(0, |n, byte| n << 8 | u64::from(*byte)) << missing;
        let most = least | ((1 << missing) - 1);
        if most < u64::from(*fine.start()) || least > u64::from(*fine.end()) {
            return Err(Stop::No);
        }
        self.take(width)?;
        u32::try_from(least).map_err(|_| Stop::No)
    }

    /// A little-endian number of `width` bytes, at most four.
    pub fn le(&mut self, width: usize, fine: RangeInclusive<u32>) -> Step<u32> {
        let there = self.0.len().min(width);
        let low = self.0[..there].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
        // The smallest number that ends in the bytes there are and is not below the range.
        let step = 1_u64 << (8 * there);
        let least = low + u64::from(*fine.start()).saturating_sub(low).div_ceil(step) * step;
        if least > u64::from(*fine.end()) || (there == width && least != low) {
            return Err(Stop::No);
        }
        self.take(width)?;
        u32::try_from(low).map_err(|_| Stop::No)
    }

    /// Exactly these bytes.
    pub fn literal(&mut self, bytes: &[u8]) -> Step<()> {
        self.one_of(&[bytes]).map(|_| ())
    }

    /// Which of these byte strings comes next; none may be the beginning of another.
    pub fn one_of(&mut self, choices: &[&[u8]]) -> Step<usize> {
        if let Some(at) = choices.iter().position(|choice| self.0.starts_with(choice)) {
            self.0 = &self.0[choices[at].len()..];
            return Ok(at);
        }
        let begun = choices.iter().any(|choice| choice.starts_with(self.0));
        Err(if begun { Stop::More } else { Stop::No })
    }

    // === Text ===

    /// What there is of the next word, and whether it is whole: a space or the line's end, which is
    /// left, ends it.
    pub fn next_word(&mut self) -> (&'a [u8], bool) {
        /// No word that is wanted is as long.
        const LONG: usize = 32;
        let ends = |byte: &u8| matches!(byte, b' ' | b'\r' | b'\n');
        let end = self.0.iter().take(LONG).position(ends);
        let (word, rest) = self.0.split_at(end.unwrap_or(self.0.len().min(LONG)));
        self.0 = rest;
        (word, end.is_some())
    }

    /// Which of these words comes next, in upper or lower case.
    pub fn word(&mut self, words: &[&str]) -> Step<usize> {
        let (word, whole) = self.next_word();
        if whole {
            let found = words.iter().position(|it| it.as_bytes().eq_ignore_ascii_case(word));
            return found.ok_or(Stop::No);
        }
        let begun = words.iter().any(|it| {
            it.as_bytes().get(..word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word))
        });
        Err(if begun { Stop::More } else { Stop::No })
    }

    /// The rest of the line without its end, which is LF or CR LF; text without control bytes.
    pub fn line(&mut self) -> Step<&'a [u8]> {
        let end = self.0.iter().position(|byte| !is_text(*byte)).ok_or(Stop::More)?;
        let (line, rest) = self.0.split_at(end);
        self.0 = rest;
        self.line_end()?;
        Ok(line)
    }

    /// LF or CR LF.
    pub fn line_end(&mut self) -> Step<()> {
        self.one_of(&[b"\n", b"\r\n"]).map(|_| ())
    }

    /// A decimal number without leading zeros; the byte after it, which is left, is none.
    pub fn decimal(&mut self, fine: RangeInclusive<u64>) -> Step<u64> {
        let mut number = 0_u64;
        for (at, byte) in self.0.iter().enumerate() {
            if !byte.is_ascii_digit() {
                self.0 = &self.0[at..];
                return if at > 0 && fine.contains(&number) { Ok(number) } else { Err(Stop::No) };
            }
            if at > 0 && number == 0 {
                return Err(Stop::No);
            }
            number = number.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
            if number > *fine.end() || (number == 0 && !fine.contains(&0)) {
                return Err(Stop::No);
            }
        }
        Err(Stop::More)
    }

    /// A BER length of a definite form (X.690 §8.1.3).
    pub fn ber_length(&mut self, fine: RangeInclusive<u32>) -> Step<u32> {
        match self.byte(|first| first <= 0x84 && first != 0x80)? {
            short @ 0..0x80 if fine.contains(&u32::from(short)) => Ok(u32::from(short)),
            0..0x80 => Err(Stop::No),
            long => self.be(usize::from(long & 7), fine),
        }
    }
}

/// A byte of a line of text, of whatever character set.
pub(super) const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether `word` stands somewhere in `text`, in upper or lower case.
pub(super) fn mentions(text: &[u8], word: &str) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}
