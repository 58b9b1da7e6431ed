//! Receivers of OTLP that are not this project's: one made of OpenTelemetry's own Python messages,
//! [`Rotel`], and the OpenTelemetry [`Collector`]. Each is a process of its own, which can be killed,
//! stopped and started again where it was; what arrived is read from a file of theirs.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::pki::Identity;
use crate::{
    process::Process,
    receiver::Protocol,
    sys,
    wait::{self, PATIENCE},
    workload::Ends,
};

/// Where `cargo xtask setup --tests` puts what `tests/requirements.txt` names.
const PACKAGES: &str = "tools/python";

/// Something in the target directory's folder of tools: a test's own file is
/// `<target>/<profile>/deps/<name>`.
fn tool(path: &str) -> Result<PathBuf> {
    let own = env::current_exe()?;
    let target = own.ancestors().nth(3).context("a test outside of a target directory")?;
    Ok(target.join(path))
}

/// A file of the packages of PyPI.
fn packaged(path: &str) -> Result<PathBuf> {
    let file = tool(PACKAGES)?.join(path);
    ensure!(file.exists(), "{} is missing: cargo xtask setup --tests", file.display());
    Ok(file)
}

/// How the Python receiver meets requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Takes all.
    Ok,
    /// Wants to be asked again in a second: HTTP 429, gRPC `RESOURCE_EXHAUSTED` with `RetryInfo`.
    Throttles,
    /// The same by HTTP 503, gRPC `UNAVAILABLE`.
    Unavailable,
    /// Refuses for good: HTTP 400, gRPC `INVALID_ARGUMENT`.
    Refuses,
    /// Takes all but one item of each request.
    Partial,
    /// Speaks no protocol.
    Garbage,
    /// Breaks off in the middle of its answer's head.
    Half,
    /// Takes all, and breaks off after the head of its answer (HTTP).
    Cut,
    /// Takes all, and does not go on after the head of its answer (HTTP).
    Stalls,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Throttles => "429",
            Self::Unavailable => "503",
            Self::Refuses => "400",
            Self::Partial => "partial",
            Self::Garbage => "garbage",
            Self::Half => "half",
            Self::Cut => "cut",
            Self::Stalls => "stalls",
        }
    }
}

/// A request in the journal.
#[derive(Clone, Debug)]
pub struct Request {
    /// `grpc`, `http/protobuf`, `http/json`.
    pub protocol: String,
    /// `traces`, `logs`, `metrics`.
    pub signal: String,
    /// The mode that met it.
    pub fate: String,
    /// What it held.
    pub items: Vec<Value>,
}

impl Request {
    fn parse(line: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        let items = json["items"].as_array()?.clone();
        Some(Self {
            protocol: text("protocol")?,
            signal: text("signal")?,
            fate: text("fate")?,
            items,
        })
    }

    /// Whether its items have an end: they were taken or refused for good.
    pub fn is_settled(&self) -> bool {
        ["ok", "cut", "stalls", "partial", "400"].contains(&self.fate.as_str())
    }
}

/// A place where the Python receiver stands: two ports and a journal that outlive its process.
#[derive(Debug)]
pub struct Site {
    home: TempDir,
    /// gRPC and HTTP.
    ports: [u16; 2],
    tls: Option<[PathBuf; 3]>,
    mutual: bool,
}

impl Site {
    /// One without TLS; nobody listens there yet.
    pub fn new() -> Result<Self> {
        Ok(Self { home: tempfile::tempdir()?, ports: quiet_ports()?, tls: None, mutual: false })
    }

    /// The receiver shows `identity` from its next start on; clients must show one of `roots`, if
    /// that is given.
    pub fn with_tls(&mut self, identity: &Identity, roots: Option<&Path>) {
        self.mutual = roots.is_some();
        let roots = roots.map_or_else(PathBuf::new, Path::to_owned);
        self.tls = Some([identity.certificate.clone(), identity.key.clone(), roots]);
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` must say for `protocol`.
    pub fn endpoint(&self, protocol: Protocol) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let port = self.ports[usize::from(protocol != Protocol::Grpc)];
        format!("{scheme}://127.0.0.1:{port}")
    }

    /// Starts the receiver there.
    pub fn start(&self, mode: Mode) -> Result<Process> {
        let mut python = Command::new(packaged("bin/python")?);
        python.args(["-u", "-c", include_str!("otlp_receiver.py")]).arg(self.journal());
        python.args(self.ports.map(|port| port.to_string())).arg(mode.name());
        if let Some(tls) = &self.tls {
            python.args(&tls[..if self.mutual { 3 } else { 2 }]);
        }
        // grpcio tells of every handshake that fails, which is what some tests are about.
        python.env("GRPC_VERBOSITY", "NONE");
        let process = Process::start(python)?;
        let started = process.stdout.wait_for("the receiver's ports", PATIENCE, |line| {
            line.strip_prefix("ports ").map(drop)
        });
        started.with_context(|| process.stderr.text())?;
        Ok(process)
    }

    fn journal(&self) -> PathBuf {
        self.home.path().join("journal")
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        let journal = fs::read_to_string(self.journal()).unwrap_or_default();
        // The last line may not be whole.
        journal.lines().filter_map(Request::parse).collect()
    }

    /// How many requests met `mode`.
    pub fn met(&self, mode: Mode) -> usize {
        self.requests().iter().filter(|it| it.fate == mode.name()).count()
    }

    /// Every item of a signal that has an end, with how often it came.
    pub fn items(&self, signal: &str) -> Vec<Value> {
        let requests = self.requests().into_iter();
        requests
            .filter(|it| it.is_settled() && it.signal == signal)
            .flat_map(|it| it.items)
            .collect()
    }

    /// How often each end's span of `ends` came.
    pub fn arrivals(&self, ends: &[Ends]) -> Vec<usize> {
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for span in self.items("traces") {
            if let (Some(local), Some(peer)) = (end(&span, "local"), end(&span, "peer")) {
                *counts.entry((local, peer)).or_default() += 1;
            }
        }
        let count = |local: SocketAddr, peer: SocketAddr| {
            counts.get(&(local.to_string(), peer.to_string())).copied().unwrap_or(0)
        };
        let both = |ends: &Ends| [count(ends.client, ends.server), count(ends.server, ends.client)];
        ends.iter().flat_map(both).collect()
    }

    /// Spans that came more than once.
    pub fn doubled(&self) -> usize {
        let mut ids: BTreeMap<String, usize> = BTreeMap::new();
        for span in self.items("traces") {
            *ids.entry(span["id"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        ids.values().filter(|count| **count > 1).count()
    }

    /// Waits until every span of `ends` has come; no more than `doubled` came twice.
    pub fn wait_for_all(&self, ends: &[Ends], doubled: usize) -> Result<()> {
        let missing = || self.arrivals(ends).iter().filter(|count| **count == 0).count();
        wait::until_true("all spans to arrive", PATIENCE * 2, || missing() == 0)
            .with_context(|| format!("{} of {} are missing", missing(), 2 * ends.len()))?;
        let twice = self.doubled();
        ensure!(twice <= doubled, "{twice} spans came more than once, and {doubled} may");
        Ok(())
    }
}

/// `address:port` of one end, as a [`SocketAddr`] is written.
fn end(span: &Value, which: &str) -> Option<String> {
    let of = |what: &str| &span["attributes"][format!("network.{which}.{what}")];
    let address = of("address").as_str()?.parse().ok()?;
    Some(SocketAddr::new(address, of("port").as_u64()?.try_into().ok()?).to_string())
}

/// rotel, a collector written in Rust (PyPI has its program), which passes everything on by OTLP.
#[derive(Debug)]
pub struct Rotel {
    process: Process,
    ports: [u16; 2],
}

impl Rotel {
    /// Starts it; what it takes goes to `to`.
    pub fn start(to: &Site) -> Result<Self> {
        let agents = tool(PACKAGES)?.join("lib");
        let agent = fs::read_dir(&agents)
            .ok()
            .and_then(|mut python| python.next()?.ok())
            .map(|python| python.path().join("site-packages/rotel/rotel-agent"));
        let agent = agent.filter(|agent| sys::is_executable(agent));
        let agent = agent.map_or_else(|| packaged("lib/rotel-agent"), Ok)?;
        let ports = quiet_ports()?;
        let mut rotel = Command::new(agent);
        rotel.args(["start", "--otlp-grpc-endpoint", &format!("127.0.0.1:{}", ports[0])]);
        rotel.args(["--otlp-http-endpoint", &format!("127.0.0.1:{}", ports[1])]);
        rotel.args(["--exporter", "otlp", "--otlp-exporter-endpoint"]);
        rotel.args([&to.endpoint(Protocol::Grpc), "--otlp-exporter-protocol", "grpc"]);
        rotel.args(["--batch-timeout", "100ms"]);
        let process = Process::start(rotel)?;
        let rotel = Self { process, ports };
        for port in ports {
            until_it_listens(port).with_context(|| {
                format!("{}{}", rotel.process.stdout.text(), rotel.process.stderr.text())
            })?;
        }
        Ok(rotel)
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` must say for `protocol`.
    pub fn endpoint(&self, protocol: Protocol) -> String {
        format!("http://127.0.0.1:{}", self.ports[usize::from(protocol != Protocol::Grpc)])
    }
}

/// Two ports that are free and that no client gets by chance, as it could while nobody listens there:
/// they are below the kernel's range for those.
fn quiet_ports() -> Result<[u16; 2]> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 100) as u16 * 100;
    let mut free = std::iter::from_fn(|| Some(first + NEXT.fetch_add(1, Relaxed)))
        .take(1000)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    match (free.next(), free.next()) {
        (Some(grpc), Some(http)) => Ok([grpc, http]),
        _ => anyhow::bail!("no free port from {first} on"),
    }
}

fn until_it_listens(port: u16) -> Result<()> {
    wait::until_true(&format!("somebody to listen on port {port}"), PATIENCE, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
}

/// The OpenTelemetry Collector with its OTLP receiver and its file exporter, if it was built
/// (`cargo xtask collector`): that takes minutes and Go.
#[derive(Debug)]
pub struct Collector {
    _process: Process,
    home: TempDir,
    scheme: &'static str,
    ports: [u16; 2],
}

impl Collector {
    /// Whether it is there.
    pub fn is_built() -> bool {
        static BUILT: OnceLock<bool> = OnceLock::new();
        *BUILT.get_or_init(|| tool("tools/otelcol").is_ok_and(|it| sys::is_executable(&it)))
    }

    /// Starts it; with `identity` it shows that and wants clients that `roots` vouch for.
    pub fn start(tls: Option<(&Identity, &Path)>) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let ports = quiet_ports()?;
        let secured = tls.map_or_else(String::new, |(identity, roots)| {
            format!(
                ", tls: {{ cert_file: {}, key_file: {}, client_ca_file: {} }}",
                identity.certificate.display(),
                identity.key.display(),
                roots.display()
            )
        });
        let config = home.path().join("config.yaml");
        let file = home.path().join("received.json");
        fs::write(
            &config,
            format!(
                "receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: '127.0.0.1:{}'{secured} }}, \
                 http: {{ endpoint: '127.0.0.1:{}'{secured} }} }} }} }}\n\
                 exporters: {{ file: {{ path: {} }} }}\n\
                 service:\n  telemetry: {{ metrics: {{ level: none }} }}\n  pipelines:\n    \
                 traces: {{ receivers: [otlp], exporters: [file] }}\n    \
                 logs: {{ receivers: [otlp], exporters: [file] }}\n    \
                 metrics: {{ receivers: [otlp], exporters: [file] }}\n",
                ports[0],
                ports[1],
                file.display()
            ),
        )?;
        let mut command = Command::new(tool("tools/otelcol")?);
        command.arg("--config").arg(&config);
        let process = Process::start(command)?;
        for port in ports {
            until_it_listens(port).with_context(|| process.stderr.text())?;
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        Ok(Self { _process: process, home, scheme, ports })
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` must say for `protocol`.
    pub fn endpoint(&self, protocol: Protocol) -> String {
        let port = self.ports[usize::from(protocol != Protocol::Grpc)];
        format!("{}://127.0.0.1:{port}", self.scheme)
    }

    /// Spans, log records and data points that it wrote to its file.
    pub fn counts(&self) -> [u64; 3] {
        let file = fs::read_to_string(self.home.path().join("received.json")).unwrap_or_default();
        let mut counts = [0; 3];
        for line in file.lines() {
            let Ok(json) = serde_json::from_str::<Value>(line) else { continue };
            for (count, [of_resource, of_scope, of_item]) in counts.iter_mut().zip([
                ["resourceSpans", "scopeSpans", "spans"],
                ["resourceLogs", "scopeLogs", "logRecords"],
                ["resourceMetrics", "scopeMetrics", "metrics"],
            ]) {
                let items = each(&json, of_resource).flat_map(|it| each(it, of_scope));
                for item in items.flat_map(|it| each(it, of_item)) {
                    let kinds = ["sum", "gauge", "histogram", "exponentialHistogram", "summary"];
                    let kind = kinds.iter().find(|kind| !item[**kind].is_null());
                    *count +=
                        kind.map_or(1, |kind| each(&item[*kind], "dataPoints").count() as u64);
                }
            }
        }
        counts
    }
}

fn each<'a>(json: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    json[name].as_array().into_iter().flatten()
}
