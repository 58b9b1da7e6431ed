//! `tap replay`: everything behind the kernel, over a recording or a packet capture. Needs no
//! privileges; times are the file's.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;

use super::{Failure, Global, run};
use crate::{
    config::{
        environment::Environment,
        file::{Cidr, Config},
    },
    connection::{
        identity::Identities,
        model::Connection,
        table::{Settings, Table},
        transaction::Transaction,
    },
    enrich::process::Process,
    export::Sink,
    pipeline,
    source::{
        capture::{self, Capture, Item, Wall, file::is_capture},
        decode::{Record, decode},
        file::{Frame, ReadError, Reader},
    },
};

/// Longest that the exporters may take after the last record.
const DRAIN: Duration = Duration::from_secs(30);

/// Flags of `tap replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArguments {
    /// The recording, or a packet capture (pcap or pcapng).
    pub file: PathBuf,
    /// In a packet capture: an address prefix of the side that is this host, as 10.1.0.0/16; may be
    /// given more than once. Without it, each connection is seen from its client's side.
    #[arg(long, env = "TAP_LOCAL", value_delimiter = ',')]
    pub local: Vec<Cidr>,
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
    let mut config = Config::find(global.config.as_deref()).map_err(Failure::usage)?;
    // A recording is on disk already, and the queue there may be a running tap's.
    config.exporters = config.exporters.in_memory();
    let environment = Environment::from_process().map_err(Failure::usage)?;
    environment.warn();
    let what = Source::open(arguments, &config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let exporters = run::exporters(&config, &environment, &runtime, true)?;
    let (sink, transactions) = (exporters.sink(), exporters.transactions());
    let settings = Settings { self_tgid: what.self_tgid(), ..run::settings(&config, &environment) };
    let table = Table::new(settings, Identities::new(&config.trace, false));
    let mut replay = Replay { table, processes: HashMap::new(), pace: Pace::new(arguments.speed) };
    let mut what = what;
    let read = loop {
        match what.step(&mut replay) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(failure) => break Err(failure(&arguments.file)),
        }
        replay.offer(&sink, &transactions);
        replay.table.take_interests();
    };
    // A recording without its end (the recording tap was killed) still gives what was open.
    replay.table.flush(&[]);
    replay.offer(&sink, &transactions);
    drop(runtime.block_on(exporters.shutdown(Instant::now() + DRAIN)));
    read
}

/// What is replayed.
enum Source {
    Recording(Reader<BufReader<File>>),
    Capture(Box<Capture<File>>, bool),
}

/// A failure that does not know its file yet.
type Failed = Box<dyn FnOnce(&Path) -> Failure>;

impl Source {
    /// Opens the file for what its first bytes say that it is.
    fn open(arguments: &ReplayArguments, config: &Config) -> Result<Self, Failure> {
        let path = &arguments.file;
        let unreadable = |error| Failure::runtime(format!("{}: {error}", path.display()));
        let mut first = [0; 4];
        let read =
            File::open(path).and_then(|mut file| file.read(&mut first)).map_err(unreadable)?;
        if !is_capture(&first[..read]) {
            return Reader::open(path).map(Self::Recording).map_err(|error| of(error)(path));
        }
        let settings = capture::Settings {
            local: arguments.local.iter().map(|cidr| cidr.prefix()).collect(),
            head: config.capture.payload.head_bytes,
            // All of it is at hand.
            payload_per_turn: usize::MAX,
            ..capture::Settings::default()
        };
        let capture = Capture::open(path, settings).map_err(|error| of_capture(error)(path))?;
        Ok(Self::Capture(Box::new(capture), false))
    }

    const fn self_tgid(&self) -> u32 {
        match self {
            Self::Recording(reader) => reader.self_tgid,
            Self::Capture(..) => 0,
        }
    }

    /// Replays the next frame or packet; false at the end.
    fn step(&mut self, replay: &mut Replay) -> Result<bool, Failed> {
        match self {
            Self::Recording(reader) => match reader.next_frame().map_err(of)? {
                Some(frame) => {
                    replay.frame(frame);
                    Ok(true)
                }
                None => Ok(false),
            },
            Self::Capture(_, true) => Ok(false),
            Self::Capture(capture, over) => {
                let step = capture.step(&mut |item| replay.item(item));
                if matches!(step, Ok(Some(_))) {
                    replay.table.tick(true);
                    return Ok(true);
                }
                // What is open at the end of the good part is told before anything else.
                *over = true;
                capture.end(&mut |item| replay.item(item));
                step.map(|_| true).map_err(of_capture)
            }
        }
    }
}

fn of(error: ReadError) -> Failed {
    Box::new(move |path| {
        let message = format!("{}: {error}", path.display());
        match error {
            ReadError::Io(_) => Failure::runtime(message),
            _ => Failure::usage(message),
        }
    })
}

fn of_capture(error: capture::file::ReadError) -> Failed {
    Box::new(move |path| {
        let message = format!("{}: {error}", path.display());
        match error {
            capture::file::ReadError::Io(_) => Failure::runtime(message),
            _ => Failure::usage(message),
        }
    })
}

struct Replay {
    table: Table,
    processes: HashMap<u32, Arc<Process>>,
    pace: Pace,
}

impl Replay {
    /// Hands over what is finished, waiting for room.
    fn offer(&mut self, sink: &Sink<Connection>, transactions: &Sink<Transaction>) {
        self.table.take_finished().into_iter().for_each(|batch| sink.offer_waiting(batch));
        let told = self.table.take_transactions();
        told.into_iter().for_each(|batch| transactions.offer_waiting(batch));
    }

    /// What a packet capture tells.
    fn item(&mut self, item: Item<'_>) {
        match item {
            Item::Record { now, record } => {
                self.clock(now);
                self.table.record(&record, None);
            }
            Item::GivenUp { now, close } => {
                self.clock(now);
                self.table.give_up(close);
            }
            Item::Dns { now, payload, from, to } => {
                self.clock(now);
                self.table.dns_message(payload, from.into(), to.into(), now.0);
            }
            Item::End { now, open } => {
                self.clock(now);
                self.table.flush(open);
            }
        }
    }

    fn clock(&mut self, now: Wall) {
        self.pace.wait_for(now.0);
        self.table.set_clock(now.0, Wall::OFFSET_NS);
    }

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
