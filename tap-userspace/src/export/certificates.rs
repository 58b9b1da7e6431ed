//! Connections to collectors, and the certificates that they are made with. These are read again at each
//! new connection where their files have changed since; what cannot be used leaves those of before in
//! force, and is told of once. A connection that is there goes on with what it was made with.

use std::{
    fs,
    future::{Future, poll_fn},
    os::unix::fs::MetadataExt as _,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use http::Uri;
use hyper_rustls::{
    ConfigBuilderExt as _, FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder,
};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    version::{TLS12, TLS13},
};
use tower_service::Service;

use super::client::Error;
use crate::config::{
    environment::{Otlp, Protocol, Tls},
    exporters::otlp::TlsVersion,
};

type Inner = HttpsConnector<HttpConnector>;

/// Makes connections to one endpoint.
#[derive(Clone, Debug)]
pub struct Connector(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    otlp: Otlp,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of the files when they were last read, whatever came of it.
    stamps: Vec<Option<Stamp>>,
    connector: Inner,
}

/// What changes with a file's content: device, inode, size, and time in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

fn stamps(tls: &Tls) -> Vec<Option<Stamp>> {
    let stamp = |path: &Path| {
        let of = fs::metadata(path).ok()?;
        Some((of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec()))
    };
    tls.files().map(stamp).collect()
}

impl Connector {
    /// Connections to `otlp`'s endpoint, with the certificates that it holds.
    pub fn new(otlp: &Otlp) -> Result<Self, Error> {
        // They were read before: what has changed since is read once more.
        let state = State { stamps: Vec::new(), connector: connector(otlp, &otlp.tls)? };
        Ok(Self(Arc::new(Shared { otlp: otlp.clone(), state: Mutex::new(state) })))
    }
}

impl Service<Uri> for Connector {
    type Response = <Inner as Service<Uri>>::Response;
    type Error = <Inner as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let has_files = shared.otlp.tls.files().next().is_some();
            let mut inner = match has_files {
                // They may be slow.
                true => tokio::task::spawn_blocking(move || shared.current()).await?,
                false => shared.lock().connector.clone(),
            };
            poll_fn(|context| inner.poll_ready(context)).await?;
            inner.call(uri).await
        })
    }
}

impl Shared {
    /// What connections are made with now.
    fn current(&self) -> Inner {
        let mut state = self.lock();
        // Taken before they are read: what changes meanwhile is read again.
        let now = stamps(&self.otlp.tls);
        if now != state.stamps {
            let first = state.stamps.is_empty();
            state.stamps = now;
            let (exporter, endpoint) = (&*self.otlp.exporter, &self.otlp.endpoint);
            match self
                .otlp
                .tls
                .read_again()
                .map_err(|error| error.to_string())
                .and_then(|tls| connector(&self.otlp, &tls).map_err(|error| error.to_string()))
            {
                Ok(connector) => {
                    state.connector = connector;
                    if !first {
                        tracing::info!(exporter, %endpoint, "Its certificates were read again.");
                    }
                }
                Err(error) => {
                    let remedy = "those of before are used until the files are good";
                    tracing::warn!(exporter, %endpoint, error, remedy, "Changed certificates cannot be used.");
                }
            }
        }
        state.connector.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What makes connections with `tls`.
fn connector(otlp: &Otlp, tls: &Tls) -> Result<Inner, Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(otlp.timeout);
    let grpc = otlp.protocol == Protocol::Grpc;
    let builder = HttpsConnectorBuilder::new().with_tls_config(config(otlp, tls)?).https_or_http();
    let builder = match &tls.server_name {
        Some(name) => builder.with_server_name_resolver(FixedServerNameResolver::new(name.clone())),
        None => builder,
    };
    Ok(if grpc {
        builder.enable_http2().wrap_connector(connector)
    } else {
        builder.enable_http1().enable_http2().wrap_connector(connector)
    })
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

fn config(otlp: &Otlp, tls: &Tls) -> Result<ClientConfig, Error> {
    let endpoint = || otlp.endpoint.to_string();
    let certificates = |cause| Error::Certificates { endpoint: endpoint(), cause };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&versions(tls.versions))
        .map_err(certificates)?;
    let builder = match &tls.roots {
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
    match &tls.identity {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(certificates)
        }
        None => Ok(builder.with_no_client_auth()),
    }
}
