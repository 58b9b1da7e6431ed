//! The gRPC side.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tonic::{
    Code, Response, Status,
    codec::CompressionEncoding,
    metadata::{KeyAndValueRef, MetadataMap},
    transport::{Server, server::TcpIncoming},
};

use super::{Fault, Protocol, Request, Store, convert};

struct Service(Arc<Store>);

/// Serves on `listener` until the task is aborted.
pub async fn serve(listener: tokio::net::TcpListener, store: Arc<Store>) {
    let service = TraceServiceServer::new(Service(Arc::clone(&store)))
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(64 << 20);
    let metrics = MetricsServiceServer::new(Service(Arc::clone(&store)))
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(64 << 20);
    let served = Server::builder()
        .add_service(service)
        .add_service(metrics)
        .serve_with_incoming(TcpIncoming::from(listener));
    if let Err(error) = served.await {
        store.complain(format!("the gRPC server ended: {error}"));
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let fault = self.0.faults.next();
        match fault {
            Some(Fault::Unavailable) => {
                return Err(Status::new(Code::Unavailable, "told to refuse"));
            }
            Some(Fault::Rejected) => {
                return Err(Status::new(Code::InvalidArgument, "told to reject"));
            }
            Some(Fault::Late(by)) => tokio::time::sleep(by).await,
            Some(Fault::Throttled(seconds)) => {
                let (code, text) = (Code::ResourceExhausted, "told to throttle");
                return Err(Status::with_details(code, text, retry_info(seconds).into()));
            }
            Some(Fault::Partial(_) | Fault::Unanswered(_)) | None => {}
        }
        let headers = headers(request.metadata());
        let spans = convert::spans(request.into_inner());
        self.0.add(Request { protocol: Protocol::Grpc, headers, spans: spans.len() }, spans);
        if let Some(Fault::Unanswered(by)) = fault {
            tokio::time::sleep(by).await;
        }
        let partial_success = match fault {
            Some(Fault::Partial(rejected_spans)) => Some(ExportTracePartialSuccess {
                rejected_spans,
                error_message: "told to refuse some".into(),
            }),
            _ => None,
        };
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.add_points(super::metrics::points(request.into_inner()));
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn headers(metadata: &MetadataMap) -> std::collections::BTreeMap<String, String> {
    metadata
        .iter()
        .filter_map(|pair| match pair {
            KeyAndValueRef::Ascii(key, value) => {
                Some((key.to_string(), value.to_str().unwrap_or_default().to_owned()))
            }
            KeyAndValueRef::Binary(..) => None,
        })
        .collect()
}

/// `google.rpc.Status` with a `google.rpc.RetryInfo` of so many seconds.
fn retry_info(seconds: u8) -> Vec<u8> {
    let url = b"type.googleapis.com/google.rpc.RetryInfo";
    let info = [0x0a, 2, 0x08, seconds];
    let any = [&[0x0a, url.len() as u8], &url[..], &[0x12, info.len() as u8], &info].concat();
    [&[0x08, 8, 0x1a, any.len() as u8], &any[..]].concat()
}
