//! The queue on disk: real daemons that are killed, and disks that are full, small or read-only.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    receiver::{Fault, Protocol, Receiver},
    stage::{Session, apart},
    tap::{Launch, Tap},
    wait::{PATIENCE, until_true},
    workload::{Connected, Ends, deaf_port, silence},
};

/// Spans in a request, so that a few connections are several.
pub(super) const BATCH: usize = 4;

pub(super) fn connections(count: usize) -> Result<Vec<Ends>> {
    (0..count).map(|_| Connected::new()?.close()).collect()
}

/// A daemon with its queue in `storage`.
pub(super) fn launch(storage: &Path) -> Launch {
    launch_with(storage, "")
}

fn launch_with(storage: &Path, more: &str) -> Launch {
    Launch::new()
        .config(&format!(
            "exporters: {{ otlp: {{ sending_queue: {{ storage: {}, {more} }}, retry_on_failure: {{ \
             initial_interval: 200ms, max_interval: 1s }} }} }}\nservice: {{ pipelines: {{ traces: {{ \
             exporters: [otlp] }} }} }}\n",
            storage.display()
        ))
        .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", &BATCH.to_string())
}

/// Exports to where nobody listens.
fn to_nobody(launch: Launch, protocol: Protocol) -> Result<Launch> {
    Ok(launch
        .env("OTEL_TRACES_EXPORTER", "otlp")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", deaf_port()?))
        .env("OTEL_BSP_SCHEDULE_DELAY", "50"))
}

pub(super) fn metric(tap: &Tap, name: &str) -> u64 {
    tap.metrics().map_or(0, |metrics| metrics.count(name, &["signal=\"traces\""]))
}

/// Waits until the spans of both ends of `connections` are on the disk, and gives how many are.
fn stored(tap: &Tap, connections: usize) -> Result<u64> {
    until_true("the spans to be stored", PATIENCE, || {
        metric(tap, "tap_queue_items") >= 2 * connections as u64
    })?;
    Ok(metric(tap, "tap_queue_items"))
}

/// How often each end's span of `ends` arrived.
fn arrivals(receiver: &Receiver, ends: &[Ends]) -> Vec<usize> {
    let spans = receiver.spans();
    let count = |local, peer| spans.iter().filter(|span| span.is_between(local, peer)).count();
    let both = |ends: &Ends| [count(ends.client, ends.server), count(ends.server, ends.client)];
    ends.iter().flat_map(both).collect()
}

/// Every span of `ends` arrived; those that did so twice are not more than `doubled`.
fn all_arrived(receiver: &Receiver, ends: &[Ends], doubled: usize) -> Result<()> {
    until_true("all that was stored to arrive", PATIENCE, || {
        arrivals(receiver, ends).iter().all(|count| *count > 0)
    })
    .with_context(|| format!("{:?}", arrivals(receiver, ends)))?;
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    receiver.spans().iter().for_each(|span| *ids.entry(span.span_id.clone()).or_default() += 1);
    let twice = ids.values().filter(|count| **count > 1).count();
    ensure!(ids.values().all(|count| *count <= 2), "more than twice: {ids:?}");
    ensure!(twice <= doubled, "{twice} spans arrived twice");
    Ok(())
}

#[test]
fn what_was_stored_survives_kill_9() {
    apart(|| {
        for protocol in Protocol::ALL {
            let home = tempfile::tempdir()?;
            let mut ends = Vec::new();
            // Killed more than once, before anybody listens.
            for count in [10, 15] {
                let tap = to_nobody(launch(home.path()), protocol)?.start()?;
                ends.extend(connections(count)?);
                stored(&tap, ends.len())?;
                tap.kill()?;
            }
            let receiver = Receiver::start()?;
            let tap = launch(home.path()).exporting(&receiver, protocol).start()?;
            all_arrived(&receiver, &ends, 0)?;
            let recovered = metric(&tap, "tap_items_recovered_total");
            ensure!(recovered >= 2 * ends.len() as u64, "{recovered}");
            Session { tap, receiver }.finish()?;
        }
        Ok(())
    });
}

#[test]
fn a_daemon_killed_while_it_sends_doubles_one_batch_at_most() {
    apart(|| {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let home = tempfile::tempdir()?;
            let receiver = Receiver::start()?;
            let mut ends = Vec::new();
            for round in 1..=3 {
                // Three requests are answered, the fourth is taken and never answered.
                (0..3).for_each(|_| receiver.fail_next(Fault::Late(Duration::ZERO)));
                receiver.fail_next(Fault::Unanswered(Duration::from_secs(60)));
                let before = receiver.store().requests().len();
                let tap = launch(home.path()).exporting(&receiver, protocol).start()?;
                ends.extend(connections(20)?);
                until_true("the request that is not answered", PATIENCE, || {
                    receiver.store().requests().len() >= before + 4
                })?;
                // All else is stored behind it.
                until_true("the rest to be stored", PATIENCE, || {
                    let produced = metric(&tap, "tap_items_produced_total");
                    let recovered = metric(&tap, "tap_items_recovered_total");
                    let exported = metric(&tap, "tap_items_exported_total");
                    produced + recovered == exported + metric(&tap, "tap_queue_items")
                        && produced >= 40
                })
                .with_context(|| format!("round {round}"))?;
                tap.kill()?;
            }
            let tap = launch(home.path()).exporting(&receiver, protocol).start()?;
            all_arrived(&receiver, &ends, 3 * BATCH)?;
            let accounting = tap.stop()?.check()?;
            assert_eq!(accounting.spans("queued") + accounting.spans("dropped"), 0);
        }
        Ok(())
    });
}

#[test]
fn an_orderly_end_leaves_the_queue_on_disk_and_the_books_say_so() {
    apart(|| {
        let home = tempfile::tempdir()?;
        let tap = to_nobody(launch(home.path()), Protocol::HttpProtobuf)?.start()?;
        let ends = connections(12)?;
        let ended = tap.stop()?;
        let first = ended.check()?;
        assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
        assert_eq!(first.spans("queued"), first.spans("produced"), "{first:?}");
        assert_eq!(first.spans("dropped"), 0, "{first:?}");
        let receiver = Receiver::start()?;
        let tap = launch(home.path()).exporting(&receiver, Protocol::Grpc).start()?;
        all_arrived(&receiver, &ends, 0)?;
        Session { tap, receiver }.finish_with(|second| {
            assert_eq!(second.spans("recovered"), first.spans("queued"), "{second:?}");
            assert_eq!(second.spans("queued"), 0, "{second:?}");
        })?;
        Ok(())
    });
}

#[test]
fn a_throttled_daemon_keeps_everything_and_waits_as_told() {
    apart(|| {
        for protocol in Protocol::ALL {
            let home = tempfile::tempdir()?;
            let receiver = Receiver::start()?;
            receiver.fail_next(Fault::Throttled(3));
            let began = Instant::now();
            let tap = launch(home.path()).exporting(&receiver, protocol).start()?;
            let ends = connections(5)?;
            all_arrived(&receiver, &ends, 0)?;
            assert!(began.elapsed() > Duration::from_secs(3), "{protocol:?}");
            Session { tap, receiver }.finish()?;
        }
        Ok(())
    });
}

#[test]
fn a_second_tap_on_the_same_folder_is_told_so() {
    apart(|| {
        let home = tempfile::tempdir()?;
        let tap = to_nobody(launch(home.path()), Protocol::Grpc)?.start()?;
        let ended = to_nobody(launch(home.path()), Protocol::Grpc)?.run()?;
        assert_eq!(ended.code(), 1, "{}", ended.log());
        for part in ["sending_queue.storage", "in use", &tap.pid().to_string()] {
            assert!(ended.log().contains(part), "{part} is not in {}", ended.log());
        }
        tap.stop()?.check().map(drop)
    });
}

/// A small file system of the test's own.
struct Disk {
    home: tempfile::TempDir,
}

impl Disk {
    fn new(size: &str) -> Result<Self> {
        let home = tempfile::tempdir()?;
        mount(&["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tap-test"], home.path())?;
        Ok(Self { home })
    }

    fn queue(&self) -> PathBuf {
        self.home.path().join("queue")
    }

    fn remount(&self, how: &str) -> Result<()> {
        mount(&["-o", &format!("remount,{how}")], self.home.path())
    }

    /// Fills it but for so many bytes, which are free at every moment: a daemon may write to it.
    fn fill(&self, but: usize) -> Result<()> {
        let filler = self.home.path().join("filler");
        fs::write(&filler, "")?;
        let df =
            Command::new("df").args(["-B1", "--output=avail"]).arg(self.home.path()).output()?;
        let free: usize = String::from_utf8(df.stdout)?
            .split_whitespace()
            .next_back()
            .context("df printed nothing")?
            .parse()?;
        Ok(fs::write(filler, vec![1; free.saturating_sub(but)])?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A daemon that a failed test has left may still use it.
        drop(Command::new("umount").arg("-l").arg(self.home.path()).status());
    }
}

pub(super) fn mount(arguments: &[&str], at: &Path) -> Result<()> {
    let status = Command::new("mount").args(arguments).arg(at).status()?;
    ensure!(status.success(), "mount {arguments:?} {}: {status}", at.display());
    Ok(())
}

#[test]
fn a_full_disk_stops_nothing_and_loses_nothing_that_it_took() {
    apart(|| {
        let disk = Disk::new("1m")?;
        let tap = to_nobody(launch(&disk.queue()), Protocol::HttpProtobuf)?.start()?;
        disk.fill(40 << 10)?;
        let ends = connections(60)?;
        until_true("the disk to be full", PATIENCE, || {
            metric(&tap, "tap_queue_disk_errors_total") > 0
        })?;
        assert_eq!(tap.get("/livez")?.status, 200);
        let took = metric(&tap, "tap_queue_items");
        ensure!(took > 0 && took < 120, "{took} spans are stored");
        tap.kill()?;
        // The disk is still full: what is there leaves, and what is new leaves past it.
        let receiver = Receiver::start()?;
        let tap = launch(&disk.queue()).exporting(&receiver, Protocol::Grpc).start()?;
        let new = connections(20)?;
        all_arrived(&receiver, &new, 0)?;
        let old = ends.iter().map(|ends| arrivals(&receiver, &[*ends]).iter().sum::<usize>());
        assert_eq!(metric(&tap, "tap_items_recovered_total"), took);
        assert!(old.sum::<usize>() > 0);
        Session { tap, receiver }.finish()?;
        // And an orderly end on a full disk tells what could not be kept.
        let tap = to_nobody(launch(&disk.queue()), Protocol::HttpProtobuf)?.start()?;
        disk.fill(40 << 10)?;
        connections(60)?;
        until_true("the disk to be full", PATIENCE, || {
            metric(&tap, "tap_queue_disk_errors_total") > 0
        })?;
        let accounting = tap.stop()?.check()?;
        let (queued, dropped) = (accounting.spans("queued"), accounting.spans("dropped"));
        assert!(queued > 0 && dropped > 0, "{accounting:?}");
        let receiver = Receiver::start()?;
        let tap = launch(&disk.queue()).exporting(&receiver, Protocol::Grpc).start()?;
        until_true("what was kept", PATIENCE, || receiver.arrived() >= queued)?;
        Session { tap, receiver }
            .finish_with(|accounting| assert_eq!(accounting.spans("recovered"), queued))?;
        Ok(())
    });
}

#[test]
fn a_limit_on_file_sizes_makes_more_files_and_ends_nothing() {
    apart(|| {
        let home = tempfile::tempdir()?;
        let limited = |bytes: &str| -> Result<Tap> {
            let limit = format!("--fsize={bytes}");
            to_nobody(launch(home.path()), Protocol::HttpProtobuf)?
                .under(&["prlimit", &limit])
                .start()
        };
        let tap = limited("16384")?;
        let ends = connections(40)?;
        stored(&tap, 40)?;
        let accounting = tap.stop()?.check()?;
        assert_eq!(accounting.spans("queued"), accounting.spans("produced"), "{accounting:?}");
        let files: Vec<u64> = fs::read_dir(home.path().join("otlp-traces"))?
            .map(|file| Ok(file?.metadata()?.len()))
            .collect::<Result<_>>()?;
        assert!(files.len() > 3 && files.iter().all(|len| *len <= 16_384), "{files:?}");
        // Too little for any batch: nothing new is kept, and nothing old is lost.
        let tap = limited("1024")?;
        connections(10)?;
        until_true("refused writes", PATIENCE, || metric(&tap, "tap_queue_disk_errors_total") > 0)?;
        let second = tap.stop()?.check()?;
        assert_eq!(second.spans("queued"), accounting.spans("queued"), "{second:?}");
        assert_eq!(second.spans("dropped"), second.spans("produced"), "{second:?}");
        let receiver = Receiver::start()?;
        let tap = launch(home.path()).exporting(&receiver, Protocol::Grpc).start()?;
        all_arrived(&receiver, &ends, 0)?;
        Session { tap, receiver }.finish().map(drop)
    });
}

#[test]
fn a_disk_that_becomes_read_only_sends_one_batch_and_waits() {
    apart(|| {
        let disk = Disk::new("8m")?;
        let tap = to_nobody(launch(&disk.queue()), Protocol::Grpc)?.start()?;
        let ends = connections(12)?;
        stored(&tap, 12)?;
        disk.remount("ro")?;
        connections(5)?;
        until_true("refused writes", PATIENCE, || metric(&tap, "tap_queue_disk_errors_total") > 0)?;
        let first = tap.stop()?.check()?;
        assert!(first.spans("queued") >= 24 && first.spans("dropped") > 0, "{first:?}");
        // It cannot be put down that a batch was sent, so no more than one is.
        let receiver = Receiver::start()?;
        let tap = launch(&disk.queue()).exporting(&receiver, Protocol::Grpc).start()?;
        let sent = || arrivals(&receiver, &ends).iter().sum::<usize>();
        until_true("the first batch", PATIENCE, || sent() > 0)?;
        silence(Duration::from_millis(2500));
        assert!(sent() <= BATCH, "{}", sent());
        // What is new leaves past the disk.
        let new = connections(5)?;
        all_arrived(&receiver, &new, 0)?;
        tap.kill()?;
        disk.remount("rw")?;
        let tap = launch(&disk.queue()).exporting(&receiver, Protocol::Grpc).start()?;
        all_arrived(&receiver, &ends, BATCH)?;
        tap.stop()?.check().map(drop)
    });
}

#[test]
fn a_damaged_file_is_told_of_set_aside_and_costs_one_batch() {
    apart(|| {
        let home = tempfile::tempdir()?;
        // What is asked of it must make no spans between the count and the end.
        let tap = to_nobody(launch(home.path()), Protocol::Grpc)?.admin_on_unix().start()?;
        let ends = connections(12)?;
        let took = stored(&tap, 12)?;
        tap.kill()?;
        let folder = home.path().join("otlp-traces");
        let segments = || -> Result<Vec<PathBuf>> {
            let files = fs::read_dir(&folder)?.map(|file| Ok(file?.path()));
            let files: Vec<PathBuf> = files.collect::<Result<_>>()?;
            Ok(files.into_iter().filter(|file| !file.ends_with("lock")).collect())
        };
        let file = segments()?.remove(0);
        let mut bytes = fs::read(&file)?;
        let at = bytes.len() / 2;
        bytes[at] ^= 0x10;
        fs::write(&file, bytes)?;
        let receiver = Receiver::start()?;
        let tap = launch(home.path()).exporting(&receiver, Protocol::Grpc).start()?;
        let missing = || arrivals(&receiver, &ends).iter().filter(|count| **count == 0).count();
        until_true("what is whole", PATIENCE, || missing() <= BATCH)?;
        assert_eq!(metric(&tap, "tap_queue_damaged_segments_total"), 1);
        assert_eq!(tap.log().with("set aside").len() + tap.log().with("is damaged").len(), 1);
        Session { tap, receiver }.finish_with(|accounting| {
            assert!(accounting.spans("recovered") <= took);
            assert!(accounting.spans("dropped") <= BATCH as u64, "{accounting:?}");
        })?;
        let left: Vec<_> = segments()?;
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].to_string_lossy().ends_with(".damaged"), "{left:?}");
        Ok(())
    });
}

#[test]
fn check_tries_the_folder_of_every_queue() {
    apart(|| {
        let (home, objects) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let config = |storage: &Path| {
            format!(
                "exporters: {{ otlp: {{ endpoint: 'http://127.0.0.1:9', sending_queue: {{ storage: {0} }} }} }}\n\
                 service: {{ pipelines: {{ traces: {{ exporters: [otlp] }} }} }}\n\
                 http_capture: {{ store: {{ type: local, path: {1} }}, level: summary, sending_queue: \
                 {{ storage: {0} }} }}\n",
                storage.display(),
                objects.path().display()
            )
        };
        let check = |storage: &Path| -> Result<[String; 2]> {
            let ended = Launch::of(&["check"]).config(&config(storage)).run()?;
            ["otlp traces queue", "local objects queue"]
                .map(|what| {
                    let line = ended.stdout.iter().find(|line| line.contains(what));
                    line.cloned().with_context(|| format!("{what}: {:#?}", ended.stdout))
                })
                .into_iter()
                .collect::<Result<Vec<_>>>()?
                .try_into()
                .map_err(|_| anyhow::anyhow!("two"))
        };
        let tap = Launch::new().config(&config(home.path())).start()?;
        for line in check(home.path())? {
            let holder = format!("in use by another tap (process {})", tap.pid());
            ensure!(line.starts_with("FAIL") && line.contains(&holder), "{line}");
        }
        tap.stop()?.check()?;
        for line in check(home.path())? {
            ensure!(line.starts_with("ok") && line.contains("can be written"), "{line}");
        }
        for line in check(Path::new("/proc/tap"))? {
            ensure!(line.starts_with("FAIL") && line.contains("cannot be written"), "{line}");
        }
        Ok(())
    });
}
