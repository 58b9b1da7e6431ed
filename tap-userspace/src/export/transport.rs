//! One request to where it goes: OTLP to its endpoint, whatever the protocol, or to a file; an object to its
//! store. Comes in: a protobuf message, or an object with its name; goes out: an [`Outcome`]. Trying
//! again is [`super::sender`]'s.

use std::{borrow::Cow, io::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest,
    metrics::v1::ExportMetricsServiceRequest,
    trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use prost::Message;
use tokio::time::Instant;

use super::{
    client::{self, Client},
    file, grpc, http as over_http,
    object::{store::Store, upload},
};
use crate::config::environment::{Compression, Otlp, Protocol, Signal};

impl Prepared {
    /// Bytes that are sent.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none: a request of nothing.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The memory, to be used again; `None` where somebody still reads it.
    pub fn into_buffer(self) -> Option<Vec<u8>> {
        let mut buffer = Vec::from(self.0.try_into_mut().ok()?);
        buffer.clear();
        Some(buffer)
    }
}

/// Longest response that is read (OTLP's recommendation).
pub const LONGEST_RESPONSE: usize = 4 << 20;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has taken all but `rejected` items.
    Taken {
        /// Items it refuses for good.
        rejected: u64,
        /// Why, or a warning.
        message: String,
    },
    /// Worth trying again.
    Again {
        /// What went wrong.
        cause: String,
        /// When the receiver wants to be asked again.
        after: Option<Duration>,
        /// `error.type`.
        error: Cow<'static, str>,
    },
    /// The receiver refuses all of it for good.
    Refused {
        /// What went wrong.
        cause: String,
        /// What to do about it.
        remedy: &'static str,
        /// `error.type`.
        error: Cow<'static, str>,
    },
}

impl Outcome {
    /// Worth trying again, whenever.
    pub fn again(cause: impl Into<String>, error: impl Into<Cow<'static, str>>) -> Self {
        Self::Again { cause: cause.into(), after: None, error: error.into() }
    }

    /// From a decoded response. Those of all signals have the same fields.
    pub fn from_response(body: &[u8]) -> Self {
        // The status said that it was taken; what cannot be read rejects nothing.
        let response = ExportTraceServiceResponse::decode(body).unwrap_or_default();
        let partial = response.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
        Self::Taken { rejected, message: partial.error_message }
    }
}

/// `google.rpc.Status`, which errors come as (google/rpc/status.proto).
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// gRPC status code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// Text for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// `google.protobuf.Any`s.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    /// What it is.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Encoded.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// The way to one endpoint, to a file, or into an object store.
#[derive(Debug)]
pub struct Transport {
    exporter: Arc<str>,
    to: To,
}

#[derive(Debug)]
enum To {
    Collector(Box<Collector>),
    File(Signal, Arc<file::Writer>),
    Store(Store),
}

#[derive(Debug)]
struct Collector {
    client: Client,
    otlp: Otlp,
    headers: HeaderMap,
}

/// A message in its protocol's form; may be sent more than once.
#[derive(Clone, Debug)]
pub struct Prepared(Bytes);

impl Transport {
    /// Space before a message that [`Self::prepare`] may write to.
    pub const HEADROOM: usize = grpc::PREFIX;

    /// The way that `otlp` describes.
    pub fn new(otlp: &Otlp) -> Result<Self, client::Error> {
        let mut headers = HeaderMap::new();
        let agent = concat!("OTel-OTLP-Exporter-tap/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        let json = otlp.protocol == Protocol::HttpJson;
        let content_type = if json { "application/json" } else { "application/x-protobuf" };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let coding = otlp.compression.coding();
        if otlp.protocol == Protocol::Grpc {
            grpc::headers(&mut headers, otlp.timeout, coding);
        } else if let Some(coding) = coding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        for (name, value) in &otlp.headers {
            headers.insert(name.clone(), value.clone());
        }
        let collector = Collector { client: client::client(otlp)?, otlp: otlp.clone(), headers };
        let to = To::Collector(Box::new(collector));
        Ok(Self { exporter: otlp.exporter.clone(), to })
    }

    /// The way into a file.
    pub const fn to_file(exporter: Arc<str>, signal: Signal, file: Arc<file::Writer>) -> Self {
        Self { exporter, to: To::File(signal, file) }
    }

    /// The way into an object store.
    pub fn to_store(store: Store) -> Self {
        Self { exporter: store.name.into(), to: To::Store(store) }
    }

    /// The exporter's name.
    pub fn exporter(&self) -> &str {
        &self.exporter
    }

    /// What goes there, for people.
    pub const fn items(&self) -> &'static str {
        match &self.to {
            To::Collector(collector) => collector.otlp.signal.items(),
            To::File(signal, _) => signal.items(),
            To::Store(_) => "Objects",
        }
    }

    /// What takes it there, and what is done to it, for people.
    pub const fn words(&self) -> [&'static str; 2] {
        match &self.to {
            To::Collector(_) => ["collector", "sent"],
            To::File(..) => ["file", "sent"],
            To::Store(_) => ["store", "stored"],
        }
    }

    /// Where it goes.
    pub fn endpoint(&self) -> String {
        match &self.to {
            To::Collector(collector) => collector.otlp.endpoint.to_string(),
            To::File(_, file) => file.path().display().to_string(),
            To::Store(store) => store.place.clone(),
        }
    }

    /// How it goes there: `OTEL_EXPORTER_OTLP_PROTOCOL`, `file`, or the type of a store.
    pub const fn protocol(&self) -> &'static str {
        match &self.to {
            To::Collector(collector) => collector.otlp.protocol.name(),
            To::File(..) => "file",
            To::Store(store) => store.name,
        }
    }

    /// A message, if it is OTLP's.
    pub const fn otlp<'a>(&self, message: &'a [u8]) -> Option<&'a [u8]> {
        match &self.to {
            To::Collector(_) | To::File(..) => Some(message),
            To::Store(_) => None,
        }
    }

    /// Host and port; a file has none, and a store may have many.
    pub fn server(&self) -> Option<(String, u16)> {
        let To::Collector(collector) = &self.to else { return None };
        let uri = &collector.otlp.endpoint;
        let port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        Some((host.to_owned(), uri.port_u16().unwrap_or(port)))
    }

    /// What to do where it cannot be reached.
    pub const fn remedy(&self) -> &'static str {
        match &self.to {
            To::Collector(_) => {
                "check that a collector listens there, or change the endpoint (`endpoint` of the \
                 exporter, OTEL_EXPORTER_OTLP_ENDPOINT for `otlp`); what waits is sent again"
            }
            To::File(..) => {
                "make room, or see to the folder and its rights; what waits is written when that \
                 is possible"
            }
            To::Store(_) => "objects are kept and sent again; check http_capture.store",
        }
    }

    /// Longest time of one attempt.
    pub fn timeout(&self) -> Option<Duration> {
        match &self.to {
            To::Collector(collector) => collector.otlp.timeout,
            To::File(..) => None,
            To::Store(store) => Some(store.timeout),
        }
    }

    /// Brings the message `message[start..]` into the form of what it goes to; up to
    /// [`Self::HEADROOM`] bytes before it are overwritten.
    pub fn prepare(&self, message: Vec<u8>, start: usize) -> Result<Prepared, String> {
        match &self.to {
            To::Collector(collector) => collector.prepare(message, start),
            To::File(signal, file) => {
                let mut line = to_json(*signal, &message[start..])?;
                line.push(b'\n');
                file.prepare(line).map(|piece| Prepared(piece.into()))
            }
            To::Store(_) => Ok(Prepared(Bytes::from(message).slice(start..))),
        }
    }

    /// One attempt, no longer than `timeout`. A file is waited for: a write that hangs is not made
    /// twice.
    pub async fn attempt(&self, message: &Prepared, timeout: Option<Duration>) -> Outcome {
        let timeout = timeout.filter(|_| !matches!(self.to, To::File(..)));
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let attempt = async {
            match &self.to {
                To::Collector(collector) => collector.send(message.0.clone(), until).await,
                To::File(_, file) => file::append(file, message.0.clone()).await,
                To::Store(store) => match upload::read(&message.0) {
                    Some((key, object)) => store.put(&key, object).await,
                    None => Outcome::Refused {
                        cause: "what waited on disk is no object with its name".into(),
                        remedy: "give this queue a folder that nobody else writes to",
                        error: "_OTHER".into(),
                    },
                },
            }
        };
        match until {
            None => attempt.await,
            Some(until) => tokio::time::timeout_at(until, attempt).await.unwrap_or_else(|_| {
                let timeout = timeout.unwrap_or_default();
                Outcome::again(format!("no answer within {timeout:?}"), "timeout")
            }),
        }
    }
}

impl Collector {
    fn prepare(&self, mut message: Vec<u8>, start: usize) -> Result<Prepared, String> {
        let how = self.otlp.compression;
        let plain = how == Compression::None;
        if self.otlp.protocol == Protocol::HttpJson {
            let json = to_json(self.otlp.signal, &message[start..])?;
            return Ok(Prepared(if plain { json } else { compress(how, &[], &json)? }.into()));
        }
        let grpc = self.otlp.protocol == Protocol::Grpc;
        Ok(Prepared(match (grpc, plain) {
            (false, true) => Bytes::from(message).slice(start..),
            (false, false) => compress(how, &[], &message[start..])?.into(),
            (true, true) => {
                let begin = start - grpc::PREFIX;
                grpc::prefix(&mut message[begin..], false);
                Bytes::from(message).slice(begin..)
            }
            (true, false) => {
                let mut body = compress(how, &[0; grpc::PREFIX], &message[start..])?;
                grpc::prefix(&mut body, true);
                body.into()
            }
        }))
    }

    async fn send(&self, body: Bytes, until: Option<Instant>) -> Outcome {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.otlp.endpoint.clone();
        *request.headers_mut() = self.headers.clone();
        match self.client.request(request).await {
            Err(error) => {
                let kind = if error.is_connect() { "connect" } else { "broken" };
                Outcome::again(chain(&error), kind)
            }
            Ok(response) if self.otlp.protocol == Protocol::Grpc => grpc::outcome(response).await,
            Ok(response) => over_http::outcome(response, until).await,
        }
    }
}

/// An error with its causes, since a client's first word is only "client error (Connect)".
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// `prefix`, then `content`, compressed. Fast rather than small: spans repeat so much that the
/// level hardly matters.
pub(super) fn compress(how: Compression, prefix: &[u8], content: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(content.len() / 4);
    out.extend_from_slice(prefix);
    let compressed = match how {
        Compression::None => {
            out.extend_from_slice(content);
            Ok(out)
        }
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(out, flate2::Compression::fast());
            encoder.write_all(content).and_then(|()| encoder.finish())
        }
        Compression::Zstd => zstd::stream::write::Encoder::new(out, 1).and_then(|mut encoder| {
            encoder.write_all(content)?;
            encoder.finish()
        }),
    };
    compressed.map_err(|error| format!("a request could not be compressed: {error}"))
}

/// The message as OTLP/JSON: ids in hex, 64-bit integers as strings.
fn to_json(signal: Signal, message: &[u8]) -> Result<Vec<u8>, String> {
    fn convert<T: Message + Default + serde::Serialize>(message: &[u8]) -> Result<Vec<u8>, String> {
        let decoded = T::decode(message).map_err(|error| error.to_string())?;
        serde_json::to_vec(&decoded).map_err(|error| error.to_string())
    }
    match signal {
        Signal::Traces => convert::<ExportTraceServiceRequest>(message),
        Signal::Logs => convert::<ExportLogsServiceRequest>(message),
        Signal::Metrics => convert::<ExportMetricsServiceRequest>(message),
    }
    .map_err(|error| format!("a request could not be written as JSON: {error}"))
}
