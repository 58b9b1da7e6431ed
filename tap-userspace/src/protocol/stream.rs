//! Puts one direction's stream in order. Comes in: captured bytes with their place in the stream,
//! in any order, and how far the stream is known to have come. Goes out: [`Piece`]s in order, each
//! place of the stream once.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::exchange::Piece;

/// Most bytes held back behind a hole: a few of the largest records. Records change places between
/// CPUs by little; a hole that so much has overtaken was most likely lost.
pub const HELD_MAX: usize = 64 << 10;
/// Most records held back; bounds the work per record too.
pub const ISLANDS_MAX: usize = 64;

/// The bounded reassembler of one direction. Of two records that claim a place, the bytes that
/// were told or held first win. A hole is given up, as [`Piece::Missing`], when more than the
/// bounds would wait behind it, when [`Stream::missing_until`] passes it, or at the end; what
/// fills it later is ignored. The times that go out never go back: bytes that waited for others
/// are told with the time at which all before them had crossed.
#[derive(Debug, Default)]
pub struct Stream {
    /// Everything before this place has been told.
    next: u64,
    /// Sorted by offset, apart from each other, all beyond `next`.
    islands: VecDeque<Island>,
    /// Bytes in `islands`.
    held: usize,
    told_ns: u64,
    ended: bool,
}

/// Bytes beyond a hole, not empty. Neighbours are not joined, so that each keeps its time.
#[derive(Debug)]
struct Island {
    offset: u64,
    bytes: Box<[u8]>,
    at_ns: u64,
}

impl Island {
    const fn end(&self) -> u64 {
        // `put` cuts what goes beyond the last offset.
        self.offset.saturating_add(self.bytes.len() as u64)
    }
}

impl Stream {
    /// A stream that is joined at `offset`; what was before is not told. `default()` begins at 0.
    pub const fn begin(offset: u64) -> Self {
        Self { next: offset, islands: VecDeque::new(), held: 0, told_ns: 0, ended: false }
    }

    /// Takes in captured `bytes` at `offset` of the stream, whose last one crossed at `at_ns`.
    pub fn put(
        &mut self,
        offset: u64,
        bytes: &[u8],
        at_ns: u64,
        sink: &mut impl FnMut(Piece<'_>, u64),
    ) {
        // Offsets end at 2^64 - 1.
        let room = usize::try_from(u64::MAX - offset).unwrap_or(usize::MAX);
        let (mut offset, mut rest) = (offset, bytes.get(..room).unwrap_or(bytes));
        while !rest.is_empty() && !self.ended {
            let island = self.islands.partition_point(|island| island.end() <= offset);
            let island = self.islands.get(island).map(|island| (island.offset, island.end()));
            // The first run of bytes is new, or known already.
            let (known, run) = match island {
                _ if offset < self.next => (true, self.next - offset),
                Some((begin, end)) if begin <= offset => (true, end - offset),
                Some((begin, _)) => (false, begin - offset),
                None => (false, u64::MAX),
            };
            let run = usize::try_from(run).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(run);
            if !known {
                self.add(offset, now, at_ns, sink);
            }
            offset += run as u64;
            rest = later;
        }
    }

    /// Says that everything before `offset` has crossed, captured or not: a later record of the
    /// direction, an answer of the other side or the close told. What is not there is missing.
    pub fn missing_until(
        &mut self,
        offset: u64,
        at_ns: u64,
        sink: &mut impl FnMut(Piece<'_>, u64),
    ) {
        while self.next < offset && !self.ended {
            match self.islands.front() {
                Some(island) if island.offset <= offset => self.give_up(sink),
                _ => self.skip(offset, at_ns, sink),
            }
        }
    }

    /// The direction is over after `total` bytes, or after the last byte captured where that is
    /// further. Nothing is told after it.
    pub fn end(&mut self, total: u64, at_ns: u64, sink: &mut impl FnMut(Piece<'_>, u64)) {
        let captured = self.islands.back().map_or(0, Island::end);
        self.missing_until(total.max(captured), at_ns, sink);
        if !self.ended {
            self.ended = true;
            self.tell(Piece::End, at_ns, sink);
        }
    }

    /// Everything before this place has been told.
    pub const fn told(&self) -> u64 {
        self.next
    }

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        self.held + self.islands.capacity() * size_of::<Island>()
    }

    /// Tells or holds bytes of a place that is wholly new.
    fn add(
        &mut self,
        offset: u64,
        bytes: &[u8],
        at_ns: u64,
        sink: &mut impl FnMut(Piece<'_>, u64),
    ) {
        while offset > self.next
            && (bytes.len() > HELD_MAX - self.held || self.islands.len() >= ISLANDS_MAX)
        {
            match self.islands.front() {
                Some(island) if island.offset < offset => self.give_up(sink),
                _ => self.skip(offset, at_ns, sink),
            }
        }
        if offset > self.next {
            let at = self.islands.partition_point(|island| island.offset < offset);
            self.islands.insert(at, Island { offset, bytes: bytes.into(), at_ns });
            self.held += bytes.len();
            return;
        }
        self.next += bytes.len() as u64;
        self.tell(Piece::Bytes(bytes), at_ns, sink);
        self.drain(sink);
    }

    /// Gives up the oldest hole, which has an island behind it.
    fn give_up(&mut self, sink: &mut impl FnMut(Piece<'_>, u64)) {
        if let Some(&Island { offset, at_ns, .. }) = self.islands.front() {
            self.skip(offset, at_ns, sink);
            self.drain(sink);
        }
    }

    /// Tells what is missing before `offset`, where no island is.
    fn skip(&mut self, offset: u64, at_ns: u64, sink: &mut impl FnMut(Piece<'_>, u64)) {
        let missing = offset - self.next;
        self.next = offset;
        self.tell(Piece::Missing(missing), at_ns, sink);
    }

    /// Tells the islands that the stream has come to.
    fn drain(&mut self, sink: &mut impl FnMut(Piece<'_>, u64)) {
        while let Some(island) = self.islands.pop_front_if(|island| island.offset == self.next) {
            self.next = island.end();
            self.held -= island.bytes.len();
            self.tell(Piece::Bytes(&island.bytes), island.at_ns, sink);
            if self.islands.is_empty() {
                self.islands = VecDeque::new();
            }
        }
    }

    fn tell(&mut self, piece: Piece<'_>, at_ns: u64, sink: &mut impl FnMut(Piece<'_>, u64)) {
        self.told_ns = self.told_ns.max(at_ns);
        sink(piece, self.told_ns);
    }
}

/// Puts a stream together as `bytes` say: operations of eight bytes each, the last ones being
/// offset, length and time. Panics where a bound or the order is broken.
#[doc(hidden)]
pub fn fuzz_stream(bytes: &[u8]) {
    let data = vec![7; HELD_MAX + 9];
    let mut stream = Stream::begin(u64::from(bytes.len() as u8 % 3));
    let (mut told, mut ended, mut last_ns) = (stream.told(), false, 0);
    for operation in bytes.chunks_exact(8) {
        let [kind, shift, a, b, c, d, e, ns] = operation.try_into().unwrap_or([0; 8]);
        let near = u64::from(u16::from_le_bytes([a, b]));
        let offset = match shift % 8 {
            0 => u64::MAX - near,
            1 => near << (c % 64),
            _ => near,
        };
        let len = (usize::from(u16::from_le_bytes([d, e])) << (shift & 1)).min(data.len());
        let mut sink = |piece: Piece<'_>, at_ns: u64| {
            assert!(!ended && at_ns >= last_ns, "nothing after the end, no time goes back");
            last_ns = at_ns;
            told += match piece {
                Piece::Bytes(bytes) => bytes.len() as u64,
                Piece::Missing(missing) => missing,
                Piece::End => {
                    ended = true;
                    return;
                }
            };
        };
        match kind % 16 {
            0 => stream.missing_until(offset, ns.into(), &mut sink),
            1 => stream.end(offset, ns.into(), &mut sink),
            _ => stream.put(offset, &data[..len], ns.into(), &mut sink),
        }
        assert_eq!(told, stream.told());
        assert!(stream.memory() <= HELD_MAX + 2 * ISLANDS_MAX * size_of::<Island>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::noise::Noise;

    /// What went out, its adjacent bytes joined: `None` is a missing byte.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Told {
        bytes: Vec<Option<u8>>,
        ended: bool,
    }

    impl Told {
        fn take(&mut self, piece: Piece<'_>) {
            assert!(!self.ended);
            match piece {
                Piece::Bytes(bytes) => {
                    assert!(!bytes.is_empty());
                    self.bytes.extend(bytes.iter().copied().map(Some));
                }
                Piece::Missing(missing) => {
                    assert!(missing > 0);
                    self.bytes.extend((0..missing).map(|_| None));
                }
                Piece::End => self.ended = true,
            }
        }
    }

    enum Step {
        Put(u64, &'static [u8]),
        Until(u64),
        End(u64),
    }
    use Step::{End, Put, Until};

    /// Each step's number is its time.
    fn run(begin: u64, steps: &[Step]) -> String {
        let mut stream = Stream::begin(begin);
        let mut text = String::new();
        for (at_ns, step) in (1..).zip(steps) {
            let mut sink = |piece: Piece<'_>, at_ns: u64| {
                let piece = match piece {
                    Piece::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    Piece::Missing(missing) => format!("-{missing}"),
                    Piece::End => ".".to_owned(),
                };
                text += &format!("{piece}@{at_ns} ");
            };
            match *step {
                Put(offset, bytes) => stream.put(offset, bytes, at_ns, &mut sink),
                Until(offset) => stream.missing_until(offset, at_ns, &mut sink),
                End(total) => stream.end(total, at_ns, &mut sink),
            }
        }
        text.trim_end().to_owned()
    }

    #[test]
    fn records_come_out_in_order_and_once() {
        const MAX: u64 = u64::MAX;
        let cases: &[(&str, u64, &[Step], &str)] = &[
            ("in order", 0, &[Put(0, b"ab"), Put(2, b"c"), End(3)], "ab@1 c@2 .@3"),
            ("swapped", 0, &[Put(2, b"cd"), Put(0, b"ab")], "ab@2 cd@2"),
            ("repeated", 0, &[Put(0, b"ab"), Put(0, b"XY"), Put(1, b"Zc")], "ab@1 c@3"),
            ("first bytes win", 0, &[Put(1, b"b"), Put(0, b"XYZ")], "X@2 b@2 Z@2"),
            ("held ones too", 0, &[Put(2, b"c"), Put(1, b"xyz"), Put(0, b"a")], "a@3 x@3 c@3 z@3"),
            ("lost", 0, &[Put(2, b"c"), Until(2), Put(0, b"ab")], "-2@1 c@1"),
            ("lost to the middle", 0, &[Put(4, b"e"), Until(2), Put(2, b"cd")], "-2@2 cd@3 e@3"),
            ("an island beyond", 0, &[Put(2, b"cd"), Until(3)], "-2@1 cd@1"),
            ("nothing known", 0, &[Until(9), Until(9), Until(3), Put(9, b"x")], "-9@1 x@4"),
            (
                "end closes holes",
                0,
                &[Put(2, b"c"), Put(5, b"f"), End(8)],
                "-2@1 c@1 -2@2 f@2 -2@3 .@3",
            ),
            ("end is further", 0, &[Put(2, b"c"), End(1)], "-2@1 c@1 .@2"),
            ("nothing after the end", 0, &[End(0), Put(0, b"a"), Until(5), End(9)], ".@1"),
            ("joined", 1000, &[Put(990, b"0123456789ab"), End(0)], "ab@1 .@2"),
            (
                "at the last offset",
                MAX - 2,
                &[Put(MAX - 2, b"abcd"), Put(MAX, b"x"), End(MAX)],
                "ab@1 .@3",
            ),
            ("far away", 0, &[Put(MAX - 1, b"ab"), End(MAX)], "-18446744073709551614@1 a@1 .@2"),
            ("empty", 0, &[Put(0, b""), Put(5, b""), End(0)], ".@3"),
        ];
        for (name, begin, steps, expected) in cases {
            assert_eq!(run(*begin, steps), *expected, "{name}");
        }
    }

    #[test]
    fn the_oldest_hole_is_given_up_beyond_the_bounds() {
        let mut told = Vec::new();
        let mut sink = |piece: Piece<'_>, _: u64| {
            told.push(match piece {
                Piece::Bytes(bytes) => bytes.len() as i64,
                Piece::Missing(missing) => -(missing as i64),
                Piece::End => 0,
            });
        };
        // As many islands as may be.
        let mut stream = Stream::default();
        for island in 1..=ISLANDS_MAX as u64 {
            stream.put(2 * island, b"x", 1, &mut sink);
        }
        stream.put(1000, b"y", 1, &mut sink);
        assert!(stream.memory() > 0);
        // As many bytes; what does not fit goes straight out, where it is the next.
        let mut stream = Stream::begin(0);
        stream.put(10, &[0; HELD_MAX], 1, &mut sink);
        stream.put(5, &[0; 5], 1, &mut sink);
        assert_eq!(stream.memory(), 0);
        stream.put(HELD_MAX as u64 + 20, &[0; HELD_MAX + 1], 1, &mut sink);
        assert_eq!(stream.memory(), 0);
        let max = HELD_MAX as i64;
        assert_eq!(told, [-2, 1, -5, 5, max, -10, max + 1]);
    }

    /// Keeps everything; decides what is lost only at the end or where it is said to be.
    fn naive(begin: u64, operations: &[Operation]) -> Told {
        let mut known = std::collections::BTreeMap::new();
        let (mut next, mut told) = (begin, Told::default());
        for operation in operations {
            let until = match operation {
                Operation::Put(offset, bytes) => {
                    for (at, byte) in (*offset..).zip(bytes) {
                        if at >= next {
                            known.entry(at).or_insert(*byte);
                        }
                    }
                    0
                }
                Operation::Until(offset) => *offset,
                Operation::End(total) => known.keys().max().map_or(0, |last| last + 1).max(*total),
            };
            while next < until || known.contains_key(&next) {
                told.bytes.push(known.get(&next).copied());
                next += 1;
            }
            if matches!(operation, Operation::End(_)) {
                told.ended = true;
                break;
            }
        }
        told
    }

    #[derive(Debug)]
    enum Operation {
        Put(u64, Vec<u8>),
        Until(u64),
        End(u64),
    }

    #[test]
    fn does_as_a_naive_model_does() {
        let mut noise = Noise::new(11);
        for run in 0..100_000 {
            let below = |noise: &mut Noise, bound| u64::from(noise.below(bound));
            let begin = below(&mut noise, 3);
            // Mostly a walk forward with records that stray, as a real stream is.
            let mut walk = 0;
            let mut operations: Vec<_> = (0..noise.below(40))
                .map(|_| {
                    let stray = below(&mut noise, 12);
                    let offset = (walk + stray).saturating_sub(6);
                    let bytes: Vec<_> = (0..noise.below(9)).map(|_| noise.byte()).collect();
                    match noise.below(24) {
                        0 => Operation::Until(offset),
                        1 => Operation::End(offset),
                        _ => {
                            walk += below(&mut noise, 7);
                            Operation::Put(offset, bytes)
                        }
                    }
                })
                .collect();
            operations.push(Operation::End(walk));
            let mut stream = Stream::begin(begin);
            let mut told = Told::default();
            let mut sink = |piece: Piece<'_>, _: u64| told.take(piece);
            for operation in &operations {
                match operation {
                    Operation::Put(offset, bytes) => stream.put(*offset, bytes, 0, &mut sink),
                    Operation::Until(offset) => stream.missing_until(*offset, 0, &mut sink),
                    Operation::End(total) => stream.end(*total, 0, &mut sink),
                }
            }
            assert_eq!(stream.memory(), 0);
            assert_eq!(told, naive(begin, &operations), "run {run}: {begin} {operations:?}");
        }
    }

    #[test]
    fn noise_keeps_the_bounds() {
        let mut noise = Noise::new(3);
        for _ in 0..20_000 {
            let bytes: Vec<_> = (0..noise.below(800)).map(|_| noise.byte()).collect();
            fuzz_stream(&bytes);
        }
    }
}
