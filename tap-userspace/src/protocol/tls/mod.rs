//! TLS as it is seen on the wire, without any key. In: both directions of a connection in pieces.
//! Out: what the ClientHello offers and how it is fingerprinted, what the ServerHello chose, and
//! when and how the handshake ended.
//!
//! [`Handshake`] is the way in; `record` cuts a direction into records and messages,
//! `client_hello` and `server_hello` read the two messages that are worth it, `fingerprint` knows
//! JA3, JA3S and JA4. TLS 1.0 to 1.3; DTLS and SSLv2 are not read.
#![forbid(unsafe_code)]

mod client_hello;
pub mod fingerprint;
mod handshake;
mod record;
mod registry;
mod server_hello;
#[cfg(test)]
mod tests;

pub use self::{
    client_hello::ClientHello,
    handshake::{Alert, Handshake, TlsEvent, TlsEvents, fuzz_handshake},
    registry::{alert_name, group_name},
    server_hello::ServerHello,
};

/// Why bytes are no handshake that tap reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// A direction does not begin with a TLS record, or the client's with no handshake.
    #[error("no TLS handshake record")]
    NotTls,
    /// An SSLv2-compatible hello, which tap does not read.
    #[error("an SSLv2-compatible hello")]
    Sslv2,
    /// The handshake begins with another message.
    #[error("the handshake begins with a message of type {0}")]
    OtherMessage(u8),
    /// The hello is longer than any real one.
    #[error("a hello of {0} bytes")]
    TooLong(u32),
    /// A record's or a hello's inner lengths do not fit.
    #[error("a malformed hello")]
    Malformed,
}

/// Splits a hello's extensions: the type of each, and its bytes with type and length, as
/// tls-parser wants them. One at a time, since its parser of all ends in silence at the first that
/// it cannot read.
fn extensions(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), HelloError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let split = bytes.first_chunk().and_then(|&[t0, t1, l0, l1]| {
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let (extension, after) = bytes.split_at_checked(4 + length)?;
            Some((u16::from_be_bytes([t0, t1]), extension, after))
        });
        let Some((kind, extension, after)) = split else {
            bytes = &[];
            return Some(Err(HelloError::Malformed));
        };
        bytes = after;
        Some(Ok((kind, extension)))
    })
}

/// Extension types that are looked into (IANA registry "TLS ExtensionType Values").
mod extension {
    pub(super) const SERVER_NAME: u16 = 0;
    pub(super) const SUPPORTED_GROUPS: u16 = 10;
    pub(super) const EC_POINT_FORMATS: u16 = 11;
    pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(super) const ALPN: u16 = 16;
    pub(super) const SESSION_TICKET: u16 = 35;
    pub(super) const PRE_SHARED_KEY: u16 = 41;
    pub(super) const EARLY_DATA: u16 = 42;
    pub(super) const SUPPORTED_VERSIONS: u16 = 43;
    pub(super) const KEY_SHARE: u16 = 51;
    /// RFC 9849.
    pub(super) const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
}
