//! `OTEL_EXPORTER_OTLP_*`: where a signal goes by OTLP, and how. A variable of the signal wins over
//! that for all signals.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Uri};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Error, values::Values};
use crate::config::{
    exporters::{
        self,
        otlp::{Tls as Keys, TlsVersion},
    },
    file::Secret,
};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records of exchanges.
    Logs,
    /// tap's own metrics.
    Metrics,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Logs, Self::Metrics];

    /// Its name among tap's own numbers.
    pub const fn lower(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }

    /// What is sent of it, for people.
    pub const fn items(self) -> &'static str {
        match self {
            Self::Traces => "Spans",
            Self::Logs => "Log records",
            Self::Metrics => "Metrics",
        }
    }

    /// Its part of the names of variables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Logs => "LOGS",
            Self::Metrics => "METRICS",
        }
    }

    /// Path below a base endpoint of OTLP/HTTP.
    const fn http_path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Logs => "/v1/logs",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// gRPC method.
    const fn grpc_path(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

/// `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Protocol {
    /// `grpc`.
    #[serde(rename = "grpc")]
    Grpc,
    /// `http/protobuf`; also `http`.
    #[serde(rename = "http/protobuf", alias = "http")]
    HttpProtobuf,
    /// `http/json`.
    #[serde(rename = "http/json")]
    HttpJson,
}

impl Protocol {
    /// Its name in the environment.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
            Self::HttpJson => "http/json",
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Grpc => "http://localhost:4317",
            Self::HttpProtobuf | Self::HttpJson => "http://localhost:4318",
        }
    }
}

/// `OTEL_EXPORTER_OTLP_COMPRESSION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// `none`.
    None,
    /// `gzip`.
    Gzip,
    /// `zstd`.
    Zstd,
}

impl Compression {
    /// The content coding of HTTP and gRPC; `None` for no compression.
    pub const fn coding(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// Certificates and keys, read.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Who is trusted instead of the system's roots (`…_CERTIFICATE`).
    pub roots: Option<Vec<CertificateDer<'static>>>,
    /// Who tap is (`…_CLIENT_CERTIFICATE`, `…_CLIENT_KEY`).
    pub identity: Option<(Vec<CertificateDer<'static>>, Arc<PrivateKeyDer<'static>>)>,
    /// The lowest and the highest version that is spoken.
    pub versions: (Option<TlsVersion>, Option<TlsVersion>),
    /// The name that the server's certificate must have, instead of the endpoint's.
    pub server_name: Option<ServerName<'static>>,
    /// Where the roots, the chain and its key were read, as far as these are files.
    sources: [Option<Source>; 3],
}

/// A file that a variable or a key of the configuration names.
#[derive(Clone, Debug)]
struct Source {
    variable: String,
    path: PathBuf,
}

impl Tls {
    /// The files that it was read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().flatten().map(|source| &*source.path)
    }

    /// The same, from what its files hold now.
    pub fn read_again(&self) -> Result<Self, Error> {
        let mut tls = self.clone();
        let [roots, chain, key] = &self.sources;
        if let Some(source) = roots {
            tls.roots = Some(certificates(&source.open()?)?);
        }
        if let Some((old_chain, old_key)) = &mut tls.identity {
            if let Some(source) = chain {
                *old_chain = certificates(&source.open()?)?;
            }
            if let Some(source) = key {
                *old_key = Arc::new(private_key(&source.open()?)?);
            }
        }
        Ok(tls)
    }
}

/// How one signal goes by OTLP.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// The exporter's name.
    pub exporter: Arc<str>,
    /// The signal.
    pub signal: Signal,
    /// The protocol.
    pub protocol: Protocol,
    /// Where each request goes, path included.
    pub endpoint: Uri,
    /// Sent with each request; their values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Longest time of one attempt; `None` is without end.
    pub timeout: Option<Duration>,
    /// Compression of requests.
    pub compression: Compression,
    /// Certificates, for `https`.
    pub tls: Tls,
}

impl Otlp {
    /// How `signal` goes by the exporter `name` of the configuration file: by that alone. `None`
    /// where it says no endpoint for it.
    pub fn named(
        name: &Arc<str>,
        block: &exporters::Otlp,
        signal: Signal,
    ) -> Result<Option<Self>, Error> {
        if block.endpoint(signal).is_none() {
            return Ok(None);
        }
        Self::read(&mut Values::default(), signal, name, block).map(Some)
    }

    /// What the variables say of `signal`, and where they are silent the exporter `name` of the file.
    ///
    /// Who says the endpoint sets the defaults of the rest: the specification's where it is the
    /// environment or nobody, the Collector's where it is the file.
    pub(super) fn read(
        values: &mut Values,
        signal: Signal,
        name: &Arc<str>,
        block: &exporters::Otlp,
    ) -> Result<Self, Error> {
        let protocols = [
            ("grpc", Protocol::Grpc),
            ("http/protobuf", Protocol::HttpProtobuf),
            ("http/json", Protocol::HttpJson),
            ("http", Protocol::HttpProtobuf),
        ];
        let told = names(signal, "ENDPOINT").iter().any(|name| values.peek(name).is_some());
        let of_file = block.endpoint(signal).filter(|_| !told);
        let default = match of_file {
            Some(_) => block.usual_protocol(),
            None => Protocol::HttpProtobuf,
        };
        let protocol = pick(values, signal, "PROTOCOL", |v, name| v.one_of(name, &protocols))
            .or(block.protocol())
            .unwrap_or(default);
        let insecure = pick(values, signal, "INSECURE", Values::flag);
        let insecure = insecure.unwrap_or(block.tls.insecure);
        let compressions =
            [Compression::Gzip, Compression::Zstd].map(|it| (it.coding().unwrap_or_default(), it));
        let compressions = [&compressions[..], &[("none", Compression::None)]].concat();
        let (timeout, compression) = match (of_file, protocol) {
            (None, _) => (10, Compression::None),
            (Some(_), Protocol::Grpc) => (5, Compression::Gzip),
            (Some(_), Protocol::HttpProtobuf | Protocol::HttpJson) => (30, Compression::Gzip),
        };
        let compression =
            pick(values, signal, "COMPRESSION", |v, name| v.one_of(name, &compressions))
                .or(block.compression)
                .unwrap_or(compression);
        let in_file = |timeout: Duration| Some(timeout).filter(|timeout| !timeout.is_zero());
        let of_environment = endpoint(values, signal, protocol, insecure)?;
        let of_file = of_file.and_then(|(endpoint, base)| {
            Some(with_path(&endpoint.uri(insecure)?, signal, protocol, base))
        });
        Ok(Self {
            exporter: name.clone(),
            signal,
            protocol,
            endpoint: of_environment.or(of_file).unwrap_or_else(|| {
                with_path(&Uri::from_static(protocol.example()), signal, protocol, true)
            }),
            headers: pick(values, signal, "HEADERS", headers)
                .or(block.headers.clone().map(|headers| headers.0))
                .unwrap_or_default(),
            timeout: pick(values, signal, "TIMEOUT", Values::timeout)
                .or(block.timeout.map(in_file))
                .unwrap_or(Some(Duration::from_secs(timeout))),
            compression,
            tls: tls(values, signal, name, &block.tls)?,
        })
    }
}

/// Both names of a variable: the signal's own, and that for all signals.
fn names(signal: Signal, what: &str) -> [String; 2] {
    [format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.name()), format!("OTEL_EXPORTER_OTLP_{what}")]
}

/// The signal's own value, else that for all signals. Both are read, so that both are checked.
fn pick<T>(
    values: &mut Values,
    signal: Signal,
    what: &str,
    read: impl Fn(&mut Values, &str) -> Option<T>,
) -> Option<T> {
    let [own, general] = names(signal, what);
    let own = read(values, &own);
    let general = read(values, &general);
    own.or(general)
}

fn endpoint(
    values: &mut Values,
    signal: Signal,
    protocol: Protocol,
    insecure: bool,
) -> Result<Option<Uri>, Error> {
    let [own, general] = names(signal, "ENDPOINT");
    // Both are checked: a broken endpoint is an error even where another one wins.
    let general_uri = read_endpoint(values, &general, protocol, insecure)?
        .map(|base| with_path(&base, signal, protocol, true));
    let own_uri = read_endpoint(values, &own, protocol, insecure)?
        .map(|base| with_path(&base, signal, protocol, false));
    Ok(own_uri.or(general_uri))
}

/// The variable's URL, checked.
fn read_endpoint(
    values: &mut Values,
    variable: &str,
    protocol: Protocol,
    insecure: bool,
) -> Result<Option<Uri>, Error> {
    let Some(value) = values.text(variable) else { return Ok(None) };
    let grpc = protocol == Protocol::Grpc;
    let uri = check_endpoint(&value, grpc, insecure).map_err(|why| {
        let hidden = why == CREDENTIALS;
        Error::Endpoint {
            variable: variable.to_owned(),
            value: if hidden { "(hidden)".to_owned() } else { value.clone() },
            why: if hidden {
                format!("{why} in OTEL_EXPORTER_OTLP_HEADERS")
            } else {
                why.to_owned()
            },
            example: protocol.example(),
        }
    })?;
    if grpc && uri.path().len() > 1 {
        values.note(variable, &value, "its path is not used: gRPC has its own");
    }
    Ok(Some(uri))
}

/// Why a URL with credentials is none.
const CREDENTIALS: &str = "it holds credentials; give them";

/// An endpoint's URL, or what is wrong with it. gRPC's clients take `host:port` too; then `insecure`
/// tells what it is.
pub fn check_endpoint(text: &str, grpc: bool, insecure: bool) -> Result<Uri, &'static str> {
    let url = match text.split_once("://") {
        None if grpc => format!("{}://{text}", if insecure { "http" } else { "https" }),
        None => return Err("it has no scheme"),
        Some(("http" | "https", _)) => text.to_owned(),
        Some(_) => return Err("its scheme is neither http nor https"),
    };
    let uri: Uri = url.parse().map_err(|_| "it is no URL")?;
    let authority = uri.authority().ok_or("it has no host")?;
    if authority.host().is_empty() {
        return Err("it has no host");
    }
    if authority.as_str().contains('@') {
        return Err(CREDENTIALS);
    }
    if authority.as_str().rsplit_once(':').is_some_and(|(host, port)| {
        !port.ends_with(']') && !host.is_empty() && port.parse::<u16>().is_err()
    }) {
        return Err("its port is no number from 0 to 65535");
    }
    Ok(uri)
}

/// The URL of requests: gRPC's method; `/v1/…` below a base; a signal's own URL as it is.
fn with_path(uri: &Uri, signal: Signal, protocol: Protocol, base: bool) -> Uri {
    let path = match protocol {
        Protocol::Grpc => signal.grpc_path().to_owned(),
        _ if base => format!("{}{}", uri.path().trim_end_matches('/'), signal.http_path()),
        _ => uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    // A path made of a valid path and ASCII is valid.
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// A list of headers.
fn headers(values: &mut Values, name: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let pairs = values.pairs(name, false)?;
    let mut headers = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        match (HeaderName::try_from(&key), HeaderValue::try_from(value)) {
            (Ok(key), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.push((key, value));
            }
            _ => {
                let what = format!("{key:?} is no HTTP header; this header is ignored");
                values.warn(name, "(hidden)", &what);
            }
        }
    }
    Some(headers)
}

fn tls(values: &mut Values, signal: Signal, exporter: &str, keys: &Keys) -> Result<Tls, Error> {
    let pem = |key: &str, path: &Option<PathBuf>, text: &Option<Secret>| {
        let variable = format!("exporters.{exporter}.tls.{key}");
        match (path, text) {
            (Some(path), _) => File::open(format!("{variable}_file"), path.clone()).map(Some),
            (None, Some(text)) => Ok(Some(File {
                source: Source { variable: format!("{variable}_pem"), path: "(text)".into() },
                is_text: true,
                content: text.0.clone().into_bytes(),
            })),
            (None, None) => Ok(None),
        }
    };
    let roots = match file(values, signal, "CERTIFICATE")? {
        Some(file) => Some(file),
        None => pem("ca", &keys.ca_file, &keys.ca_pem)?,
    };
    let chain = read(file(values, signal, "CLIENT_CERTIFICATE")?, certificates)?;
    let key = read(file(values, signal, "CLIENT_KEY")?, private_key)?;
    let identity = match (chain, key) {
        (Some(chain), Some(key)) => Some((chain, key)),
        (None, None) => {
            let chain = read(pem("cert", &keys.cert_file, &keys.cert_pem)?, certificates)?;
            chain.zip(read(pem("key", &keys.key_file, &keys.key_pem)?, private_key)?)
        }
        (chain, _) => {
            let (have, other) = if chain.is_some() {
                ("CLIENT_CERTIFICATE", "CLIENT_KEY")
            } else {
                ("CLIENT_KEY", "CLIENT_CERTIFICATE")
            };
            let what = format!("not used without OTEL_EXPORTER_OTLP_{other}");
            for variable in names(signal, have) {
                if let Some(value) = values.peek(&variable) {
                    values.warn(&variable, &value, &what);
                }
            }
            None
        }
    };
    let name = keys.server_name_override.clone();
    let (roots, of_roots) = read(roots, certificates)?.unzip();
    let (chain, key) = identity.unzip();
    let ((chain, of_chain), (key, of_key)) = (chain.unzip(), key.unzip());
    Ok(Tls {
        roots,
        identity: chain.zip(key.map(Arc::new)),
        sources: [of_roots, of_chain, of_key].map(Option::flatten),
        versions: (keys.min_version, keys.max_version),
        // Checked where it was read.
        server_name: name.and_then(|name| ServerName::try_from(name).ok()),
    })
}

/// What a file holds, or a text in its place.
struct File {
    source: Source,
    is_text: bool,
    content: Vec<u8>,
}

impl Source {
    fn open(&self) -> Result<File, Error> {
        File::open(self.variable.clone(), self.path.clone())
    }
}

impl File {
    fn open(variable: String, path: PathBuf) -> Result<Self, Error> {
        let source = Source { variable, path };
        let mut file = Self { source, is_text: false, content: Vec::new() };
        file.content = fs::read(&file.source.path).map_err(|error| file.wrong(error))?;
        Ok(file)
    }

    fn source(&self) -> Option<Source> {
        (!self.is_text).then(|| self.source.clone())
    }

    fn wrong(&self, why: impl std::fmt::Display) -> Error {
        let Source { variable, path } = self.source.clone();
        Error::File { variable, path, why: why.to_string() }
    }
}

fn file(values: &mut Values, signal: Signal, what: &str) -> Result<Option<File>, Error> {
    let [own, general] = names(signal, what);
    let (own_path, general_path) = (values.text(&own), values.text(&general));
    let Some((variable, path)) =
        own_path.map(|path| (own, path)).or(general_path.map(|path| (general, path)))
    else {
        return Ok(None);
    };
    File::open(variable, path.into()).map(Some)
}

/// What `parse` makes of a file, and where that is to be read again.
fn read<T>(
    file: Option<File>,
    parse: impl Fn(&File) -> Result<T, Error>,
) -> Result<Option<(T, Option<Source>)>, Error> {
    file.map(|file| Ok((parse(&file)?, file.source()))).transpose()
}

fn certificates(file: &File) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file.content).collect();
    match found {
        Ok(found) if found.is_empty() => Err(file.wrong("it holds no certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(file.wrong(error)),
    }
}

fn private_key(file: &File) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(&file.content).map_err(|error| file.wrong(error))
}
