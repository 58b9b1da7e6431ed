//! What the table counts besides connections.

use crate::{enrich::names::Refused, policy::admission::Reason};

/// What the table did that is no connection. All are totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that went because the table was full.
    pub evicted: u64,
    /// Connections of tap itself, seen before their owner was known.
    pub own: u64,
    /// Entries that never got an open or close, and so have no ends to name.
    pub nameless: u64,
    /// Closes that were lost, and found by a snapshot.
    pub closes_found: u64,
    /// Connections that ended and had said something of which the protocol is not known.
    pub unknown: u64,
    /// Data records whose payload was not looked at, as memory was short.
    pub payload_shed: u64,
    /// Connections that the rules refused after the kernel side had admitted them, by
    /// [`Reason::ALL`].
    pub filtered: [u64; Reason::ALL.len()],
    /// What became of exchanges.
    pub exchanges: Exchanges,
    /// DNS messages that told nothing, by [`Refused::REASONS`].
    pub dns_refused: [u64; Refused::REASONS.len()],
}

/// What became of the exchanges of all connections. All are totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchanges {
    /// Told.
    pub told: u64,
    /// Of these, told before they were over because tap left or its source ended.
    pub open: u64,
    /// Requests that their parser had no room to keep until their response came.
    pub crowded_out: u64,
    /// Exchanges of connections of which nobody has told whose they are.
    pub nameless: u64,
    /// Header fields beyond what one exchange may have.
    pub fields_dropped: u64,
    /// Turns of clients that no exchange came of, on connections that records were lost of. Where
    /// requests go one after another, each in one turn, these are the requests that were lost.
    pub turns_untold: u64,
}

impl Exchanges {
    /// Names and values.
    pub const fn all(&self) -> [(&'static str, u64); 6] {
        [
            ("told", self.told),
            ("open", self.open),
            ("crowded_out", self.crowded_out),
            ("nameless", self.nameless),
            ("fields_dropped", self.fields_dropped),
            ("turns_untold", self.turns_untold),
        ]
    }
}
