//! What the queue on disk costs: `cargo xtask bench queue [FOLDER]`. Batches of several sizes are
//! stored, taken and done with on the file system of FOLDER, each step waiting for the disk as in
//! the daemon; beside it, what the disk takes for the least that can be waited for. A report, not
//! a test.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use tap_userspace::export::disk::{Limits, Store, Taken};

/// Batches of each size.
const COUNT: usize = 400;

/// Bytes of a batch: some spans, and full requests of small and large ones.
const SIZES: [usize; 4] = [4 << 10, 64 << 10, 256 << 10, 1 << 20];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let folder = Path::new(&folder).join(format!("bench-queue-{}", std::process::id()));
    let measured = measure(&folder);
    fs::remove_dir_all(&folder)?;
    measured
}

fn measure(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let limits = Limits { batches: u64::MAX, items: u64::MAX, bytes: u64::MAX, disk: 1 << 30 };
    println!(
        "µs, {COUNT} batches each     store p50      p99     take p50      p99     done p50      p99"
    );
    for size in SIZES {
        let (mut store, _) = Store::open(&folder.join(size.to_string()), limits)?;
        let body = body(size);
        let (mut stored, mut taken, mut done) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..COUNT {
            stored.push(timed(|| store.append(512, &body))?);
        }
        for _ in 0..COUNT {
            let mut batch = None;
            taken.push(timed(|| {
                batch = store.take(5);
                Ok::<_, std::io::Error>(())
            })?);
            let Some(Taken::Batch(ticket, read)) = batch else {
                return Err("a batch is lost".into());
            };
            if read[5..] != body {
                return Err("a batch is not what was stored".into());
            }
            store.finish(&ticket);
            done.push(timed(|| store.mark(&ticket))?);
        }
        store.close();
        print!("{:<26}", format!("{} KiB a batch", size >> 10));
        for mut step in [stored, taken, done] {
            step.sort();
            let at = |share: usize| step[COUNT * share / 100].as_secs_f64() * 1e6;
            print!("{:>9.0} {:>8.0}    ", at(50), at(99));
        }
        println!();
    }
    let file = File::create(folder.join("least"))?;
    file.write_all_at(&[0; 4096], 0)?;
    file.sync_all()?;
    let mut least = Vec::new();
    for number in 0..COUNT {
        least
            .push(timed(|| file.write_all_at(&[number as u8], 7).and_then(|()| file.sync_data()))?);
    }
    least.sort();
    let at = |share: usize| least[COUNT * share / 100].as_secs_f64() * 1e6;
    println!("{:<26}{:>9.0} {:>8.0}", "one byte and fdatasync", at(50), at(99));
    Ok(())
}

fn timed<E>(step: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let began = Instant::now();
    step()?;
    Ok(began.elapsed())
}

/// Bytes that a disk cannot make smaller.
fn body(size: usize) -> Vec<u8> {
    let mut random = 1u64;
    let next = |_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as u8
    };
    (0..size).map(next).collect()
}
