//! What the server says: responses, as they come.
#![forbid(unsafe_code)]

use super::{
    Answering, Http1,
    chunked::Stand,
    half::{Cut, Head, Step},
    head::{self, Framing},
};
use crate::protocol::exchange::{Exchange, Next, Outcome, Side, Trouble};

impl Http1 {
    pub(super) fn server(&mut self, bytes: &[u8], at_ns: u64, out: &mut Vec<Exchange>) -> Outcome {
        self.server.piece();
        let mut rest = bytes;
        while !rest.is_empty() {
            let before = rest;
            match self.server.step(&mut rest, at_ns) {
                Step::Part => {}
                Step::Head(head) => {
                    if let Some(to) = self.response(&head, at_ns, out) {
                        return Outcome::Switch { to, rest: rest.len() };
                    }
                }
                Step::BrokenHead(head) => self.broken_response(&head, at_ns, out),
                Step::Body { wire, payload, stand } => {
                    self.keep(Side::Server, before, wire, payload);
                    if let Some(current) = self.current() {
                        current.answer(wire, payload, at_ns);
                        match &stand {
                            Stand::Broken => current.trouble(Trouble::Malformed),
                            Stand::End(section) if !section.is_empty() => current.trailers(section),
                            _ => {}
                        }
                    }
                    if stand == Stand::Broken {
                        self.doubt();
                    }
                    if stand != Stand::More {
                        self.answered(out);
                    }
                }
                Step::Skipped(wire) => self.server_skipped(wire, at_ns),
            }
        }
        // Behind a hole in a chunked body, its last chunk: mostly it is sent on its own.
        if self.server.is_skipping() && bytes.ends_with(b"0\r\n\r\n") {
            self.answered(out);
        }
        Outcome::Continue
    }

    fn server_skipped(&mut self, wire: u64, at_ns: u64) {
        self.doubt();
        if let Some(current) = self.current() {
            current.answer(wire, 0, at_ns);
        }
    }

    fn response(&mut self, head: &Head<'_>, at_ns: u64, out: &mut Vec<Exchange>) -> Option<Next> {
        let Some(response) = head::response(&head.bytes) else {
            self.server.skip();
            self.broken_response(head, at_ns, out);
            return None;
        };
        let status = response.status;
        if matches!(status, 100..=199) && status != 101 {
            self.server.body(Framing::Length(0), false);
            if self.answer_begins(head.began_ns, out)
                && let Some(first) = self.waiting.front_mut()
            {
                first.answer(head.wire, 0, at_ns);
            }
            return None;
        }
        let current = self.answer(head.began_ns, out);
        current.answer(head.wire, 0, at_ns);
        let framing = response.framing(&current.http.method);
        let next = match status {
            101 if response.upgrades_to("websocket") => Some(Next::WebSocket),
            101 if response.upgrades_to("h2c") => return Some(self.upgraded(out)),
            101 => Some(Next::Detect),
            200..=299 if current.http.method == "CONNECT" => Some(Next::Detect),
            _ => None,
        };
        current.http.status = Some(status);
        current.http.response = response.fields;
        if next.is_some() {
            self.answered(out);
            self.leave(out);
            return next;
        }
        if framing == Framing::Unknown {
            current.trouble(Trouble::Malformed);
        }
        // A client that waited for leave and is refused need not send the body (RFC 9110 §10.1.1).
        if current.expects && !current.asked && current.http.body[0] == 0 && status >= 300 {
            current.asked = true;
            self.client.skip();
        }
        let over = self.server.body(framing, false);
        if framing == Framing::Unknown {
            self.doubt();
        }
        if over || framing == Framing::Unknown {
            self.answered(out);
        }
        None
    }

    /// A response that cannot be read.
    fn broken_response(&mut self, head: &Head<'_>, at_ns: u64, out: &mut Vec<Exchange>) {
        let current = self.answer(head.began_ns, out);
        current.answer(head.wire, 0, at_ns);
        current.trouble(Trouble::Malformed);
        self.answered(out);
        self.doubt();
    }

    /// The request becomes stream 1 of HTTP/2 (RFC 7540 §3.2), which has its response.
    fn upgraded(&mut self, out: &mut Vec<Exchange>) -> Next {
        let answering = std::mem::replace(&mut self.answering, Answering::Nothing);
        let asked = if answering == Answering::First { self.remove(0) } else { None };
        self.leave(out);
        asked.map_or(Next::Detect, |asked| Next::Http2(Box::new(asked.exchange())))
    }

    pub(super) fn server_missed(&mut self, count: u64, at_ns: u64, out: &mut Vec<Exchange>) {
        let cut = self.server.miss(count);
        let (wire, payload, goes_on) = match &cut {
            Cut::Inside => (count, count, true),
            Cut::BodyEnd(last) => (*last, *last, *last == count),
            Cut::Head(head) => {
                self.part_of_response(head, out);
                (head.wire.saturating_add(count), 0, false)
            }
            Cut::Body | Cut::Nothing => (count, 0, false),
        };
        if let Some(current) = self.current() {
            current.answer(wire, payload, at_ns);
            current.gap |= matches!(cut, Cut::Head(_) | Cut::Body);
        }
        if !goes_on {
            self.doubt();
        }
        if matches!(cut, Cut::BodyEnd(_)) {
            self.answered(out);
        }
    }

    /// What is known of a response whose head was cut short. It goes on until the next one.
    fn part_of_response(&mut self, head: &Head<'_>, out: &mut Vec<Exchange>) {
        let part = head::part_of_response(&head.bytes);
        let current = self.answer(head.began_ns, out);
        if let Some(part) = part.filter(|part| part.status >= 200) {
            current.http.status = Some(part.status);
            current.http.response = part.fields;
        }
    }

    pub(super) fn server_ended(&mut self, out: &mut Vec<Exchange>) {
        match self.server.end() {
            Cut::Head(head) => {
                self.part_of_response(&head, out);
                if let Some(current) = self.current() {
                    current.answer(head.wire, 0, head.last_ns);
                    current.trouble(head::cut_short(Side::Server, &head.bytes));
                }
            }
            Cut::Body => {
                if let Some(current) = self.current() {
                    current.trouble(Trouble::Truncated);
                }
            }
            Cut::Nothing | Cut::Inside | Cut::BodyEnd(_) => {}
        }
        self.answered(out);
    }
}
