//! A ServerHello's and a ServerKeyExchange's body → what the server chose (RFC 8446 §4.1.3,
//! RFC 5246 §7.4.1.3, RFC 8422 §5.4).
#![forbid(unsafe_code)]

use smallvec::SmallVec;
use tls_parser::{
    ECParametersContent, TlsExtension, parse_ec_parameters, parse_tls_handshake_server_hello,
    parse_tls_server_hello_extension,
};

use super::{
    HelloError, extension, extensions,
    fingerprint::ja3s,
    registry::{cipher_name, group_name, legacy_version_name, version_name},
};

/// SHA-256 of "HelloRetryRequest", the random that makes a ServerHello one (RFC 8446 §4.1.3).
const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What a server chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerHello {
    /// The version, as `tls.protocol.version` writes it.
    pub version: Option<&'static str>,
    /// The cipher suite's IANA name (`tls.cipher`).
    pub cipher: Option<&'static str>,
    /// The protocol chosen by ALPN (`tls.next_protocol`), up to TLS 1.2: in 1.3 it is encrypted.
    pub alpn: Option<String>,
    /// The group of the key exchange (`tls.curve`), IANA's name. Up to TLS 1.2 it comes with the
    /// ServerKeyExchange, and not at all when a session is resumed.
    pub group: Option<&'static str>,
    /// JA3S (`tls.server.ja3s`): 32 hexadecimal digits.
    pub ja3s: String,
    /// The session's name up to TLS 1.2, the client's own if it is resumed.
    pub(super) session_id: SmallVec<[u8; 32]>,
    /// A pre-shared key was accepted (RFC 8446 §4.2.11).
    pub(super) pre_shared_key: bool,
}

impl ServerHello {
    /// Reads a message's body; `None` is a HelloRetryRequest.
    pub(super) fn parse(body: &[u8]) -> Result<Option<Self>, HelloError> {
        let (_, hello) =
            parse_tls_handshake_server_hello(body).map_err(|_| HelloError::Malformed)?;
        let mut found = Self {
            version: legacy_version_name(hello.version.0),
            cipher: cipher_name(hello.cipher.0),
            session_id: hello.session_id.unwrap_or_default().into(),
            ..Self::default()
        };
        let mut kinds = SmallVec::<[u16; 16]>::new();
        for extension in extensions(hello.ext.unwrap_or_default()) {
            let (kind, bytes) = extension?;
            kinds.push(kind);
            found.extension(kind, bytes);
        }
        if hello.random == RETRY_RANDOM {
            return Ok(None);
        }
        found.ja3s = ja3s(hello.version.0, hello.cipher.0, &kinds);
        Ok(Some(found))
    }

    fn extension(&mut self, kind: u16, bytes: &[u8]) {
        match kind {
            extension::PRE_SHARED_KEY => self.pre_shared_key = true,
            extension::SUPPORTED_VERSIONS | extension::ALPN | extension::KEY_SHARE => {
                match parse_tls_server_hello_extension(bytes) {
                    Ok((_, TlsExtension::SupportedVersions(versions))) => {
                        let version = versions.first().and_then(|version| version_name(version.0));
                        self.version = version.or(self.version);
                    }
                    Ok((_, TlsExtension::ALPN(protocols))) => {
                        self.alpn =
                            protocols.first().map(|protocol| protocol.escape_ascii().to_string());
                    }
                    // KeyShareServerHello: the group, then the key (RFC 8446 §4.2.8).
                    Ok((_, TlsExtension::KeyShare([high, low, ..]))) => {
                        self.group = group_name(u16::from_be_bytes([*high, *low]));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Whether it is TLS 1.3, whose handshake is encrypted from here on.
    pub(super) fn is_tls13(&self) -> bool {
        self.version == Some("1.3")
    }

    /// Takes in the body of the ServerKeyExchange that follows up to TLS 1.2.
    pub(super) fn key_exchange(&mut self, body: &[u8]) {
        let Some(cipher) = self
            .cipher
            .filter(|name| name.starts_with("TLS_ECDHE_") || name.starts_with("TLS_ECDH_anon_"))
        else {
            return;
        };
        let mut parameters = body;
        if cipher.starts_with("TLS_ECDHE_PSK_") {
            // psk_identity_hint comes first (RFC 5489 §2).
            let hint = body.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
            let Some(after) = hint.and_then(|length| body.get(2 + length..)) else { return };
            parameters = after;
        }
        if let Ok((_, parameters)) = parse_ec_parameters(parameters)
            && let ECParametersContent::NamedGroup(group) = parameters.params_content
        {
            self.group = group_name(group.0);
        }
    }

    /// Length of the record of a TLS 1.3 Finished without padding: header (4), HMAC of the
    /// suite's hash, content type (1) and tag.
    pub(super) fn finished_len(&self) -> usize {
        let cipher = self.cipher.unwrap_or_default();
        let hash = if cipher.ends_with("SHA384") { 48 } else { 32 };
        let tag = if cipher.contains("CCM_8") { 8 } else { 16 };
        4 + hash + 1 + tag
    }
}
