//! Recordings written by hand, in the format that `tap replay` reads: what the kernel side would
//! have said of connections that no kernel needs to make.

use std::{fs, mem::size_of, net::Ipv4Addr, path::PathBuf, slice};

use anyhow::Result;
use tap_common::{
    ABI_VERSION,
    record::{Close, Connection, Data, Header, Kind, Lane, Open, Tuple, flags},
};
use tempfile::TempDir;

/// Wall clock minus monotonic clock at the begin of every film.
pub const OFFSET: i64 = 1_700_000_000_000_000_000;
/// A second in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// One end of a connection as its host's kernel would tell it.
#[derive(Clone, Copy)]
pub struct End {
    /// Socket cookie.
    pub cookie: u64,
    /// Which connection of the socket.
    pub generation: u32,
    /// Whether this end opened it.
    pub active: bool,
    /// This end.
    pub local: (Ipv4Addr, u16),
    /// The other end.
    pub remote: (Ipv4Addr, u16),
    /// Initial sequence numbers: of this end and of the other.
    pub numbers: (u32, u32),
    /// Monotonic nanoseconds.
    pub opened_ns: u64,
}

impl End {
    /// A client's end that opens at one second.
    pub const fn client(cookie: u64) -> Self {
        Self {
            cookie,
            generation: 0,
            active: true,
            local: (Ipv4Addr::new(10, 0, 0, 1), 40_000),
            remote: (Ipv4Addr::new(10, 0, 0, 2), 443),
            numbers: (0x1111_2222, 0x3333_4444),
            opened_ns: SECOND,
        }
    }

    const fn flags(&self) -> u16 {
        // The client's number is the wire's only where its SYN was seen.
        let role = if self.active { flags::ACTIVE | flags::SYN_SENT } else { 0 };
        role | flags::ESTABLISHED
    }

    fn connection(&self) -> Connection {
        Connection {
            tuple: Tuple {
                local: self.local.0.to_ipv6_mapped().octets(),
                remote: self.remote.0.to_ipv6_mapped().octets(),
                local_port: self.local.1,
                remote_port: self.remote.1,
                pad: 0,
            },
            opened_ns: self.opened_ns,
            cgroup: 0,
            tgid: 0,
            local_isn: self.numbers.0,
            remote_isn: self.numbers.1,
            flags: self.flags(),
            pad: 0,
        }
    }

    fn header(&self, kind: Kind, lane: Lane, number: u32, time_ns: u64) -> Header {
        Header {
            kind: kind as u8,
            lane: lane as u8,
            flags: self.flags(),
            payload_len: 0,
            cookie: self.cookie,
            generation: self.generation,
            number,
            time_ns,
        }
    }

    /// Its open record.
    pub fn open(&self) -> Vec<u8> {
        let header = self.header(Kind::Open, Lane::Life, 0, self.opened_ns);
        bytes_of(&Open { header, connection: self.connection() })
    }

    /// The begin of its first turn: `payload` sent.
    pub fn sends(&self, time_ns: u64, payload: &[u8]) -> Vec<u8> {
        let mut header = self.header(Kind::Data, Lane::Transmit, 0, time_ns);
        header.flags |= flags::TURN;
        header.payload_len = payload.len() as u32;
        let segment_len = payload.len() as u32;
        let data = Data {
            header,
            offset: 0,
            position: 0,
            previous_ns: 0,
            segment_len,
            turn: 1,
            tgid: 0,
            pad: 0,
        };
        [bytes_of(&data), payload.to_vec()].concat()
    }

    /// Its orderly close after `sent` bytes in one turn; `records` is how many it tried to send in
    /// each lane.
    pub fn close(&self, time_ns: u64, sent: u64, records: [u32; 3]) -> Vec<u8> {
        let number = records[Lane::Life as usize] - 1;
        let turns = [0, u32::from(sent > 0)];
        bytes_of(&Close {
            header: self.header(Kind::Close, Lane::Life, number, time_ns),
            connection: self.connection(),
            bytes: [0, sent],
            turns,
            cut_at: [u64::MAX; 2],
            last_ns: [0, if sent > 0 { time_ns } else { 0 }],
            sent: records,
            srtt_us: 100,
            retransmits: 0,
            error: 0,
            old_state: 9, // LAST_ACK
            error_known: 1,
            unacknowledged: 0,
            pad: 0,
        })
    }
}

/// A recording in the making.
pub struct Film(Vec<u8>);

impl Film {
    /// Begins with the clock at one second.
    pub fn new() -> Self {
        let mut film = Self(b"TAPREC\0\x01".to_vec());
        film.0.extend(ABI_VERSION.to_le_bytes());
        film.0.extend([0; 4]);
        film.clock(SECOND, OFFSET);
        film
    }

    /// Monotonic time, and what to add for the wall clock.
    pub fn clock(&mut self, now_ns: u64, offset: i64) {
        self.frame(1, &[&now_ns.to_le_bytes()[..], &offset.to_le_bytes()].concat());
    }

    /// A kernel record.
    pub fn record(&mut self, record: &[u8]) {
        self.frame(2, record);
    }

    /// The end of a round over the rings, after which both are empty.
    pub fn tick(&mut self) {
        self.frame(4, &[1]);
    }

    /// The whole, as a file.
    pub fn finish(self) -> Result<(PathBuf, TempDir)> {
        let home = tempfile::tempdir()?;
        let path = home.path().join("film");
        fs::write(&path, self.0)?;
        Ok((path, home))
    }

    fn frame(&mut self, kind: u8, body: &[u8]) {
        let whole = [&[kind], body].concat();
        self.0.extend((whole.len() as u32).to_le_bytes());
        self.0.extend(crc32fast::hash(&whole).to_le_bytes());
        self.0.extend(whole);
    }
}

/// A record's bytes, as the kernel side writes them.
fn bytes_of<T: Copy>(record: &T) -> Vec<u8> {
    // SAFETY: records have no hidden padding: `tap_common::layout` asserts their sizes, which are
    // the sums of their fields.
    unsafe { slice::from_raw_parts((&raw const *record).cast(), size_of::<T>()) }.to_vec()
}
