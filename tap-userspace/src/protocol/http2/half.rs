//! What is kept of one direction: where it stands between frames, its header compression, and
//! what its receiver allows.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::frame::{self, HEAD, Head, Settings};
use super::hpack::{DEFAULT_SIZE, Decoder};

/// Most bytes of a header block before it is decoded. Servers take 8 to 32 KiB of decoded fields by
/// their defaults; a larger block is not read and its direction's table is unknown afterwards.
pub const BLOCK_MAX: usize = 32 << 10;
/// Bytes of a buffer that are kept for the next use.
const KEPT: usize = 4 << 10;
/// SETTINGS frames that may wait for their acknowledgement. More are taken as acknowledged.
const PENDING_MAX: usize = 8;

/// Where a direction stands.
#[derive(Clone, Copy, Debug)]
pub enum State {
    /// In the client's preface.
    Preface,
    /// In a frame's header.
    Head,
    /// In a DATA frame's payload.
    Data(Data),
    /// In a payload that is read as a whole.
    Read(Head),
    /// In a payload that is not read, so many bytes before its end.
    Skip(u64),
    /// Bytes were missed: looks for frames at the beginning of each piece.
    Seek,
}

/// The rest of a DATA frame.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// Its header.
    pub head: Head,
    /// Bytes to come, padding included.
    pub left: u32,
    /// Bytes of padding at the end; none where the byte that tells is to come.
    pub padding: Option<u32>,
}

/// A header block that comes in several frames, or is about to be decoded.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub stream: u32,
    pub began_ns: u64,
    /// END_STREAM on its HEADERS.
    pub ends_stream: bool,
    /// It is of a PUSH_PROMISE.
    pub promise: bool,
    /// Bytes of its frames.
    pub wire: u64,
    /// A part of it is missing or was too long.
    pub lost: bool,
}

/// A direction.
#[derive(Debug)]
pub struct Half {
    pub state: State,
    /// The frame's header as far as it came, `have` bytes. In the preface `have` counts its bytes.
    pub head: [u8; HEAD],
    pub have: usize,
    /// When the frame's first byte came.
    pub began_ns: u64,
    /// The payload as far as it came.
    pub held: Vec<u8>,
    /// A header block that CONTINUATION goes on with, and its fragments so far.
    pub block: Option<Block>,
    pub gathered: Vec<u8>,
    pub decoder: Decoder,
    pub limits: Limits,
    /// Each byte so far was seen, so that what does not fit is the peer's fault.
    pub certain: bool,
}

impl Half {
    /// From the direction's beginning, or in the middle of it ([`State::Seek`]).
    pub fn new(state: State) -> Self {
        Self {
            state,
            head: [0; HEAD],
            have: 0,
            began_ns: 0,
            held: Vec::new(),
            block: None,
            gathered: Vec::new(),
            decoder: Decoder::default(),
            limits: Limits::default(),
            certain: true,
        }
    }

    /// Bytes were missed, frames' headers among them.
    pub fn lose(&mut self) {
        self.state = State::Seek;
        self.have = 0;
        self.held = Vec::new();
        self.block = None;
        self.gathered = Vec::new();
        self.decoder.lose();
        self.certain = false;
    }

    /// Sets what the receiver allows to what it now may.
    pub fn apply(&mut self) {
        self.decoder.allow(self.limits.table as usize);
    }

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        self.held.capacity()
            + self.gathered.capacity()
            + self.decoder.memory()
            + self.limits.pending.capacity() * size_of::<Settings>()
    }
}

/// What a direction's receiver allows. Its settings hold from when the sender acknowledges them
/// (RFC 9113 §6.5.3). Until then the larger of old and new counts: the two directions are read one
/// after the other, so that what follows the acknowledgement may be seen before what it answers.
#[derive(Debug)]
pub struct Limits {
    /// Of frames' payloads, and of the dynamic table.
    pub frame: u32,
    pub table: u32,
    acknowledged: (u32, u32),
    pending: VecDeque<Settings>,
    /// Settings were missed: anything is allowed.
    unknown: bool,
}

impl Default for Limits {
    fn default() -> Self {
        let (frame, table) = (frame::DEFAULT_MAX, DEFAULT_SIZE as u32);
        Self {
            frame,
            table,
            acknowledged: (frame, table),
            pending: VecDeque::new(),
            unknown: false,
        }
    }
}

impl Limits {
    /// The receiver said SETTINGS.
    pub fn offer(&mut self, settings: Settings) {
        if self.pending.len() >= PENDING_MAX {
            self.acknowledge();
        }
        self.pending.push_back(settings);
        self.update();
    }

    /// The sender acknowledged the oldest of them.
    pub fn acknowledge(&mut self) {
        if let Some(settings) = self.pending.pop_front() {
            let (frame, table) = self.acknowledged;
            self.acknowledged = (
                settings.max_frame_size.unwrap_or(frame),
                settings.header_table_size.unwrap_or(table),
            );
        }
        self.update();
    }

    /// Settings were missed.
    pub fn lose(&mut self) {
        self.unknown = true;
        self.update();
    }

    fn update(&mut self) {
        (self.frame, self.table) = self.acknowledged;
        for settings in &self.pending {
            self.frame = self.frame.max(settings.max_frame_size.unwrap_or(0));
            self.table = self.table.max(settings.header_table_size.unwrap_or(0));
        }
        if self.unknown {
            (self.frame, self.table) = (frame::LARGEST, u32::MAX);
        }
    }
}

/// Adds to a buffer of at most [`BLOCK_MAX`] bytes; false where that is too little.
pub fn append(buffer: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let len = buffer.len() + bytes.len();
    if len > BLOCK_MAX {
        return false;
    }
    if len > buffer.capacity() {
        let capacity = (buffer.capacity() * 2).clamp(len, BLOCK_MAX);
        buffer.reserve_exact(capacity - buffer.len());
    }
    buffer.extend_from_slice(bytes);
    true
}

/// A buffer as it is kept after use: empty, and small.
pub fn emptied(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    if buffer.capacity() > KEPT { Vec::new() } else { buffer }
}
