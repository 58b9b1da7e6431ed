//! `tap replay`: everything behind the kernel, over a recording or a packet capture. Needs no
//! privileges; times are the file's.

use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::{Path, PathBuf},
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
        retold::Retold,
        table::{Settings, Table},
    },
    export::{
        Sink,
        records::Lives,
        spans::{Exchanges, SpanOf},
    },
    observe::traffic::{self, Traffic},
    source::{
        capture::{self, Capture, Item, Wall, file::is_capture},
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
    config.http_capture.sending_queue.storage = None;
    let environment = Environment::from_process(&config).map_err(Failure::usage)?;
    environment.warn();
    let pipelines = run::pipelines(&config, &environment)?;
    let what = Source::open(arguments, &config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let metered = traffic::Terms::new(&environment, &pipelines, false);
    let settings = run::settings(&config, &environment, &pipelines, &metered);
    let collect = settings.collect.clone();
    let exporters = run::exporters(&config, &environment, &pipelines, &runtime, true, collect)?;
    let ways =
        (exporters.sink(), exporters.lives(config.connection.logs), exporters.transactions());
    let traffic = Traffic::start(&metered, &exporters.registry());
    let settings = Settings { self_tgid: what.self_tgid(), ..settings };
    let table = Table::new(settings, Identities::new(&config.trace, false));
    let mut replay = Replay { retold: Retold::new(table), pace: Pace::new(arguments.speed) };
    let mut what = what;
    let read = loop {
        match what.step(&mut replay) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(failure) => break Err(failure(&arguments.file)),
        }
        replay.offer(&traffic, &ways);
        replay.retold.table.take_interests();
    };
    // A recording without its end (the recording tap was killed) still gives what was open.
    replay.retold.table.flush(&[]);
    replay.offer(&traffic, &ways);
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
                    replay.frame(&frame);
                    Ok(true)
                }
                None => Ok(false),
            },
            Self::Capture(_, true) => Ok(false),
            Self::Capture(capture, over) => {
                let step = capture.step(&mut |item| replay.item(item));
                if matches!(step, Ok(Some(_))) {
                    replay.retold.table.tick(true);
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

/// The table, at the recording's pace.
struct Replay {
    retold: Retold,
    pace: Pace,
}

impl Replay {
    /// Hands over what is finished, waiting for room.
    fn offer(
        &mut self,
        traffic: &Traffic,
        (sink, lives, transactions): &(Sink<SpanOf>, Lives, Exchanges),
    ) {
        for opened in self.retold.table.take_lives() {
            lives.opened_waiting(opened);
        }
        for finished in self.retold.table.take_finished() {
            traffic.connections(&finished);
            lives.ended_waiting(&finished);
            sink.offer_waiting(finished);
        }
        for told in self.retold.table.take_transactions() {
            traffic.transactions(&told);
            transactions.offer_waiting(told);
        }
    }

    /// What a packet capture tells.
    fn item(&mut self, item: Item<'_>) {
        let Self { retold, pace } = self;
        let mut clock = |now: Wall| {
            pace.wait_for(now.0);
            retold.table.set_clock(now.0, Wall::OFFSET_NS);
        };
        match item {
            Item::Record { now, record } => {
                clock(now);
                retold.table.record(&record, None);
            }
            Item::GivenUp { now, close } => {
                clock(now);
                retold.table.give_up(close);
            }
            Item::Dns { now, payload, from, to } => {
                clock(now);
                retold.table.dns_message(payload, from.into(), to.into(), now.0);
            }
            Item::End { now, open } => {
                clock(now);
                retold.table.flush(open);
            }
        }
    }

    fn frame(&mut self, frame: &Frame) {
        if let Frame::Clock(now, _) = frame {
            self.pace.wait_for(*now);
        }
        self.retold.frame(frame);
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
