//! Nanoseconds per run of each kernel program, by the kernel's own statistics
//! (`kernel.bpf_stats_enabled`), beside an empty program on the same hook.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result};
use serde_json::Value;
use tests::bpf::empty::EmptyPackets;

use crate::{Collector, Tap, load::Nginx};

/// Runs and nanoseconds per run, by program and load.
pub type Programs = BTreeMap<String, BTreeMap<&'static str, (u64, f64)>>;

/// Name under which the empty programs stand.
pub const EMPTY: &str = "(empty)";

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Measures both loads.
pub fn measure(nginx: &Nginx, collector: &Collector) -> Result<Programs> {
    with_statistics(|| measure_both(nginx, collector))
}

/// Does `work` while the kernel counts runs and time of programs.
pub fn with_statistics<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = fs::read_to_string(SWITCH)?;
    fs::write(SWITCH, "1").context("only root can switch BPF statistics on")?;
    let measured = work();
    fs::write(SWITCH, before)?;
    measured
}

fn measure_both(nginx: &Nginx, collector: &Collector) -> Result<Programs> {
    let mut all = Programs::new();
    for load in ["keep-alive", "connections"] {
        let empty = EmptyPackets::attach()?;
        let tap = Tap::start(collector)?;
        if load == "keep-alive" {
            nginx.keep_alive(crate::load::SECONDS)?;
        } else {
            nginx.connections()?;
        }
        for (name, runs, nanoseconds) in of(tap.pid(), &empty)? {
            if runs > 0 {
                let each = nanoseconds as f64 / runs as f64;
                all.entry(name).or_default().insert(load, (runs, each));
            }
        }
        tap.stop()?;
    }
    Ok(all)
}

/// Runs and nanoseconds of tap's programs and of the empty ones, as bpftool tells them.
pub fn of(tap: u32, empty: &EmptyPackets) -> Result<Vec<(String, u64, u64)>> {
    let output = Command::new("/usr/sbin/bpftool")
        .args(["--json", "prog", "show"])
        .output()
        .context("bpftool does not start: `cargo xtask setup --tests` installs it")?;
    let programs: Value = serde_json::from_slice(&output.stdout)?;
    let empty = empty.ids()?;
    let row = |program: &Value| {
        let number = |key: &str| program[key].as_u64().unwrap_or(0);
        let mine = program["pids"]
            .as_array()
            .is_some_and(|pids| pids.iter().any(|one| one["pid"].as_u64() == Some(u64::from(tap))));
        let named_tap = program["name"].as_str().filter(|name| name.starts_with("tap_"));
        let name = if empty.contains(&(number("id") as u32)) {
            EMPTY.to_owned()
        } else {
            named_tap.filter(|_| mine || program["pids"].is_null())?.to_owned()
        };
        Some((name, number("run_cnt"), number("run_time_ns")))
    };
    let rows = programs.as_array().context("bpftool printed no list")?.iter().filter_map(row);
    // Both empty programs, ingress and egress, in one row.
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (name, runs, nanoseconds) in rows {
        let sum = sums.entry(name).or_default();
        sum.0 += runs;
        sum.1 += nanoseconds;
    }
    Ok(sums.into_iter().map(|(name, (runs, ns))| (name, runs, ns)).collect())
}
