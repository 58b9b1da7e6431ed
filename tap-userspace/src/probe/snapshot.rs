//! Reading the state of every traced connection that is open now, out of the kernel's socket
//! storage and across all network namespaces.

use std::{
    io::{self, Read as _},
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::maps::MapData;
use tap_common::record::Close;

use super::sys;

/// The program and the map that a snapshot walks.
#[derive(Debug)]
pub struct Snapshot {
    program: aya::programs::ProgramFd,
    map: MapData,
}

impl Snapshot {
    /// A snapshot over `map` by the loaded iterator `program`.
    pub const fn new(program: aya::programs::ProgramFd, map: MapData) -> Self {
        Self { program, map }
    }

    /// The records of all open connections, one after another, each as long as a [`Close`].
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let program: BorrowedFd<'_> = self.program.as_fd();
        let mut file = sys::map_iterator(program, self.map.fd().as_fd())?;
        let mut records = Vec::new();
        file.read_to_end(&mut records)?;
        records.truncate(records.len() / size_of::<Close>() * size_of::<Close>());
        Ok(records)
    }
}
