//! Redis (RESP2 and RESP3). In: both directions of a connection in clear text. Out: each command
//! with its reply. Of commands only names are kept: no keys, values, channels or passwords.
//!
//! - `namespace` is the database's index as SELECT set it, where the connection's begin was seen.
//! - MULTI, what it queues and EXEC are an exchange each; errors inside EXEC's array are not told.
//! - Replies of commands in a pipeline come in order. Beyond [`PIPELINE_MAX`] unanswered commands,
//!   those that follow become one exchange `PIPELINE` with their number as `batch`.
//! - Pushes (messages, invalidations, MONITOR's lines) answer nothing and are passed over.
//! - After SYNC or PSYNC the connection is replication, which is another protocol: lost.
//! - Streamed strings and aggregates (`$?`, `*?`), which no server sends, are not known.
#![forbid(unsafe_code)]

mod pending;
mod replies;
mod resp;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::exchange::{Exchange, Outcome, Parser, Piece, Side, Trouble};
use replies::Replies;
use resp::{Commands, Step, WORD_MAX};

/// Unanswered commands that are held one by one: clients' pipelines are mostly shorter.
pub const PIPELINE_MAX: usize = 256;
/// Most bytes of a text, as of any statement's.
const TEXT_MAX: usize = 2048;
/// Heap bytes of all texts of unanswered commands; beyond, commands go without.
const TEXTS_MAX: usize = 64 << 10;
/// Most heap bytes of a parser: the pipeline's entries (twice, for the growth of their queue), a
/// name of two words each, and their texts.
pub const MEMORY_MAX: usize = PIPELINE_MAX * (2 * size_of::<Pending>() + 3 * WORD_MAX) + TEXTS_MAX;
/// So often a direction may be lost and searched for again before there is no hope.
const LOSSES_MAX: u32 = 64;

/// A parser of one connection.
#[derive(Debug)]
pub struct Redis {
    commands: Commands,
    replies: Replies,
    state: State,
}

#[derive(Debug)]
struct State {
    text: bool,
    pending: VecDeque<Pending>,
    /// Heap bytes of `pending`'s texts.
    texts: usize,
    /// The database, where it is known.
    database: Option<u32>,
    /// What EXEC will make it.
    queued_database: Option<u32>,
    /// Channels and patterns that a RESP2 connection listens to.
    subscriptions: i64,
    monitor: bool,
    mute: Mute,
    /// Bytes of attributes, which belong to the next reply.
    attributes: u64,
    client: Sight,
    server: Sight,
    /// Something was missed: replies may be matched with the wrong command until none is due.
    gap: bool,
    losses: u32,
    /// The client has spoken since the server did.
    client_turn: bool,
    /// Anything at all was understood.
    known: bool,
    lost: bool,
    server_ns: u64,
}

/// Whether a direction's framing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Clear,
    /// It is taken for known, until something speaks against it.
    Tried,
    /// It is tried again with the next piece.
    Next,
    /// It is tried again with the next piece after the other direction spoke.
    Turn,
}

/// CLIENT REPLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mute {
    No,
    /// One command more goes unanswered.
    One,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// SUBSCRIBE and its kin: one confirmation for each channel.
    Subscribe,
    Select(u32),
    Exec,
    Discard,
    Monitor,
    Reset,
    Replicate,
    /// Many commands beyond the bound.
    Many,
}

#[derive(Debug)]
struct Pending {
    began_ns: u64,
    bytes: [u64; 2],
    operation: String,
    text: Option<String>,
    kind: Kind,
    /// Replies that are due.
    left: u32,
    commands: u32,
    error: Option<String>,
    gap: bool,
}

impl Redis {
    /// A parser that tells no texts.
    pub fn new() -> Self {
        let state = State {
            text: false,
            pending: VecDeque::new(),
            texts: 0,
            database: Some(0),
            queued_database: None,
            subscriptions: 0,
            monitor: false,
            mute: Mute::No,
            attributes: 0,
            client: Sight::Clear,
            server: Sight::Clear,
            gap: false,
            losses: 0,
            client_turn: false,
            known: false,
            lost: false,
            server_ns: 0,
        };
        Self { commands: Commands::new(), replies: Replies::new(), state }
    }

    /// Whether exchanges have a text: the command with `?` for each argument.
    pub const fn with_text(mut self, text: bool) -> Self {
        self.state.text = text;
        self
    }

    fn client(&mut self, mut bytes: &[u8], at_ns: u64, out: &mut Vec<Exchange>) {
        let state = &mut self.state;
        let turn = !std::mem::replace(&mut state.client_turn, true);
        if state.server == Sight::Turn && turn {
            // The client goes on: what it asked before is answered, though tap did not see how.
            state.flush(state.server_ns, None, out);
            self.replies.reset();
            state.server = Sight::Next;
        }
        match state.client {
            Sight::Turn if !turn => return,
            Sight::Next | Sight::Turn => {
                if turn && !self.replies.inside() && state.known {
                    state.flush(state.server_ns, None, out);
                }
                state.client = Sight::Tried;
                self.commands.reset();
            }
            Sight::Clear | Sight::Tried => {}
        }
        loop {
            let inline = state.client == Sight::Clear;
            match self.commands.next(&mut bytes, at_ns, inline) {
                Step::More => return,
                Step::Done => {
                    state.client = Sight::Clear;
                    state.known = true;
                    state.command(&self.commands.command, at_ns, out);
                }
                Step::Bad => {
                    self.commands.reset();
                    state.lose(Side::Client);
                    return;
                }
            }
        }
    }

    fn server(&mut self, mut bytes: &[u8], at_ns: u64, out: &mut Vec<Exchange>) {
        let state = &mut self.state;
        state.client_turn = false;
        state.server_ns = at_ns;
        match state.server {
            Sight::Turn => return,
            Sight::Next => {
                state.server = Sight::Tried;
                self.replies.reset();
            }
            Sight::Clear | Sight::Tried => {}
        }
        while !state.lost {
            match self.replies.next(&mut bytes) {
                Step::More => return,
                Step::Done => {
                    state.server = Sight::Clear;
                    state.known = true;
                    state.value(&self.replies.value, at_ns, out);
                }
                Step::Bad => {
                    self.replies.reset();
                    state.lose(Side::Server);
                    return;
                }
            }
        }
    }

    fn miss(&mut self, side: Side, missing: u64, at_ns: u64, out: &mut Vec<Exchange>) {
        let (beyond, at_begin) = match side {
            Side::Client => (self.commands.miss(missing), !self.state.known),
            Side::Server => (self.replies.miss(missing), !self.state.known),
        };
        // What ends with the missing bytes is told.
        if beyond < missing {
            match side {
                Side::Client => self.client(b"", at_ns, out),
                Side::Server => self.server(b"", at_ns, out),
            }
        }
        if beyond == 0 {
            return;
        }
        let state = &mut self.state;
        let begun = if self.replies.inside() { self.replies.value.bytes } else { 0 };
        let passed = beyond.saturating_add(begun);
        let answered = side == Side::Server && state.miss_replies(passed, at_ns, out);
        state.gap |= !answered;
        if !answered {
            for pending in &mut state.pending {
                pending.gap = true;
            }
        }
        match side {
            Side::Client => {
                self.commands.reset();
                state.database = None;
                state.client = if at_begin { Sight::Next } else { Sight::Turn };
            }
            Side::Server => {
                self.replies.reset();
                state.server = if at_begin || answered { Sight::Next } else { Sight::Turn };
            }
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser for Redis {
    fn take(
        &mut self,
        side: Side,
        piece: Piece<'_>,
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> Outcome {
        if self.state.lost {
            return Outcome::Lost;
        }
        match (side, piece) {
            (_, Piece::Bytes([]) | Piece::Missing(0)) | (Side::Client, Piece::End) => {}
            (Side::Client, Piece::Bytes(bytes)) => self.client(bytes, at_ns, out),
            (Side::Server, Piece::Bytes(bytes)) => self.server(bytes, at_ns, out),
            (side, Piece::Missing(missing)) => self.miss(side, missing, at_ns, out),
            (Side::Server, Piece::End) => self.finish(at_ns, out),
        }
        if self.state.lost {
            self.finish(at_ns, out);
            return Outcome::Lost;
        }
        Outcome::Continue
    }

    fn finish(&mut self, at_ns: u64, out: &mut Vec<Exchange>) {
        if self.replies.inside()
            && let Some(mut first) = self.state.pop()
        {
            first.bytes[1] += self.replies.value.bytes;
            self.state.tell(first, at_ns, Some(Trouble::Truncated), out);
        }
        self.replies.reset();
        self.state.flush(at_ns, Some(Trouble::NoResponse), out);
        if self.commands.inside() && self.commands.command.words[0].bytes().len() > 1 {
            let pending = self.state.pending(&self.commands.command);
            self.state.tell(pending, at_ns, Some(Trouble::Truncated), out);
        }
        self.commands.reset();
    }

    fn memory(&self) -> usize {
        // A name of two words, which `to_ascii_uppercase` and `push` may have given room to grow.
        let names = self.state.pending.len() * 3 * WORD_MAX;
        self.state.pending.capacity() * size_of::<Pending>() + names + self.state.texts
    }
}

/// For the fuzzer: any bytes, cut and interleaved by themselves.
#[doc(hidden)]
pub fn fuzz_redis(bytes: &[u8]) {
    super::frames::fuzz(Redis::new().with_text(true), bytes, MEMORY_MAX);
}
