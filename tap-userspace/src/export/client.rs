//! The HTTP client under both OTLP transports: connections and their pool. Certificates are
//! [`super::certificates`]'s.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};

use super::certificates::Connector;
use crate::config::environment::{Otlp, Protocol};

/// A pooling client.
pub type Client = legacy::Client<Connector, Full<Bytes>>;

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates cannot be used.
    #[error(
        "the certificates for {endpoint} cannot be used: {cause}; check OTEL_EXPORTER_OTLP_CERTIFICATE, …_CLIENT_CERTIFICATE and …_CLIENT_KEY, or the exporter's `tls`"
    )]
    Certificates {
        /// Where to.
        endpoint: String,
        /// What is wrong.
        cause: rustls::Error,
    },
    /// No roots on this system.
    #[error(
        "{endpoint} wants TLS, but this system's root certificates cannot be read: {cause}; install ca-certificates, or set OTEL_EXPORTER_OTLP_CERTIFICATE or the exporter's `tls.ca_file`"
    )]
    Roots {
        /// Where to.
        endpoint: String,
        /// What is wrong.
        cause: io::Error,
    },
}

/// A client for `otlp`'s endpoint.
pub fn client(otlp: &Otlp) -> Result<Client, Error> {
    let grpc = otlp.protocol == Protocol::Grpc;
    let connector = Connector::new(otlp)?;
    // A dead HTTP/2 connection would swallow request after request: pings find it out.
    Ok(legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_only(grpc)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(10))
        .build(connector))
}
