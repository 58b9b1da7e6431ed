//! The client's messages: which requests now wait for a response.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::messages::{self, Stage, text};
use super::{
    ENTRIES_MAX, Entry, Group, KEY_MAX, Kind, PENDING_MAX, STATEMENT_MAX, STATEMENT_SHARED, Sight,
    State,
};
use crate::protocol::exchange::{Outcome, Side};
use crate::protocol::frames::{Frame, LOSSES_MAX};
use crate::protocol::sql::{self, Dialect, Reading, Statement};

impl State {
    pub(super) fn lose(&mut self, side: Side) -> Outcome {
        self.losses += 1;
        if self.losses > LOSSES_MAX || !(self.known || self.gap) {
            return Outcome::Lost;
        }
        self.gap = true;
        match side {
            Side::Client => {
                self.client_sight = Sight::Lost;
                self.group = Group::default();
            }
            Side::Server => {
                self.server_sight = Sight::Lost;
                self.idle = false;
            }
        }
        Outcome::Continue
    }

    /// A message without a type byte: the first ones of a connection.
    pub(super) fn startup(&mut self, frame: &Frame<'_>) {
        match messages::startup(frame.head) {
            messages::First::Encrypt => self.stage = Stage::Answer,
            // The connection is for this alone.
            messages::First::Cancel => {}
            messages::First::Startup { database } => {
                self.stage = Stage::Ready;
                self.namespace = database;
                self.push(Entry::new(Kind::Startup, frame.began_ns, frame.len, None));
            }
        }
    }

    pub(super) fn request(&mut self, frame: &Frame<'_>) {
        let Some((kind, body)) = frame.head.split_first_chunk::<5>() else { return };
        let kind = kind[0];
        if matches!(kind, b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S') {
            let began = self.group.began_ns.get_or_insert(frame.began_ns);
            *began = (*began).min(frame.began_ns);
            self.group.bytes = self.group.bytes.saturating_add(frame.len);
        }
        match kind {
            b'Q' => {
                let cut = frame.cut || frame.len > frame.head.len() as u64;
                let statement = self.read(body.split(|byte| *byte == 0).next(), cut);
                self.push(Entry::new(Kind::Simple, frame.began_ns, frame.len, Some(statement)));
            }
            b'F' => {
                let statement =
                    Statement { operation: "CALL".to_owned(), count: 1, ..Statement::default() };
                let statement = Some(Arc::new(statement));
                self.push(Entry::new(Kind::Simple, frame.began_ns, frame.len, statement));
            }
            b'P' => self.parse(frame, body),
            b'B' => {
                let Some((portal, rest)) = text(body) else { return };
                let statement =
                    text(rest).and_then(|(name, _)| self.statements.get(name)).map(Arc::clone);
                match (portal, statement) {
                    (b"", statement) => self.portal = statement,
                    (name, Some(statement)) => {
                        let heap = name.len() + statement.memory();
                        self.portals.insert(name.into(), statement, heap);
                    }
                    (name, None) => self.portals.remove(name),
                }
            }
            b'C' => match (body.first(), text(body.get(1..).unwrap_or_default())) {
                (Some(b'S'), Some((name, _))) => self.statements.remove(name),
                (Some(b'P'), Some((name, _))) => self.portals.remove(name),
                _ => {}
            },
            b'E' => {
                let statement = match text(body) {
                    Some((b"", _)) => self.portal.clone(),
                    Some((name, _)) => self.portals.get(name).map(Arc::clone),
                    None => None,
                };
                let Group { began_ns, bytes, .. } = std::mem::take(&mut self.group);
                let began_ns = began_ns.unwrap_or(frame.began_ns);
                self.push(Entry::new(Kind::Execute, began_ns, bytes, statement));
            }
            b'H' => self.prepare(),
            b'S' => {
                self.prepare();
                let group = std::mem::take(&mut self.group);
                if let Some(last) = self.pending.back_mut()
                    && matches!(last.kind, Kind::Execute | Kind::Prepare)
                {
                    last.bytes[0] = last.bytes[0].saturating_add(group.bytes);
                }
                self.push(Entry::new(Kind::Sync, frame.began_ns, 0, None));
            }
            b'd' | b'c' | b'f' => {
                if let Some(first) = self.pending.front_mut() {
                    first.bytes[0] = first.bytes[0].saturating_add(frame.len);
                }
            }
            // Terminate; and `p`, an answer to an authentication request.
            _ => {}
        }
    }

    fn parse(&mut self, frame: &Frame<'_>, body: &[u8]) {
        if self.group.parsed.is_some() {
            // Another Parse came before, which this one's bytes do not belong to.
            self.group.bytes = self.group.bytes.saturating_sub(frame.len);
            self.prepare();
            self.group = Group { began_ns: Some(frame.began_ns), bytes: frame.len, parsed: None };
        }
        let Some((name, rest)) = text(body) else {
            return;
        };
        let cut = frame.cut || frame.len > frame.head.len() as u64;
        let statement = self.read(rest.split(|byte| *byte == 0).next(), cut);
        self.group.parsed = Some(Arc::clone(&statement));
        if name.len() <= KEY_MAX {
            let heap = name.len() + STATEMENT_SHARED + statement.memory();
            self.statements.insert(name.into(), statement, heap);
        }
    }

    fn read(&self, query: Option<&[u8]>, cut: bool) -> Arc<Statement> {
        let query = query.unwrap_or_default();
        let how =
            Reading { dialect: Dialect::Postgres, backslash: self.backslash, text: self.text };
        Arc::new(sql::read(query, cut, how))
    }

    /// A Parse that no Execute followed is an exchange of its own.
    fn prepare(&mut self) {
        if let Some(statement) = self.group.parsed.take() {
            let Group { began_ns, bytes, .. } = std::mem::take(&mut self.group);
            let began_ns = began_ns.unwrap_or_default();
            self.push(Entry::new(Kind::Prepare, began_ns, bytes, Some(statement)));
        }
    }

    fn push(&mut self, mut entry: Entry) {
        entry.gap = self.gap;
        let shared = |other: &Entry| match (&other.statement, &entry.statement) {
            (Some(other), Some(statement)) => Arc::ptr_eq(other, statement),
            _ => false,
        };
        let same = self.pending.iter().rev().take(2).any(shared);
        if self.pending.len() >= PENDING_MAX {
            if let Some(last) = self.pending.back_mut()
                && (last.kind, entry.kind) == (Kind::Execute, Kind::Execute)
            {
                last.many = last.many.saturating_add(1);
                last.mixed |= !same;
                last.bytes[0] = last.bytes[0].saturating_add(entry.bytes[0]);
                return;
            }
            let texts = self.pending_heap > PENDING_MAX * STATEMENT_MAX / 2;
            if self.pending.len() >= ENTRIES_MAX || texts {
                // Responses cannot be matched any more until the server is idle.
                self.crowded += 1;
                self.gap = true;
                self.client_sight = Sight::Lost;
                return;
            }
        }
        // A statement that is executed again and again is there once.
        entry.heap = if same { 0 } else { entry.heap() };
        self.pending_heap += entry.heap;
        self.pending.push_back(entry);
    }
}

impl Entry {
    fn new(kind: Kind, began_ns: u64, bytes: u64, statement: Option<Arc<Statement>>) -> Self {
        Self {
            kind,
            began_ns,
            bytes: [bytes, 0],
            statement,
            completions: 0,
            many: 1,
            mixed: false,
            heap: 0,
            error: None,
            answered: false,
            gap: false,
        }
    }

    fn heap(&self) -> usize {
        self.statement.as_ref().map_or(0, |statement| STATEMENT_SHARED + statement.memory())
    }
}
