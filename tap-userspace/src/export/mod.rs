//! stand-in
use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
use crate::connection::model::Connection;
/// x
pub struct Exporters { n: Arc<AtomicU64> }
/// x
#[derive(Clone)] pub struct ItemCounters(Arc<AtomicU64>);
impl ItemCounters { /// x
 pub fn to_prometheus(&self) -> String { format!("x {}\n", self.0.load(Ordering::Relaxed)) } }
/// x
#[derive(Clone)] pub struct Sink(Arc<AtomicU64>);
impl Sink {
    /// x
    pub fn offer(&self, b: Vec<Connection>) {
        self.0.fetch_add(b.len() as u64, Ordering::Relaxed);
        if std::env::var_os("QUIET").is_some() { return; }
        for c in b { println!("{} {:?} {} {:?} {:?}->{:?} bytes={:?} {:?} rtt={} err={:?} q={:?} {:?} {} {:?}", c.id, c.role, c.cookie, c.state, c.local, c.peer, c.bytes, c.protocol, c.rtt_us, c.error_type, c.quality.names().collect::<Vec<_>>(), c.process.as_ref().map(|p| p.executable.clone()), (c.end_ns - c.start_ns) / 1000, c.events.iter().map(|e| format!("{}:{:?}", (e.time_ns - c.start_ns) / 1000, e.what)).collect::<Vec<_>>()); }
    }
    /// x
    pub fn offer_waiting(&self, b: Vec<Connection>) { self.offer(b) }
}
impl Exporters {
    /// x
    pub fn start(_e: &crate::config::environment::Environment, _r: crate::telemetry::resource::Resource, _h: &tokio::runtime::Handle, _c: bool) -> Result<Self, String> { Ok(Self { n: Arc::default() }) }
    /// x
    pub fn counters(&self) -> ItemCounters { ItemCounters(self.n.clone()) }
    /// x
    pub fn sink(&self) -> Sink { Sink(self.n.clone()) }
    /// x
    pub async fn shutdown(self, _d: std::time::Instant) -> serde_json::Value { serde_json::json!({"produced": self.n.load(Ordering::Relaxed)}) }
}
