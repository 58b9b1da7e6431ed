//! What tap costs: `cargo xtask bench wire`, `idle`, `transactions`, `policy`; and recordings of real programs for
//! `cargo xtask bench protocol` (`tap-userspace/examples/protocol.rs`). A report, not a test: each run with tap lies between
//! two without, because machines change speed from minute to minute; the median pair is what
//! counts. Load goes to a server of its own on loopback and is bounded in time.

mod load;
mod policy;
mod programs;
mod recordings;
mod report;
mod transactions;

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    load::{Nginx, Sample, Throughput},
    report::{Pair, Report},
};

/// Time that a daemon takes to attach, and to settle.
const SETTLE: Duration = Duration::from_millis(1500);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments
        .next()
        .context("say what to measure: wire, idle, transactions, policy or recordings")?;
    let number = |text: Option<String>, default: usize| {
        text.map_or(Ok(default), |text| text.parse().context("give a number"))
    };
    match what.as_str() {
        "wire" => wire(number(arguments.next(), 7)?),
        "idle" => idle(number(arguments.next(), 50_000)?),
        "transactions" => transactions::run(number(arguments.next(), 10)?),
        "policy" => policy::run(number(arguments.next(), 5)?),
        "recordings" => recordings::make(&target()?.join("bench/recordings")),
        "hold" => load::hold(number(arguments.next(), 0)?, number(arguments.next(), 0)?),
        other => {
            bail!("`{other}` is nothing to measure: wire, idle, transactions, policy or recordings")
        }
    }
}

/// (a) keep-alive, (b) one request per connection, (c) latency at a fixed load; then the programs
/// by the kernel's own statistics.
fn wire(pairs: usize) -> Result<()> {
    let nginx = Nginx::start()?;
    let collector = Collector::start()?;
    let mut report = Report::default();
    for number in 0..pairs {
        eprintln!("pair {} of {pairs}", number + 1);
        let before = Measured::take(&nginx, None)?;
        let tap = Tap::start(&collector)?;
        let with = Measured::take(&nginx, Some(&tap))?;
        let rss = tap.resident_bytes()?;
        tap.stop()?;
        let after = Measured::take(&nginx, None)?;
        report.pairs.push(Pair { before, with, after, rss });
    }
    report.programs = programs::measure(&nginx, &collector)?;
    report.print();
    report.write(&target()?.join("bench/wire.json"))
}

/// One half of a pair.
#[derive(Clone, Debug)]
struct Measured {
    keep_alive: Throughput,
    connections: Throughput,
    latency: Sample,
    /// Microseconds of the daemon's CPU per finished span, over the connection load.
    daemon_us_per_span: f64,
}

impl Measured {
    fn take(nginx: &Nginx, tap: Option<&Tap>) -> Result<Self> {
        let keep_alive = nginx.keep_alive(load::SECONDS)?;
        let before = tap.map(Tap::cpu_and_spans).transpose()?;
        let connections = nginx.connections()?;
        std::thread::sleep(SETTLE);
        let after = tap.map(Tap::cpu_and_spans).transpose()?;
        let daemon_us_per_span = match (before, after) {
            (Some(before), Some(after)) => {
                (after.0 - before.0).as_secs_f64() * 1e6 / (after.1 - before.1).max(1) as f64
            }
            _ => 0.0,
        };
        Ok(Self { keep_alive, connections, latency: nginx.latency()?, daemon_us_per_span })
    }
}

/// Connections that do nothing: what one socket costs in the daemon.
fn idle(pairs: usize) -> Result<()> {
    let collector = Collector::start()?;
    let tap = Tap::start(&collector)?;
    let before = tap.resident_bytes()?;
    let held = load::Held::pairs(pairs)?;
    std::thread::sleep(SETTLE * 2);
    let after = tap.resident_bytes()?;
    let open = tap.metric("tap_connection_open")?;
    println!(
        "{open} connections in the table of {} sockets: {:.0} bytes of resident memory each \
         ({before} before, {after} with them)",
        2 * pairs,
        after.saturating_sub(before) as f64 / open.max(1) as f64
    );
    drop(held);
    tap.stop()
}

/// The target folder: this binary is `<target>/<profile>/bench`.
fn target() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.ancestors().nth(2).context("a benchmark outside of a target folder")?.to_owned())
}

/// A receiver that answers every export with an empty success and keeps nothing.
pub struct Collector {
    port: u16,
}

impl Collector {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || drop(load::swallow(stream)));
            }
        });
        Ok(Self { port })
    }
}

/// A running daemon.
pub struct Tap {
    child: Child,
    admin: u16,
}

impl Tap {
    /// Starts it, exporting to `collector`, and waits until it runs.
    pub fn start(collector: &Collector) -> Result<Self> {
        Self::run("run", |command| {
            command
                .env("OTEL_TRACES_EXPORTER", "otlp")
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", collector.port));
        })
    }

    /// Starts one with `config` that exports spans to `collector`.
    pub fn with(collector: &Collector, config: &Path) -> Result<Self> {
        Self::run("run", |command| {
            command
                .env("TAP_CONFIG", config)
                .env("OTEL_TRACES_EXPORTER", "otlp")
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", collector.port));
        })
    }

    /// Starts one with `config` that exports log records to `collector`.
    pub fn log(collector: &Collector, config: &Path) -> Result<Self> {
        Self::run("run", |command| {
            command
                .arg("--config")
                .arg(config)
                .env("OTEL_LOGS_EXPORTER", "otlp")
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", collector.port));
        })
    }

    /// Starts one that records to `file` what there is with log records on.
    pub fn record(file: &Path) -> Result<Self> {
        Self::run("record", |command| {
            command.arg(file).env("OTEL_LOGS_EXPORTER", "console");
        })
    }

    fn run(what: &str, more: impl FnOnce(&mut Command)) -> Result<Self> {
        let binary = std::env::var_os("TAP_BIN")
            .map_or_else(|| Ok(target()?.join("release/tap")), |path| anyhow::Ok(path.into()))?;
        let admin = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = File::create(target()?.join("bench-tap.log"))?;
        let mut command = Command::new(&binary);
        command.args(["--admin", &format!("127.0.0.1:{admin}"), what]);
        more(&mut command);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} does not start", binary.display()))?;
        std::thread::sleep(SETTLE);
        let tap = Self { child, admin };
        tap.metric("tap_connection_open").context("tap does not run (see bench-tap.log)")?;
        Ok(tap)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn proc(&self, file: &str) -> Result<String> {
        Ok(std::fs::read_to_string(Path::new("/proc").join(self.pid().to_string()).join(file))?)
    }

    fn resident_bytes(&self) -> Result<u64> {
        let pages = self.proc("statm")?;
        let pages: u64 = pages.split(' ').nth(1).context("no resident size")?.parse()?;
        Ok(pages * 4096)
    }

    /// CPU time so far, and spans produced.
    fn cpu_and_spans(&self) -> Result<(Duration, u64)> {
        // /proc/<pid>/schedstat is the first thread's only: all of them are summed.
        let mut nanoseconds = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid()))?.flatten() {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let first = text.split(' ').next().unwrap_or_default();
            nanoseconds += first.parse::<u64>().unwrap_or(0);
        }
        Ok((Duration::from_nanos(nanoseconds), self.metric("tap_items_produced_total")?))
    }

    /// The sum of a metric's rows.
    fn metric(&self, name: &str) -> Result<u64> {
        let text = load::get(self.admin, "/metrics")?;
        let rows = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let mut sum = 0.0;
        for row in rows {
            sum += row.rsplit(' ').next().unwrap_or_default().parse::<f64>()?;
        }
        Ok(sum as u64)
    }

    /// Ends it, and gives its books.
    pub fn accounting(self) -> Result<Value> {
        self.stop()?;
        let log = std::fs::read_to_string(target()?.join("bench-tap.log"))?;
        let line = log.lines().rfind(|line| line.starts_with("{\"accounting\""));
        let mut books: Value = serde_json::from_str(line.context("no accounting at the end")?)?;
        Ok(books["accounting"].take())
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<()> {
        let status = self.end()?;
        if !status.success() {
            bail!("tap left with {status}");
        }
        Ok(())
    }

    fn end(&mut self) -> Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            // SAFETY: our own child, not waited for yet.
            unsafe { libc::kill(self.pid() as i32, libc::SIGTERM) };
        }
        Ok(self.child.wait()?)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // A benchmark that fails leaves none behind.
        drop(self.end());
    }
}
