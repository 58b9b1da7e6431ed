//! A request and its response while they are still going on.
#![forbid(unsafe_code)]

use super::{half::Head, head};
use crate::protocol::exchange::{Exchange, Http, Message, Trouble};

/// A request, and what came of its response.
#[derive(Debug)]
pub struct Transaction {
    /// What it becomes.
    pub http: Box<Http>,
    /// When the request's first byte went; for an orphan, the response's.
    pub began_ns: u64,
    ended_ns: u64,
    bytes: [u64; 2],
    /// Bytes were missing inside.
    pub gap: bool,
    /// The request is over.
    pub asked: bool,
    /// The response is over.
    pub answered: bool,
    /// The request waits for `100 (Continue)`.
    pub expects: bool,
    /// Requests or responses may have been lost before it.
    pub doubt: bool,
    /// What it counts for among those that wait.
    pub cost: usize,
}

impl Transaction {
    /// A request that began so.
    pub const fn new(http: Box<Http>, began_ns: u64) -> Self {
        Self {
            http,
            began_ns,
            ended_ns: began_ns,
            bytes: [0; 2],
            gap: false,
            asked: false,
            answered: false,
            expects: false,
            doubt: false,
            cost: 0,
        }
    }

    /// A request of whose head only a part is there, or is readable: what can be told of it.
    pub fn unread(head: &Head<'_>) -> Self {
        let http = head::part_of_request(&head.bytes)
            .unwrap_or_else(|| Box::new(Http { version: "1.1", ..Http::default() }));
        Self::new(http, head.began_ns)
    }

    /// Bytes of the request went.
    pub fn said(&mut self, wire: u64, payload: u64, at_ns: u64) {
        self.count(0, wire, payload);
        // Once it is answered, the answer's end is the exchange's.
        if self.http.status.is_none() {
            self.ended_ns = at_ns.max(self.began_ns);
        }
    }

    /// Bytes of the response went.
    pub fn answer(&mut self, wire: u64, payload: u64, at_ns: u64) {
        self.count(1, wire, payload);
        self.ended_ns = at_ns.max(self.began_ns);
    }

    const fn count(&mut self, side: usize, wire: u64, payload: u64) {
        self.bytes[side] = self.bytes[side].saturating_add(wire);
        self.http.body[side] = self.http.body[side].saturating_add(payload);
    }

    /// It is not whole. The first reason stays.
    pub fn trouble(&mut self, trouble: Trouble) {
        self.http.error.get_or_insert(trouble);
    }

    /// The trailer section of the response.
    pub fn trailers(&mut self, section: &[u8]) {
        match head::trailers(section) {
            Some(fields) => self.http.trailers = fields,
            None => self.trouble(Trouble::Malformed),
        }
    }

    /// Takes over the response of `orphan`, which came before the request did.
    pub fn adopt(&mut self, orphan: Self) {
        self.ended_ns = orphan.ended_ns;
        self.bytes[1] = orphan.bytes[1];
        self.gap |= orphan.gap;
        self.answered = orphan.answered;
        self.http.status = orphan.http.status;
        self.http.body[1] = orphan.http.body[1];
        if let Some(trouble) = orphan.http.error {
            self.trouble(trouble);
        }
        self.http.response = orphan.http.response;
        self.http.trailers = orphan.http.trailers;
        // Its request has not begun to be sent, as far as it was seen.
        self.http.content = orphan.http.content;
    }

    /// As it is told.
    pub fn exchange(self) -> Exchange {
        Exchange {
            began_ns: self.began_ns,
            ended_ns: self.ended_ns,
            bytes: self.bytes,
            message: Message::Http(self.http),
            gap: self.gap,
        }
    }

    /// Heap bytes of the request.
    pub fn request_memory(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        size_of::<Http>()
            + self.http.method.capacity()
            + self.http.target.capacity()
            + text(&self.http.scheme)
            + text(&self.http.authority)
            + self.http.request.memory()
    }

    /// Heap bytes of the response.
    pub fn response_memory(&self) -> usize {
        self.http.response.memory() + self.http.trailers.memory()
    }
}
