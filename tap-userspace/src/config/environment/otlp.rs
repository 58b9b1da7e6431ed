//! `OTEL_EXPORTER_OTLP_*`: where a signal goes by OTLP, and how. A variable of the signal wins over
//! that for all signals.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Uri};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::{Error, values::Values};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `grpc`.
    Grpc,
    /// `http/protobuf`; also `http`.
    HttpProtobuf,
    /// `http/json`.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// How one signal goes by OTLP.
#[derive(Clone, Debug)]
pub struct Otlp {
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
    /// What the variables say of `signal`.
    pub(super) fn read(values: &mut Values, signal: Signal) -> Result<Self, Error> {
        let protocols = [
            ("grpc", Protocol::Grpc),
            ("http/protobuf", Protocol::HttpProtobuf),
            ("http/json", Protocol::HttpJson),
            ("http", Protocol::HttpProtobuf),
        ];
        let protocol = pick(values, signal, "PROTOCOL", |v, name| v.one_of(name, &protocols))
            .unwrap_or(Protocol::HttpProtobuf);
        let insecure = pick(values, signal, "INSECURE", Values::flag).unwrap_or(false);
        let compressions =
            [Compression::Gzip, Compression::Zstd].map(|it| (it.coding().unwrap_or_default(), it));
        let compressions = [&compressions[..], &[("none", Compression::None)]].concat();
        Ok(Self {
            signal,
            protocol,
            endpoint: endpoint(values, signal, protocol, insecure)?,
            headers: pick(values, signal, "HEADERS", headers).unwrap_or_default(),
            timeout: pick(values, signal, "TIMEOUT", Values::timeout)
                .unwrap_or(Some(Duration::from_secs(10))),
            compression: pick(values, signal, "COMPRESSION", |v, name| {
                v.one_of(name, &compressions)
            })
            .unwrap_or(Compression::None),
            tls: tls(values, signal)?,
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
) -> Result<Uri, Error> {
    let [own, general] = names(signal, "ENDPOINT");
    // Both are checked: a broken endpoint is an error even where another one wins.
    let general_uri = read_endpoint(values, &general, protocol, insecure)?
        .map(|base| with_path(&base, signal, protocol, true));
    let own_uri = read_endpoint(values, &own, protocol, insecure)?
        .map(|base| with_path(&base, signal, protocol, false));
    Ok(own_uri.or(general_uri).unwrap_or_else(|| {
        with_path(&Uri::from_static(protocol.example()), signal, protocol, true)
    }))
}

/// The variable's URL, checked.
fn read_endpoint(
    values: &mut Values,
    variable: &str,
    protocol: Protocol,
    insecure: bool,
) -> Result<Option<Uri>, Error> {
    let Some(value) = values.text(variable) else { return Ok(None) };
    let wrong = |why: &str| Error::Endpoint {
        variable: variable.to_owned(),
        value: value.clone(),
        why: why.to_owned(),
        example: protocol.example(),
    };
    let text = match value.split_once("://") {
        // gRPC's clients take host:port too; then `…_INSECURE` tells what it is.
        None if protocol == Protocol::Grpc => {
            format!("{}://{value}", if insecure { "http" } else { "https" })
        }
        None => return Err(wrong("it has no scheme")),
        Some(("http" | "https", _)) => value.clone(),
        Some(_) => return Err(wrong("its scheme is neither http nor https")),
    };
    let uri: Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
    if authority.host().is_empty() {
        return Err(wrong("it has no host"));
    }
    if authority.as_str().contains('@') {
        return Err(Error::Endpoint {
            variable: variable.to_owned(),
            value: "(hidden)".to_owned(),
            why: "it holds credentials; give them in OTEL_EXPORTER_OTLP_HEADERS".to_owned(),
            example: protocol.example(),
        });
    }
    if authority.as_str().rsplit_once(':').is_some_and(|(host, port)| {
        !port.ends_with(']') && !host.is_empty() && port.parse::<u16>().is_err()
    }) {
        return Err(wrong("its port is no number from 0 to 65535"));
    }
    if protocol == Protocol::Grpc && uri.path().len() > 1 {
        values.note(variable, &value, "its path is not used: gRPC has its own");
    }
    Ok(Some(uri))
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

fn tls(values: &mut Values, signal: Signal) -> Result<Tls, Error> {
    let roots = file(values, signal, "CERTIFICATE")?.map(certificates).transpose()?;
    let chain = file(values, signal, "CLIENT_CERTIFICATE")?.map(certificates).transpose()?;
    let key = file(values, signal, "CLIENT_KEY")?.map(private_key).transpose()?;
    let identity = match (chain, key) {
        (Some(chain), Some(key)) => Some((chain, Arc::new(key))),
        (None, None) => None,
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
    Ok(Tls { roots, identity })
}

/// A file that a variable names.
struct File {
    variable: String,
    path: PathBuf,
    content: Vec<u8>,
}

impl File {
    fn wrong(&self, why: impl std::fmt::Display) -> Error {
        let (variable, path) = (self.variable.clone(), self.path.clone());
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
    let mut file = File { variable, path: path.into(), content: Vec::new() };
    file.content = fs::read(&file.path).map_err(|error| file.wrong(error))?;
    Ok(Some(file))
}

fn certificates(file: File) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file.content).collect();
    match found {
        Ok(found) if found.is_empty() => Err(file.wrong("it holds no certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(file.wrong(error)),
    }
}

fn private_key(file: File) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(&file.content).map_err(|error| file.wrong(error))
}
