//! stand-in
use super::Protocol;
/// x
pub enum Detection { /// x
 Known { /// x
 protocol: Protocol, /// x
 client: Option<usize> }, /// x
 NeedMore, /// x
 Unknown }
/// x
pub fn detect(r: &[u8], t: &[u8]) -> Detection {
    for (i, b) in [(0, r), (1, t)] {
        if b.starts_with(b"GET ") || b.starts_with(b"POST ") || b.starts_with(b"HEAD ") { return Detection::Known { protocol: Protocol::Http1, client: Some(i) }; }
        if b.starts_with(&[22, 3]) { return Detection::Known { protocol: Protocol::Tls, client: Some(i) }; }
    }
    Detection::NeedMore
}
