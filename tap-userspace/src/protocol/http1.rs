//! HTTP/1.0 and 1.1 (RFC 9112). In: pieces of both directions. Out: transactions, each a request
//! with its final response, in the order in which they end.
//!
//! What is where: `half` cuts a direction into messages, `head` reads heads, `chunked` counts
//! chunked bodies; here responses are matched with requests.
//!
//! - Responses answer requests in order. Where bytes were lost between messages nobody knows how
//!   many messages they were; then the newest request that began before a response is the one it
//!   answers (connections are seldom pipelined), and the older ones are told without one, as `gap`.
//! - A response whose request was never seen is dropped: nobody knows what it answers, and a lone
//!   408 before a server closes an idle connection answers nothing. As the two directions are not
//!   ordered against each other, the last one is kept until the next request begins, and belongs to
//!   it if that began earlier.
//! - A direction that is joined inside a message, or whose framing is lost, is skipped up to a line
//!   that may begin a message: one that follows a line end, or begins a piece.
//! - On [`Outcome::Switch`] `rest` counts bytes of the piece that was taken, which is the server's.
//!   What the client says goes to the next protocol from its next piece on. Bytes it sent before
//!   the answer came (behind a CONNECT or an upgrade request that was granted) are not kept: a
//!   WebSocket client has to wait for the answer, others mostly do.
#![forbid(unsafe_code)]

mod chunked;
mod client;
mod half;
mod head;
mod server;
mod transaction;

use std::{collections::VecDeque, sync::Arc};

use self::{half::Half, head::Framing, transaction::Transaction};
use super::{
    content::{Collect, Content},
    exchange::{Exchange, Outcome, Parser, Piece, Side, Trouble},
};

/// Most requests that wait for their responses. Browsers do not pipeline; load generators send 16
/// to 64 at once.
pub const OUTSTANDING_MAX: usize = 256;
/// Most bytes that requests which wait may hold together, the newest not counted.
const HELD_MAX: usize = 256 << 10;
/// Most bytes that a parser holds: what waits, two heads that are not whole (their buffers may have
/// doubled), the newest request and its response at their largest. Contents come on top
/// ([`Collect::connection`]).
pub const MEMORY_MAX: usize = 1 << 20;

/// The parser of one connection.
#[derive(Debug)]
pub struct Http1 {
    client: Half,
    server: Half,
    /// Requests that wait for the end of their response, or of themselves; only the last can be
    /// incomplete.
    waiting: VecDeque<Transaction>,
    /// Heap bytes of the requests that wait.
    held: usize,
    /// A response whose request did not come (yet).
    orphan: Option<Box<Transaction>>,
    answering: Answering,
    /// The framing was lost, so that responses cannot be counted off against requests.
    unsure: bool,
    /// Requests told before their response for lack of room, since that was asked last.
    crowded: u64,
    /// Contents are kept so.
    collect: Option<Arc<Collect>>,
    /// Heap bytes of the contents of those that wait and of the orphan.
    contents: usize,
}

/// What the server is answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answering {
    Nothing,
    /// The first of those that wait.
    First,
    Orphan,
}

impl Default for Http1 {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser for Http1 {
    fn take(
        &mut self,
        side: Side,
        piece: Piece<'_>,
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> Outcome {
        match (side, piece) {
            (Side::Client, Piece::Bytes(bytes)) => self.client(bytes, at_ns, out),
            (Side::Server, Piece::Bytes(bytes)) => return self.server(bytes, at_ns, out),
            (_, Piece::Missing(0)) => {}
            (Side::Client, Piece::Missing(count)) => self.client_missed(count, at_ns, out),
            (Side::Server, Piece::Missing(count)) => self.server_missed(count, at_ns, out),
            (Side::Client, Piece::End) => self.client_ended(out),
            (Side::Server, Piece::End) => self.server_ended(out),
        }
        Outcome::Continue
    }

    fn finish(&mut self, _at_ns: u64, out: &mut Vec<Exchange>) {
        // What the server said may be in the hole.
        let lost = self.server.has_lost();
        self.client_ended(out);
        self.server_ended(out);
        self.abandon(lost, out);
    }

    fn memory(&self) -> usize {
        let first = self.waiting.front().map_or(0, Transaction::response_memory);
        let orphan = self.orphan.as_ref().map_or(0, |orphan| {
            size_of::<Transaction>() + orphan.request_memory() + orphan.response_memory()
        });
        self.client.memory()
            + self.server.memory()
            + self.waiting.capacity() * size_of::<Transaction>()
            + self.held
            + first
            + orphan
            + self.contents
    }

    fn crowded_out(&mut self) -> u64 {
        std::mem::take(&mut self.crowded)
    }
}

impl Http1 {
    /// A parser for a connection that is seen from its beginning, or from anywhere.
    pub const fn new() -> Self {
        Self {
            client: Half::new(Side::Client),
            server: Half::new(Side::Server),
            waiting: VecDeque::new(),
            held: 0,
            orphan: None,
            answering: Answering::Nothing,
            unsure: false,
            crowded: 0,
            collect: None,
            contents: 0,
        }
    }

    /// Contents are kept as `collect` says, if at all.
    #[must_use]
    pub fn with_content(mut self, collect: Option<Arc<Collect>>) -> Self {
        if collect.is_some() {
            self.client.want_payload();
            self.server.want_payload();
        }
        self.collect = collect;
        self
    }

    /// Keeps payload of the request or response that `side` is in the middle of. (A step's payload
    /// is kept before it is counted.)
    fn keep(&mut self, side: Side, rest: &[u8], wire: u64, payload: u64) {
        let Some(collect) = &self.collect else { return };
        let room = collect.connection.saturating_sub(self.contents);
        let half = if side == Side::Client { &mut self.client } else { &mut self.server };
        let bytes = half.payload(rest, wire, payload);
        let current = match (side, self.answering) {
            (Side::Client, _) => self.waiting.back_mut(),
            (Side::Server, Answering::Nothing) => None,
            (Side::Server, Answering::First) => self.waiting.front_mut(),
            (Side::Server, Answering::Orphan) => self.orphan.as_deref_mut(),
        };
        if let Some(current) = current {
            self.contents += current.http.keep(side, &bytes, room);
        }
    }

    // === Matching ===

    /// Lines a request up for its response.
    fn wait(&mut self, mut transaction: Transaction, out: &mut Vec<Exchange>) {
        while self.waiting.len() >= OUTSTANDING_MAX || self.held > HELD_MAX {
            let Some(oldest) = self.remove(usize::from(self.answering == Answering::First)) else {
                break;
            };
            self.crowded += 1;
            self.doubt();
            tell_unanswered(oldest, out);
        }
        if self.waiting.is_empty()
            && let Some(orphan) = self.orphan.take_if(|orphan| {
                transaction.began_ns < orphan.began_ns && orphan.http.status.is_some()
            })
        {
            self.adopt(&mut transaction, *orphan);
        }
        transaction.http.content = transaction.http.content.or_else(|| content(&self.collect));
        transaction.doubt = self.unsure;
        transaction.cost = transaction.request_memory();
        self.held = self.held.saturating_add(transaction.cost);
        self.waiting.push_back(transaction);
    }

    /// The response came before its request did.
    fn adopt(&mut self, transaction: &mut Transaction, orphan: Transaction) {
        transaction.adopt(orphan);
        if self.answering == Answering::Orphan {
            self.answering = Answering::First;
            // Only now it is known that it has no body.
            if transaction.http.method == "HEAD" && transaction.http.body[1] == 0 {
                self.server.body(Framing::Length(0), false);
                self.answering = Answering::Nothing;
                transaction.answered = true;
            }
        }
    }

    /// Messages may have been lost, so that no response surely belongs to the first request.
    fn doubt(&mut self) {
        self.unsure = true;
        // Those in doubt are the last ones.
        for sure in self.waiting.iter_mut().take_while(|waiting| !waiting.doubt) {
            sure.doubt = true;
        }
    }

    fn remove(&mut self, at: usize) -> Option<Transaction> {
        let removed = self.waiting.remove(at)?;
        self.held = self.held.saturating_sub(removed.cost);
        self.contents = self.contents.saturating_sub(removed.http.content_memory());
        Some(removed)
    }

    fn current(&mut self) -> Option<&mut Transaction> {
        match self.answering {
            Answering::Nothing => None,
            Answering::First => self.waiting.front_mut(),
            Answering::Orphan => self.orphan.as_deref_mut(),
        }
    }

    /// A response begins: lets its request be the first of those that wait, and tells whether there
    /// is one.
    fn answer_begins(&mut self, began_ns: u64, out: &mut Vec<Exchange>) -> bool {
        if self.answering != Answering::Nothing {
            self.answered(out);
        }
        let Some(first) = self.waiting.front() else { return false };
        if first.answered {
            return false;
        }
        if !first.doubt {
            return true;
        }
        let earlier = self.waiting.iter().take_while(|asked| asked.began_ns <= began_ns).count();
        for _ in 1..earlier {
            if let Some(older) = self.remove(0) {
                tell_unanswered(older, out);
            }
        }
        let certain = earlier == 1 && self.waiting.len() == 1 && !self.client.is_skipping();
        if let Some(first) = self.waiting.front_mut() {
            first.gap |= earlier > 1;
            first.doubt &= !certain;
        }
        self.unsure &= !certain;
        earlier > 0
    }

    /// A final response begins: that which it answers.
    fn answer(&mut self, began_ns: u64, out: &mut Vec<Exchange>) -> &mut Transaction {
        if self.answer_begins(began_ns, out) {
            self.answering = Answering::First;
            if let Some(first) = self.waiting.front_mut() {
                return first;
            }
        }
        self.answering = Answering::Orphan;
        let mut orphan = Box::new(Transaction::new(Box::default(), began_ns));
        orphan.http.content = content(&self.collect);
        let before = self.orphan.as_ref().map_or(0, |before| before.http.content_memory());
        self.contents = self.contents.saturating_sub(before);
        self.orphan.insert(orphan)
    }

    /// The response is over.
    fn answered(&mut self, out: &mut Vec<Exchange>) {
        let answering = std::mem::replace(&mut self.answering, Answering::Nothing);
        let current = match answering {
            Answering::Nothing => None,
            Answering::First => self.waiting.front_mut(),
            Answering::Orphan => self.orphan.as_deref_mut(),
        };
        let Some(current) = current else { return };
        current.answered = true;
        if answering == Answering::First && current.asked {
            out.extend(self.remove(0).map(Transaction::exchange));
        }
    }

    /// The connection is another protocol's.
    fn leave(&mut self, out: &mut Vec<Exchange>) {
        self.client.stop();
        self.server.stop();
        self.abandon(false, out);
    }

    /// Tells what is unanswered; `lost`: there may have been answers in a hole.
    fn abandon(&mut self, lost: bool, out: &mut Vec<Exchange>) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            if !waiting.answered && lost {
                waiting.gap = true;
            } else if !waiting.answered {
                waiting.trouble(Trouble::NoResponse);
            }
            out.push(waiting.exchange());
        }
        (self.held, self.contents) = (0, 0);
        self.orphan = None;
    }
}

/// A place for what is kept of contents.
fn content(collect: &Option<Arc<Collect>>) -> Option<Arc<Content>> {
    collect.as_ref().map(|collect| Arc::new(Content::new(collect.clone())))
}

/// What became of a request whose response was lost with others.
fn tell_unanswered(mut transaction: Transaction, out: &mut Vec<Exchange>) {
    transaction.gap = true;
    out.push(transaction.exchange());
}

/// For the fuzzer: any bytes, cut by themselves into pieces of both sides.
#[doc(hidden)]
pub fn fuzz_http1(bytes: &[u8]) {
    let collect = Arc::new(Collect::new(64, 1 << 10));
    let mut parser = Http1::new().with_content(Some(collect.clone()));
    let mut out = Vec::new();
    let mut rest = bytes;
    let mut at_ns = 0;
    while let Some((&cut, behind)) = rest.split_first() {
        at_ns += u64::from(cut & 3);
        let side = if cut & 4 == 0 { Side::Client } else { Side::Server };
        let count = usize::from(cut >> 3) * usize::from(cut >> 3);
        let (piece, behind) = behind.split_at(count.min(behind.len()));
        let piece = match count {
            0 => Piece::Missing(u64::from(cut)),
            1 => Piece::End,
            _ => Piece::Bytes(piece),
        };
        if let Outcome::Switch { rest, .. } = parser.take(side, piece, at_ns, &mut out) {
            assert!(matches!(piece, Piece::Bytes(bytes) if rest <= bytes.len()));
        }
        assert!(parser.memory() <= MEMORY_MAX, "{} bytes held", parser.memory());
        assert!(parser.contents <= collect.connection && collect.held() <= collect.all);
        rest = behind;
    }
    parser.finish(at_ns, &mut out);
    assert!(parser.memory() <= MEMORY_MAX && parser.contents == 0);
    assert!(out.iter().all(|exchange| exchange.began_ns <= exchange.ended_ns));
    let told = out.len();
    parser.finish(at_ns, &mut out);
    assert_eq!(out.len(), told, "finished twice");
}

#[cfg(test)]
mod tests;
