//! A table that is told once more what a recording holds: frames in, connections and exchanges in
//! the table.

use std::{collections::HashMap, sync::Arc};

use tap_common::record::{Close, Data, Header, Kind, LANES, Lane, Open};

use super::{
    entry::{EMPTY, without_word},
    identity::Identities,
    table::{Settings, Table},
};
use crate::{
    config::file::Config,
    enrich::process::Process,
    pipeline,
    protocol::content::Collect,
    source::{
        decode::{Record, bytes_of, decode},
        file::Frame,
    },
    telemetry::log,
};

/// A table, and who the processes are that its recording names.
pub struct Retold {
    /// What it makes of the frames.
    pub table: Table,
    processes: HashMap<u32, Arc<Process>>,
}

impl Retold {
    /// Nothing was told yet.
    pub fn new(table: Table) -> Self {
        Self { table, processes: HashMap::new() }
    }

    /// Tells the next frame. What is no record is left out.
    pub fn frame(&mut self, frame: &Frame) {
        let Self { table, processes } = self;
        match frame {
            Frame::Clock(now, offset) => table.set_clock(*now, *offset),
            Frame::Record(bytes) => {
                if let Ok(record) = decode(bytes) {
                    table.record(&record, processes.get(&pipeline::named(&record)));
                }
            }
            Frame::Process(tgid, Some(process)) => drop(processes.insert(*tgid, process.clone())),
            Frame::Process(tgid, None) => drop(processes.remove(tgid)),
            Frame::Tick(drained) => table.tick(*drained),
            Frame::Snapshot(bytes) => drop(table.snapshot(&pipeline::closes(bytes))),
            Frame::Listed(bytes) => {
                if let Ok(Record::Open(open)) = decode(bytes) {
                    let process = processes.get(&open.connection.tgid).cloned();
                    table.listed(&open, process);
                }
            }
            Frame::Listens(address, port) => table.listens(*address, *port),
            Frame::Flush(bytes) => table.flush(&pipeline::closes(bytes)),
        }
    }
}

/// Tells a small table what `bytes` say: opens, closes, data, snapshots and what is none of these,
/// of a few connections; and encodes the exchanges that come out.
#[doc(hidden)]
pub fn fuzz_retold(bytes: &[u8]) {
    const CAPACITY: usize = 3;
    let settings = Settings {
        capacity: CAPACITY,
        max_age_ns: 50_000,
        event_limit: 16,
        lives: false,
        parse: !bytes.len().is_multiple_of(4),
        statements: bytes.len() & 2 != 0,
        collect: (bytes.len() & 8 != 0).then(|| Arc::new(Collect::new(64, 1 << 20))),
        self_tgid: 7,
    };
    let table = Table::new(settings, Identities::new(&Config::default().trace, false));
    let mut retold = Retold::new(table);
    let (mut now, mut told, mut out) = (0u64, 0, Vec::new());
    let mut rest = bytes;
    while let Some(([what, whose, how, len, place @ ..], after)) = rest.split_first_chunk::<8>() {
        let (text, after) = after.split_at(usize::from(*len).min(after.len()));
        rest = after;
        now = now.wrapping_add(u64::from(*how) << (whose >> 3));
        let place = match how >> 6 {
            0 => u64::from(u32::from_le_bytes(*place)),
            1 => u64::MAX - u64::from(place[0]),
            _ => u64::from(place[0]),
        };
        let receive = how & 1 == 0;
        let mut header = Header {
            kind: Kind::Data as u8,
            lane: if receive { Lane::Receive as u8 } else { Lane::Transmit as u8 },
            flags: u16::from(*how) << 4,
            payload_len: text.len() as u32,
            cookie: u64::from(whose & 7),
            generation: if whose & 0x80 == 0 { 0 } else { u32::MAX },
            number: 0,
            time_ns: now,
        };
        let mut connection = EMPTY;
        connection.flags = u16::from(*how) << 1;
        connection.opened_ns = place;
        let mut close = Close { header, ..without_word(connection, now) };
        close.header.kind = Kind::Close as u8;
        close.bytes = [place, u64::from(*how)];
        close.sent = [u32::from(how & 3); LANES];
        close.turns = [u32::from(*len), place as u32];
        let frame = match what % 16 {
            0 => Frame::Tick(*how & 1 == 0),
            1 => Frame::Snapshot(bytes_of(&close).repeat(usize::from(how & 3))),
            2 => Frame::Flush(bytes_of(&close).to_vec()),
            3 => Frame::Record(bytes_of(&close).to_vec()),
            4 => Frame::Clock(place, place.cast_signed()),
            5 => Frame::Record(text.to_vec()),
            kind @ (6 | 7) => {
                header.kind = Kind::Open as u8;
                let open = bytes_of(&Open { header, connection }).to_vec();
                if kind == 6 { Frame::Record(open) } else { Frame::Listed(open) }
            }
            _ => {
                let segment_len = text.len() as u32 + u32::from(how >> 5);
                let data = Data {
                    header,
                    offset: place,
                    position: place.saturating_sub(u64::from(how & 2)),
                    previous_ns: now,
                    segment_len,
                    turn: 0,
                    tgid: u32::from(*how),
                    pad: 0,
                };
                Frame::Record([bytes_of(&data), text].concat())
            }
        };
        retold.frame(&frame);
        assert!(retold.table.len() <= CAPACITY);
        told += encode(&mut retold, &mut out);
    }
    retold.table.flush(&[]);
    told += encode(&mut retold, &mut out);
    assert!(retold.table.is_empty());
    assert_eq!(retold.table.counts().exchanges.told, told);
}

/// Encodes the exchanges that are over, and says how many.
fn encode(retold: &mut Retold, out: &mut Vec<u8>) -> u64 {
    let terms = log::Terms { headers: true, ..log::Terms::default() };
    let transactions: Vec<_> = retold.table.take_transactions().into_items().collect();
    for transaction in &transactions {
        out.clear();
        log::encode(transaction, &terms, 1, out);
        assert!(!log::line(transaction, &terms).is_empty());
    }
    drop((retold.table.take_finished(), retold.table.take_interests()));
    transactions.len() as u64
}
