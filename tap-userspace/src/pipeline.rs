//! The stages wired together. One OS thread reads the rings, keeps the table and hands finished
//! connections over in batches; everything behind that is the exporters'.
//!
//! Start: exporters, programs, reader. Stop, in reverse: programs detached, rings drained, what is
//! open flushed with a last snapshot, exporters drained; the caller holds the time budget.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tap_common::{
    record::{Close, Open},
    settings::{Verdict, field},
};

use crate::{
    connection::{
        clock::Clock,
        identity::Identities,
        life::Life,
        model::Connection,
        table::{Settings, Table},
        transaction::Transaction,
    },
    enrich::{
        listing::{self, Lister},
        process::Processes,
    },
    observe::{Board, Picture},
    policy::memory::Pressure,
    probe::{
        admission::Control,
        load::{Plain, Probes},
    },
    protocol::conversation::Interest,
    source::{
        decode::{self, Record, decode},
        file::{Frame, Writer},
        ring::Rings,
    },
};

/// How often numbers are published and the slow questions asked.
const HOUSEKEEPING: Duration = Duration::from_millis(250);

/// How long between two snapshots that look for lost closes or end segments.
const SNAPSHOT: Duration = Duration::from_secs(10);

/// Takes finished connections; must not block.
pub type Sink = Box<dyn FnMut(Vec<Connection>) + Send>;

/// Takes connections that have opened; must not block.
pub type Lives = Box<dyn FnMut(Vec<Life>) + Send>;

/// Takes exchanges that are over; must not block.
pub type Transactions = Box<dyn FnMut(Vec<Transaction>) + Send>;

/// What a tracer is made of.
pub struct Parts {
    /// The running kernel side.
    pub probes: Probes,
    /// The table's terms.
    pub settings: Settings,
    /// Makes ids.
    pub identities: Identities,
    /// Most bytes captured of each turn of a connection whose exchanges are read.
    pub max_bytes: u32,
    /// Where connections go.
    pub sink: Sink,
    /// Where it is told that connections have opened.
    pub lives: Lives,
    /// Where exchanges go.
    pub transactions: Transactions,
    /// While it is on, payload is not looked at.
    pub pressure: Pressure,
    /// Where numbers are shown.
    pub board: Board,
    /// Writes what comes in, if wanted.
    pub recorder: Option<Writer>,
    /// Set to end.
    pub stop: Arc<AtomicBool>,
}

/// Why tracing ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The recording cannot be written.
    #[error("the recording cannot be written: {0}; tracing has stopped")]
    Record(io::Error),
}

/// The thread that traces.
pub struct Tracer {
    rings: Rings,
    probes: Kernel,
    table: Table,
    processes: Processes,
    clock: Clock,
    max_bytes: u32,
    sink: Sink,
    lives: Lives,
    transactions: Transactions,
    pressure: Pressure,
    board: Board,
    picture: Picture,
    recorder: Option<Writer>,
    lister: Lister,
    /// The first write error; the thread ends on it.
    failed: Option<io::Error>,
    lost_before: u64,
}

/// What remains of the probes once the rings are taken out.
struct Kernel {
    counters: crate::probe::load::Counters,
    verdicts: aya::maps::HashMap<aya::maps::MapData, u64, Plain<Verdict>>,
    admission: Control,
    snapshot: Option<crate::probe::snapshot::Snapshot>,
    lines: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    attached: Option<crate::probe::load::Attached>,
}

/// Traces until told to stop, then flushes. Returns the last picture.
pub fn trace(parts: Parts) -> Result<Picture, TraceError> {
    let stop = parts.stop.clone();
    let mut tracer = Tracer::new(parts);
    // Connections that were there before, and the processes that were.
    tracer.lister.ask();
    tracer.processes.scan();
    tracer.probes.admission.scan();
    let mut housekept = 0;
    let mut snapped = tracer.clock.now().0;
    while !stop.load(Relaxed) && tracer.failed.is_none() {
        let now = tracer.round();
        if now - housekept >= HOUSEKEEPING.as_nanos() as u64 {
            housekept = now;
            tracer.publish(now, true);
            tracer.take_listings();
            if tracer.table.wants_owners() {
                tracer.lister.ask();
            }
        }
        if now - snapped >= SNAPSHOT.as_nanos() as u64 {
            snapped = now;
            tracer.snapshot_if_wanted();
        }
        tracer.rings.wait();
    }
    tracer.end();
    let picture = tracer.picture.clone();
    match tracer.failed {
        Some(error) => Err(TraceError::Record(error)),
        None => Ok(picture),
    }
}

impl Tracer {
    fn new(parts: Parts) -> Self {
        let Probes { life, data, counters, verdicts, admission, .. } = parts.probes;
        let Probes { snapshot, lines, attached, .. } = parts.probes;
        let rulebook = admission.rulebook().clone();
        Self {
            rings: Rings::new(life, data),
            probes: Kernel {
                counters,
                verdicts,
                admission,
                snapshot,
                lines,
                attached: Some(attached),
            },
            table: Table::new(parts.settings, parts.identities).with_rules(rulebook),
            processes: Processes::default(),
            clock: Clock::new(),
            max_bytes: parts.max_bytes,
            sink: parts.sink,
            lives: parts.lives,
            transactions: parts.transactions,
            pressure: parts.pressure,
            board: parts.board,
            picture: Picture::default(),
            recorder: parts.recorder,
            lister: Lister::default(),
            failed: None,
            lost_before: 0,
        }
    }

    /// One round over both rings; the monotonic time at its begin. Life comes first: an open must
    /// be known before its data, and a close waits for what it counts.
    fn round(&mut self) -> u64 {
        let (now, offset) = self.clock.now();
        self.table.set_clock(now, offset);
        self.table.shed_payload(self.pressure.is_on());
        let Self { rings, table, processes, recorder, picture, failed, probes, .. } = self;
        let rules = probes.admission.rules();
        let asks = Asks {
            now,
            admission: &probes.admission,
            cgroups: rules.asks(field::CGROUP),
            users: rules.asks(field::USER),
        };
        if let Some(recorder) = recorder {
            keep(failed, recorder.frame(&Frame::Clock(now, offset)));
        }
        let mut take = |bytes: &[u8]| {
            take(bytes, table, processes, recorder.as_mut(), picture, failed, &asks);
        };
        rings.drain_life(&mut take);
        let drained = rings.drain_data(&mut take);
        table.tick(drained);
        self.record(&Frame::Tick(drained));
        self.hand_over();
        self.tell_kernel();
        now
    }

    /// Tells the kernel side what to capture of connections whose protocol is known now. Where its
    /// table is full, it goes on as it does, which is counted.
    fn tell_kernel(&mut self) {
        let (interests, forgotten) = self.table.take_interests();
        for ((cookie, generation), interest) in interests {
            let payload = match interest {
                Interest::Nothing => 0,
                Interest::Turns => self.max_bytes,
                Interest::Everything => u32::MAX,
            };
            let turns = tap_common::limits::TURNS_DEFAULT;
            let verdict = Verdict { generation, turns, payload, refused: 0 };
            let told = self.probes.verdicts.insert(cookie, Plain(verdict), 0);
            self.picture.verdicts_refused += u64::from(told.is_err());
        }
        for (cookie, generation) in self.table.take_refused() {
            let verdict = Verdict { generation, turns: 0, payload: 0, refused: 1 };
            let told = self.probes.verdicts.insert(cookie, Plain(verdict), 0);
            self.picture.verdicts_refused += u64::from(told.is_err());
        }
        for cookie in forgotten {
            // Mostly the kernel side has taken it out.
            let _ = self.probes.verdicts.remove(&cookie);
        }
    }

    fn hand_over(&mut self) {
        self.table.take_lives().into_iter().for_each(&mut self.lives);
        self.table.take_finished().into_iter().for_each(&mut self.sink);
        self.table.take_transactions().into_iter().for_each(&mut self.transactions);
    }

    fn record(&mut self, frame: &Frame) {
        if let Some(recorder) = &mut self.recorder {
            keep(&mut self.failed, recorder.frame(frame));
        }
    }

    fn publish(&mut self, now: u64, ready: bool) {
        self.picture.kernel(&self.probes.counters.read());
        if let Some(lines) = &mut self.probes.lines {
            lines.flush();
        }
        self.picture.open = self.table.len() as u64;
        self.picture.opened = self.table.opened();
        self.picture.table = self.table.counts();
        self.picture.ready = ready;
        self.picture.round_ns = now;
        self.board.publish(&self.picture);
    }

    /// Takes in connections older than tap, once they have been listed.
    fn take_listings(&mut self) {
        while let Some(listing) = self.lister.take() {
            // What the rings held when the list was made comes first, or an old list would bring
            // back what has closed since.
            self.round();
            for (address, port) in &listing.listeners {
                self.table.listens(*address, *port);
                self.record(&Frame::Listens(*address, *port));
            }
            for open in &listing.connections {
                self.take_listed(open);
            }
        }
    }

    /// A connection older than tap, or one whose owner nobody else has told.
    fn take_listed(&mut self, open: &Open) {
        let tgid = open.connection.tgid;
        drop(self.processes.lookup(tgid, ""));
        if self.probes.admission.rules().asks(field::USER) {
            self.processes.user(tgid, None);
        }
        let process = self.processes.lookup(tgid, "");
        if let Some(recorder) = &mut self.recorder {
            keep(&mut self.failed, recorder.process(tgid, process.as_ref()));
        }
        self.record(&Frame::Listed(decode::bytes_of(open).to_vec()));
        self.table.listed(open, process);
    }

    /// A snapshot where one is wanted: some connection is due for its next segment, or records
    /// were lost, so a close may have been.
    fn snapshot_if_wanted(&mut self) {
        let lost = self.picture.lost();
        if !self.table.wants_segments() && lost == self.lost_before {
            return;
        }
        self.lost_before = lost;
        let bytes = self.read_snapshot();
        self.record(&Frame::Snapshot(bytes.clone()));
        for (header, turns) in self.table.snapshot(&closes(&bytes)) {
            let limit = tap_common::limits::TURNS_DEFAULT;
            let verdict = Verdict {
                generation: header.generation,
                turns: turns.saturating_add(limit),
                payload: 0,
                refused: 0,
            };
            // A full map means that the new segment's turns are only counted.
            let told = self.probes.verdicts.insert(header.cookie, Plain(verdict), 0);
            self.picture.verdicts_refused += u64::from(told.is_err());
        }
        self.hand_over();
    }

    fn read_snapshot(&self) -> Vec<u8> {
        let Some(snapshot) = &self.probes.snapshot else { return Vec::new() };
        snapshot.read().unwrap_or_else(|error| {
            tracing::warn!(%error, "The kernel's socket storage could not be read.");
            Vec::new()
        })
    }

    /// Detaches, drains, flushes. The programs go first, so that the numbers come to rest.
    fn end(&mut self) {
        drop(self.probes.attached.take());
        self.take_listings();
        // What a program was just writing is there a moment later.
        for _ in 0..2 {
            self.round();
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.table.has_ownerless() {
            let listing = listing::host();
            listing.connections.iter().for_each(|open| self.take_listed(open));
        }
        let snapshot = self.read_snapshot();
        let now = self.round();
        self.record(&Frame::Flush(snapshot.clone()));
        self.table.flush(&closes(&snapshot));
        self.hand_over();
        self.publish(now, false);
    }
}

/// What the rules in force ask for besides what records tell.
struct Asks<'a> {
    /// Monotonic time of the round.
    now: u64,
    admission: &'a Control,
    cgroups: bool,
    users: bool,
}

impl Asks<'_> {
    /// Finds out what rules ask for of a record's connection, before it is taken in.
    fn answer(&self, record: &Record<'_>, tgid: u32, table: &mut Table, processes: &mut Processes) {
        let (header, cgroup) = match record {
            Record::Open(open) => (&open.header, open.connection.cgroup),
            Record::Close(close) => (&close.header, close.connection.cgroup),
            Record::Owner(owner) => (&owner.header, 0),
            Record::Data(data, _) => (&data.header, 0),
            Record::Exec(..) | Record::Fork(_) | Record::Exit(_) | Record::Dns(..) => return,
        };
        if self.cgroups
            && let Some(path) = self.admission.cgroup(cgroup)
        {
            table.cgroup(cgroup, path);
        }
        if self.users && tgid != 0 && table.is_undecided(header) {
            let name = if let Record::Owner(owner) = record { comm(&owner.comm) } else { "" };
            drop(processes.lookup(tgid, name));
            processes.user(tgid, None);
        }
    }
}

/// Takes in one record: who it names is asked at once, before `/proc` forgets.
fn take(
    bytes: &[u8],
    table: &mut Table,
    processes: &mut Processes,
    recorder: Option<&mut Writer>,
    picture: &mut Picture,
    failed: &mut Option<io::Error>,
    asks: &Asks<'_>,
) {
    let record = match decode(bytes) {
        Ok(record) => record,
        Err(bad) => {
            // The kind is the first byte, where there is one that is known.
            let kind = bytes.first().map_or(0, |kind| usize::from(*kind).saturating_sub(1));
            picture.records[kind.min(picture.records.len() - 1)].invalid += 1;
            tracing::debug!(%bad, "A record was skipped.");
            return;
        }
    };
    picture.records[record.kind() as usize - 1].delivered += 1;
    let tgid = named(&record);
    asks.answer(&record, tgid, table, processes);
    let process = match &record {
        Record::Exec(process, text) => {
            let (filename, arguments) = split(text);
            processes.exec(process.tgid, comm(&process.comm), filename, arguments);
            if asks.users {
                processes.user(process.tgid, Some(process.uid));
            }
            asks.admission.executed(process.tgid, process.executable);
            return;
        }
        Record::Fork(process) => {
            processes.fork(process.tgid, process.parent);
            return;
        }
        Record::Exit(process) => {
            processes.exit(process.tgid, asks.now);
            return;
        }
        Record::Owner(owner) => processes.lookup(tgid, comm(&owner.comm)),
        _ if tgid != 0 => processes.lookup(tgid, ""),
        _ => None,
    };
    if let Some(recorder) = recorder {
        if tgid != 0 {
            keep(failed, recorder.process(tgid, process.as_ref()));
        }
        keep(failed, recorder.record(decode::exact(bytes)));
    }
    table.record(&record, process.as_ref());
}

/// The process that a record of a connection names; 0 for none.
pub fn named(record: &Record<'_>) -> u32 {
    match record {
        Record::Open(open) => open.connection.tgid,
        Record::Owner(owner) => owner.tgid,
        Record::Close(close) => close.connection.tgid,
        Record::Data(data, _) => data.tgid,
        Record::Exec(..) | Record::Fork(_) | Record::Exit(_) | Record::Dns(..) => 0,
    }
}

/// A snapshot's records.
pub fn closes(snapshot: &[u8]) -> Vec<Close> {
    snapshot
        .chunks_exact(size_of::<Close>())
        .filter_map(|bytes| match decode(bytes) {
            Ok(Record::Close(close)) => Some(close),
            _ => None,
        })
        .collect()
}

/// File name and arguments of an exec record.
fn split(text: &[u8]) -> (&str, &[u8]) {
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    let filename = std::str::from_utf8(&text[..end]).unwrap_or("");
    (filename, text.get(end + 1..).unwrap_or_default())
}

/// A kernel `comm` as text, up to its NUL.
fn comm(comm: &[u8]) -> &str {
    let len = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
    std::str::from_utf8(&comm[..len]).unwrap_or("")
}

/// Keeps the first error.
fn keep(failed: &mut Option<io::Error>, result: io::Result<()>) {
    if let Err(error) = result {
        failed.get_or_insert(error);
    }
}
