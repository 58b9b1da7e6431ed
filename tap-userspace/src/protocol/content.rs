//! The contents of HTTP messages, as far as they are kept. Comes in: payload bytes as the parsers
//! find them. Goes out: each content's first bytes, without a hole, up to a bound.
//!
//! Three bounds hold: of one content, of all that one connection's parser holds, and of all
//! contents in the process that nobody has taken yet. What is beyond is left out, and the count of
//! payload bytes, which goes on, tells that something is missing.
#![forbid(unsafe_code)]

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use super::exchange::Side;

/// How much of contents is kept.
#[derive(Debug)]
pub struct Collect {
    /// Most bytes of one content.
    pub content: usize,
    /// Most bytes that the parser of one connection holds.
    pub connection: usize,
    /// Most bytes of all contents that are held.
    pub all: usize,
    held: AtomicUsize,
    cut: AtomicU64,
}

impl Collect {
    /// Connections whose exchanges overlap have room for so many full contents.
    const CONTENTS: usize = 4;

    /// Keeps `content` bytes of each content, and `all` bytes in all.
    pub const fn new(content: usize, all: usize) -> Self {
        Self {
            content,
            connection: content.saturating_mul(Self::CONTENTS),
            all,
            held: AtomicUsize::new(0),
            cut: AtomicU64::new(0),
        }
    }

    /// Bytes that are held at the moment.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Contents that were cut for want of room in their connection or in the process.
    pub fn cut(&self) -> u64 {
        self.cut.load(Relaxed)
    }

    fn reserve(&self, bytes: usize) -> bool {
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.all);
        self.held.fetch_update(Relaxed, Relaxed, more).is_ok()
    }
}

/// What is kept of the contents of a request and its response, by [`Side`].
pub struct Content {
    bytes: [Vec<u8>; 2],
    collect: Arc<Collect>,
}

impl Content {
    /// Nothing yet.
    pub const fn new(collect: Arc<Collect>) -> Self {
        Self { bytes: [Vec::new(), Vec::new()], collect }
    }

    /// The first bytes of what `side` sent.
    pub fn of(&self, side: Side) -> &[u8] {
        &self.bytes[side as usize]
    }

    /// Goes on with a content of which `before` bytes have crossed; only what follows the kept
    /// bytes without a hole is kept. `room` is what the connection may hold more. Tells by how many
    /// bytes it has grown.
    pub fn append(&mut self, side: Side, before: u64, bytes: &[u8], room: usize) -> usize {
        let kept = &mut self.bytes[side as usize];
        let fits = bytes.len().min(self.collect.content.saturating_sub(kept.len()));
        let Some(bytes) = bytes.get(..fits).filter(|bytes| !bytes.is_empty()) else { return 0 };
        if kept.len() as u64 != before {
            return 0;
        }
        let len = kept.len() + fits;
        let mut grown = 0;
        if len > kept.capacity() {
            let capacity = kept.capacity().saturating_mul(2).clamp(len, self.collect.content);
            grown = capacity - kept.capacity();
            if grown > room || !self.collect.reserve(grown) {
                self.collect.cut.fetch_add(1, Relaxed);
                return 0;
            }
            kept.reserve_exact(capacity - kept.len());
        }
        kept.extend_from_slice(bytes);
        grown
    }

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        self.bytes.iter().map(Vec::capacity).sum()
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.collect.held.fetch_sub(self.memory(), Relaxed);
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Content {}

/// What programs say to one another stands in no log.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [request, response] = &self.bytes;
        write!(f, "Content({} B, {} B)", request.len(), response.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_without_a_hole_is_kept_within_the_bounds() {
        const ROOM: usize = usize::MAX;
        // (before, bytes, room) each; what is kept, and contents cut.
        type Row<'a> = (&'a [(u64, &'a [u8], usize)], &'a [u8], u64);
        let rows: [Row<'_>; 7] = [
            (&[(0, b"abc", ROOM), (3, b"de", ROOM)], b"abcde", 0),
            (&[(0, b"", ROOM), (0, b"a", ROOM)], b"a", 0),
            (&[(0, b"abc", ROOM), (4, b"e", ROOM)], b"abc", 0),
            (&[(2, b"abc", ROOM)], b"", 0),
            (&[(0, b"0123456789", ROOM), (10, b"x", ROOM)], b"01234567", 0),
            (&[(0, b"abc", 2), (3, b"d", ROOM)], b"", 1),
            (&[(0, b"a", ROOM), (1, b"b", 0)], b"a", 1),
        ];
        for (parts, kept, cut) in rows {
            let collect = Arc::new(Collect::new(8, 64));
            let mut content = Content::new(collect.clone());
            let mut grown = 0;
            for (before, bytes, room) in parts {
                grown += content.append(Side::Client, *before, bytes, *room);
            }
            assert_eq!((content.of(Side::Client), collect.cut()), (kept, cut), "{parts:?}");
            assert_eq!((content.memory(), collect.held()), (grown, grown), "{parts:?}");
            drop(content);
            assert_eq!(collect.held(), 0);
        }
    }

    #[test]
    fn all_contents_together_are_bounded() {
        let collect = Arc::new(Collect::new(8, 20));
        let contents: Vec<_> = (0..4)
            .map(|_| {
                let mut content = Content::new(collect.clone());
                content.append(Side::Server, 0, b"01234567", usize::MAX);
                content
            })
            .collect();
        let kept: Vec<_> = contents.iter().map(|it| it.of(Side::Server).len()).collect();
        assert_eq!((kept, collect.held(), collect.cut()), (vec![8, 8, 0, 0], 16, 2));
        drop(contents);
        assert_eq!(collect.held(), 0);
    }
}
