//! Packet captures → the records that tap's kernel programs would have made live, so that the
//! same stages run over them. Comes in: a pcap or pcapng file ([`file`]). Its frames are taken
//! apart ([`link`]), their segments go to connections ([`connections`], [`flow`]), whose two
//! directions are put in order ([`reassembly`]) and told as records ([`record`]). Goes out:
//! [`Item`]s, in the order of the file.
//!
//! A capture sees both ends of a connection, a socket only its own. One end is chosen to be this
//! host: the one whose address [`Settings::local`] names, else (both or neither) the client. Of a
//! connection joined in its middle the lower port is the server's.
//!
//! Cookies are numbers from 1 in the order the connections were first seen; no record names a
//! process. Times are the capture's, which are Unix time: see [`Wall`].
#![forbid(unsafe_code)]

pub mod connections;
pub mod file;
pub mod flow;
pub mod link;
pub mod reassembly;
pub mod record;

use std::{fs::File, io::Read, path::Path};

use tap_common::{
    limits::{HEAD_DEFAULT, TURNS_DEFAULT},
    record::{Close, Header},
    settings::Prefix,
};

use self::{
    connections::Connections,
    file::{ReadError, Reader},
    link::{Body, Endpoint, Skip},
};
use crate::source::decode::Record;

/// Unix time in nanoseconds. All times in a capture's records are such, so the clock of the
/// stages behind has offset [`Wall::OFFSET_NS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(pub u64);

impl Wall {
    /// What to add for the wall clock: nothing.
    pub const OFFSET_NS: i64 = 0;
}

/// What a capture tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    /// A record, as the kernel side would have made it.
    Record {
        /// Time of the newest packet so far; the record's own is at most this.
        now: Wall,
        /// The record.
        record: Record<'a>,
    },
    /// A connection that is followed no further, as it stood when last seen: others took its
    /// place ([`Settings::connections`]), or a new connection its ports. No record of it comes
    /// any more.
    GivenUp {
        /// Time of the newest packet so far.
        now: Wall,
        /// A snapshot.
        close: &'a Close,
    },
    /// A datagram from or to UDP port 53.
    Dns {
        /// When it went.
        now: Wall,
        /// What was captured of its payload.
        payload: &'a [u8],
        /// Who sent it.
        from: Endpoint,
        /// To whom.
        to: Endpoint,
    },
    /// The end, with a snapshot of all that is open, as the daemon makes at its own.
    End {
        /// Time of the last packet.
        now: Wall,
        /// In the order of the cookies.
        open: &'a [Close],
    },
}

/// Takes items.
pub type Sink<'a> = dyn FnMut(Item<'_>) + 'a;

/// What is wanted of a capture.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Prefixes of this host's addresses (IPv4 is IPv4-mapped).
    pub local: Vec<Prefix>,
    /// Bytes that are told at the head of each direction.
    pub head: u32,
    /// Turn records per connection; beyond, turns are counted.
    pub turns: u32,
    /// Bytes that are told of each turn.
    pub payload_per_turn: usize,
    /// Most connections that are followed at a time, at about 1 KiB each. Beyond, those that were
    /// silent longest are given up, an eighth at a time.
    pub connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            local: Vec::new(),
            head: HEAD_DEFAULT,
            turns: TURNS_DEFAULT,
            payload_per_turn: 0,
            connections: 200_000,
        }
    }
}

impl Settings {
    /// Whether an address is said to be this host's.
    fn is_local(&self, address: &[u8; 16]) -> bool {
        self.local.iter().any(|prefix| {
            let bits = u128::from_be_bytes(*address) ^ u128::from_be_bytes(prefix.address);
            bits.checked_shr(128_u32.saturating_sub(prefix.len)).unwrap_or(0) == 0
        })
    }
}

/// What was in the capture, and what of it was of no use. All are totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets read.
    pub packets: u64,
    /// TCP segments among them.
    pub segments: u64,
    /// Connections seen.
    pub connections: u64,
    /// Packets that are neither TCP nor UDP over IP.
    pub other: u64,
    /// Packets of a link type that is not known here.
    pub unknown_link: u64,
    /// Fragments of IP packets: not put together.
    pub fragments: u64,
    /// Packets whose headers make no sense or were not captured whole.
    pub malformed: u64,
    /// Segments that belong to no connection: resets and acknowledgments of one that is not known.
    pub stray: u64,
    /// Segments far from what their connection was about.
    pub out_of_window: u64,
    /// Segments with payload that were captured twice.
    pub copies: u64,
    /// Payload bytes that the other end has acknowledged and nobody captured.
    pub missing_bytes: u64,
    /// Connections that were given up.
    pub given_up: u64,
}

/// A capture under way.
pub struct Capture<R> {
    reader: Reader<R>,
    connections: Connections,
}

impl Capture<File> {
    /// Opens a file.
    pub fn open(path: &Path, settings: Settings) -> Result<Self, ReadError> {
        Self::new(File::open(path)?, settings)
    }
}

impl<R: Read> Capture<R> {
    /// Reads the head of a capture. The reader need not be buffered.
    pub fn new(from: R, settings: Settings) -> Result<Self, ReadError> {
        Ok(Self { reader: Reader::new(from)?, connections: Connections::new(settings) })
    }

    /// Takes in the next packet and gives what it tells to `sink`. Says the time of the newest
    /// packet so far, which never goes back; `None` at the file's end. Whether it ends so or with an error, [`Self::end`] comes next.
    pub fn step(&mut self, sink: &mut Sink<'_>) -> Result<Option<Wall>, ReadError> {
        let Some(packet) = self.reader.next_packet()? else { return Ok(None) };
        let now = self.connections.advance(packet.time_ns, sink);
        let counts = self.connections.counts();
        counts.packets += 1;
        match link::parse(packet.link, packet.data, packet.original) {
            Ok(parsed) => match parsed.body {
                Body::Tcp(segment) => {
                    self.connections.segment(
                        parsed.from,
                        parsed.to,
                        &segment,
                        packet.time_ns,
                        sink,
                    );
                }
                Body::Udp(payload) => dns(parsed.from, parsed.to, payload, now, sink),
            },
            Err(Skip::Other) => counts.other += 1,
            Err(Skip::Fragment) => counts.fragments += 1,
            Err(Skip::Malformed) => counts.malformed += 1,
            Err(Skip::Link) => counts.unknown_link += 1,
        }
        Ok(Some(now))
    }

    /// Ends the capture: connections whose end was seen in part are closed, the others are told as
    /// they stand, in [`Item::End`].
    pub fn end(&mut self, sink: &mut Sink<'_>) {
        self.connections.end(sink);
    }

    /// All connections that are open, as a snapshot of the kernel side shows them.
    pub fn snapshot(&mut self) -> Vec<Close> {
        self.connections.snapshot()
    }

    /// Lets connections record so many turns in all, as verdicts do on the kernel side.
    pub fn allow_turns(&mut self, allowed: &[(Header, u32)]) {
        self.connections.allow_turns(allowed);
    }

    /// What was in the capture so far.
    pub fn counts(&mut self) -> Counts {
        *self.connections.counts()
    }
}

fn dns(from: Endpoint, to: Endpoint, payload: &[u8], now: Wall, sink: &mut Sink<'_>) {
    const PORT: u16 = 53;
    if (from.port == PORT || to.port == PORT) && !payload.is_empty() {
        sink(Item::Dns { now, payload, from, to });
    }
}

/// Reads any bytes as a capture, and checks what comes out.
#[doc(hidden)]
pub fn fuzz_capture(bytes: &[u8]) {
    check::run(bytes);
}

mod check;

#[cfg(test)]
mod tests;
