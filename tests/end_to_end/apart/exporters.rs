//! Exporters of the configuration file: several at once, of which some do not work; files; and what
//! `tap check` says of them.

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    receiver::{Fault, Protocol, Receiver},
    stage::apart,
    tap::{Launch, Tap, free_port},
    wait::{PATIENCE, until_true},
    workload::{Connected, Ends, deaf_port},
};

fn connections(count: usize) -> Result<Vec<Ends>> {
    (0..count).map(|_| Connected::new()?.close()).collect()
}

/// Under `exporters` and `pipelines` of the file, and nothing of the environment.
fn launch(exporters: &str, pipelines: &str) -> Launch {
    Launch::new()
        .config(&format!("exporters:\n{exporters}service: {{ pipelines: {{ {pipelines} }} }}\n"))
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
}

fn metric(tap: &Tap, name: &str, exporter: &str) -> u64 {
    let labels = ["signal=\"traces\"", &format!("exporter=\"{exporter}\"")];
    tap.metrics().map_or(0, |metrics| metrics.count(name, &labels))
}

fn both_arrived(receiver: &Receiver, ends: &[Ends]) -> bool {
    let spans = receiver.spans();
    let seen = |local, peer| spans.iter().any(|span| span.is_between(local, peer));
    ends.iter().all(|it| seen(it.client, it.server) && seen(it.server, it.client))
}

#[test]
fn an_exporter_that_hangs_or_is_away_holds_no_other_back() {
    apart(|| {
        let (fine, hangs) = (Receiver::start()?, Receiver::start()?);
        (0..1000).for_each(|_| hangs.fail_next(Fault::Late(Duration::from_secs(600))));
        let exporters = format!(
            "  otlp/fine: {{ endpoint: {} }}\n  otlphttp/hangs: {{ endpoint: {}, timeout: 0s, \
             compression: none }}\n  otlp/away: {{ endpoint: http://{} }}\n",
            fine.endpoint(Protocol::Grpc),
            hangs.endpoint(Protocol::HttpProtobuf),
            deaf_port()?,
        );
        let pipelines = "traces: { exporters: [otlphttp/hangs, otlp/away, otlp/fine] }";
        let tap = launch(&exporters, pipelines).start()?;
        let began = Instant::now();
        for _ in 0..10 {
            let ends = connections(10)?;
            until_true("spans at the fine one", PATIENCE, || both_arrived(&fine, &ends))?;
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        for exporter in ["otlphttp/hangs", "otlp/away"] {
            ensure!(metric(&tap, "tap_items_exported_total", exporter) == 0);
            ensure!(metric(&tap, "tap_items_produced_total", exporter) >= 200);
        }
        // Only what is refused is complained about, by name.
        let told = tap.log().with("cannot be sent");
        ensure!(told.len() == 1 && told[0].contains("otlp/away"), "{told:?}");
        let ended = tap.stop()?;
        let accounting = ended.check()?;
        assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
        let book = |exporter: &str| &accounting.items[&format!("traces/{exporter}")];
        let produced = book("otlp/fine")["produced"];
        assert_eq!(book("otlp/fine")["exported"], produced, "{accounting:?}");
        assert_eq!(fine.arrived(), produced);
        for exporter in ["otlphttp/hangs", "otlp/away"] {
            assert_eq!(book(exporter)["dropped"], produced, "{accounting:?}");
        }
        Ok(())
    });
}

#[test]
fn what_one_exporter_stores_is_its_own() {
    apart(|| {
        let home = tempfile::tempdir()?;
        let fine = Receiver::start()?;
        let exporters = |away: &str| {
            format!(
                "  otlp/fine: {{ endpoint: {} }}\n  otlp/away: {{ endpoint: {away}, sending_queue: \
                 {{ storage: {} }}, retry_on_failure: {{ initial_interval: 200ms }} }}\n",
                fine.endpoint(Protocol::Grpc),
                home.path().display()
            )
        };
        let pipelines = "traces: { exporters: [otlp/away, otlp/fine] }";
        let tap = launch(&exporters(&format!("http://{}", deaf_port()?)), pipelines).start()?;
        let ends = connections(10)?;
        until_true("spans at the fine one", PATIENCE, || both_arrived(&fine, &ends))?;
        let first = tap.stop()?.check()?;
        let stored = first.items["traces/otlp/away"]["queued"];
        ensure!(stored >= 20, "{first:?}");
        ensure!(home.path().join("otlp%2Faway-traces").is_dir());
        let back = Receiver::start()?;
        let tap = launch(&exporters(&back.endpoint(Protocol::Grpc)), pipelines).start()?;
        until_true("what was stored", PATIENCE, || both_arrived(&back, &ends))?;
        let second = tap.stop()?.check()?;
        assert_eq!(second.items["traces/otlp/away"]["recovered"], stored);
        assert_eq!(second.items["traces/otlp/fine"]["recovered"], 0);
        Ok(())
    });
}

/// The lines of a file, as a program for that reads them.
fn lines(path: &Path) -> Result<Vec<Value>> {
    let mut text = String::new();
    let file = fs::File::open(path).with_context(|| path.display().to_string())?;
    if path.extension().is_some_and(|end| end == "zst") {
        zstd::stream::read::Decoder::new(file)?.read_to_string(&mut text)?;
    } else {
        (&file).read_to_string(&mut text)?;
    }
    text.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
}

/// The spans in a file's lines, by id.
fn spans(lines: &[Value]) -> Vec<String> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let resources = lines.iter().flat_map(|line| list(line, "resourceSpans"));
    let scopes = resources.flat_map(|resource| list(&resource, "scopeSpans"));
    let spans = scopes.flat_map(|scope| list(&scope, "spans"));
    spans.map(|span| span["spanId"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The file and those that were full, by age.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let folder = path.parent().context("a folder")?;
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

#[test]
fn files_hold_every_span_once_whatever_ends_them() {
    apart(|| {
        for (name, more) in [("t.jsonl", ""), ("t.zst", ", compression: zstd")] {
            let home = tempfile::tempdir()?;
            let path = home.path().join(name);
            let exporters = format!(
                "  file: {{ path: {}, flush_interval: 100ms, rotation: {{ max_megabytes: 1 }} \
                 {more} }}\n",
                path.display()
            );
            let pipelines = "traces: { exporters: [file] }, metrics: { exporters: [file] }";
            let mut exported = 0;
            for round in 0..3 {
                // A line must fit into a file.
                let size = ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50");
                let tap = launch(&exporters, pipelines).env(size.0, size.1).start()?;
                for _ in 0..if round == 0 { 30 } else { 3 } {
                    connections(50)?;
                }
                let done = |tap: &Tap| {
                    let count = |name| metric(tap, name, "file");
                    count("tap_items_exported_total") == count("tap_items_produced_total")
                };
                if round == 1 {
                    until_true("all to be written", PATIENCE, || done(&tap))?;
                    exported += metric(&tap, "tap_items_exported_total", "file");
                    tap.kill()?;
                    // A line that was torn.
                    let torn = fs::read(&path)?;
                    fs::write(&path, [&torn[..], b"{\"resourceSpans\":"].concat())?;
                } else {
                    let accounting = tap.stop()?.check()?;
                    let book = &accounting.items["traces/file"];
                    assert_eq!(book["exported"], book["produced"], "{accounting:?}");
                    exported += book["exported"];
                }
            }
            let files = files(&path)?;
            let mut ids = Vec::new();
            for file in &files {
                let plain = file.extension().is_some_and(|end| end == "jsonl");
                let mut text = fs::read_to_string(file).unwrap_or_default();
                if plain && text.contains("\n{\"resourceSpans\":\n") {
                    text = text.replace("\n{\"resourceSpans\":\n", "\n");
                    fs::write(file, text)?;
                }
                ids.extend(spans(&lines(file)?));
            }
            let different: BTreeSet<_> = ids.iter().collect();
            assert_eq!((ids.len() as u64, different.len()), (exported, ids.len()), "{files:?}");
            if name == "t.jsonl" {
                // 3,600 spans are more than one file.
                assert!(files.len() > 1, "{files:?}");
            }
            for file in &files {
                use std::os::unix::fs::PermissionsExt as _;
                let metadata = fs::metadata(file)?;
                assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{}", file.display());
                assert!(metadata.len() <= (1 << 20) + 64, "{} {}", file.display(), metadata.len());
            }
        }
        Ok(())
    });
}

/// A small file system of the test's own.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m,mode=700", "tap-test"]).arg(home.path());
        ensure!(mount.status()?.success(), "mount");
        Ok(Self(home))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A daemon that a failed test has left may still use it.
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[test]
fn a_full_disk_is_complained_about_and_nothing_is_torn_or_lost() {
    apart(|| {
        let disk = Disk::new()?;
        let path = disk.0.path().join("t.jsonl");
        let exporters = format!("  file: {{ path: {}, flush_interval: 50ms }}\n", path.display());
        let tap = launch(&exporters, "traces: { exporters: [file] }").start()?;
        let filler = disk.0.path().join("filler");
        let before = connections(5)?.len();
        until_true("the first", PATIENCE, || {
            metric(&tap, "tap_items_exported_total", "file") >= 2 * before as u64
        })?;
        // Writes until there is no room.
        drop(fs::write(&filler, vec![1; 8 << 20]));
        connections(20)?;
        until_true("a complaint", PATIENCE, || !tap.log().with("cannot be sent").is_empty())?;
        ensure!(metric(&tap, "tap_items_held_total", "file") > 0);
        assert_eq!(tap.get("/livez")?.status, 200);
        // Nothing half is left by the attempts.
        lines(&path)?;
        fs::remove_file(&filler)?;
        until_true("the rest", PATIENCE, || {
            metric(&tap, "tap_items_exported_total", "file")
                == metric(&tap, "tap_items_produced_total", "file")
        })?;
        ensure!(tap.log().with("cannot be sent").len() == 1);
        let accounting = tap.stop()?.check()?;
        let ids = spans(&lines(&path)?);
        assert_eq!(ids.len() as u64, accounting.spans("exported"), "{accounting:?}");
        assert_eq!(accounting.spans("exported"), accounting.spans("produced"));
        Ok(())
    });
}

#[test]
fn the_environment_says_no_and_a_wrong_file_starts_nothing() {
    apart(|| {
        let home = tempfile::tempdir()?;
        let path = home.path().join("t.jsonl");
        let exporters = format!("  file: {{ path: {} }}\n", path.display());
        let off = launch(&exporters, "traces: { exporters: [file] }")
            .env("OTEL_TRACES_EXPORTER", "none")
            .start()?;
        connections(3)?;
        let accounting = off.stop()?.check()?;
        assert!(accounting.items.is_empty() && !path.exists(), "{accounting:?}");
        for (exporters, pipelines, words) in [
            ("  zipkin: {}\n", "", "tap.yaml:2:3: "),
            ("  otlp: { balancer_name: x }\n", "", "put a load balancer before the collectors"),
            ("  otlp: {}\n", "logs: { exporters: [oltp] }", "did you mean `otlp`?"),
            (
                "  otlp/x: { endpoint: 'x:1', tls: { ca_file: /nowhere } }\n",
                "traces: { exporters: [otlp/x] }",
                "exporters.otlp/x.tls.ca_file=/nowhere cannot be used: No such file",
            ),
        ] {
            let ended = launch(exporters, pipelines).run()?;
            assert_eq!(ended.code(), 2, "{}", ended.log());
            assert!(ended.log().contains(words), "{words} is not in {}", ended.log());
        }
        Ok(())
    });
}

#[test]
fn check_tries_every_exporter() {
    apart(|| {
        let home = tempfile::tempdir()?;
        let receiver = Receiver::start()?;
        let exporters = format!(
            "  otlp/there: {{ endpoint: {} }}\n  otlp/gone: {{ endpoint: http://127.0.0.1:{}, \
             sending_queue: {{ storage: {} }} }}\n  file/a: {{ path: {}/a.jsonl }}\n  file/b: {{ \
             path: /proc/nowhere/b.jsonl }}\n  console:\n  otlp/idle: {{ endpoint: http://x }}\n",
            receiver.endpoint(Protocol::Grpc),
            free_port()?,
            home.path().join("queue").display(),
            home.path().display(),
        );
        let config = format!(
            "exporters:\n{exporters}service: {{ pipelines: {{ traces: {{ exporters: [otlp/there, \
             otlp/gone, file/a, file/b, console] }} }} }}\n"
        );
        let ended = Launch::of(&["check"]).config(&config).run()?;
        let said = &ended.stdout;
        assert_eq!(ended.code(), 1, "{said:#?}");
        for (begin, words) in [
            ("ok    otlp/there traces ", "is reachable at"),
            ("FAIL  otlp/gone traces ", "is not reachable"),
            ("otlp/gone traces queue", "otlp%2Fgone-traces can be written"),
            ("ok    file/a ", "a.jsonl can be written"),
            ("FAIL  file/b ", "is not there"),
            ("ok    console traces ", "standard output"),
            ("note  otlp/idle ", "in no pipeline"),
        ] {
            let found = said.iter().any(|line| line.contains(begin) && line.contains(words));
            assert!(found, "{begin}{words} is not in\n{}", said.join("\n"));
        }
        // Nothing is left behind.
        assert_eq!(fs::read_dir(home.path())?.count(), 0);
        Ok(())
    });
}
