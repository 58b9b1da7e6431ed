//! PostgreSQL's frontend/backend protocol 3. In: both directions of a connection in clear text.
//! Out: an exchange for each simple query, each Execute, each Parse that no Execute follows
//! (`PREPARE`) and each function call. Nothing of the user, of authentication, of parameters and of
//! rows is kept. <https://www.postgresql.org/docs/current/protocol-message-formats.html>
//!
//! - A simple query with several statements is one exchange with `batch`, as ReadyForQuery answers
//!   them as one: `BATCH UPDATE`, or `BATCH` where they differ.
//! - An exchange ends with ReadyForQuery; in a pipeline, one that others follow before the Sync ends
//!   with its own completion. What the server skips after an error has `NoResponse`.
//! - COPY's data counts as bytes of its exchange.
//! - Startup, a cancel request, Close, LISTEN's notifications and Terminate are no exchanges.
#![forbid(unsafe_code)]

mod messages;
mod requests;
mod responses;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use super::exchange::{Exchange, Next, Outcome, Parser, Piece, Side, Trouble};
use super::frames::{self, Bad, Framed, Frames};
use super::recent::Recent;
use super::sql::Statement;
use messages::{Stage, client_size, server_size};

/// Requests that wait for their response and are held one by one: JDBC's batches are as long. An
/// Execute beyond joins the one before it.
pub const PENDING_MAX: usize = 256;
/// Requests with their Syncs; beyond, responses are not matched until the server is idle.
const ENTRIES_MAX: usize = 4 * PENDING_MAX;
/// Prepared statements that are remembered.
pub const STATEMENTS_MAX: usize = 128;
/// Named portals that are remembered: they live no longer than a transaction.
const PORTALS_MAX: usize = 16;
/// Longest name of a statement or portal that is remembered.
const KEY_MAX: usize = messages::KEY_MAX;
/// A statement, shared.
const STATEMENT_MAX: usize = STATEMENT_SHARED + Statement::MEMORY_MAX;
/// Most heap bytes of a parser: a statement for each place that may hold one, and the heads under
/// way.
pub const MEMORY_MAX: usize = (PENDING_MAX + STATEMENTS_MAX + PORTALS_MAX + 2) * STATEMENT_MAX
    + ENTRIES_MAX * 2 * size_of::<Entry>()
    + (STATEMENTS_MAX + PORTALS_MAX) * (KEY_MAX + 256)
    + 4 * messages::KEEP_MAX;
/// What an `Arc` adds to a statement's own heap bytes.
const STATEMENT_SHARED: usize = size_of::<Statement>() + 2 * size_of::<usize>();

/// A parser of one connection.
#[derive(Debug)]
pub struct Postgres {
    client: Frames,
    server: Frames,
    state: State,
}

#[derive(Debug)]
struct State {
    text: bool,
    /// `standard_conforming_strings` is off.
    backslash: bool,
    stage: Stage,
    namespace: Option<String>,
    pending: VecDeque<Entry>,
    /// Heap bytes of `pending`'s statements, shared ones counted each time.
    pending_heap: usize,
    statements: Recent<Box<[u8]>, Arc<Statement>>,
    portals: Recent<Box<[u8]>, Arc<Statement>>,
    /// The unnamed portal.
    portal: Option<Arc<Statement>>,
    group: Group,
    client_sight: Sight,
    server_sight: Sight,
    /// The server's last message was ReadyForQuery.
    idle: bool,
    gap: bool,
    losses: u32,
    /// Requests that there was no room for, since that was asked last.
    crowded: u64,
    known: bool,
    server_ns: u64,
}

/// Messages of the extended protocol since the last Execute or Sync.
#[derive(Debug, Default)]
struct Group {
    began_ns: Option<u64>,
    bytes: u64,
    /// A Parse that no Execute followed yet.
    parsed: Option<Arc<Statement>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Clear,
    /// Taken for clear until something speaks against it.
    Tried,
    /// The next piece is tried.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Startup,
    Simple,
    Execute,
    Prepare,
    Sync,
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    began_ns: u64,
    bytes: [u64; 2],
    statement: Option<Arc<Statement>>,
    completions: u32,
    /// Executes that it stands for.
    many: u32,
    /// They are of other statements.
    mixed: bool,
    /// Heap bytes it is counted with.
    heap: usize,
    error: Option<String>,
    answered: bool,
    gap: bool,
}

impl Postgres {
    /// A parser that tells no texts.
    pub fn new() -> Self {
        let state = State {
            text: false,
            backslash: false,
            stage: Stage::Startup,
            namespace: None,
            pending: VecDeque::new(),
            pending_heap: 0,
            statements: Recent::new(STATEMENTS_MAX),
            portals: Recent::new(PORTALS_MAX),
            portal: None,
            group: Group::default(),
            client_sight: Sight::Clear,
            server_sight: Sight::Clear,
            idle: false,
            gap: false,
            losses: 0,
            crowded: 0,
            known: false,
            server_ns: 0,
        };
        Self { client: Frames::new(), server: Frames::new(), state }
    }

    /// Whether exchanges have the statement's text.
    pub const fn with_text(mut self, text: bool) -> Self {
        self.state.text = text;
        self
    }
}

impl Default for Postgres {
    fn default() -> Self {
        Self::new()
    }
}

impl Framed for Postgres {
    fn losses(&mut self) -> &mut u32 {
        &mut self.state.losses
    }

    fn client(&mut self, mut bytes: &[u8], at_ns: u64, out: &mut Vec<Exchange>) -> Outcome {
        let state = &mut self.state;
        if state.stage == Stage::Answer && bytes.first() == Some(&22) {
            // The server's `S` was missed, or comes late.
            return Outcome::Switch { to: Next::Tls, rest: bytes.len() };
        }
        if state.client_sight == Sight::Lost {
            if state.idle || state.server_sight == Sight::Lost {
                state.flush(state.server_ns, None, out);
            }
            state.client_sight = Sight::Tried;
            self.client.reset();
        } else if state.server_sight == Sight::Lost && !self.client.inside() {
            // The client goes on: what it asked before is answered, though tap did not see how.
            state.flush(state.server_ns, None, out);
        }
        loop {
            let stage = state.stage;
            match self.client.next(&mut bytes, at_ns, |head| client_size(stage, head)) {
                Ok(None) => return Outcome::Continue,
                Ok(Some(frame)) => {
                    if stage != Stage::Ready {
                        state.startup(&frame);
                        continue;
                    }
                    if state.client_sight == Sight::Tried {
                        state.client_sight = Sight::Clear;
                    }
                    state.known = true;
                    state.request(&frame);
                }
                Err(Bad) => return state.lose(Side::Client),
            }
        }
    }

    fn server(&mut self, mut bytes: &[u8], at_ns: u64, out: &mut Vec<Exchange>) -> Outcome {
        let state = &mut self.state;
        state.server_ns = at_ns;
        if state.stage == Stage::Answer
            && let Some((answer, rest)) = bytes.split_first()
        {
            match answer {
                b'N' => {
                    state.stage = Stage::Startup;
                    bytes = rest;
                }
                b'S' => return Outcome::Switch { to: Next::Tls, rest: rest.len() },
                // An error of a server that is too old to know the question.
                b'E' => state.stage = Stage::Startup,
                // GSSAPI encryption, or no PostgreSQL.
                _ => return Outcome::Lost,
            }
        }
        if state.server_sight == Sight::Lost {
            state.server_sight = Sight::Tried;
            self.server.reset();
        }
        loop {
            match self.server.next(&mut bytes, at_ns, server_size) {
                Ok(None) => return Outcome::Continue,
                Ok(Some(frame)) => {
                    if state.server_sight == Sight::Tried {
                        state.server_sight = Sight::Clear;
                    }
                    state.known = true;
                    state.response(&frame, at_ns, out);
                }
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
            let state = &mut self.state;
            state.gap = true;
            // Whatever was missed, a startup that would name the database is behind it.
            state.stage = Stage::Ready;
            match side {
                Side::Client => {
                    for entry in &mut state.pending {
                        entry.gap = true;
                    }
                    self.client.reset();
                    state.client_sight = Sight::Lost;
                    state.group = Group::default();
                }
                Side::Server => {
                    let passed = beyond.saturating_add(self.server.passed());
                    state.miss_responses(passed, at_ns, out);
                    self.server.reset();
                    state.server_sight = Sight::Lost;
                    state.idle = false;
                }
            }
        }
        Outcome::Continue
    }
}

impl Parser for Postgres {
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
        self.state.flush(at_ns, Some(Trouble::NoResponse), out);
        self.client.reset();
        self.server.reset();
    }

    fn memory(&self) -> usize {
        let state = &self.state;
        state.pending_heap
            + state.pending.capacity() * size_of::<Entry>()
            + state.statements.memory()
            + state.portals.memory()
            + state.portal.as_deref().map_or(0, Statement::memory)
            + state.group.parsed.as_deref().map_or(0, Statement::memory)
            + state.namespace.as_ref().map_or(0, String::capacity)
            + self.client.memory()
            + self.server.memory()
    }

    fn crowded_out(&mut self) -> u64 {
        std::mem::take(&mut self.state.crowded)
    }
}

/// For the fuzzer: any bytes, cut and interleaved by themselves.
#[doc(hidden)]
pub fn fuzz_postgres(bytes: &[u8]) {
    super::frames::fuzz(Postgres::new().with_text(true), bytes, MEMORY_MAX);
}
