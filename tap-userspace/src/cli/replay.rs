//! `tap replay`: everything behind the kernel, over a recording. Needs no privileges; times are
//! the recording's.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;

use super::{Failure, Global, run};
use crate::{
    config::{environment::Environment, file::Config},
    connection::{
        identity::Identities,
        table::{Settings, Table},
    },
    enrich::process::Process,
    pipeline,
    source::{
        decode::{Record, decode},
        file::{Frame, ReadError, Reader},
    },
};

/// Longest that the exporters may take after the last record.
const DRAIN: Duration = Duration::from_secs(30);

/// Flags of `tap replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArguments {
    /// The recording.
    pub file: PathBuf,
    /// Times as fast as recorded; 0 is as fast as possible.
    #[arg(long, env = "TAP_SPEED", default_value_t = 0.0, value_parser = speed)]
    pub speed: f64,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if speed >= 0.0 && f64::is_finite(speed) => Ok(speed),
        _ => Err("give 0 or a positive number, as 1 or 0.5".into()),
    }
}

/// Replays the recording, exports what is in it, and fails where it is not whole.
pub fn replay(global: &Global, arguments: &ReplayArguments) -> Result<(), Failure> {
    let config = Config::find(global.config.as_deref()).map_err(Failure::usage)?;
    let environment = Environment::from_process().map_err(Failure::usage)?;
    environment.warn();
    let failure = |error: ReadError| {
        let message = format!("{}: {error}", arguments.file.display());
        match error {
            ReadError::Io(_) => Failure::runtime(message),
            _ => Failure::usage(message),
        }
    };
    let mut reader = Reader::open(&arguments.file).map_err(failure)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let exporters = run::exporters(&environment, &runtime, true)?;
    let sink = exporters.sink();
    let settings = Settings { self_tgid: reader.self_tgid, ..run::settings(&config, &environment) };
    let table = Table::new(settings, Identities::new(&config.trace, false));
    let mut replay = Replay { table, processes: HashMap::new(), pace: Pace::new(arguments.speed) };
    let read = loop {
        match reader.next_frame() {
            Ok(Some(frame)) => replay.frame(frame),
            Ok(None) => break Ok(()),
            Err(error) => break Err(failure(error)),
        }
        let finished = replay.table.take_finished();
        if !finished.is_empty() {
            sink.offer_waiting(finished);
        }
    };
    // A recording without its end (the recording tap was killed) still gives what was open.
    replay.table.flush(&[]);
    sink.offer_waiting(replay.table.take_finished());
    drop(runtime.block_on(exporters.shutdown(Instant::now() + DRAIN)));
    read
}

struct Replay {
    table: Table,
    processes: HashMap<u32, Arc<Process>>,
    pace: Pace,
}

impl Replay {
    fn frame(&mut self, frame: Frame) {
        match frame {
            Frame::Clock(now, offset) => {
                self.pace.wait_for(now);
                self.table.set_clock(now, offset);
            }
            Frame::Record(bytes) => {
                if let Ok(record) = decode(&bytes) {
                    let process = self.processes.get(&pipeline::named(&record));
                    self.table.record(&record, process);
                }
            }
            Frame::Process(tgid, Some(process)) => {
                self.processes.insert(tgid, process);
            }
            Frame::Process(tgid, None) => {
                self.processes.remove(&tgid);
            }
            Frame::Tick(drained) => self.table.tick(drained),
            Frame::Snapshot(bytes) => drop(self.table.snapshot(&pipeline::closes(&bytes))),
            Frame::Listed(bytes) => {
                if let Ok(Record::Open(open)) = decode(&bytes) {
                    let process = self.processes.get(&open.connection.tgid).cloned();
                    self.table.listed(&open, process);
                }
            }
            Frame::Listens(address, port) => self.table.listens(address, port),
            Frame::Flush(bytes) => self.table.flush(&pipeline::closes(&bytes)),
        }
    }
}

/// Holds a replay to a multiple of the recording's own pace.
struct Pace {
    speed: f64,
    began: Option<(Instant, u64)>,
}

impl Pace {
    const fn new(speed: f64) -> Self {
        Self { speed, began: None }
    }

    fn wait_for(&mut self, now_ns: u64) {
        if self.speed == 0.0 {
            return;
        }
        let (began, first_ns) = *self.began.get_or_insert_with(|| (Instant::now(), now_ns));
        let passed = Duration::from_nanos(now_ns.saturating_sub(first_ns)).div_f64(self.speed);
        std::thread::sleep((began + passed).saturating_duration_since(Instant::now()));
    }
}
