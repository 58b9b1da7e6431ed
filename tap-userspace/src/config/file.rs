//! stand-in
use std::time::Duration;
/// x
#[derive(Default)] pub struct Trace;
/// x
pub struct Payload { /// x
 pub head_bytes: u32 }
/// x
pub struct Capture { /// x
 pub own: bool, /// x
 pub payload: Payload }
/// x
pub struct Conn { /// x
 pub max_age: Duration, /// x
 pub table_size: usize }
/// x
pub struct Config { /// x
 pub trace: Trace, /// x
 pub capture: Capture, /// x
 pub connection: Conn }
impl Default for Config { fn default() -> Self { Self { trace: Trace, capture: Capture { own: false, payload: Payload { head_bytes: 4096 } }, connection: Conn { max_age: Duration::from_secs(600), table_size: 262144 } } } }
impl Config {
    /// x
    pub fn find(_: Option<&std::path::Path>) -> Result<Self, String> { Ok(Self::default()) }
    /// x
    pub fn kernel(&self, own: u32) -> crate::probe::load::Wanted {
        let mut s = tap_common::settings::Settings::DEFAULT; s.self_tgid = own;
        crate::probe::load::Wanted { settings: s, life_ring: 16<<20, data_ring: 16<<20, admission: tap_common::settings::Admission::ALL, ports: vec![], prefixes: vec![] } }
}
