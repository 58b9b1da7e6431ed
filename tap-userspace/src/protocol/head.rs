//! The first bytes of one direction, put together from the pieces that the kernel side sends. In:
//! pieces with their place in the stream, in any order, overlapping or repeated. Out: the
//! contiguous bytes from the stream's begin on, for [`super::detect`] and the parsers.
//!
//! A later piece overrides an earlier one at the same place: the kernel side sends a segment when
//! it passes the hook, before TCP has accepted it, and again when it is retransmitted. So the last
//! copy is the one that the peers believe in.
#![forbid(unsafe_code)]

/// Largest limit that a [`Head`] takes.
pub const LIMIT_MAX: u32 = 64 << 10;

/// Islands beyond a hole that are remembered. Ordinary reordering makes one or two; a flood of
/// forged pieces is not worth more.
const ISLANDS: usize = 16;

/// The first bytes of one direction. Takes no heap until the first byte comes, and never more than
/// its limit (and a few islands).
#[derive(Clone, Debug)]
pub struct Head {
    /// All places from 0 to the end of the last known byte; holes are zeros.
    bytes: Vec<u8>,
    /// Known ranges beyond `contiguous`: sorted, not empty, not touching each other or it.
    islands: Vec<(u32, u32)>,
    /// `bytes[..contiguous]` are known. `contiguous <= bytes.len() <= limit`
    contiguous: u32,
    /// Where the stream takes no more.
    limit: u32,
    /// Highest end of a segment that was seen, captured or not.
    stream_end: u64,
    /// An island was given up for want of a place.
    forgot: bool,
}

impl Head {
    /// A head of the first `limit` bytes, at most [`LIMIT_MAX`].
    pub const fn new(limit: u32) -> Self {
        let limit = if limit > LIMIT_MAX { LIMIT_MAX } else { limit };
        Self {
            bytes: Vec::new(),
            islands: Vec::new(),
            contiguous: 0,
            limit,
            stream_end: 0,
            forgot: false,
        }
    }

    /// Takes the begin of a segment: its captured `bytes` at `offset` in the stream.
    /// `segment_len` is what the segment held; not all of it may have been captured.
    pub fn put(&mut self, offset: u64, bytes: &[u8], segment_len: u32) {
        let captured = bytes.len() as u64;
        let segment_end = offset.saturating_add(captured.max(u64::from(segment_len)));
        self.stream_end = self.stream_end.max(segment_end);
        let Ok(begin) = u32::try_from(offset) else { return };
        if begin >= self.limit || bytes.is_empty() {
            return;
        }
        let end = begin + u32::try_from(captured).unwrap_or(u32::MAX).min(self.limit - begin);
        if !self.know(begin, end) {
            self.forgot = true;
            return;
        }
        self.grow(end as usize);
        self.bytes[begin as usize..end as usize].copy_from_slice(&bytes[..(end - begin) as usize]);
    }

    /// The bytes from the stream's begin to the first hole.
    pub fn contiguous(&self) -> &[u8] {
        &self.bytes[..self.contiguous as usize]
    }

    /// Whether bytes are known beyond a hole.
    pub const fn gap(&self) -> bool {
        !self.islands.is_empty() || (self.forgot && !self.full())
    }

    /// Whether the stream went beyond the last byte that is known: past the limit, or by a segment
    /// that was not captured to its end.
    pub const fn truncated(&self) -> bool {
        self.stream_end > self.bytes.len() as u64
    }

    /// Whether it is full: no byte can come that it would take.
    pub const fn full(&self) -> bool {
        self.contiguous == self.limit
    }

    /// Gives its memory back; from now on it takes nothing. Whoever wants to know of gaps and
    /// truncation asks before.
    pub fn clear(&mut self) {
        *self = Self::new(0);
    }

    /// Bytes of heap that it holds.
    pub const fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.islands.capacity() * size_of::<(u32, u32)>()
    }

    /// Notes that `begin..end` is known. False where there is no place to note it.
    fn know(&mut self, mut begin: u32, mut end: u32) -> bool {
        if begin <= self.contiguous {
            self.contiguous = self.contiguous.max(end);
            let reached = self.islands.partition_point(|&(from, _)| from <= self.contiguous);
            for (_, to) in self.islands.drain(..reached) {
                self.contiguous = self.contiguous.max(to);
            }
            // No island touches another, so the last one swallowed does not reach the next.
            return true;
        }
        let first = self.islands.partition_point(|&(_, to)| to < begin);
        let after = self.islands.partition_point(|&(from, _)| from <= end);
        if first == after {
            if self.islands.len() == ISLANDS {
                return false;
            }
            self.islands.insert(first, (begin, end));
            return true;
        }
        begin = begin.min(self.islands[first].0);
        end = end.max(self.islands[after - 1].1);
        self.islands[first] = (begin, end);
        self.islands.drain(first + 1..after);
        true
    }

    /// Makes `bytes` reach to `end`, in few steps and never with more capacity than the limit.
    fn grow(&mut self, end: usize) {
        if end <= self.bytes.len() {
            return;
        }
        if end > self.bytes.capacity() {
            let wanted = end.max(self.bytes.capacity() * 2).min(self.limit as usize);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.resize(end, 0);
    }
}

/// For the fuzzer: pieces of eleven bytes and less, at places that the bytes give.
#[doc(hidden)]
pub fn fuzz_head(bytes: &[u8]) {
    let mut head = Head::new(256);
    for piece in bytes.chunks(16) {
        let [a, b, c, segment_len, kind, piece @ ..] = piece else { return };
        let near = u64::from(u16::from_be_bytes([*a & 1, *b]));
        let offset = if *kind == 0 { u64::MAX - u64::from(*c) } else { near };
        let before = head.contiguous().len();
        head.put(offset, piece, u32::from(*segment_len));
        assert!(head.contiguous().len() >= before && head.contiguous().len() <= 256);
        assert!(head.islands.iter().all(|(from, to)| from < to && *from > head.contiguous));
        assert!(head.islands.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::noise::Noise;

    #[test]
    fn nothing_costs_nothing() {
        let mut head = Head::new(4096);
        assert_eq!(head.heap_bytes(), 0);
        head.put(0, b"", 0);
        head.put(5000, b"beyond", 6);
        assert_eq!(head.heap_bytes(), 0);
        assert_eq!(head.contiguous(), b"");
        assert!(head.truncated());
        assert!(!head.gap());
    }

    #[test]
    fn pieces_come_together_in_any_order() {
        let mut head = Head::new(4096);
        head.put(6, b"world", 5);
        assert!(head.gap());
        assert_eq!(head.contiguous(), b"");
        head.put(0, b"hello", 5);
        assert_eq!(head.contiguous(), b"hello");
        assert!(head.gap());
        head.put(5, b" ", 1);
        assert_eq!(head.contiguous(), b"hello world");
        assert!(!head.gap());
        assert!(!head.truncated());
    }

    #[test]
    fn a_later_piece_overrides() {
        let mut head = Head::new(4096);
        head.put(0, b"forged bytes", 12);
        head.put(0, b"honest", 6);
        assert_eq!(head.contiguous(), b"honest bytes");
        head.put(3, b"EST", 3);
        assert_eq!(head.contiguous(), b"honEST bytes");
    }

    #[test]
    fn the_limit_cuts_and_says_so() {
        let mut head = Head::new(4);
        head.put(0, b"abcd", 4);
        assert!(head.full());
        assert!(!head.truncated());
        head.put(2, b"CDEF", 4);
        assert_eq!(head.contiguous(), b"abCD");
        assert!(head.truncated());
        assert_eq!(Head::new(u32::MAX).limit, LIMIT_MAX);
    }

    #[test]
    fn a_segment_captured_in_part_is_truncated_until_it_goes_on() {
        let mut head = Head::new(4096);
        head.put(0, b"abc", 10);
        assert!(head.truncated());
        assert!(!head.gap());
        head.put(10, b"next", 4);
        assert!(!head.truncated());
        assert!(head.gap());
        head.put(3, b"defghij", 7);
        assert_eq!(head.contiguous(), b"abcdefghijnext");
        assert!(!head.gap() && !head.truncated());
    }

    #[test]
    fn hostile_places_do_no_harm() {
        let mut head = Head::new(LIMIT_MAX);
        for offset in [u64::MAX, u64::MAX - 1, 1 << 32, u64::from(u32::MAX), u64::from(LIMIT_MAX)] {
            head.put(offset, &[1; 4096], u32::MAX);
        }
        assert_eq!(head.heap_bytes(), 0);
        assert!(head.truncated());
        head.put(u64::from(LIMIT_MAX) - 1, &[7; 4096], 4096);
        assert_eq!(head.bytes.len(), LIMIT_MAX as usize);
        assert!(head.gap());
    }

    #[test]
    fn islands_are_bounded() {
        let mut head = Head::new(4096);
        for n in 1..1000 {
            head.put(n * 4, b"x", 1);
        }
        assert_eq!(head.islands.len(), ISLANDS);
        assert!(head.gap());
        head.put(0, &[0; 4096], 4096);
        assert!(head.full());
        assert!(head.islands.is_empty());
    }

    #[test]
    fn clear_gives_all_back() {
        let mut head = Head::new(4096);
        head.put(0, b"abc", 10);
        head.put(100, b"abc", 10);
        head.clear();
        assert_eq!(head.heap_bytes(), 0);
        head.put(0, b"abc", 3);
        assert_eq!((head.contiguous(), head.heap_bytes()), (&b""[..], 0));
    }

    #[test]
    fn noise_is_never_trouble() {
        let mut noise = Noise::new(0x7461_7005);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..noise.below(640)).map(|_| noise.byte()).collect();
            fuzz_head(&bytes);
        }
    }

    /// Against one byte and one flag per place.
    #[test]
    fn agrees_with_a_naive_model() {
        let mut noise = Noise::new(0x7461_7001);
        for round in 0..20_000 {
            let limit = 1 + noise.below(64);
            let mut head = Head::new(limit);
            let mut model = vec![None; limit as usize];
            let mut stream_end = 0;
            for _ in 0..noise.below(24) {
                let offset = u64::from(noise.below(limit + 8));
                let piece: Vec<u8> = (0..noise.below(12)).map(|_| noise.byte()).collect();
                let more = if noise.below(4) == 0 { noise.below(6) } else { 0 };
                let segment_len = u32::try_from(piece.len()).expect("small") + more;
                head.put(offset, &piece, segment_len);
                stream_end = stream_end.max(offset + u64::from(segment_len));
                for (at, byte) in piece.iter().enumerate() {
                    let at = usize::try_from(offset).expect("small") + at;
                    if let Some(place) = model.get_mut(at) {
                        *place = Some(*byte);
                    }
                }
                let known: Vec<u8> = model.iter().map_while(|place| *place).collect();
                assert_eq!(head.contiguous(), known, "round {round}");
                let last = model.iter().rposition(Option::is_some).map_or(0, |at| at + 1);
                assert_eq!(head.gap(), last > known.len(), "round {round}");
                assert_eq!(head.truncated(), stream_end > last as u64, "round {round}");
                assert!(head.bytes.capacity() <= limit as usize);
            }
        }
    }
}
