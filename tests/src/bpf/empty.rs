//! An empty program on both packet hooks of the cgroup root: what a hook costs before anything is
//! done in it. It hangs on links that end with their descriptors.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};

use super::neighbour::{attach, load_empty_packets};

const INGRESS: u32 = 0;
const EGRESS: u32 = 1;

/// The two attached programs.
pub struct EmptyPackets {
    programs: [OwnedFd; 2],
    _links: [OwnedFd; 2],
}

impl EmptyPackets {
    /// Loads and attaches both.
    pub fn attach() -> Result<Self> {
        let programs = [load_empty_packets(INGRESS)?, load_empty_packets(EGRESS)?];
        let links = [attach(&programs[0], INGRESS)?, attach(&programs[1], EGRESS)?];
        Ok(Self { programs, _links: links })
    }

    /// The kernel's ids of both.
    pub fn ids(&self) -> Result<BTreeSet<u32>> {
        self.programs
            .iter()
            .map(|program| {
                let info =
                    fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
                let id = info.lines().find_map(|line| line.strip_prefix("prog_id:"));
                Ok(id.context("no program id")?.trim().parse()?)
            })
            .collect()
    }
}
