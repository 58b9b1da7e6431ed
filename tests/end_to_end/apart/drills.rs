//! Fault drills with a receiver that is a process of its own, by OpenTelemetry's Python messages:
//! it is away, killed, stopped, unwilling or talks nonsense, and the disk under the queue fails. In each of these tap is killed and started again. What the queue on disk
//! has accepted arrives, no more than a batch of it twice, and the books hold to the unit.

use std::{
    collections::BTreeMap,
    fs,
    io::Seek,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    programs::{
        command, curl,
        nginx::Nginx,
        otlp::{Mode, Site},
        output,
    },
    receiver::Protocol,
    stage::apart,
    sys,
    tap::{Accounting, Launch, Tap},
    wait::{PATIENCE, until_true},
    workload::silence,
};

use super::queue::{BATCH, connections, launch, metric, mount};

/// A daemon that exports to `site` by `protocol`, with its queue in `storage`.
pub(super) fn to(site: &Site, protocol: Protocol, storage: &Path) -> Launch {
    launch(storage)
        .env("OTEL_TRACES_EXPORTER", "otlp")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &site.endpoint(protocol))
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "3000")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
}

/// The identity of the spans, in one reading of the metrics.
fn assert_balanced(tap: &Tap) -> Result<()> {
    let metrics = tap.metrics()?;
    let sum = |terms: &[&str]| -> u64 {
        let of =
            |term: &&str| metrics.count(&format!("tap_items_{term}_total"), &["signal=\"traces\""]);
        terms.iter().map(of).sum()
    };
    let came = sum(&["produced", "recovered"]);
    let went = sum(&["exported", "sampled", "rejected", "dropped", "held", "queued"]);
    ensure!(came == went, "{came} came, {went} are accounted for");
    Ok(())
}

/// Waits until `tap` has made the spans of so many connections, and each is on the disk or done
/// with. Spans that are on the disk.
pub(super) fn at_rest(tap: &Tap, connections: usize) -> Result<u64> {
    until_true("spans to be on the disk or done with", PATIENCE, || {
        let of = |term: &str| metric(tap, &format!("tap_items_{term}_total"));
        let stored = metric(tap, "tap_queue_items");
        let (came, done) = (of("produced"), of("exported") + of("rejected") + of("dropped"));
        came >= 2 * connections as u64 && came + of("recovered") == done + stored
    })?;
    assert_balanced(tap)?;
    Ok(metric(tap, "tap_queue_items"))
}

/// All that was exported has arrived, by the receiver's own count, and nothing is lost: nothing was
/// sent by the daemons before this one. What another program has made since is still on the disk.
fn assert_all_counted(site: &Site, accounting: &Accounting) {
    let arrived = site.items("traces").len() as u64;
    assert_eq!(accounting.spans("exported"), arrived, "{accounting:?}");
    let lost = accounting.spans("rejected") + accounting.spans("dropped");
    assert_eq!(lost, 0, "{accounting:?}");
}

/// A receiver that meets every request with `mode` while tap runs, is killed and runs again; then
/// it takes everything.
fn unwilling(mode: Mode, protocol: Protocol) -> Result<()> {
    let (home, site) = (tempfile::tempdir()?, Site::new()?);
    let receiver = site.start(mode)?;
    let tap = to(&site, protocol, home.path()).start()?;
    let mut ends = connections(8)?;
    until_true("requests to be refused", PATIENCE, || site.met(mode) >= 2)?;
    let left = at_rest(&tap, 8)?;
    // The receiver's own count of what it refused.
    let refused = || match mode {
        Mode::Refuses => site.requests().iter().map(|it| it.items.len()).sum(),
        Mode::Partial => site.met(mode),
        _ => 0,
    };
    until_true("both to count what is rejected alike", PATIENCE, || {
        metric(&tap, "tap_items_rejected_total") == refused() as u64
    })
    .with_context(|| format!("{} and {}", metric(&tap, "tap_items_rejected_total"), refused()))?;
    tap.kill()?;
    let before = site.met(mode);
    let tap = to(&site, protocol, home.path()).start()?;
    ends.extend(connections(4)?);
    until_true("the next requests", PATIENCE, || site.met(mode) > before)?;
    at_rest(&tap, 4)?;
    drop(receiver);
    let _receiver = site.start(Mode::Ok)?;
    // What was refused for good has its end too.
    site.wait_for_all(&ends, BATCH)?;
    let accounting = tap.stop()?.check()?;
    // More may have been stored before it was killed: the receiver's own connections, for example.
    // Where requests have an end, some had it since.
    if matches!(mode, Mode::Unavailable | Mode::Throttles) {
        assert!(accounting.spans("recovered") >= left, "{accounting:?}");
    }
    assert_eq!(accounting.spans("dropped"), 0, "{accounting:?}");
    if !matches!(mode, Mode::Refuses | Mode::Partial) {
        // Whatever came, this one sent.
        assert_all_counted(&site, &accounting);
    }
    Ok(())
}

#[test]
fn an_unwilling_receiver_costs_nothing_that_it_did_not_refuse_for_good() {
    use Protocol::{Grpc, HttpJson, HttpProtobuf};
    apart(|| {
        for (mode, protocol) in [
            (Mode::Unavailable, Grpc),
            (Mode::Unavailable, HttpProtobuf),
            (Mode::Throttles, Grpc),
            (Mode::Throttles, HttpJson),
            (Mode::Refuses, Grpc),
            (Mode::Refuses, HttpProtobuf),
            (Mode::Partial, Grpc),
            (Mode::Partial, HttpJson),
            (Mode::Garbage, Grpc),
            (Mode::Garbage, HttpProtobuf),
            (Mode::Half, Grpc),
            (Mode::Half, HttpProtobuf),
        ] {
            unwilling(mode, protocol).with_context(|| format!("{mode:?} {protocol:?}"))?;
        }
        Ok(())
    });
}

/// The status is the answer: what the receiver said it has is not sent again.
#[test]
fn an_answer_that_breaks_off_or_stalls_after_its_status_is_an_answer() {
    apart(|| {
        for (mode, protocol) in [
            (Mode::Cut, Protocol::HttpProtobuf),
            (Mode::Cut, Protocol::HttpJson),
            (Mode::Stalls, Protocol::HttpProtobuf),
        ] {
            let (home, site) = (tempfile::tempdir()?, Site::new()?);
            let _receiver = site.start(mode)?;
            let launch = to(&site, protocol, home.path()).env("OTEL_EXPORTER_OTLP_TIMEOUT", "500");
            let tap = launch.start()?;
            let ends = connections(4)?;
            site.wait_for_all(&ends, 0)?;
            tap.log().wait_for("a word on the answer", PATIENCE, |line| {
                line.contains("broke off after its status").then_some(())
            })?;
            let accounting = tap.stop()?.check()?;
            assert_all_counted(&site, &accounting);
            site.wait_for_all(&ends, 0)?;
        }
        Ok(())
    });
}

#[test]
fn a_receiver_that_is_down_at_the_start_and_killed_in_the_middle_gets_everything() {
    apart(|| {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let (home, site) = (tempfile::tempdir()?, Site::new()?);
            let tap = to(&site, protocol, home.path()).start()?;
            let mut ends = connections(6)?;
            let left = at_rest(&tap, 6)?;
            tap.kill()?;
            let tap = to(&site, protocol, home.path()).start()?;
            ensure!(metric(&tap, "tap_items_recovered_total") >= left, "not all is recovered");
            for _ in 0..2 {
                let before = site.requests().len();
                let receiver = site.start(Mode::Ok)?;
                ends.extend(connections(20)?);
                until_true("a few requests", PATIENCE, || site.requests().len() > before + 2)?;
                // By SIGKILL.
                drop(receiver);
                assert_balanced(&tap)?;
            }
            tap.kill()?;
            let _receiver = site.start(Mode::Ok)?;
            let tap = to(&site, protocol, home.path()).start()?;
            // One batch for each kill.
            site.wait_for_all(&ends, 3 * BATCH)?;
            let accounting = tap.stop()?.check()?;
            assert_eq!(accounting.spans("dropped"), 0, "{accounting:?}");
        }
        Ok(())
    });
}

/// How often each log record of `site` came, by its `summary.request_id`.
fn records(site: &Site) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in site.items("logs") {
        let event = &record["attributes"]["event"];
        let end = event["summary.direction"].as_str().unwrap_or_default();
        let id = event["summary.request_id"].as_str().unwrap_or_default();
        *counts.entry(format!("{end} {id}")).or_default() += 1;
    }
    counts
}

/// Spans by gRPC, log records by HTTP. A minute is what the receiver is stopped for; tap is killed
/// in the middle of it.
#[test]
fn a_receiver_that_is_stopped_for_a_minute_gets_everything() {
    const STOPPED: Duration = Duration::from_secs(60);
    apart(|| {
        let (home, site, nginx) = (tempfile::tempdir()?, Site::new()?, Nginx::start()?);
        fs::write(nginx.root().join("small"), "hello")?;
        let fetch = |count: usize| -> Result<()> {
            (0..count).try_for_each(|_| {
                let mut curl = curl::curl(&[])?;
                curl.arg(format!("http://{}/small", nginx.http));
                curl::fetch(curl).map(drop)
            })
        };
        let start = || {
            to(&site, Protocol::Grpc, home.path())
                .env("OTEL_LOGS_EXPORTER", "otlp")
                .env("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf")
                .env(
                    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
                    &format!("{}/v1/logs", site.endpoint(Protocol::HttpProtobuf)),
                )
                .env("OTEL_BLRP_SCHEDULE_DELAY", "50")
                .env("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", &BATCH.to_string())
                .start()
        };
        let receiver = site.start(Mode::Ok)?;
        let tap = start()?;
        let mut ends = connections(4)?;
        fetch(4)?;
        site.wait_for_all(&ends, 0)?;
        until_true("the first records", PATIENCE, || records(&site).len() >= 8)?;
        receiver.signal(libc::SIGSTOP)?;
        let stopped = Instant::now();
        ends.extend(connections(8)?);
        fetch(8)?;
        at_rest(&tap, 8)?;
        silence((STOPPED / 2).saturating_sub(stopped.elapsed()));
        assert_eq!(tap.get("/livez")?.status, 200);
        tap.kill()?;
        let tap = start()?;
        ends.extend(connections(8)?);
        fetch(8)?;
        at_rest(&tap, 8)?;
        silence(STOPPED.saturating_sub(stopped.elapsed()));
        receiver.signal(libc::SIGCONT)?;
        // The batch that was under way was sent again and again, and no other.
        site.wait_for_all(&ends, BATCH)?;
        until_true("every record", PATIENCE, || records(&site).len() >= 40)
            .with_context(|| format!("{:?}", records(&site)))?;
        let twice = records(&site).values().filter(|count| **count > 1).count();
        ensure!(twice <= BATCH, "{twice} records came more than once");
        let accounting = tap.stop()?.check()?;
        for signal in ["traces/otlp", "logs/otlp"] {
            let book = &accounting.items[signal];
            assert!(book["recovered"] > 0, "{signal} {book:?}");
            assert_eq!(book["dropped"], 0, "{signal} {book:?}");
        }
        Ok(())
    });
}

/// A file system on a block device that can be made to fail: it lies in a file in memory, and a
/// file that is sealed takes no more writes. Those are errors of the device then, and `fdatasync`
/// fails with EIO.
struct BadDisk {
    device: fs::File,
    home: tempfile::TempDir,
}

impl BadDisk {
    fn new() -> Result<Self> {
        let device = sys::memory_file("disk", 32 << 20)?;
        let mut mkfs = command("mkfs.ext4", "e2fsprogs")?;
        mkfs.args(["-q", "-F", "-O", "^has_journal", "-N", "128", "-m", "0"]);
        output(mkfs.arg(sys::path_of(&device)))?;
        let disk = Self { device, home: tempfile::tempdir()? };
        disk.mount()?;
        Ok(disk)
    }

    fn folder(&self) -> &Path {
        self.home.path()
    }

    fn mount(&self) -> Result<()> {
        // What cannot be written must not end it: the next reader sees what is on the device.
        mount(&["-o", "loop,errors=continue", &sys::path_of(&self.device)], self.folder())
    }

    /// Nothing can be written to the device any more.
    fn fail(&self) -> Result<()> {
        Ok(sys::seal(&self.device)?)
    }

    /// Another device, with what stood on this one.
    fn replace(&mut self) -> Result<()> {
        output(command("umount", "mount")?.arg(self.folder()))?;
        let mut fresh = sys::memory_file("disk", 0)?;
        self.device.rewind()?;
        std::io::copy(&mut self.device, &mut fresh)?;
        self.device = fresh;
        self.mount()
    }
}

impl Drop for BadDisk {
    fn drop(&mut self) {
        // A daemon that a failed test has left may still use it.
        drop(Command::new("umount").arg("-l").arg(self.folder()).status());
    }
}

#[test]
fn a_disk_whose_writes_fail_loses_nothing_that_it_took() {
    apart(|| {
        let (mut disk, site) = (BadDisk::new()?, Site::new()?);
        let storage = disk.folder().join("queue");
        let tap = to(&site, Protocol::HttpProtobuf, &storage).start()?;
        let ends = connections(12)?;
        let left = at_rest(&tap, 12)?;
        disk.fail()?;
        let lost = connections(4)?;
        until_true("the disk to refuse writes", PATIENCE, || {
            metric(&tap, "tap_queue_disk_errors_total") > 0
        })?;
        assert!(!tap.log().with("Input/output error").is_empty(), "{}", tap.log().text());
        assert_eq!(tap.get("/livez")?.status, 200);
        assert_balanced(&tap)?;
        tap.kill()?;
        // What is on the device, and nothing of what was only in memory.
        disk.replace()?;
        let _receiver = site.start(Mode::Ok)?;
        let tap = to(&site, Protocol::HttpProtobuf, &storage).start()?;
        ensure!(metric(&tap, "tap_items_recovered_total") >= left, "less than {left} recovered");
        ensure!(metric(&tap, "tap_queue_damaged_segments_total") == 0, "{}", tap.log().text());
        site.wait_for_all(&ends, 0)?;
        // What the disk never took was in memory, and is gone with the daemon.
        assert_eq!(site.arrivals(&lost), [0; 8]);
        assert_all_counted(&site, &tap.stop()?.check()?);
        Ok(())
    });
}

#[test]
fn a_daemon_killed_at_its_limit_on_file_sizes_loses_nothing_that_it_stored() {
    apart(|| {
        let (home, site) = (tempfile::tempdir()?, Site::new()?);
        let limited = to(&site, Protocol::Grpc, home.path()).under(&["prlimit", "--fsize=16384"]);
        let mut ends = Vec::new();
        let mut left = 0;
        for _ in 0..2 {
            let tap = limited.start()?;
            ensure!(metric(&tap, "tap_items_recovered_total") >= left, "not all is recovered");
            ends.extend(connections(20)?);
            left = at_rest(&tap, 20)?;
            tap.kill()?;
        }
        let _receiver = site.start(Mode::Ok)?;
        let tap = limited.start()?;
        site.wait_for_all(&ends, 0)?;
        let accounting = tap.stop()?.check()?;
        assert!(accounting.spans("recovered") >= left, "{accounting:?}");
        assert_all_counted(&site, &accounting);
        Ok(())
    });
}
