//! What the client says: requests, as they come.
#![forbid(unsafe_code)]

use super::{
    Http1,
    chunked::Stand,
    half::{Cut, Head, Step},
    head::{self, Framing},
    transaction::Transaction,
};
use crate::protocol::exchange::{Exchange, Side, Trouble};

impl Http1 {
    pub(super) fn client(&mut self, bytes: &[u8], at_ns: u64, out: &mut Vec<Exchange>) {
        self.client.piece();
        let mut rest = bytes;
        while !rest.is_empty() {
            let before = rest;
            match self.client.step(&mut rest, at_ns) {
                Step::Part => {}
                Step::Head(head) => self.request(&head, at_ns, out),
                Step::BrokenHead(head) => self.broken_request(&head, at_ns, out),
                Step::Body { wire, payload, stand } => {
                    self.keep(Side::Client, before, wire, payload);
                    if let Some(last) = self.waiting.back_mut() {
                        last.said(wire, payload, at_ns);
                        if stand == Stand::Broken {
                            last.trouble(Trouble::Malformed);
                        }
                    }
                    self.unsure |= stand == Stand::Broken;
                    if stand != Stand::More {
                        self.request_over(out);
                    }
                }
                Step::Skipped(wire) => self.client_skipped(wire, at_ns),
            }
        }
    }

    fn client_skipped(&mut self, wire: u64, at_ns: u64) {
        self.unsure = true;
        if let Some(last) = self.waiting.back_mut().filter(|last| last.gap) {
            last.said(wire, 0, at_ns);
        }
    }

    fn request(&mut self, head: &Head<'_>, at_ns: u64, out: &mut Vec<Exchange>) {
        let Some(request) = head::request(&head.bytes) else {
            self.client.skip();
            return self.broken_request(head, at_ns, out);
        };
        let connect = request.http.method == "CONNECT";
        let mut transaction = Transaction::new(request.http, head.began_ns);
        transaction.expects = request.expects;
        if request.framing == Framing::Unknown {
            transaction.trouble(Trouble::Malformed);
            self.unsure = true;
        }
        transaction.said(head.wire, 0, at_ns);
        // A tunnel, or another protocol, begins behind these if the server agrees; RFC 9110 §9.3.6
        // gives a CONNECT no content.
        let framing = if connect { Framing::Length(0) } else { request.framing };
        let over = self.client.body(framing, connect || request.upgrades);
        self.wait(transaction, out);
        if over || framing == Framing::Unknown {
            self.request_over(out);
        }
    }

    /// A request that cannot be read. It is answered all the same, mostly by a 400.
    fn broken_request(&mut self, head: &Head<'_>, at_ns: u64, out: &mut Vec<Exchange>) {
        let mut transaction = Transaction::unread(head);
        transaction.trouble(Trouble::Malformed);
        transaction.said(head.wire, 0, at_ns);
        self.unsure = true;
        self.wait(transaction, out);
        self.request_over(out);
    }

    /// The last request is over.
    fn request_over(&mut self, out: &mut Vec<Exchange>) {
        let Some(last) = self.waiting.back_mut() else { return };
        last.asked = true;
        if last.answered {
            let last = self.remove(self.waiting.len().saturating_sub(1));
            out.extend(last.map(Transaction::exchange));
        }
    }

    pub(super) fn client_missed(&mut self, count: u64, at_ns: u64, out: &mut Vec<Exchange>) {
        let mut said = |wire, payload| {
            if let Some(last) = self.waiting.back_mut() {
                last.said(wire, payload, at_ns);
            }
        };
        match self.client.miss(count) {
            Cut::Inside => said(count, count),
            Cut::BodyEnd(last) => {
                said(last, last);
                self.unsure |= last < count;
                self.request_over(out);
            }
            Cut::Head(head) => {
                self.unsure = true;
                // Without its first line it is nobody's request.
                if head.bytes.contains(&b'\n') {
                    let mut transaction = Transaction::unread(&head);
                    transaction.gap = true;
                    transaction.said(head.wire.saturating_add(count), 0, at_ns);
                    self.wait(transaction, out);
                    self.request_over(out);
                }
            }
            Cut::Body => {
                said(count, 0);
                self.unsure = true;
                if let Some(last) = self.waiting.back_mut() {
                    last.gap = true;
                }
                self.request_over(out);
            }
            Cut::Nothing => self.client_skipped(count, at_ns),
        }
    }

    pub(super) fn client_ended(&mut self, out: &mut Vec<Exchange>) {
        match self.client.end() {
            Cut::Head(head) => {
                let mut transaction = Transaction::unread(&head);
                transaction.trouble(head::cut_short(Side::Client, &head.bytes));
                transaction.said(head.wire, 0, head.last_ns);
                self.wait(transaction, out);
                self.request_over(out);
            }
            Cut::Body => {
                if let Some(last) = self.waiting.back_mut() {
                    last.trouble(Trouble::Truncated);
                }
                self.request_over(out);
            }
            Cut::Nothing | Cut::Inside | Cut::BodyEnd(_) => {}
        }
    }
}
