//! A real OTLP receiver of our own: gRPC and HTTP (protobuf and JSON, plain and gzip) on free
//! ports of the loopback, decoding from the wire with nothing of the daemon's. It keeps every
//! span, and can be told to fail.

mod convert;
mod faults;
mod grpc;
mod http;
mod json;
mod metrics;
mod store;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::sync::oneshot;

pub use self::{
    faults::Fault,
    metrics::{Number, Point},
    store::{Request, Store},
};
use crate::{span::Span, wait::PATIENCE};

/// How spans travel (`OTEL_EXPORTER_OTLP_PROTOCOL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `grpc`
    Grpc,
    /// `http/protobuf`
    HttpProtobuf,
    /// `http/json`
    HttpJson,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Grpc, Self::HttpProtobuf, Self::HttpJson];

    /// Its value of the environment variable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
            Self::HttpJson => "http/json",
        }
    }
}

/// The running receiver; it ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    store: Arc<Store>,
    grpc: SocketAddr,
    http: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens on two free ports.
    pub fn start() -> Result<Self> {
        let store = Arc::new(Store::default());
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::sync_channel(2);
        let thread = thread::Builder::new().name("receiver".into()).spawn({
            let store = Arc::clone(&store);
            move || serve(&store, stopped, &tell)
        })?;
        let (grpc, http) = told.recv_timeout(PATIENCE).context("the receiver did not start")??;
        Ok(Self { store, grpc, http, stop: Some(stop), thread: Some(thread) })
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` must say for `protocol`.
    pub fn endpoint(&self, protocol: Protocol) -> String {
        format!("http://{}", self.address(protocol))
    }

    /// Where it listens for `protocol`.
    pub const fn address(&self, protocol: Protocol) -> SocketAddr {
        match protocol {
            Protocol::Grpc => self.grpc,
            Protocol::HttpProtobuf | Protocol::HttpJson => self.http,
        }
    }

    /// What arrived.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Every span so far of connections and of what is in them. Those of the daemon's requests are
    /// [`Self::writes`], so that a test counts what it made itself.
    pub fn spans(&self) -> Vec<Arc<Span>> {
        self.store.spans()
    }

    /// Every span so far that tells of a request.
    pub fn writes(&self) -> Vec<Arc<Span>> {
        self.store.writes()
    }

    /// How many spans of any kind arrived.
    pub fn arrived(&self) -> u64 {
        (self.spans().len() + self.writes().len()) as u64
    }

    /// Every point of a metric, in the order they came.
    pub fn points(&self, metric: &str) -> Vec<Point> {
        self.store.points(metric)
    }

    /// Waits until at least `count` spans are `wanted`, and gives all that are.
    pub fn wait_for(
        &self,
        what: &str,
        count: usize,
        limit: Duration,
        wanted: impl Fn(&Span) -> bool,
    ) -> Result<Vec<Arc<Span>>> {
        self.store.wait_for(what, count, limit, wanted)
    }

    /// Has the next request not yet spoken for meet `fault`.
    pub fn fail_next(&self, fault: Fault) {
        self.store.faults.push(fault);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Dropping the sender tells the servers to stop.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

type Addresses = Result<(SocketAddr, SocketAddr)>;

fn serve(
    store: &Arc<Store>,
    stopped: oneshot::Receiver<()>,
    tell: &std::sync::mpsc::SyncSender<Addresses>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(tell.send(Err(error.into()))),
    };
    runtime.block_on(async {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let started = async {
            let grpc = tokio::net::TcpListener::bind(any).await?;
            let http = tokio::net::TcpListener::bind(any).await?;
            let addresses = (grpc.local_addr()?, http.local_addr()?);
            Ok::<_, anyhow::Error>((addresses, grpc, http))
        };
        let (grpc, http) = match started.await {
            Ok((addresses, grpc, http)) => {
                drop(tell.send(Ok(addresses)));
                (grpc, http)
            }
            Err(error) => return drop(tell.send(Err(error))),
        };
        // The servers end with the runtime; connections that are still open are cut.
        let grpc = tokio::spawn(grpc::serve(grpc, Arc::clone(store)));
        let http = tokio::spawn(http::serve(http, Arc::clone(store)));
        drop(stopped.await);
        grpc.abort();
        http.abort();
    });
}

#[cfg(test)]
mod tests;
