//! An `otlp` exporter of the configuration file, in the words of the Collector's `otlp` and
//! `otlphttp` exporters (otlpexporter, otlphttpexporter, configgrpc, confighttp, configtls). What a
//! block leaves out, [`crate::config::environment::Otlp`] fills in.

use std::{fmt, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Id, Kind, RetryOnFailure, SendingQueue, queue::some_duration};
use crate::config::{
    environment::{Compression, Protocol, Signal, check_endpoint},
    place::{Mistake, Step},
    schema,
    values::{Secret, scalar, write_some_duration},
};

/// The block. A `sending_queue` that is absent leaves its part to `OTEL_BSP_*` and `OTEL_BLRP_*`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// The exporter's type; part of its name.
    #[serde(skip)]
    pub(super) kind: Kind,
    /// tap's own key: in the Collector the type says it.
    pub protocol: Option<Protocol>,
    /// Form of requests over HTTP.
    pub encoding: Option<Encoding>,
    /// Where all signals go: a URL; for gRPC also `host:port`.
    pub endpoint: Option<Endpoint>,
    /// The whole URL for spans.
    pub traces_endpoint: Option<Endpoint>,
    /// The whole URL for log records.
    pub logs_endpoint: Option<Endpoint>,
    /// The whole URL for metrics.
    pub metrics_endpoint: Option<Endpoint>,
    /// Sent with each request.
    pub headers: Option<Headers>,
    /// Compression of requests.
    pub compression: Option<Compression>,
    /// Longest time of one attempt; zero is without end.
    #[serde(deserialize_with = "some_duration", serialize_with = "write_some_duration")]
    #[schemars(schema_with = "schema::some_go_duration")]
    pub timeout: Option<Duration>,
    /// Certificates.
    pub tls: Tls,
    /// Where requests wait.
    pub sending_queue: Option<SendingQueue>,
    /// When a request that failed is tried again.
    pub retry_on_failure: Option<RetryOnFailure>,
}

/// `encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Protobuf.
    Proto,
    /// JSON.
    Json,
}

/// `tls` (configtls).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// An endpoint without a scheme is reached without TLS.
    pub insecure: bool,
    /// Who is trusted instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The same, as text.
    pub ca_pem: Option<Secret>,
    /// Who tap is.
    pub cert_file: Option<PathBuf>,
    /// The same, as text.
    pub cert_pem: Option<Secret>,
    /// The key to it.
    pub key_file: Option<PathBuf>,
    /// The same, as text.
    pub key_pem: Option<Secret>,
    /// The lowest version that is spoken.
    pub min_version: Option<TlsVersion>,
    /// The highest.
    pub max_version: Option<TlsVersion>,
    /// The name that the server's certificate must have, instead of the endpoint's.
    #[serde(deserialize_with = "server_name")]
    pub server_name_override: Option<String>,
}

/// `tls.min_version`, `tls.max_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `1.2`.
    V12,
    /// `1.3`.
    V13,
}

/// Where requests go, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    text: String,
}

impl Endpoint {
    /// Whether it says `http` or `https`.
    fn has_scheme(&self) -> bool {
        self.text.contains("://")
    }

    /// Its URL; without a scheme it is that of TLS, unless `insecure`.
    pub fn uri(&self, insecure: bool) -> Option<Uri> {
        check_endpoint(&self.text, true, insecure).ok()
    }

    /// Its port, if it names one.
    fn port(&self) -> Option<u16> {
        self.uri(true)?.port_u16()
    }
}

/// `headers`. Their values are marked sensitive, and no log shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(HeaderName, HeaderValue)>);

impl Otlp {
    /// Where the file says that a signal goes: the URL, and whether paths are added to it.
    pub fn endpoint(&self, signal: Signal) -> Option<(&Endpoint, bool)> {
        let own = match signal {
            Signal::Traces => &self.traces_endpoint,
            Signal::Logs => &self.logs_endpoint,
            Signal::Metrics => &self.metrics_endpoint,
        };
        let own = own.as_ref().map(|endpoint| (endpoint, false));
        own.or(self.endpoint.as_ref().map(|endpoint| (endpoint, true)))
    }

    /// The protocol, as far as the file says it.
    pub fn protocol(&self) -> Option<Protocol> {
        let json = self.encoding == Some(Encoding::Json);
        let over_http = if json { Protocol::HttpJson } else { Protocol::HttpProtobuf };
        match (self.protocol, self.kind) {
            (Some(Protocol::HttpProtobuf), _) if json => Some(Protocol::HttpJson),
            (Some(protocol), _) => Some(protocol),
            (None, Kind::OtlpHttp) => Some(over_http),
            (None, Kind::OtlpGrpc) => Some(Protocol::Grpc),
            (None, _) if self.encoding.is_some() || self.own_endpoint().is_some() => {
                Some(over_http)
            }
            (None, _) => None,
        }
    }

    /// What holds where an endpoint is in the file and no protocol: the Collector's `otlp` exporter
    /// speaks gRPC; nothing but OTLP/HTTP has port 4318.
    pub fn usual_protocol(&self) -> Protocol {
        match self.endpoint.as_ref().and_then(Endpoint::port) {
            Some(4318) => Protocol::HttpProtobuf,
            _ => Protocol::Grpc,
        }
    }

    fn own_endpoint(&self) -> Option<(&'static str, &Endpoint)> {
        let own = [
            ("traces_endpoint", &self.traces_endpoint),
            ("logs_endpoint", &self.logs_endpoint),
            ("metrics_endpoint", &self.metrics_endpoint),
        ];
        own.into_iter().find_map(|(key, endpoint)| Some((key, endpoint.as_ref()?)))
    }

    /// What no key alone shows to be wrong.
    pub(super) fn check(&self, id: &Id, at: &[Step]) -> Result<(), Mistake> {
        let wrong = |key: &str, why: &str| Err(Mistake::at(at, [key], why));
        if !id.is_the_environments() && self.endpoint.is_none() && self.own_endpoint().is_none() {
            let why = format!(
                "`{}` needs an `endpoint`: only the exporter `otlp` has its own from \
                 OTEL_EXPORTER_OTLP_ENDPOINT",
                id.name
            );
            return Err(Mistake::at(at, [] as [Step; 0], why));
        }
        let protocol = self.protocol().unwrap_or_else(|| self.usual_protocol());
        let grpc = protocol == Protocol::Grpc;
        match (self.kind, self.protocol) {
            (Kind::OtlpGrpc, Some(other)) if other != Protocol::Grpc => {
                return wrong("protocol", "an `otlp_grpc` exporter speaks grpc: leave it out");
            }
            (Kind::OtlpHttp, Some(Protocol::Grpc)) => {
                return wrong("protocol", "an `otlphttp` exporter speaks HTTP: use `otlp`");
            }
            (_, Some(Protocol::HttpJson)) if self.encoding == Some(Encoding::Proto) => {
                return wrong(
                    "encoding",
                    "`protocol: http/json` is another encoding: leave it out",
                );
            }
            _ => {}
        }
        if grpc && self.encoding.is_some() {
            return wrong("encoding", "gRPC has one encoding: leave it out, or use `otlphttp`");
        }
        if grpc && let Some((key, _)) = self.own_endpoint() {
            return wrong(key, "gRPC has its own paths: give an `endpoint`, or use `otlphttp`");
        }
        if !grpc {
            let all = self.endpoint.as_ref().map(|endpoint| ("endpoint", endpoint));
            if let Some((key, _)) = all
                .into_iter()
                .chain(self.own_endpoint())
                .find(|(_, endpoint)| !endpoint.has_scheme())
            {
                return wrong(key, "it has no scheme: write a URL such as http://localhost:4318");
            }
        }
        if let Some(queue) = &self.sending_queue {
            queue.check(at)?;
        }
        if let Some(retry) = &self.retry_on_failure {
            retry.check(at)?;
        }
        self.tls.check(at)
    }
}

impl Tls {
    fn check(&self, at: &[Step]) -> Result<(), Mistake> {
        let wrong = |key: &str, why: &str| Err(Mistake::at(at, ["tls", key], why));
        let both = [
            ("ca_pem", self.ca_file.is_some() && self.ca_pem.is_some()),
            ("cert_pem", self.cert_file.is_some() && self.cert_pem.is_some()),
            ("key_pem", self.key_file.is_some() && self.key_pem.is_some()),
        ];
        if let Some((key, _)) = both.into_iter().find(|(_, both)| *both) {
            return wrong(key, "there is a file as well: give one of them");
        }
        let cert = self.cert_file.is_some() || self.cert_pem.is_some();
        let key = self.key_file.is_some() || self.key_pem.is_some();
        if cert != key {
            let (have, other) = if cert { ("cert", "key") } else { ("key", "cert") };
            let file = if cert { self.cert_file.is_some() } else { self.key_file.is_some() };
            let have = format!("{have}_{}", if file { "file" } else { "pem" });
            return wrong(&have, &format!("not without a `{other}_file`"));
        }
        match (self.min_version, self.max_version) {
            (Some(least), Some(most)) if least > most => {
                wrong("min_version", "it is higher than `max_version`")
            }
            _ => Ok(()),
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl Serialize for TlsVersion {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match self {
            Self::V12 => "1.2",
            Self::V13 => "1.3",
        })
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let value =
            |value: &HeaderValue| Secret(String::from_utf8_lossy(value.as_bytes()).into_owned());
        to.collect_map(self.0.iter().map(|(name, text)| (name.as_str(), value(text))))
    }
}

schema::by_hand!(Endpoint, { "type": "string", "minLength": 1 });
schema::by_hand!(TlsVersion, { "enum": ["1.2", "1.3", 1.2, 1.3] });
schema::by_hand!(Headers, {
    "type": "object",
    "additionalProperties": { "type": ["string", "number", "boolean", "null"] }
});

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar(from, |text| {
            let text = text.unwrap_or_default();
            match check_endpoint(text, true, true) {
                Ok(_) => Ok(Self { text: text.to_owned() }),
                Err(why) => {
                    // What holds credentials is not shown.
                    let shown = if text.contains('@') { "(hidden)" } else { text };
                    Err(format!(
                        "`{shown}` is no endpoint: {why}; write http://localhost:4318, or \
                         localhost:4317 for gRPC"
                    ))
                }
            }
        })
    }
}

impl<'de> Deserialize<'de> for TlsVersion {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Without quotes it is a number to YAML.
        scalar(from, |text| match text.unwrap_or_default() {
            "1.2" => Ok(Self::V12),
            "1.3" => Ok(Self::V13),
            other => Err(format!(
                "`{other}` is no version of TLS that tap speaks: write \"1.2\" or \"1.3\""
            )),
        })
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of headers, as authorization: Bearer …")
            }

            fn visit_unit<E>(self) -> Result<Headers, E> {
                Ok(Headers::default())
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    let Value(value) = map.next_value()?;
                    headers.push((name, value));
                }
                Ok(Headers(headers))
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// The name of a header.
struct Name(HeaderName);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar(from, |text| {
            let text = text.unwrap_or_default();
            HeaderName::try_from(text)
                .map(Name)
                .map_err(|_| format!("`{text}` is no name of a header"))
        })
    }
}

/// The value of a header.
struct Value(HeaderValue);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // The value itself is a secret, and no message shows it.
        scalar(from, |text| {
            let text = text.unwrap_or_default();
            let mut value = HeaderValue::try_from(text)
                .map_err(|_| "this cannot be the value of a header".to_owned())?;
            value.set_sensitive(true);
            Ok(Self(value))
        })
    }
}

fn server_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    scalar(from, |text| match text {
        Some(name) if rustls_pki_types::ServerName::try_from(name).is_err() => {
            Err(format!("`{name}` is no name of a server"))
        }
        name => Ok(name.map(str::to_owned)),
    })
}
