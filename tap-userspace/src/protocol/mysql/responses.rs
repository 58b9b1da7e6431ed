//! The server's packets: where a command's response ends, and the exchange that follows.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::packets;
use super::{Due, Entry, STATEMENT_SHARED, State};
use crate::protocol::exchange::{Exchange, Message, Query, Trouble};
use crate::protocol::frames::Frame;

impl State {
    /// `false`: this is no answer to what was asked.
    pub(super) fn response(
        &mut self,
        frame: &Frame<'_>,
        len: u32,
        number: u8,
        goes_on: bool,
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> bool {
        let Some(first) = self.pending.front_mut() else {
            // An error before the server closes, or the rest of something missed.
            return true;
        };
        first.bytes[1] = first.bytes[1].saturating_add(frame.len);
        if number != first.number {
            return false;
        }
        first.number = number.wrapping_add(1);
        if goes_on {
            // The rest of a long row.
            return true;
        }
        let body = frame.head.get(4..).unwrap_or_default();
        let done = first.answer(body, len, self.agreed);
        if let (Some(id), Some(statement)) = (done.prepared, &first.statement) {
            let heap = STATEMENT_SHARED + statement.memory();
            self.statements.insert(id, Arc::clone(statement), heap);
        }
        if !done.over {
            if done.status.is_some_and(|status| status & packets::NO_BACKSLASH_ESCAPES != 0) {
                self.no_backslash = true;
            }
            return true;
        }
        let Some(entry) = self.pending.pop_front() else { return true };
        if let Some(status) = done.status {
            self.no_backslash = status & packets::NO_BACKSLASH_ESCAPES != 0;
        }
        self.tell(entry, at_ns, None, out);
        if self.pending.is_empty() {
            self.gap = false;
        }
        true
    }

    /// So many bytes of responses passed unseen until `at_ns`. Where the client asked for more
    /// since, what it asked before is answered, though tap did not see how, and is told.
    pub(super) fn miss_responses(
        &mut self,
        passed: u64,
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> bool {
        if let Some(first) = self.pending.front_mut().filter(|first| first.began_ns <= at_ns) {
            first.bytes[1] = first.bytes[1].saturating_add(passed);
        }
        let Some(before) = self.pending.iter().position(|entry| entry.began_ns > at_ns) else {
            return false;
        };
        for mut entry in self.pending.drain(..before).collect::<Vec<_>>() {
            entry.gap = true;
            self.tell(entry, at_ns, None, out);
        }
        true
    }

    /// Tells all that is pending.
    pub(super) fn flush(&mut self, at_ns: u64, trouble: Option<Trouble>, out: &mut Vec<Exchange>) {
        while let Some(entry) = self.pending.pop_front() {
            let trouble = trouble.map(|trouble| match entry.bytes[1] {
                0 => trouble,
                _ => Trouble::Truncated,
            });
            self.tell(entry, at_ns, trouble, out);
        }
    }

    fn tell(
        &mut self,
        entry: Entry,
        ended_ns: u64,
        trouble: Option<Trouble>,
        out: &mut Vec<Exchange>,
    ) {
        let uses = entry.operation == "USE";
        let mut statement = entry.statement.map(Arc::unwrap_or_clone).unwrap_or_default();
        if entry.operation == "PREPARE" || statement.operation.is_empty() {
            entry.operation.clone_into(&mut statement.operation);
        }
        if uses || statement.operation == "USE" {
            // It names a database, no table.
            statement.target = None;
        }
        if entry.enters.is_some() && entry.error.is_none() && trouble.is_none() {
            self.namespace = entry.enters;
        }
        let query = Query {
            system: "mysql",
            operation: statement.operation,
            target: statement.target,
            namespace: self.namespace.clone(),
            text: statement.text,
            batch: if statement.count > 1 && entry.operation != "PREPARE" {
                statement.count
            } else {
                0
            },
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

/// What a packet did to a command.
#[derive(Debug, Default)]
struct Answer {
    over: bool,
    /// The server's status flags, where the packet has them.
    status: Option<u16>,
    /// The id of a statement that was prepared.
    prepared: Option<u32>,
}

impl Entry {
    /// Takes in the server's next packet of `len` bytes, of which `body` is the begin.
    fn answer(&mut self, body: &[u8], len: u32, agreed: Option<u32>) -> Answer {
        const GO_ON: Answer = Answer { over: false, status: None, prepared: None };
        const OVER: Answer = Answer { over: true, status: None, prepared: None };
        let kind = body.first().copied().unwrap_or_default();
        if kind == packets::ERR && !matches!(self.due, Due::Columns(_) | Due::Packets(_)) {
            let code = body.get(1..3).and_then(|code| code.first_chunk());
            let code = code.map_or(0, |code| u16::from_le_bytes(*code));
            // MariaDB tells a long ALTER's progress so.
            if code == u16::MAX {
                return GO_ON;
            }
            self.error = Some(code.to_string());
            return OVER;
        }
        let end = packets::result_end(body, len);
        match self.due {
            Due::First | Due::Login if kind == packets::OK => self.ended(packets::ok_status(body)),
            // Another way of authentication, or more of it.
            Due::Login => GO_ON,
            Due::First if end.is_some() => self.ended(end),
            Due::First if kind == packets::FILE => {
                self.due = Due::File;
                GO_ON
            }
            Due::First => {
                let optional = agreed.unwrap_or(0) & packets::OPTIONAL_METADATA != 0;
                match packets::columns(body, len, optional) {
                    Some((columns, true)) => self.due = Due::Columns(columns),
                    _ => self.due = Due::Between,
                }
                GO_ON
            }
            Due::Prepared if kind == packets::OK => self.prepared(body, agreed),
            Due::Columns(left) => {
                self.due = if left > 1 { Due::Columns(left - 1) } else { Due::Between };
                GO_ON
            }
            Due::Between => {
                self.due = Due::Rows;
                match end {
                    // The older form's EOF: rows follow, unless a cursor holds them back.
                    Some(status) if len == packets::EOF_LEN => {
                        let over = status & packets::CURSOR_EXISTS != 0;
                        Answer { over, status: Some(status), prepared: None }
                    }
                    Some(_) => self.ended(end),
                    None => GO_ON,
                }
            }
            Due::Rows | Due::Fields => match end {
                Some(_) => self.ended(end),
                None => GO_ON,
            },
            Due::Packets(left) => {
                self.due = Due::Packets(left.saturating_sub(1));
                Answer { over: left <= 1, ..GO_ON }
            }
            // The server does not wait for the file's end if it cannot take it.
            Due::File if kind == packets::OK => self.ended(packets::ok_status(body)),
            Due::File => GO_ON,
            Due::Prepared | Due::One => OVER,
        }
    }

    /// A result is complete; another one may follow.
    fn ended(&mut self, status: Option<u16>) -> Answer {
        self.due = Due::First;
        let more = status.is_some_and(|status| status & packets::MORE_RESULTS != 0);
        Answer { over: !more, status, prepared: None }
    }

    /// The OK of COM_STMT_PREPARE: definitions of parameters and columns follow.
    fn prepared(&mut self, body: &[u8], agreed: Option<u32>) -> Answer {
        let Some(prepared) = packets::prepared(body) else {
            return Answer { over: true, ..Answer::default() };
        };
        // Where the handshake was not seen, the newer form is guessed: it waits for nothing that
        // may not come.
        let older = agreed.is_some_and(|agreed| agreed & packets::DEPRECATE_EOF == 0);
        let group = |count: u16| u32::from(count) + u32::from(older && count > 0);
        let packets = group(prepared.parameters) + group(prepared.columns);
        self.due = Due::Packets(packets);
        Answer { over: packets == 0, status: None, prepared: Some(prepared.id) }
    }
}
