//! What a packet costs of a connection that the kernel side does not look at: tap's packet programs
//! beside empty ones on the same hook, over the same packets, by the kernel's own statistics. In each
//! run the one or the other is attached first, in turn, as the first finds the caches colder.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::bpf::empty::EmptyPackets;

use crate::{
    Collector, Tap,
    load::{self, Nginx},
    programs::{self, EMPTY},
    target,
};

/// What a packet may cost above an empty program, nanoseconds.
const WANTED_NS: f64 = 40.0;

/// A measurement: its name, tap's rules, and the program that it is of.
const ROWS: [(&str, &str, &str); 4] = [
    ("excluded by port, packet in", "exclude: [{ port: PORT }]", "tap_ingress"),
    ("excluded by port, packet out", "exclude: [{ port: PORT }]", "tap_egress"),
    (
        "not included by executable, packet in",
        "include: [{ exe: nothing, remote_port: 1 }]",
        "tap_ingress",
    ),
    (
        "not included by executable, packet out",
        "include: [{ exe: nothing, remote_port: 1 }]",
        "tap_egress",
    ),
];

/// One run of one row: nanoseconds of the empty program and of tap's.
type Run = (f64, f64);

/// Measures, prints and writes all rows.
pub fn run(pairs: usize) -> Result<()> {
    let nginx = Nginx::start()?;
    let collector = Collector::start()?;
    let mut rows: Vec<(&str, Vec<Run>)> =
        ROWS.iter().map(|(name, ..)| (*name, Vec::new())).collect();
    programs::with_statistics(|| {
        for pair in 0..pairs {
            eprintln!("pair {} of {pairs}", pair + 1);
            for at in (0..ROWS.len()).step_by(2) {
                let measured = measure(&nginx, &collector, ROWS[at].1, pair % 2 == 0)?;
                for (row, of_rules) in rows[at..at + 2].iter_mut().zip(&ROWS[at..at + 2]) {
                    let of = |name: &str| {
                        let each = measured.iter().find(|(program, ..)| program == name);
                        let (_, runs, ns) = each.with_context(|| format!("{name} did not run"))?;
                        anyhow::Ok(*ns as f64 / (*runs).max(1) as f64)
                    };
                    row.1.push((of(EMPTY)?, of(of_rules.2)?));
                }
            }
        }
        Ok(())
    })?;
    print(&rows);
    let path = target()?.join("bench/policy.json");
    fs::create_dir_all(path.parent().context("no folder")?)?;
    fs::write(&path, serde_json::to_string_pretty(&shown(&rows))?)?;
    println!("written to {}", path.display());
    Ok(())
}

/// Programs, their runs and nanoseconds, over keep-alive load that the rules keep out.
fn measure(
    nginx: &Nginx,
    collector: &Collector,
    rules: &str,
    empty_first: bool,
) -> Result<Vec<(String, u64, u64)>> {
    let file = tempfile::NamedTempFile::new()?;
    let rules = rules.replace("PORT", &nginx.ports()[0].to_string());
    fs::write(&file, format!("capture: {{ {rules} }}\n"))?;
    let before = empty_first.then(EmptyPackets::attach).transpose()?;
    let tap = Tap::with(collector, file.path())?;
    let empty = match before {
        Some(empty) => empty,
        None => EmptyPackets::attach()?,
    };
    nginx.keep_alive(load::SECONDS)?;
    let measured = programs::of(tap.pid(), &empty)?;
    tap.stop()?;
    Ok(measured)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Medians: the empty program, tap's, and what lies between the two of one run.
fn medians(runs: &[Run]) -> [f64; 3] {
    let of = |figure: fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    [of(|run| run.0), of(|run| run.1), of(|run| run.1 - run.0)]
}

fn print(rows: &[(&str, Vec<Run>)]) {
    println!("{:<44} {:>8} {:>8} {:>8}", "ns per packet, medians of pairs", EMPTY, "tap", "above");
    for (name, runs) in rows {
        let [empty, tap, above] = medians(runs);
        println!("{name:<44} {empty:>8.1} {tap:>8.1} {above:>8.1}");
    }
    println!(
        "at most {WANTED_NS} above an empty program are wanted; statistics overhead is in both"
    );
}

fn shown(rows: &[(&str, Vec<Run>)]) -> Value {
    rows.iter()
        .map(|(name, runs)| {
            let [empty, tap, above] = medians(runs);
            json!({ "name": name, "empty_ns": empty, "tap_ns": tap, "above_ns": above, "runs": runs })
        })
        .collect()
}
