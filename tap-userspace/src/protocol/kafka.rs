//! Apache Kafka's protocol. In: both directions of a connection in clear text. Out: each request
//! with its response, named after its API key, and for Produce and Fetch the first topic, the number
//! of topics as `batch` and the first error code. <https://kafka.apache.org/protocol.html>
//!
//! - Responses are matched by correlation id, in the order of the requests.
//! - Produce with `acks=0` has no response and ends with its request.
//! - Fetch from version 13 and Produce from version 13 on name topics by an id, which is not told.
//! - Errors are looked for in the first bytes of a response: all partitions of a small Produce
//!   response, of a Fetch response the request's own error and the first partition's, and of others
//!   the error of the whole request, where they begin with one (ApiVersions, JoinGroup, …).
#![forbid(unsafe_code)]

mod body;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::exchange::{Exchange, Message, Outcome, Parser, Piece, Query, Side, Trouble};
use super::frames::{self, Bad, Frame, Framed, Frames, LOSSES_MAX, Size};
use body::{FETCH, PRODUCE, TOPIC_MAX, api_name};

/// Requests that wait for their response: clients allow 5 (Java) by default; librdkafka allows
/// more, but waits for the broker long before this.
pub const PENDING_MAX: usize = 256;
/// Bytes of a request that are kept: client id, transaction and the first topic (each at most 255
/// in practice).
const REQUEST_KEEP: usize = 1024;
/// Bytes of a response that are kept: the errors of some ten partitions.
const RESPONSE_KEEP: usize = 512;
/// Most heap bytes of a parser.
pub const MEMORY_MAX: usize =
    PENDING_MAX * (2 * size_of::<Pending>() + 2 * TOPIC_MAX) + 2 * (REQUEST_KEEP + RESPONSE_KEEP);
/// API keys and versions go up slowly: today to 92 and 18.
const API_KEY_MAX: i16 = 127;
const VERSION_MAX: i16 = 31;
/// Longer client ids are none.
const CLIENT_ID_MAX: i16 = 1024;
/// `socket.request.max.bytes` is 100 MiB by default; a response is bounded by what was asked for.
const LEN_MAX: u32 = 1 << 30;

/// A parser of one connection.
#[derive(Debug)]
pub struct Kafka {
    client: Frames,
    server: Frames,
    state: State,
}

#[derive(Debug)]
struct State {
    text: bool,
    pending: VecDeque<Pending>,
    /// The client's, the server's framing is unknown: the next piece is tried.
    lost: [bool; 2],
    /// Framing is guessed until a message confirms it.
    tried: [bool; 2],
    /// SaslHandshake version 0: bare tokens follow.
    bare_tokens: bool,
    gap: bool,
    losses: u32,
    /// Requests that there was no room for, since that was asked last.
    crowded: u64,
    known: bool,
}

#[derive(Debug)]
struct Pending {
    correlation: i32,
    api: i16,
    version: i16,
    began_ns: u64,
    bytes: u64,
    topic: Option<String>,
    topics: u32,
    gap: bool,
}

impl Kafka {
    /// A parser.
    pub fn new() -> Self {
        let state = State {
            text: false,
            pending: VecDeque::new(),
            lost: [false; 2],
            tried: [false; 2],
            bare_tokens: false,
            gap: false,
            losses: 0,
            crowded: 0,
            known: false,
        };
        Self { client: Frames::new(), server: Frames::new(), state }
    }

    /// For likeness with the other parsers: there is no text in Kafka.
    pub const fn with_text(mut self, text: bool) -> Self {
        self.state.text = text;
        self
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self::new()
    }
}

impl Framed for Kafka {
    fn losses(&mut self) -> &mut u32 {
        &mut self.state.losses
    }

    fn client(&mut self, mut bytes: &[u8], at_ns: u64, out: &mut Vec<Exchange>) -> Outcome {
        let state = &mut self.state;
        if std::mem::take(&mut state.lost[0]) {
            self.client.reset();
            state.tried[0] = true;
        }
        loop {
            let bare = state.bare_tokens;
            match self.client.next(&mut bytes, at_ns, |head| request_size(head, bare)) {
                Ok(None) => return Outcome::Continue,
                Ok(Some(frame)) => {
                    if !state.request(&frame, at_ns, out) {
                        return state.lose(Side::Client);
                    }
                }
                Err(Bad) => return state.lose(Side::Client),
            }
        }
    }

    fn server(&mut self, mut bytes: &[u8], at_ns: u64, out: &mut Vec<Exchange>) -> Outcome {
        let state = &mut self.state;
        if std::mem::take(&mut state.lost[1]) {
            self.server.reset();
            state.tried[1] = true;
        }
        loop {
            let next = {
                let tried = state.tried[1].then_some(&state.pending);
                self.server.next(&mut bytes, at_ns, |head| response_size(head, tried))
            };
            match next {
                Ok(None) => return Outcome::Continue,
                Ok(Some(frame)) => state.response(&frame, at_ns, out),
                Err(Bad) => return state.lose(Side::Server),
            }
        }
    }

    fn miss(&mut self, side: Side, missing: u64, at_ns: u64, out: &mut Vec<Exchange>) -> Outcome {
        let frames = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        let beyond = frames.miss(missing);
        if beyond < missing {
            let outcome = match side {
                Side::Client => self.client(b"", at_ns, out),
                Side::Server => self.server(b"", at_ns, out),
            };
            if !matches!(outcome, Outcome::Continue) {
                return outcome;
            }
        }
        if beyond > 0 {
            self.state.gap = true;
            for pending in &mut self.state.pending {
                pending.gap = true;
            }
            self.state.lost[side as usize] = true;
            match side {
                Side::Client => self.client.reset(),
                Side::Server => self.server.reset(),
            }
        }
        Outcome::Continue
    }
}

impl Parser for Kafka {
    fn take(
        &mut self,
        side: Side,
        piece: Piece<'_>,
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> Outcome {
        frames::take(self, side, piece, at_ns, out)
    }

    fn finish(&mut self, at_ns: u64, out: &mut Vec<Exchange>) {
        // A response under way is the first one's.
        let mut trouble =
            if self.server.inside() { Trouble::Truncated } else { Trouble::NoResponse };
        while let Some(pending) = self.state.pending.pop_front() {
            out.push(pending.exchange(at_ns, 0, None, Some(trouble)));
            trouble = Trouble::NoResponse;
        }
        self.client.reset();
        self.server.reset();
    }

    fn memory(&self) -> usize {
        let topics = self.state.pending.iter();
        let topics = topics.map(|pending| pending.topic.as_ref().map_or(0, String::capacity));
        topics.sum::<usize>()
            + self.state.pending.capacity() * size_of::<Pending>()
            + self.client.memory()
            + self.server.memory()
    }

    fn crowded_out(&mut self) -> u64 {
        std::mem::take(&mut self.state.crowded)
    }
}

fn i16_at(head: &[u8], at: usize) -> Option<i16> {
    head.get(at..)?.first_chunk().map(|bytes| i16::from_be_bytes(*bytes))
}

fn i32_at(head: &[u8], at: usize) -> Option<i32> {
    head.get(at..)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

fn len_of(head: &[u8]) -> Option<u32> {
    head.first_chunk().map(|len| u32::from_be_bytes(*len))
}

/// Length, API key, version and correlation id; `bare`: a token of SASL may stand there instead.
fn request_size(head: &[u8], bare: bool) -> Size {
    let Some(len) = len_of(head) else { return Size::More };
    let (Some(api), Some(version)) = (i16_at(head, 4), i16_at(head, 6)) else {
        return if len < 4 { Size::Bad } else { Size::More };
    };
    if len > LEN_MAX {
        return Size::Bad;
    }
    let fine = len >= 8 && (0..=API_KEY_MAX).contains(&api) && (0..=VERSION_MAX).contains(&version);
    let keep = match api {
        PRODUCE | FETCH if fine => REQUEST_KEEP,
        // Of others no more than the header: SaslAuthenticate has a password.
        _ => 14,
    };
    if fine || bare { Size::Of { len: u64::from(len) + 4, keep } } else { Size::Bad }
}

/// Length and correlation id; where framing is guessed, the id must be one of `pending`.
fn response_size(head: &[u8], pending: Option<&VecDeque<Pending>>) -> Size {
    let Some(len) = len_of(head) else { return Size::More };
    if len > LEN_MAX {
        return Size::Bad;
    }
    if let Some(pending) = pending {
        let Some(id) = i32_at(head, 4) else { return Size::More };
        if len < 4 || !pending.iter().any(|pending| pending.correlation == id) {
            return Size::Bad;
        }
    }
    Size::Of { len: u64::from(len) + 4, keep: RESPONSE_KEEP }
}

impl State {
    fn lose(&mut self, side: Side) -> Outcome {
        self.losses += 1;
        if self.losses > LOSSES_MAX || !(self.known || self.gap) {
            return Outcome::Lost;
        }
        self.gap = true;
        self.lost[side as usize] = true;
        Outcome::Continue
    }

    /// `false`: this is no request.
    fn request(&mut self, frame: &Frame<'_>, at_ns: u64, out: &mut Vec<Exchange>) -> bool {
        let head = frame.head;
        let (Some(api), Some(version), Some(correlation)) =
            (i16_at(head, 4), i16_at(head, 6), i32_at(head, 8))
        else {
            return self.bare_tokens;
        };
        // Only ControlledShutdown version 0 has no client id.
        let client = i16_at(head, 12).unwrap_or(-1);
        let client_fits =
            usize::try_from(client.max(0)).is_ok_and(|len| len as u64 + 14 <= frame.len);
        let fine = (0..=API_KEY_MAX).contains(&api)
            && (0..=VERSION_MAX).contains(&version)
            && (-1..=CLIENT_ID_MAX).contains(&client)
            && client_fits;
        if !fine {
            return self.bare_tokens;
        }
        self.known = true;
        self.tried[0] = false;
        self.bare_tokens = (self.bare_tokens && api != SASL_AUTHENTICATE && api > 3)
            || (api == SASL_HANDSHAKE && version == 0);
        let mut pending = Pending {
            correlation,
            api,
            version,
            began_ns: frame.began_ns,
            bytes: frame.len,
            topic: None,
            topics: 0,
            gap: self.gap,
        };
        let request = body::request(api, version, head);
        pending.topic = request.topic;
        pending.topics = request.topics;
        pending.gap |= frame.cut && matches!(api, PRODUCE | FETCH) && pending.topic.is_none();
        if request.unanswered {
            out.push(pending.exchange(at_ns, 0, None, None));
        } else if self.pending.len() < PENDING_MAX {
            self.pending.push_back(pending);
        } else {
            // Told without its response, which then matches nothing.
            self.crowded += 1;
            pending.gap = true;
            out.push(pending.exchange(at_ns, 0, None, Some(Trouble::NoResponse)));
        }
        true
    }

    fn response(&mut self, frame: &Frame<'_>, at_ns: u64, out: &mut Vec<Exchange>) {
        let Some(correlation) = i32_at(frame.head, 4) else { return };
        let place = self.pending.iter().position(|pending| pending.correlation == correlation);
        let Some(place) = place else {
            // To a request that was not seen, or a bare token of SASL.
            return;
        };
        self.known = true;
        self.tried[1] = false;
        // Responses come in order: those before were missed, or never come.
        for mut skipped in self.pending.drain(..place) {
            skipped.gap = true;
            out.push(skipped.exchange(at_ns, 0, None, Some(Trouble::NoResponse)));
        }
        if let Some(pending) = self.pending.pop_front() {
            let told = matches!(pending.api, PRODUCE | FETCH);
            let error = body::error(pending.api, pending.version, frame.head);
            let error = error.map(|code| code.to_string());
            let mut exchange = pending.exchange(at_ns, frame.len, error, None);
            exchange.gap |= frame.cut && told;
            out.push(exchange);
        }
        if self.pending.is_empty() && self.lost == [false; 2] && self.tried == [false; 2] {
            self.gap = false;
        }
    }
}

const SASL_HANDSHAKE: i16 = 17;
const SASL_AUTHENTICATE: i16 = 36;

impl Pending {
    fn exchange(
        self,
        ended_ns: u64,
        bytes: u64,
        error: Option<String>,
        trouble: Option<Trouble>,
    ) -> Exchange {
        let query = Query {
            system: "kafka",
            operation: api_name(self.api),
            target: self.topic,
            namespace: None,
            text: None,
            batch: self.topics,
            error,
            trouble,
        };
        Exchange {
            began_ns: self.began_ns,
            ended_ns: ended_ns.max(self.began_ns),
            bytes: [self.bytes, bytes],
            message: Message::Query(Box::new(query)),
            gap: self.gap,
        }
    }
}

/// For the fuzzer: any bytes, cut and interleaved by themselves.
#[doc(hidden)]
pub fn fuzz_kafka(bytes: &[u8]) {
    super::frames::fuzz(Kafka::new(), bytes, MEMORY_MAX);
}
