//! The tables of HPACK (RFC 7541 §2.3). In: fields in the order they are indexed. Out: what an
//! index stands for, or that nobody can know.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

/// Most bytes of a dynamic table, by the measure of RFC 7541 §4.1: as much as browsers offer. Of a
/// larger one the newest fields are kept and the others are unknown.
pub const CAP: usize = 64 << 10;
/// What an entry costs besides its text (RFC 7541 §4.1).
const OVERHEAD: usize = 32;
/// Most bytes of a name that is kept. An indexed field of three bytes may repeat a name of the
/// table into it; without this, a long one would cost 20,000 copied bytes for each byte received.
const NAME_MAX: usize = 256;
/// Most bytes of text, those of entries that went included until they are moved out.
const BYTES_MAX: usize = CAP / 2 * 3;
const _: () = assert!(NAME_MAX < UNNAMED as usize && CAP - OVERHEAD <= u16::MAX as usize);

/// What an index stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// This name and value.
    Field(&'a [u8], &'a [u8]),
    /// Something that was said before tap listened.
    Unknown,
    /// Nothing: the index is wrong.
    Nothing,
}

/// A field in the table; its text is name and value in `bytes`, one after the other.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u32,
    name: u16,
    value: u16,
}

/// Length of a name that is not known (or not kept).
const UNNAMED: u16 = u16::MAX;

impl Entry {
    const fn name_len(self) -> usize {
        if self.name == UNNAMED { 0 } else { self.name as usize }
    }

    const fn text_len(self) -> usize {
        self.name_len() + self.value as usize
    }
}

/// A dynamic table: entries in a queue, the newest first, their text in one buffer, the newest
/// last.
#[derive(Debug)]
pub struct Table {
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    /// Where the oldest entry's text begins in `bytes`.
    head: usize,
    /// By RFC 7541 §4.1; `size <= max <= CAP`.
    size: usize,
    max: usize,
    /// There are entries that tap did not see come, behind those that it did.
    older: bool,
}

impl Table {
    /// An empty table of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: Vec::new(),
            head: 0,
            size: 0,
            max: max.min(CAP),
            older: false,
        }
    }

    /// Whatever came before is unknown from here on. The maximum grows to `max` if it is less: to
    /// keep entries that the peer dropped does no harm, it will not name them.
    pub fn lose(&mut self, max: usize) {
        self.clear();
        self.max = self.max.max(max.min(CAP));
        self.older = true;
    }

    /// A dynamic table size update (RFC 7541 §4.3).
    pub fn resize(&mut self, max: usize) {
        self.older |= max > CAP;
        self.max = max.min(CAP);
        self.evict(0);
    }

    /// Index 1 to 61 is the static table, from 62 on it is this one, the newest entry first.
    pub fn get(&self, index: usize) -> Found<'_> {
        match self.place(index) {
            Place::Static(name, value) => Found::Field(name.as_bytes(), value.as_bytes()),
            Place::Dynamic(entry) if entry.name != UNNAMED => {
                let text = self.text(entry);
                match text.split_at_checked(entry.name_len()) {
                    Some((name, value)) => Found::Field(name, value),
                    None => Found::Unknown,
                }
            }
            Place::Dynamic(_) | Place::Unknown => Found::Unknown,
            Place::Nothing => Found::Nothing,
        }
    }

    /// Adds a field (RFC 7541 §4.4) whose name was given in full.
    pub fn insert(&mut self, name: &[u8], value: &[u8]) {
        if self.make_room(name.len() + value.len()) {
            let keep = name.len() <= NAME_MAX;
            let at = self.bytes.len();
            if keep {
                self.bytes.extend_from_slice(name);
            }
            self.bytes.extend_from_slice(value);
            let name_len = if keep { name.len() as u16 } else { UNNAMED };
            self.push(at, name_len, value.len(), name.len());
        }
    }

    /// Adds a field whose name is that of `index`.
    pub fn insert_like(&mut self, index: usize, value: &[u8]) {
        match self.place(index) {
            Place::Static(name, _) => self.insert(name.as_bytes(), value),
            Place::Dynamic(entry) if entry.name != UNNAMED => {
                let len = entry.name_len();
                // The entry may have to go to make room (RFC 7541 §4.4); its name is short.
                let mut name = [0; NAME_MAX];
                let text = self.text(entry);
                if let (Some(to), Some(from)) = (name.get_mut(..len), text.get(..len)) {
                    to.copy_from_slice(from);
                    let name = name;
                    self.insert(name.get(..len).unwrap_or_default(), value);
                }
            }
            Place::Dynamic(_) | Place::Unknown => {
                if self.make_room(value.len()) {
                    let at = self.bytes.len();
                    self.bytes.extend_from_slice(value);
                    self.push(at, UNNAMED, value.len(), 0);
                }
            }
            Place::Nothing => {}
        }
    }

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    fn place(&self, index: usize) -> Place {
        let Some(before) = index.checked_sub(1) else { return Place::Nothing };
        if let Some((name, value)) = STATIC.get(before) {
            return Place::Static(name, value);
        }
        match self.entries.get(before - STATIC.len()) {
            Some(entry) => Place::Dynamic(*entry),
            None if self.older => Place::Unknown,
            None => Place::Nothing,
        }
    }

    fn text(&self, entry: Entry) -> &[u8] {
        let at = entry.at as usize;
        self.bytes.get(at..at + entry.text_len()).unwrap_or_default()
    }

    /// Makes room for an entry with so much text; false where it is larger than the table, which
    /// is empty then.
    fn make_room(&mut self, text: usize) -> bool {
        let Some(room) = self.max.checked_sub(text + OVERHEAD) else {
            self.clear();
            return false;
        };
        self.evict(self.max - room);
        if text > self.bytes.capacity() - self.bytes.len() {
            let len = self.bytes.len();
            // Moved only when a good part is free, so that it costs little per byte; grown else.
            if self.head > len / 4 || len + text > BYTES_MAX {
                self.bytes.drain(..self.head);
                for entry in &mut self.entries {
                    entry.at = entry.at.saturating_sub(self.head as u32);
                }
                self.head = 0;
            }
            let len = self.bytes.len();
            if text > self.bytes.capacity() - len {
                let spare = (len / 2).max(256).min(BYTES_MAX.saturating_sub(len));
                self.bytes.reserve_exact(text.max(spare));
            }
        }
        true
    }

    fn push(&mut self, at: usize, name: u16, value: usize, name_size: usize) {
        // Below `CAP`, which `make_room` saw to.
        self.entries.push_front(Entry { at: at as u32, name, value: value as u16 });
        let kept = if name == UNNAMED { 0 } else { name_size };
        self.size += kept + value + OVERHEAD;
    }

    /// Drops the oldest entries until `more` bytes fit.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.max {
            let Some(entry) = self.entries.pop_back() else { break };
            self.head = entry.at as usize + entry.text_len();
            self.size = self.size.saturating_sub(entry.text_len() + OVERHEAD);
        }
        if self.entries.is_empty() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
        self.head = 0;
        self.size = 0;
    }
}

enum Place {
    Static(&'static str, &'static str),
    Dynamic(Entry),
    Unknown,
    Nothing,
}

/// RFC 7541 appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""),
    ("vary", ""), ("via", ""), ("www-authenticate", ""),
];
