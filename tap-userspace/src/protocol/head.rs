//! The head of one direction, put together from what was captured of its segments.

/// Bytes 0 to `limit` of a stream. Segments come in any order, overlap and repeat; of two that
/// claim the same place the later one wins, as the kernel side sends again what TCP had not taken.
#[derive(Debug)]
pub struct Head {
    bytes: Vec<u8>,
    /// Places that are known: sorted, apart from each other. `known.last().end == bytes.len()`.
    known: Vec<std::ops::Range<usize>>,
    limit: usize,
    truncated: bool,
}

impl Head {
    /// An empty head of at most `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), known: Vec::new(), limit, truncated: false }
    }

    /// Takes in `bytes` at `offset` of the stream, from a segment of `segment_len` bytes.
    pub fn put(&mut self, offset: u64, bytes: &[u8], segment_len: u32) {
        let end_of_segment = offset.saturating_add(u64::from(segment_len));
        self.truncated |= end_of_segment > self.limit as u64 || segment_len as usize > bytes.len();
        let Ok(begin) = usize::try_from(offset) else { return };
        if begin >= self.limit || bytes.is_empty() {
            return;
        }
        let bytes = &bytes[..bytes.len().min(self.limit - begin)];
        let end = begin + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[begin..end].copy_from_slice(bytes);
        self.mark(begin..end);
    }

    /// Adds a place to those known, joined with its neighbours.
    fn mark(&mut self, place: std::ops::Range<usize>) {
        // A head of very many islands is not worth its memory: the last ones are forgotten.
        const ISLANDS: usize = 64;
        let mut place = place;
        self.known.retain(|known| {
            let apart = known.end < place.start || place.end < known.start;
            if !apart {
                place = known.start.min(place.start)..known.end.max(place.end);
            }
            apart
        });
        let at = self.known.partition_point(|known| known.start < place.start);
        self.known.insert(at, place);
        self.known.truncate(ISLANDS);
        self.bytes.truncate(self.known.last().map_or(0, |last| last.end));
    }

    /// The bytes from the stream's begin up to the first hole.
    pub fn contiguous(&self) -> &[u8] {
        match self.known.first() {
            Some(first) if first.start == 0 => &self.bytes[..first.end],
            _ => &[],
        }
    }

    /// Whether bytes are known beyond a hole.
    pub fn gap(&self) -> bool {
        self.known.len() > 1 || self.known.first().is_some_and(|first| first.start > 0)
    }

    /// Whether the stream has bytes that were not captured.
    pub const fn truncated(&self) -> bool {
        self.truncated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter() {
        let mut head = Head::new(100);
        head.put(5, b"world", 5);
        assert_eq!((head.contiguous(), head.gap()), (&b""[..], true));
        head.put(0, b"hello", 5);
        assert_eq!((head.contiguous(), head.gap()), (&b"helloworld"[..], false));
        head.put(3, b"LO", 2);
        assert_eq!(head.contiguous(), b"helLOworld");
        assert!(!head.truncated());
    }

    #[test]
    fn hostile_offsets_are_harmless() {
        let mut head = Head::new(10);
        head.put(u64::MAX, b"x", u32::MAX);
        head.put(10, b"x", 1);
        head.put(9, b"xyz", 3);
        head.put(0, b"", 0);
        assert_eq!((head.contiguous(), head.gap(), head.truncated()), (&b""[..], true, true));
    }

    #[test]
    fn agrees_with_a_naive_model() {
        let mut seed = 7u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        for _ in 0..2000 {
            let limit = next(200) as usize;
            let mut head = Head::new(limit);
            let mut model = vec![None; limit];
            for _ in 0..next(20) {
                let offset = next(220);
                let bytes: Vec<u8> = (0..next(40)).map(|_| next(256) as u8).collect();
                head.put(offset, &bytes, bytes.len() as u32);
                for (at, byte) in bytes.iter().enumerate() {
                    if let Some(place) = model.get_mut(offset as usize + at) {
                        *place = Some(*byte);
                    }
                }
            }
            let wanted: Vec<u8> = model.iter().map_while(|byte| *byte).collect();
            assert_eq!(head.contiguous(), wanted);
            assert_eq!(head.gap(), model.iter().skip(wanted.len()).any(Option::is_some));
        }
    }
}
