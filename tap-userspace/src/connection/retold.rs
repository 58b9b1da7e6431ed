//! A table that is told once more what a recording holds: frames in, connections and exchanges in
//! the table.

use std::{collections::HashMap, sync::Arc};

use super::table::Table;
use crate::{
    enrich::process::Process,
    pipeline,
    source::{
        decode::{Record, decode},
        file::Frame,
    },
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
