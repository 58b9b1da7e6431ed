//! HTTP/2 in clear text (RFC 9113), as one who listens to both sides. In: pieces of both
//! directions. Out: an exchange per stream, when both sides ended it, when it was reset, or when
//! the connection is over.
//!
//! A stream goes on until its end, an extended CONNECT (RFC 8441) as well: it is one long exchange,
//! with `:protocol` among its request's fields. Pushed responses are not told. Payload is counted,
//! and its first bytes are kept where they are wanted; header blocks and settings are gathered where
//! they come in parts.
//!
//! After a gap that swallowed frame headers, the direction is looked for again at the beginning of
//! each piece, because programs write and read whole frames or headers of frames at a time. What
//! its header compression then refers to may be unknown; such fields are skipped and the exchange
//! has `gap`, until the table's new entries have replaced the old ones.
#![forbid(unsafe_code)]

mod frame;
pub mod grpc;
mod half;
pub mod hpack;
mod reader;
mod stream;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    content::{Collect, Content},
    exchange::{Exchange, Message, Outcome, Parser, Piece, Side, Trouble},
};
use frame::{Fault, Head, Payload};
use half::{Block, Half, State};
use stream::{List, Quality, Stream};

/// Heap bytes that a parser holds at most: open streams, and for each direction a dynamic table
/// (113 KiB with its index), a frame and a header block. Typical is a few KiB. Contents come on top
/// ([`Collect::connection`]).
pub const MEMORY_MAX: usize = 1 << 20;
/// Bytes of open streams, some 500 of ordinary size, above the 100 to 250 that servers allow at a
/// time. When there are more, the oldest are told as far as they are known.
const STREAMS_MAX: usize = 384 << 10;
/// Bytes of fields that one piece may yield, apart from [`EXPANSION`] for each of its own: header
/// compression makes 16 KiB of a byte, and a piece may hold thousands of requests.
const FIELDS_MAX: usize = 1 << 20;
/// Bytes of fields for each byte of a piece. Ordinary requests that come all from the table have 30.
const EXPANSION: usize = 64;

/// The client's first words (§3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The parser of an HTTP/2 connection.
#[derive(Debug)]
pub struct Http2 {
    halves: [Half; 2],
    /// Ascending ids: a client's newer streams have higher ones.
    streams: BTreeMap<u32, Stream>,
    streams_bytes: usize,
    /// The client's highest stream.
    newest: u32,
    evicted: u64,
    /// Bytes of fields that the piece at hand may still yield.
    budget: usize,
    lost: bool,
    /// Contents are kept so.
    collect: Option<Arc<Collect>>,
    /// Heap bytes of the contents of open streams.
    contents: usize,
}

impl Default for Http2 {
    fn default() -> Self {
        Self::new()
    }
}

impl Http2 {
    /// A connection from its beginning: the client's preface comes first.
    pub fn new() -> Self {
        Self {
            halves: [Half::new(State::Preface), Half::new(State::Head)],
            streams: BTreeMap::new(),
            streams_bytes: 0,
            newest: 0,
            evicted: 0,
            budget: 0,
            lost: false,
            collect: None,
            contents: 0,
        }
    }

    /// Contents are kept as `collect` says, if at all.
    #[must_use]
    pub fn with_content(mut self, collect: Option<Arc<Collect>>) -> Self {
        self.collect = collect;
        if let Some(collect) = &self.collect {
            // After an upgrade there is a stream already.
            for stream in self.streams.values_mut() {
                stream.set_content(Arc::new(Content::new(collect.clone())));
            }
        }
        self
    }

    /// After an upgrade from HTTP/1.1 (RFC 7540 §3.2): the response to `request` comes on stream 1,
    /// and the client says its preface next.
    pub fn upgraded(request: Exchange) -> Self {
        let mut this = Self::new();
        if let Message::Http(http) = &request.message
            && let Some(coded) = http.request.get("http2-settings")
        {
            // The 101 acknowledged them.
            let server = &mut this.halves[Side::Server as usize];
            server.limits.offer(frame::settings(&base64url(coded)));
            server.limits.acknowledge();
            server.apply();
        }
        if let Some(stream) = Stream::upgraded(request) {
            this.newest = 1;
            this.open(1, stream, &mut Vec::new());
        }
        this
    }

    /// A connection that is older than tap.
    pub fn joined() -> Self {
        let mut this = Self::new();
        for side in [Side::Client, Side::Server] {
            this.lose(side);
        }
        this
    }

    fn half(&mut self, side: Side) -> &mut Half {
        &mut self.halves[side as usize]
    }

    /// Frames of `side` may be gone: nothing is certain of it any more.
    fn lose(&mut self, side: Side) {
        self.half(side).lose();
        // Its settings bind the other side.
        self.lose_settings(side);
        for stream in self.streams.values_mut() {
            stream.gap();
        }
    }

    fn lose_settings(&mut self, side: Side) {
        let other = self.half(other(side));
        other.limits.lose();
        other.apply();
    }

    // === Frames ===

    /// A frame that is read is there, or at least went by.
    fn frame(
        &mut self,
        side: Side,
        head: Head,
        payload: Option<&[u8]>,
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> Result<(), Fault> {
        let Some(payload) = payload else {
            match head.kind {
                frame::SETTINGS => self.lose_settings(side),
                frame::RST_STREAM => {
                    if let Some(stream) = self.streams.get_mut(&head.stream) {
                        stream.gap();
                        let cut = stream.cut();
                        self.close(head.stream, Some(cut), out);
                    }
                }
                frame::HEADERS | frame::PUSH_PROMISE | frame::CONTINUATION => {
                    self.fragment(side, head, None, at_ns, out);
                }
                _ => {}
            }
            return Ok(());
        };
        match frame::read(&head, payload) {
            Err(_) if head.is_minor() => {}
            Err(fault) => return Err(fault),
            Ok(Payload::Fragment(bytes)) => self.fragment(side, head, Some(bytes), at_ns, out),
            Ok(Payload::Settings(_)) if head.acknowledges() => {
                let half = self.half(side);
                half.limits.acknowledge();
                half.apply();
            }
            Ok(Payload::Settings(bytes)) => {
                let half = self.half(other(side));
                half.limits.offer(frame::settings(bytes));
                half.apply();
            }
            Ok(Payload::Reset(code)) => {
                if let Some(stream) = self.streams.get_mut(&head.stream) {
                    let trouble = stream.reset(side, code, at_ns);
                    self.close(head.stream, trouble, out);
                }
            }
            Ok(Payload::Other) => {}
        }
        Ok(())
    }

    // === Header blocks ===

    /// A part of a header block, or that one was missed.
    fn fragment(
        &mut self,
        side: Side,
        head: Head,
        bytes: Option<&[u8]>,
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) {
        let half = self.half(side);
        let mut block = half.block.take().unwrap_or(Block {
            stream: head.stream,
            began_ns: half.began_ns,
            ends_stream: head.ends_stream(),
            promise: head.kind == frame::PUSH_PROMISE,
            wire: 0,
            lost: false,
        });
        block.wire = block.wire.saturating_add(head.wire());
        if head.kind != frame::CONTINUATION
            && head.ends_headers()
            && let Some(bytes) = bytes
        {
            return self.list(side, block, bytes, at_ns, out);
        }
        block.lost = block.lost
            || match bytes {
                Some(bytes) => !half::append(&mut half.gathered, bytes),
                None => true,
            };
        if head.ends_headers() {
            let gathered = std::mem::take(&mut half.gathered);
            self.list(side, block, &gathered, at_ns, out);
            self.half(side).gathered = half::emptied(gathered);
        } else {
            half.block = Some(block);
        }
    }

    /// A header block is there.
    fn list(
        &mut self,
        side: Side,
        block: Block,
        bytes: &[u8],
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) {
        let id = block.stream;
        let stream = if block.promise { None } else { self.streams.get_mut(&id) };
        // `begin` saw to it that a client's is odd.
        let opens = side == Side::Client && stream.is_none() && id > self.newest;
        let half = &mut self.halves[side as usize];
        let keep = opens || (side == Side::Server && stream.is_some());
        let (mut list, mut dropped) = (List::default(), false);
        let budget = &mut self.budget;
        let quality = if block.lost {
            half.decoder.lose();
            Quality::Partial
        } else {
            let result = half.decoder.decode(bytes, |name, value| {
                if !keep {
                    return;
                }
                match budget.checked_sub(name.len() + value.len()) {
                    Some(less) => {
                        *budget = less;
                        list.field(name, value);
                    }
                    None => dropped = true,
                }
            });
            match result {
                Ok(skipped) if skipped || dropped => Quality::Partial,
                Ok(_) => Quality::Whole,
                // A table that is not known cannot be trusted to be wrong.
                Err(_) if half.certain => Quality::Broken,
                Err(_) => Quality::Partial,
            }
        };
        if opens {
            if !half.certain && quality == Quality::Whole && list.is_trailers() {
                // Of a stream from before.
                return;
            }
            self.newest = id;
            let mut stream = Stream::request(id, block.began_ns, list, quality);
            stream.wire(side, block.wire, at_ns);
            self.open(id, stream, out);
        } else if let Some(stream) = stream {
            stream.wire(side, block.wire, at_ns);
            if side == Side::Server && !stream.is_ended(side) {
                self.streams_bytes = self.streams_bytes.saturating_sub(stream.memory());
                stream.response(list, quality);
                self.streams_bytes += stream.count();
            } else if quality != Quality::Whole {
                stream.gap();
            }
        }
        if block.ends_stream {
            self.end(side, id, at_ns, out);
        }
        self.evict(out);
    }

    // === Streams ===

    fn open(&mut self, id: u32, mut stream: Stream, out: &mut Vec<Exchange>) {
        self.streams_bytes += stream.count();
        if let Some(collect) = &self.collect {
            stream.set_content(Arc::new(Content::new(collect.clone())));
        }
        self.contents += stream.content_memory();
        self.streams.insert(id, stream);
        self.evict(out);
    }

    fn evict(&mut self, out: &mut Vec<Exchange>) {
        while self.streams_bytes > STREAMS_MAX
            && let Some((id, mut stream)) = self.streams.pop_first()
        {
            self.evicted += 1;
            stream.gap();
            self.streams.insert(id, stream);
            self.close(id, None, out);
        }
    }

    fn end(&mut self, side: Side, id: u32, at_ns: u64, out: &mut Vec<Exchange>) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.end(side, at_ns)
        {
            self.close(id, None, out);
        }
    }

    fn close(&mut self, id: u32, trouble: Option<Trouble>, out: &mut Vec<Exchange>) {
        if let Some(stream) = self.streams.remove(&id) {
            self.streams_bytes = self.streams_bytes.saturating_sub(stream.memory());
            self.contents = self.contents.saturating_sub(stream.content_memory());
            out.push(stream.exchange(trouble));
        }
    }

    /// Tells the streams for which `over` says that nothing more can come.
    fn close_all(&mut self, over: impl Fn(&Stream) -> bool, out: &mut Vec<Exchange>) {
        for (_, stream) in self.streams.extract_if(.., |_, stream| over(stream)) {
            self.streams_bytes = self.streams_bytes.saturating_sub(stream.memory());
            self.contents = self.contents.saturating_sub(stream.content_memory());
            let left = stream.left();
            out.push(stream.exchange(left));
        }
    }
}

impl Parser for Http2 {
    fn take(
        &mut self,
        side: Side,
        piece: Piece<'_>,
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> Outcome {
        if self.lost {
            return Outcome::Lost;
        }
        let result = match piece {
            Piece::Bytes(bytes) => {
                self.budget = FIELDS_MAX.saturating_add(bytes.len().saturating_mul(EXPANSION));
                self.bytes(side, bytes, at_ns, out)
            }
            Piece::Missing(missing) => self.missing(side, missing, at_ns, out),
            Piece::End => {
                // A client that has said all may still be answered.
                self.close_all(
                    |stream| stream.is_ended(Side::Server) == (side == Side::Client),
                    out,
                );
                Ok(())
            }
        };
        match result {
            Ok(()) => Outcome::Continue,
            Err(_) if self.half(side).certain => {
                self.lost = true;
                self.close_all(|_| true, out);
                Outcome::Lost
            }
            // What was taken for frames were none.
            Err(_) => {
                self.lose(side);
                Outcome::Continue
            }
        }
    }

    fn finish(&mut self, _at_ns: u64, out: &mut Vec<Exchange>) {
        self.close_all(|_| true, out);
    }

    fn memory(&self) -> usize {
        self.streams_bytes + self.contents + self.halves.iter().map(Half::memory).sum::<usize>()
    }

    fn crowded_out(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }
}

const fn other(side: Side) -> Side {
    match side {
        Side::Client => Side::Server,
        Side::Server => Side::Client,
    }
}

/// Base64url without padding (RFC 4648 §5), as far as it is one.
fn base64url(text: &str) -> Vec<u8> {
    let (mut bits, mut held) = (0u32, 0u32);
    let mut bytes = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => break,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

/// For the fuzzer: a byte that picks the constructor, then chunks of both directions, each with a
/// byte before it that tells side, kind and length.
#[doc(hidden)]
pub fn fuzz_http2(bytes: &[u8]) {
    let (first, mut rest) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest));
    let mut parser = match first % 3 {
        0 => Http2::new(),
        1 => Http2::joined(),
        _ => {
            let http = Box::default();
            Http2::upgraded(Exchange {
                began_ns: 0,
                ended_ns: 0,
                bytes: [0; 2],
                message: Message::Http(http),
                gap: false,
            })
        }
    };
    let collect = Arc::new(Collect::new(64, 1 << 10));
    parser = parser.with_content(Some(collect.clone()));
    let mut out = vec![];
    let mut at_ns = 0;
    while let Some((control, after)) = rest.split_first() {
        at_ns += 1;
        let side = if control & 1 == 0 { Side::Client } else { Side::Server };
        let len = usize::from(control >> 3);
        let piece = match control & 0b110 {
            0b110 if len == 0 => Piece::End,
            0b110 => Piece::Missing(len as u64 * len as u64),
            // Mostly more, so that frames come through.
            _ => Piece::Bytes(after.get(..len * 8 + 1).unwrap_or(after)),
        };
        rest = match piece {
            Piece::Bytes(bytes) => after.get(bytes.len()..).unwrap_or_default(),
            _ => after,
        };
        let outcome = parser.take(side, piece, at_ns, &mut out);
        assert!(parser.memory() <= MEMORY_MAX && parser.contents <= collect.connection);
        out.clear();
        if matches!(outcome, Outcome::Lost) {
            assert!(parser.streams.is_empty());
            break;
        }
    }
    parser.finish(at_ns, &mut out);
    assert!(parser.streams.is_empty() && parser.streams_bytes == 0 && parser.contents == 0);
}
