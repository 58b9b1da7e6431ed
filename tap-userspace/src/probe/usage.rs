//! What the kernel side takes: memory of each program and map, and how often and how long each
//! program ran, where the kernel counts that (`kernel.bpf_stats_enabled`). Comes in: the loaded
//! object; goes out: rows among tap's numbers, read from the descriptors' `fdinfo`
//! (kernel/bpf/syscall.c, `bpf_prog_show_fdinfo` and `bpf_map_show_fdinfo`) whenever somebody asks.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};

use crate::telemetry::metric::{Family, Registry, Samples};

/// Descriptors of its own, so that the numbers are there for as long as somebody may ask. They keep
/// no program attached.
#[derive(Debug, Default)]
pub struct Usage {
    programs: Vec<(String, OwnedFd)>,
    maps: Vec<(String, OwnedFd)>,
}

const RUNS: Family = Family::counter(
    "tap_program_runs_total",
    "Runs of each kernel program, where kernel.bpf_stats_enabled is 1.",
);
const RUN_TIME: Family = Family::counter(
    "tap_program_run_nanoseconds_total",
    "Time of these runs, the counting included.",
);
const PROGRAM_MEMORY: Family =
    Family::gauge("tap_program_memory_bytes", "Kernel memory of each program.");
const MAP_MEMORY: Family =
    Family::gauge("tap_map_memory_bytes", "Kernel memory of each map, as the kernel tells it.");
const MAP_ENTRIES: Family = Family::gauge(
    "tap_map_max_entries",
    "Most entries of each map; of a ring its bytes. Socket storage has no limit of its own.",
);

const FAMILIES: [Family; 5] = [RUNS, RUN_TIME, PROGRAM_MEMORY, MAP_MEMORY, MAP_ENTRIES];

impl Usage {
    /// Of every map that is still in the object.
    pub fn of_maps(object: &Ebpf) -> Self {
        let maps = object.maps().filter_map(|(name, map)| {
            Some((name.to_owned(), data(map)?.fd().as_fd().try_clone_to_owned().ok()?))
        });
        Self { programs: Vec::new(), maps: maps.collect() }
    }

    /// And of every program that is loaded.
    #[must_use]
    pub fn and_programs(self, object: &Ebpf) -> Self {
        let owned = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().ok();
        let programs = object.programs().filter_map(|(name, program)| {
            // One that this kernel did not take has none.
            Some((name.to_owned(), owned(program.fd().ok()?)?))
        });
        Self { programs: programs.collect(), ..self }
    }

    /// Shows them among the numbers of `registry`.
    pub fn show(self, registry: &Registry) {
        registry.source(&FAMILIES, move |samples| self.read(samples));
    }

    fn read(&self, samples: &mut Samples) {
        let number = |info: &str, key| field(info, key).unwrap_or(0);
        for (name, fd) in &self.programs {
            let (info, label) = (about(fd), ("program", name.as_str()));
            let runs = number(&info, "run_cnt");
            // Without statistics the kernel says 0, which nobody should take for a number of runs.
            if runs > 0 {
                samples.put(&RUNS, &[label], runs);
                samples.put(&RUN_TIME, &[label], number(&info, "run_time_ns"));
            }
            samples.put(&PROGRAM_MEMORY, &[label], number(&info, "memlock"));
        }
        for (name, fd) in &self.maps {
            let (info, label) = (about(fd), ("map", name.as_str()));
            samples.put(&MAP_MEMORY, &[label], number(&info, "memlock"));
            samples.put(&MAP_ENTRIES, &[label], number(&info, "max_entries"));
        }
    }
}

fn about(fd: &OwnedFd) -> String {
    fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// The number of a line `key:\tnumber`.
fn field(info: &str, key: &str) -> Option<u64> {
    info.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// What is behind a map of a kind that the object has.
const fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::Unsupported(data) => Some(data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_s_lines_are_read() {
        let info = "pos:\t0\nflags:\t02000002\nprog_type:\t8\nmemlock:\t4096\nrun_time_ns:\t17\n\
                    run_cnt:\t3\nverified_insns:\tx\n";
        for (key, value) in [
            ("memlock", Some(4096)),
            ("run_time_ns", Some(17)),
            ("run_cnt", Some(3)),
            ("run", None),
            ("verified_insns", None),
        ] {
            assert_eq!(field(info, key), value, "{key}");
        }
    }
}
