//! The TLS ClientHello.

/// What a ClientHello says, as span attributes want it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name (SNI), lower case as sent, printable; absent without the extension.
    pub server_name: Option<String>,
    /// Protocols offered by ALPN, in order (`tap.tls.client.alpn`).
    pub alpn: Vec<String>,
    /// Highest version offered, as `tls.protocol.version` writes it (`1.3`).
    pub version: Option<&'static str>,
    /// Cipher suites offered, IANA names, GREASE left out (`tls.client.supported_ciphers`).
    pub ciphers: Vec<&'static str>,
}
/// x
pub fn parse_client_hello(_b: &[u8]) -> Result<Option<ClientHello>, ()> { Ok(Some(ClientHello::default())) }
/// x
pub fn established(_a: &[u8], _b: &[u8]) -> bool { false }
