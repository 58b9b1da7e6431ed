//! A collector in this process: HTTP/1, HTTP/2 and gRPC on one port, with or without TLS, that
//! answers by a script and keeps what it was sent.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::ExportMetricsServiceRequest,
        trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        },
    },
    trace::v1::Span,
};
use prost::Message as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// How a request is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Taken, but for some.
    Take { rejected: i64, message: &'static str },
    /// An HTTP status.
    Status(u16, Option<(&'static str, &'static str)>),
    /// A gRPC status, at once or after a message; with details.
    Grpc { code: u8, early: bool, details: Option<&'static str> },
    /// Never.
    Hang,
}

pub const TAKE: Answer = Answer::Take { rejected: 0, message: "" };

/// A request as it came, unpacked.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Whether it was answered as taken.
    pub taken: bool,
}

impl Received {
    fn json(&self) -> bool {
        self.headers["content-type"] == "application/json"
    }

    /// Its spans.
    pub fn spans(&self) -> Vec<Span> {
        let request: ExportTraceServiceRequest = if self.json() {
            serde_json::from_slice(&self.body).unwrap()
        } else {
            ExportTraceServiceRequest::decode(self.body.as_slice()).unwrap()
        };
        let resources = request.resource_spans.into_iter();
        resources.flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
    }

    /// Its metrics' names and sums.
    pub fn metrics(&self) -> ExportMetricsServiceRequest {
        if self.json() {
            serde_json::from_slice(&self.body).unwrap()
        } else {
            ExportMetricsServiceRequest::decode(self.body.as_slice()).unwrap()
        }
    }
}

#[derive(Debug, Default)]
struct State {
    script: Mutex<VecDeque<Answer>>,
    received: Mutex<Vec<Received>>,
}

/// A running collector.
pub struct Collector {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Collector {
    /// Listens, and answers by `script`; after its end everything is taken.
    pub async fn start(script: impl IntoIterator<Item = Answer>) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), script, None).await
    }

    pub async fn on(
        address: SocketAddr,
        script: impl IntoIterator<Item = Answer>,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        state.script.lock().unwrap().extend(script);
        let shared = state.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, state).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, state).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, state }
    }

    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    /// Spans of the requests that were taken.
    pub fn spans(&self) -> Vec<Span> {
        self.received().iter().filter(|r| r.taken).flat_map(Received::spans).collect()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(request, state).await) }
    });
    // A client that goes away is no concern here.
    drop(
        auto::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let (parts, body) = request.into_parts();
    let grpc = parts.headers["content-type"] == "application/grpc";
    let Ok(body) = body.collect().await else { return Response::default() };
    let body = unpack(&parts.headers, &body.to_bytes(), grpc);
    let script = state.script.lock().unwrap().pop_front().unwrap_or(TAKE);
    let taken = matches!(script, Answer::Take { .. });
    let received =
        Received { path: parts.uri.path().to_owned(), headers: parts.headers, body, taken };
    let json = received.json();
    state.received.lock().unwrap().push(received);
    match script {
        Answer::Take { rejected, message } => take(rejected, message, grpc, json),
        Answer::Status(status, header) => {
            let mut response = Response::new(Full::default().boxed());
            *response.status_mut() = status.try_into().unwrap();
            if let Some((name, value)) = header {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            response
        }
        Answer::Grpc { code, early, details } => status(code, early, details),
        Answer::Hang => {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            Response::default()
        }
    }
}

fn take(
    rejected: i64,
    message: &str,
    grpc: bool,
    json: bool,
) -> Response<BoxBody<Bytes, Infallible>> {
    let partial = (rejected != 0 || !message.is_empty()).then(|| ExportTracePartialSuccess {
        rejected_spans: rejected,
        error_message: message.to_owned(),
    });
    let response = ExportTraceServiceResponse { partial_success: partial };
    if json {
        let body = match response.partial_success {
            // As the protobuf mapping has it: 64 bits are a string.
            Some(partial) => serde_json::json!({ "partialSuccess": {
                "rejectedSpans": partial.rejected_spans.to_string(),
                "errorMessage": partial.error_message,
            }}),
            None => serde_json::json!({}),
        };
        let mut response = Response::new(Full::from(body.to_string()).boxed());
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        return response;
    }
    let message = response.encode_to_vec();
    if !grpc {
        return Response::new(Full::from(message).boxed());
    }
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    grpc_response(Full::from(body).with_trailers(std::future::ready(Some(Ok(trailers)))).boxed())
}

fn status(code: u8, early: bool, details: Option<&str>) -> Response<BoxBody<Bytes, Infallible>> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    trailers.insert("grpc-message", HeaderValue::from_static("not%20now"));
    if let Some(details) = details {
        trailers.insert("grpc-status-details-bin", details.parse().unwrap());
    }
    if early {
        let mut response = grpc_response(Full::default().boxed());
        response.headers_mut().extend(trailers);
        return response;
    }
    grpc_response(Full::default().with_trailers(std::future::ready(Some(Ok(trailers)))).boxed())
}

fn grpc_response(body: BoxBody<Bytes, Infallible>) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// Takes the gRPC frame and the compression off.
fn unpack(headers: &HeaderMap, body: &[u8], grpc: bool) -> Vec<u8> {
    let named = |name| headers.get(name).map(|coding| coding.to_str().unwrap().to_owned());
    let (body, coding) = if grpc {
        assert_eq!(headers["te"], "trailers");
        let len = u32::from_be_bytes(body[1..5].try_into().unwrap());
        assert_eq!(len as usize, body.len() - 5);
        let coding = named("grpc-encoding");
        assert_eq!(body[0] == 1, coding.is_some());
        (&body[5..], coding)
    } else {
        (body, named("content-encoding"))
    };
    let mut out = Vec::new();
    match coding.as_deref() {
        None => out.extend_from_slice(body),
        Some("gzip") => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap()),
        Some("zstd") => zstd::stream::copy_decode(body, &mut out).unwrap(),
        Some(other) => panic!("{other}"),
    }
    out
}

/// A file of the tests' own certificates.
pub fn certificate(name: &str) -> String {
    format!("{}/tests/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A server that wants a certificate of its clients.
pub fn acceptor() -> tokio_rustls::TlsAcceptor {
    let chain = |name: &str| CertificateDer::pem_file_iter(certificate(name)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(chain("ca.pem").next().unwrap().unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        provider.clone(),
    );
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            chain("server.pem").map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(certificate("server.key")).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config).into()
}
