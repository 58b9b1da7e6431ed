//! `cargo xtask fuzz`: every reader of raw input against mutations of real bytes, for a time each.
//! An input that makes one panic is kept in `target/fuzz`, and the run ends with exit 1.

use std::{
    fs,
    panic::catch_unwind,
    path::Path,
    time::{Duration, Instant},
};

use tap_userspace::{
    connection::retold::fuzz_retold,
    enrich::{names::fuzz_names, process::fuzz_process, sockets::fuzz_sockets},
    export::disk::record::fuzz_segment,
    policy::{
        redact::{body::fuzz_body, fuzz_redact},
        redaction::fuzz_redaction,
        transform::statement::fuzz_statement,
    },
    probe::cgroup::fuzz_mounts,
    protocol::{
        conversation::fuzz_conversation, detect::fuzz_detect, http1::fuzz_http1, http2::fuzz_http2,
        kafka::fuzz_kafka, mysql::fuzz_mysql, postgres::fuzz_postgres, redis::fuzz_redis,
        sql::fuzz_sql, starttls::fuzz_starttls, stream::fuzz_stream, tls::fuzz_handshake,
        trace_context::fuzz_trace_context, websocket::fuzz_websocket,
    },
    source::{capture::fuzz_capture, decode::fuzz_decode, file::fuzz_recording},
};

/// A reader of raw input.
type Target = (&'static str, fn(&[u8]));

const TARGETS: &[Target] = &[
    ("body", fuzz_body),
    ("capture", fuzz_capture),
    ("conversation", fuzz_conversation),
    ("decode", fuzz_decode),
    ("detect", fuzz_detect),
    ("handshake", fuzz_handshake),
    ("http1", fuzz_http1),
    ("http2", fuzz_http2),
    ("kafka", fuzz_kafka),
    ("mounts", fuzz_mounts),
    ("mysql", fuzz_mysql),
    ("names", fuzz_names),
    ("postgres", fuzz_postgres),
    ("process", fuzz_process),
    ("recording", fuzz_recording),
    ("redact", fuzz_redact),
    ("redaction", fuzz_redaction),
    ("redis", fuzz_redis),
    ("retold", fuzz_retold),
    ("segment", fuzz_segment),
    ("sockets", fuzz_sockets),
    ("sql", fuzz_sql),
    ("starttls", fuzz_starttls),
    ("statement", fuzz_statement),
    ("stream", fuzz_stream),
    ("trace_context", fuzz_trace_context),
    ("websocket", fuzz_websocket),
];

/// Longest input.
const LONGEST: usize = 64 << 10;

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10);
    println!("{seconds} s for each of {}", TARGETS.len());
    feed(|_, begin| begin.elapsed() < Duration::from_secs(seconds));
}

/// Feeds every target while `more` says so, which is told how many runs there were and since when.
pub fn feed(more: impl Fn(u64, Instant) -> bool) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut seeds = Vec::new();
    collect(&root.join("tests/fixtures"), &mut seeds);
    assert!(!seeds.is_empty(), "no real bytes in {}", root.display());
    let kept = root.join("target/fuzz");
    let bad = TARGETS.iter().filter(|target| !run(target, &seeds, &more, &kept)).count();
    assert!(bad == 0, "some input made {bad} readers panic: see above");
}

/// Every file below, as it is.
fn collect(folder: &Path, seeds: &mut Vec<Vec<u8>>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, seeds);
        } else if let Ok(bytes) = fs::read(&path) {
            seeds.extend(bytes.chunks(LONGEST).map(<[u8]>::to_vec));
        }
    }
}

/// Feeds one target; false if it panicked.
fn run(
    (name, target): &Target,
    seeds: &[Vec<u8>],
    more: impl Fn(u64, Instant) -> bool,
    kept: &Path,
) -> bool {
    let mut noise = Noise(0x7461_7000 | name.len() as u64);
    let (begin, mut runs) = (Instant::now(), 0u64);
    let mut input = Vec::new();
    while more(runs, begin) {
        input.clear();
        match seeds.get(noise.below(seeds.len() as u64 + 1)) {
            Some(seed) => input.extend_from_slice(seed),
            None => input.extend((0..noise.below(4096)).map(|_| noise.next() as u8)),
        }
        noise.stir(&mut input);
        if catch_unwind(|| target(&input)).is_err() {
            let file = kept.join(format!("{name}-{runs}.bin"));
            let written = fs::create_dir_all(kept).and_then(|()| fs::write(&file, &input));
            println!("{name}: run {runs} panicked; input in {} ({written:?})", file.display());
            return false;
        }
        runs += 1;
    }
    let rate = runs as f64 / begin.elapsed().as_secs_f64();
    println!("{name:<14} {runs:>10} runs, {rate:>8.0} a second");
    true
}

/// Deterministic noise, so that a run can be repeated.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, bound: u64) -> usize {
        (self.next() % bound.max(1)) as usize
    }

    /// Changes some bytes, lengths and places.
    fn stir(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(12) {
            if bytes.is_empty() {
                bytes.push(self.next() as u8);
                continue;
            }
            let at = self.below(bytes.len() as u64);
            match self.below(10) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.next() as u8),
                2 => bytes[at] = [0, 0xff, 0x7f, 0x80, b'\r', b'\n', b' ', 22][self.below(8)],
                3 => bytes[at] ^= 1 << self.below(8),
                4 => {
                    let piece: Vec<u8> = bytes[at..].iter().take(self.below(64)).copied().collect();
                    let to = self.below(bytes.len() as u64);
                    bytes.splice(to..to, piece);
                }
                5 => drop(bytes.drain(..at.min(8))),
                _ => bytes[at] = self.next() as u8,
            }
        }
        bytes.truncate(LONGEST);
    }
}
