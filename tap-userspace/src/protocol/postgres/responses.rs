//! The server's messages: which requests are answered, and the exchanges that follow.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::messages::{field, named};
use super::{Entry, Kind, Sight, State};
use crate::protocol::exchange::{Exchange, Message, Query, Trouble};
use crate::protocol::frames::Frame;
use crate::protocol::sql::Statement;

impl State {
    pub(super) fn response(&mut self, frame: &Frame<'_>, at_ns: u64, out: &mut Vec<Exchange>) {
        let Some((kind, body)) = frame.head.split_first_chunk::<5>() else { return };
        let kind = kind[0];
        self.idle = kind == b'Z';
        if kind == b'S' && named(body) == Some((b"standard_conforming_strings", b"off")) {
            self.backslash = true;
        } else if kind == b'S' && named(body) == Some((b"standard_conforming_strings", b"on")) {
            self.backslash = false;
        }
        if kind == b'Z' {
            return self.ready(frame.len, at_ns, out);
        }
        let followed = self.pending.get(1).map(|entry| entry.kind);
        let Some(first) = self.pending.front_mut() else { return };
        first.bytes[1] = first.bytes[1].saturating_add(frame.len);
        let done = match (kind, first.kind) {
            (b'E', _) => {
                first.answered = true;
                // The rest until the Sync is skipped, so that ReadyForQuery is next.
                first.error =
                    field(body, b'C').map(|code| String::from_utf8_lossy(code).into_owned());
                false
            }
            (b'C' | b'I', Kind::Simple) => {
                first.answered = true;
                first.completions = first.completions.saturating_add(1);
                false
            }
            (b'C' | b'I' | b's', Kind::Execute) | (b'1', Kind::Prepare) => {
                first.answered = true;
                first.completions = first.completions.saturating_add(1);
                first.completions >= first.many
            }
            // COPY from the client: the Sync that was sent along with the Execute is ignored.
            (b'G', Kind::Execute) if followed == Some(Kind::Sync) => {
                self.pending.remove(1);
                false
            }
            _ => false,
        };
        if done
            && followed != Some(Kind::Sync)
            && let Some(entry) = self.pop()
        {
            self.tell(entry, at_ns, None, out);
        }
    }

    /// ReadyForQuery: all up to the Sync, or one simple query, is answered.
    fn ready(&mut self, len: u64, at_ns: u64, out: &mut Vec<Exchange>) {
        // The message counts for the one before the Sync.
        let mut last: Option<Entry> = None;
        let mut len = len;
        while let Some(kind) = self.pending.front().map(|entry| entry.kind) {
            let alone = matches!(kind, Kind::Startup | Kind::Simple);
            if alone && last.is_some() {
                break;
            }
            let Some(mut entry) = self.pop() else { break };
            if let Some(before) = last.take() {
                self.tell_answered(before, at_ns, out);
            }
            if kind == Kind::Startup || kind == Kind::Sync {
                break;
            }
            if alone || entry.answered {
                entry.bytes[1] = entry.bytes[1].saturating_add(std::mem::take(&mut len));
            }
            if alone {
                entry.answered = true;
                self.tell_answered(entry, at_ns, out);
                break;
            }
            last = Some(entry);
        }
        if let Some(before) = last {
            self.tell_answered(before, at_ns, out);
        }
        if self.pending.is_empty()
            && self.client_sight == Sight::Clear
            && self.server_sight == Sight::Clear
        {
            self.gap = false;
        }
    }

    fn tell_answered(&self, entry: Entry, at_ns: u64, out: &mut Vec<Exchange>) {
        let trouble = if entry.answered { None } else { Some(Trouble::NoResponse) };
        self.tell(entry, at_ns, trouble, out);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.pending.pop_front()?;
        self.pending_heap = self.pending_heap.saturating_sub(entry.heap);
        Some(entry)
    }

    /// So many bytes of responses passed unseen until `at_ns`. Where the client asked for more
    /// since, what it asked before is answered, though tap did not see how; what follows answers
    /// what came after.
    pub(super) fn miss_responses(&mut self, passed: u64, at_ns: u64, out: &mut Vec<Exchange>) {
        let later = self.pending.iter().position(|entry| entry.began_ns > at_ns);
        let before = later.unwrap_or(self.pending.len());
        for entry in self.pending.iter_mut().take(before) {
            entry.gap = true;
        }
        if let Some(first) = self.pending.front_mut().filter(|_| before > 0) {
            first.bytes[1] = first.bytes[1].saturating_add(passed);
        }
        if later.is_some() {
            for _ in 0..before {
                let Some(entry) = self.pop() else { break };
                self.tell(entry, at_ns, None, out);
            }
        }
    }

    /// Tells all that is pending.
    pub(super) fn flush(&mut self, at_ns: u64, trouble: Option<Trouble>, out: &mut Vec<Exchange>) {
        while let Some(entry) = self.pop() {
            let trouble = trouble.map(|trouble| match entry.bytes[1] {
                0 => trouble,
                _ => Trouble::Truncated,
            });
            // An error is the whole answer even where the connection ends with it.
            let trouble = if entry.error.is_some() { None } else { trouble };
            self.tell(entry, at_ns, trouble, out);
        }
    }

    fn tell(&self, entry: Entry, ended_ns: u64, trouble: Option<Trouble>, out: &mut Vec<Exchange>) {
        if matches!(entry.kind, Kind::Startup | Kind::Sync) {
            return;
        }
        let statement = entry.statement.map(Arc::unwrap_or_clone);
        let statement = match (statement, entry.kind) {
            (Some(statement), Kind::Prepare) => {
                Statement { operation: "PREPARE".to_owned(), count: 1, ..statement }
            }
            (Some(statement), _) => statement,
            // It was prepared before tap came, or is forgotten.
            (None, _) => Statement { operation: "EXECUTE".to_owned(), ..Statement::default() },
        };
        let statement = match (entry.many, entry.mixed) {
            (0 | 1, _) => statement,
            (_, true) => Statement { operation: "BATCH".to_owned(), ..Statement::default() },
            _ => Statement { operation: format!("BATCH {}", statement.operation), ..statement },
        };
        let batch = statement.count.max(entry.completions).max(entry.many);
        let query = Query {
            system: "postgresql",
            operation: statement.operation,
            target: statement.target,
            namespace: self.namespace.clone(),
            text: statement.text,
            batch: if batch > 1 { batch } else { 0 },
            error: entry.error,
            trouble,
        };
        out.push(Exchange {
            began_ns: entry.began_ns,
            ended_ns: ended_ns.max(entry.began_ns),
            bytes: entry.bytes,
            message: Message::Query(Box::new(query)),
            gap: entry.gap,
        });
    }
}
