//! `cargo xtask bench protocol`: what a transaction costs the daemon from the kernel's record to
//! the encoded log record, on one thread and without network. Arguments: how many runs, the folder
//! of recordings (made by `tests/bench/recordings.rs`), the JSON file to write.
//!
//! A run replays one recording four times, each time one stage further; what a stage costs is the
//! difference. Figures are CPU time of this thread, medians of all runs.

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tap_userspace::{
    config::file::Config,
    connection::{
        identity::Identities,
        retold::Retold,
        table::{Settings, Table},
    },
    source::{
        decode::decode,
        file::{Frame, Reader},
    },
    telemetry::log::{self, Terms},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Log records of one request of an exporter.
const BATCH: usize = 512;

/// What a run does, each with all before it.
const STAGES: [&str; 4] = ["decode", "table", "conversation", "log record"];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let runs = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(15);
    let folder =
        PathBuf::from(arguments.next().unwrap_or_else(|| "target/bench/recordings".into()));
    let output = arguments.next().unwrap_or_else(|| "target/bench/protocol.json".into());
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}; make recordings first", folder.display()))
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    print!("{:<20} {:>12} {:>8} {:>7}", "recording", "transactions", "ns each", "bytes");
    STAGES.iter().for_each(|stage| print!(" {stage:>13}"));
    println!();
    let rows: Vec<Value> = files.iter().map(|file| measure(file, runs)).collect();
    let text = json!({ "runs": runs, "recordings": rows }).to_string();
    fs::write(&output, text).unwrap_or_else(|error| panic!("{output}: {error}"));
    println!("written to {output}");
}

fn measure(path: &Path, runs: usize) -> Value {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut reader = Reader::open(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let self_tgid = reader.self_tgid;
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap_or_else(|error| panic!("{name}: {error}")) {
        frames.push(frame);
    }
    let mut took: [Vec<u64>; STAGES.len()] = [const { Vec::new() }; STAGES.len()];
    let mut told = Told::default();
    let mut out = Vec::new();
    // The first run only warms up.
    for run in 0..=runs {
        for (stage, took) in took.iter_mut().enumerate() {
            let begin = on_cpu();
            let result = replay(&frames, stage, self_tgid, &mut out);
            if run > 0 {
                took.push(on_cpu() - begin);
            }
            told = black_box(result);
        }
    }
    let count = told.transactions.max(1);
    let each = took.map(|mut all| {
        all.sort_unstable();
        all[all.len() / 2] as f64 / count as f64
    });
    let mut before = 0.0;
    let shares = each.map(|until| until - std::mem::replace(&mut before, until));
    let bytes = told.bytes / count;
    let whole = before;
    print!("{name:<20} {count:>12} {whole:>8.0} {bytes:>7}");
    shares.iter().for_each(|share| print!(" {share:>13.0}"));
    println!();
    let stages: Value =
        STAGES.iter().zip(shares).map(|(stage, share)| (stage.to_string(), json!(share))).collect();
    json!({
        "recording": name,
        "transactions": count,
        "ns_per_transaction": whole,
        "encoded_bytes_per_transaction": bytes,
        "ns_per_stage": stages,
    })
}

#[derive(Default)]
struct Told {
    transactions: u64,
    bytes: u64,
}

/// One pass over a recording, up to and with the stage of this number.
fn replay(frames: &[Frame], stage: usize, self_tgid: u32, out: &mut Vec<u8>) -> Told {
    let mut told = Told::default();
    if stage == 0 {
        for frame in frames {
            if let Frame::Record(bytes) = frame {
                let _ = black_box(decode(bytes));
            }
        }
        return told;
    }
    let settings = Settings {
        capacity: 1 << 20,
        max_age_ns: 600_000_000_000,
        event_limit: 128,
        lives: false,
        parse: stage > 1,
        statements: false,
        collect: None,
        self_tgid,
    };
    let identities = Identities::new(&Config::default().trace, false);
    let mut retold = Retold::new(Table::new(settings, identities));
    let terms = Terms::default();
    out.clear();
    let mut batched = 0;
    for frame in frames {
        retold.frame(frame);
        drop(retold.table.take_finished());
        let transactions: Vec<_> = retold.table.take_transactions().into_items().collect();
        retold.table.take_interests();
        told.transactions += transactions.len() as u64;
        if stage < 3 {
            continue;
        }
        for transaction in &transactions {
            log::encode(transaction, &terms, transaction.exchange.ended_ns, out);
            batched += 1;
            if batched == BATCH {
                told.bytes += black_box(&*out).len() as u64;
                out.clear();
                batched = 0;
            }
        }
    }
    told.bytes += out.len() as u64;
    told
}

/// CPU time of this thread, nanoseconds.
fn on_cpu() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a whole structure that outlives the call. (`/proc/thread-self/schedstat` moves with
    // the scheduler's ticks only.)
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
