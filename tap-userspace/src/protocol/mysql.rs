//! MySQL's and MariaDB's client/server protocol. In: both directions of a connection in clear text.
//! Out: an exchange for each command that has a response. Nothing of the user, of authentication,
//! of parameters and of rows is kept.
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>,
//! <https://mariadb.com/kb/en/clientserver-protocol/>
//!
//! - COM_QUERY and COM_STMT_EXECUTE are named after their statement, COM_STMT_PREPARE is `PREPARE`,
//!   COM_INIT_DB is `USE`, the others bear their command's name. Several statements in one COM_QUERY
//!   are one exchange with `batch`; so are the result sets of a CALL.
//! - COM_QUIT, COM_STMT_CLOSE and COM_STMT_SEND_LONG_DATA have no response and are not told.
//! - A result set's end is found by its packets' first bytes and lengths, in both of its forms.
//! - Compression and replication streams are lost; TLS is handed over.
#![forbid(unsafe_code)]

mod commands;
mod packets;
mod responses;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use super::exchange::{Exchange, Next, Outcome, Parser, Piece, Side, Trouble};
use super::frames::{self, Bad, Framed, Frames};
use super::recent::Recent;
use super::sql::{self, Statement};
use packets::{Handshake, LONGEST, client_size, packet, server_size};

/// Commands that wait for their response: MariaDB's connectors send up to 100 ahead.
pub const PENDING_MAX: usize = 128;
/// Prepared statements that are remembered.
pub const STATEMENTS_MAX: usize = 128;
/// A statement, shared.
const STATEMENT_MAX: usize = STATEMENT_SHARED + Statement::MEMORY_MAX;
/// What an `Arc` adds to a statement's own heap bytes.
const STATEMENT_SHARED: usize = size_of::<Statement>() + 2 * size_of::<usize>();
/// Most heap bytes of a parser: a statement for each place that may hold one, a database's name for
/// each command, and the heads under way.
pub const MEMORY_MAX: usize = (PENDING_MAX + STATEMENTS_MAX + 1) * STATEMENT_MAX
    + PENDING_MAX * (2 * size_of::<Entry>() + sql::NAME_MAX)
    + STATEMENTS_MAX * 128
    + 4 * packets::KEEP_MAX;
/// MariaDB: the statement that was prepared last.
const LAST_PREPARED: u32 = u32::MAX;

/// A parser of one connection.
#[derive(Debug)]
pub struct Mysql {
    client: Frames,
    server: Frames,
    state: State,
}

#[derive(Debug)]
struct State {
    text: bool,
    phase: Phase,
    /// The server's capabilities, where its greeting was seen.
    offered: Option<u32>,
    /// Capabilities in force, where the handshake was seen.
    agreed: Option<u32>,
    /// The session's sql_mode has NO_BACKSLASH_ESCAPES.
    no_backslash: bool,
    namespace: Option<String>,
    pending: VecDeque<Entry>,
    statements: Recent<u32, Arc<Statement>>,
    last_prepared: Option<Arc<Statement>>,
    /// The client's, the server's packet under way goes on in the next one.
    goes_on: [bool; 2],
    /// A direction's framing is unknown until the client's next command.
    blind: [bool; 2],
    /// The client's framing is guessed.
    tried: bool,
    gap: bool,
    losses: u32,
    /// Requests that there was no room for, since that was asked last.
    crowded: u64,
    known: bool,
    server_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until the client's first packet.
    Greeting,
    /// Until the server accepts the user.
    Login,
    Command,
}

/// What the server says next to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// OK, ERR, or a result set's count of columns.
    First,
    /// The answer to COM_STMT_PREPARE.
    Prepared,
    /// So many definitions of columns.
    Columns(u64),
    /// An EOF packet that stands between columns and rows in the older form, or the first row.
    Between,
    Rows,
    /// So many packets of any kind.
    Packets(u32),
    /// Definitions of columns until EOF.
    Fields,
    /// The client sends a file; then OK.
    File,
    /// COM_CHANGE_USER: authentication until OK.
    Login,
    /// One packet, whatever it is.
    One,
}

#[derive(Debug)]
struct Entry {
    began_ns: u64,
    bytes: [u64; 2],
    /// Where no statement names it.
    operation: &'static str,
    statement: Option<Arc<Statement>>,
    /// The database it makes the current one.
    enters: Option<String>,
    due: Due,
    /// The next packet's number.
    number: u8,
    error: Option<String>,
    gap: bool,
}

impl Mysql {
    /// A parser that tells no texts.
    pub fn new() -> Self {
        let state = State {
            text: false,
            phase: Phase::Greeting,
            offered: None,
            agreed: None,
            no_backslash: false,
            namespace: None,
            pending: VecDeque::new(),
            statements: Recent::new(STATEMENTS_MAX),
            last_prepared: None,
            goes_on: [false; 2],
            blind: [false; 2],
            tried: false,
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

impl Default for Mysql {
    fn default() -> Self {
        Self::new()
    }
}

impl Framed for Mysql {
    fn losses(&mut self) -> &mut u32 {
        &mut self.state.losses
    }

    fn client(&mut self, mut bytes: &[u8], at_ns: u64, out: &mut Vec<Exchange>) -> Outcome {
        let state = &mut self.state;
        let blind = std::mem::take(&mut state.blind[0]);
        if blind {
            self.client.reset();
            state.goes_on[0] = false;
            state.tried = true;
        }
        loop {
            let phase = state.phase;
            let tried = state.tried;
            match self.client.next(&mut bytes, at_ns, |head| client_size(phase, tried, head)) {
                Ok(None) => return Outcome::Continue,
                Ok(Some(frame)) => {
                    let Some((len, number, body)) = packet(frame.head) else { continue };
                    let goes_on = std::mem::replace(&mut state.goes_on[0], len == LONGEST);
                    if goes_on {
                        if let Some(last) = state.pending.back_mut() {
                            last.bytes[0] = last.bytes[0].saturating_add(frame.len);
                            last.number = number.wrapping_add(1);
                        }
                        continue;
                    }
                    match phase {
                        Phase::Greeting if number > 0 => match state.handshake(body) {
                            Handshake::Tls => {
                                return Outcome::Switch { to: Next::Tls, rest: bytes.len() };
                            }
                            Handshake::Compressed => return Outcome::Lost,
                            Handshake::Plain => {}
                        },
                        Phase::Login if number > 0 => {}
                        _ if number > 0 => state.more(&frame, number),
                        _ => {
                            state.tried = false;
                            if std::mem::take(&mut state.blind[1]) {
                                // What was asked before is answered, though tap did not see how.
                                state.flush(state.server_ns, None, out);
                                self.server.reset();
                                state.goes_on[1] = false;
                            } else if blind {
                                state.flush(state.server_ns, None, out);
                            }
                            state.phase = Phase::Command;
                            state.known = true;
                            if !state.command(&frame, body) {
                                return Outcome::Lost;
                            }
                        }
                    }
                }
                Err(Bad) => return state.lose(),
            }
        }
    }

    fn server(&mut self, mut bytes: &[u8], at_ns: u64, out: &mut Vec<Exchange>) -> Outcome {
        let state = &mut self.state;
        state.server_ns = at_ns;
        if state.blind[1] {
            return Outcome::Continue;
        }
        loop {
            match self.server.next(&mut bytes, at_ns, server_size) {
                Ok(None) => return Outcome::Continue,
                Ok(Some(frame)) => {
                    let Some((len, number, body)) = packet(frame.head) else { continue };
                    let goes_on = std::mem::replace(&mut state.goes_on[1], len == LONGEST);
                    let known = match state.phase {
                        Phase::Greeting => state.greeting(number, body),
                        Phase::Login => {
                            state.login(body);
                            true
                        }
                        Phase::Command => state.response(&frame, len, number, goes_on, at_ns, out),
                    };
                    if !known {
                        return state.lose();
                    }
                }
                Err(Bad) => return state.lose(),
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
            let passed = beyond.saturating_add(self.server.passed());
            let answered = side == Side::Server
                && state.phase == Phase::Command
                && state.miss_responses(passed, at_ns, out);
            if !answered {
                for entry in &mut state.pending {
                    entry.gap = true;
                }
            }
            if side == Side::Client || state.phase != Phase::Command {
                state.namespace = None;
            }
            state.phase = Phase::Command;
            state.blind[side as usize] = true;
            // A response is found again by its command only: a later one, or one that the client
            // has sent since.
            state.blind[1] = !answered;
            if answered {
                state.goes_on[1] = false;
            }
            match side {
                Side::Client => self.client.reset(),
                Side::Server => self.server.reset(),
            }
        }
        Outcome::Continue
    }
}

impl Parser for Mysql {
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
        let entries: usize = state.pending.iter().map(Entry::heap).sum();
        entries
            + state.pending.capacity() * size_of::<Entry>()
            + state.statements.memory()
            + state.last_prepared.as_deref().map_or(0, Statement::memory)
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
pub fn fuzz_mysql(bytes: &[u8]) {
    super::frames::fuzz(Mysql::new().with_text(true), bytes, MEMORY_MAX);
}
