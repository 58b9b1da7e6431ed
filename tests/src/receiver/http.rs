//! The HTTP side: protobuf and JSON at `/v1/traces`, plain or gzip.

use std::{collections::BTreeMap, io::Read, sync::Arc};

use anyhow::{Context, Result, bail};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use prost::Message;

use super::{Fault, Protocol, Request, Store, convert, json};
use crate::span::Span;

/// Serves on `listener` until the task is aborted.
pub async fn serve(listener: tokio::net::TcpListener, store: Arc<Store>) {
    let router = Router::new()
        .route("/v1/traces", post(export))
        .route("/v1/metrics", post(metrics))
        .layer(DefaultBodyLimit::max(64 << 20))
        .with_state(Arc::clone(&store));
    if let Err(error) = axum::serve(listener, router).await {
        store.complain(format!("the HTTP server ended: {error}"));
    }
}

async fn export(State(store): State<Arc<Store>>, headers: HeaderMap, body: Bytes) -> Response {
    let fault = store.faults.next();
    match fault {
        Some(Fault::Unavailable) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some(Fault::Rejected) => return StatusCode::BAD_REQUEST.into_response(),
        Some(Fault::Late(by)) => tokio::time::sleep(by).await,
        Some(Fault::Throttled(seconds)) => {
            let after = [(header::RETRY_AFTER, seconds.to_string())];
            return (StatusCode::TOO_MANY_REQUESTS, after).into_response();
        }
        Some(Fault::Partial(_) | Fault::Unanswered(_)) | None => {}
    }
    let headers = by_name(&headers);
    let (protocol, spans) = match decode(&headers, &body) {
        Ok(decoded) => decoded,
        Err(error) => {
            store.complain(format!("{error:#}"));
            return (StatusCode::BAD_REQUEST, format!("{error:#}")).into_response();
        }
    };
    store.add(Request { protocol, headers, spans: spans.len() }, spans);
    if let Some(Fault::Unanswered(by)) = fault {
        tokio::time::sleep(by).await;
    }
    let rejected = match fault {
        Some(Fault::Partial(rejected)) => Some(rejected),
        _ => None,
    };
    answer(protocol, rejected)
}

/// Metrics, as protobuf without compression.
async fn metrics(State(store): State<Arc<Store>>, body: Bytes) -> Response {
    match ExportMetricsServiceRequest::decode(body) {
        Ok(request) => store.add_points(super::metrics::points(request)),
        Err(error) => {
            store.complain(format!("metrics: {error}"));
            return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
        }
    }
    let body = ExportMetricsServiceResponse::default().encode_to_vec();
    ([(header::CONTENT_TYPE, "application/x-protobuf")], body).into_response()
}

fn decode(headers: &BTreeMap<String, String>, body: &[u8]) -> Result<(Protocol, Vec<Span>)> {
    let mut plain = Vec::new();
    match headers.get("content-encoding").map(String::as_str) {
        Some("gzip") => {
            flate2::read::GzDecoder::new(body).read_to_end(&mut plain).context("gzip")?;
        }
        Some("identity") | None => plain.extend_from_slice(body),
        Some(other) => bail!("content-encoding {other:?} is none of OTLP's"),
    }
    match headers.get("content-type").map(String::as_str) {
        Some("application/x-protobuf") => {
            let request = ExportTraceServiceRequest::decode(&*plain).context("protobuf")?;
            Ok((Protocol::HttpProtobuf, convert::spans(request)))
        }
        Some("application/json") => {
            let request = serde_json::from_slice(&plain).context("JSON")?;
            Ok((Protocol::HttpJson, json::spans(&request)?))
        }
        other => bail!("content-type {other:?} is none of OTLP's"),
    }
}

/// The response has the request's encoding, as the protocol asks.
fn answer(protocol: Protocol, rejected: Option<i64>) -> Response {
    if protocol == Protocol::HttpJson {
        let body = rejected.map_or_else(
            || "{}".to_owned(),
            |count| format!("{{\"partialSuccess\":{{\"rejectedSpans\":\"{count}\"}}}}"),
        );
        return ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    }
    let partial_success = rejected.map(|rejected_spans| ExportTracePartialSuccess {
        rejected_spans,
        error_message: "told to refuse some".into(),
    });
    let body = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    ([(header::CONTENT_TYPE, "application/x-protobuf")], body).into_response()
}

fn by_name(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
        .collect()
}
