//! The HTTP client under both OTLP transports: connections, TLS, certificates.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{
    ConfigBuilderExt as _, FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder,
};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    version::{TLS12, TLS13},
};

use crate::config::{
    environment::{Otlp, Protocol},
    exporters::otlp::TlsVersion,
};

/// A pooling client.
pub type Client = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

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
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(otlp.timeout);
    let grpc = otlp.protocol == Protocol::Grpc;
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls(otlp)?).https_or_http();
    let builder = match &otlp.tls.server_name {
        Some(name) => builder.with_server_name_resolver(FixedServerNameResolver::new(name.clone())),
        None => builder,
    };
    let connector = if grpc {
        builder.enable_http2().wrap_connector(connector)
    } else {
        builder.enable_http1().enable_http2().wrap_connector(connector)
    };
    // A dead HTTP/2 connection would swallow request after request: pings find it out.
    Ok(legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_only(grpc)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(10))
        .build(connector))
}

/// Those of TLS from the lowest to the highest that may be spoken.
fn versions(
    (least, most): (Option<TlsVersion>, Option<TlsVersion>),
) -> Vec<&'static SupportedProtocolVersion> {
    let known = [(TlsVersion::V12, &TLS12), (TlsVersion::V13, &TLS13)];
    let spoken = known.into_iter().filter(|(version, _)| {
        least.is_none_or(|least| least <= *version) && most.is_none_or(|most| *version <= most)
    });
    spoken.map(|(_, version)| version).collect()
}

fn tls(otlp: &Otlp) -> Result<ClientConfig, Error> {
    let endpoint = || otlp.endpoint.to_string();
    let certificates = |cause| Error::Certificates { endpoint: endpoint(), cause };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&versions(otlp.tls.versions))
        .map_err(certificates)?;
    let builder = match &otlp.tls.roots {
        // Without TLS no roots are read: it takes milliseconds and memory.
        _ if otlp.endpoint.scheme_str() != Some("https") => {
            builder.with_root_certificates(RootCertStore::empty())
        }
        Some(roots) => {
            let mut store = RootCertStore::empty();
            for root in roots {
                store.add(root.clone()).map_err(certificates)?;
            }
            builder.with_root_certificates(store)
        }
        None => builder
            .with_native_roots()
            .map_err(|cause| Error::Roots { endpoint: endpoint(), cause })?,
    };
    match &otlp.tls.identity {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(certificates)
        }
        None => Ok(builder.with_no_client_auth()),
    }
}
