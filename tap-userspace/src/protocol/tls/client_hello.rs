//! A ClientHello's body → what it offers (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2).
#![forbid(unsafe_code)]

use smallvec::SmallVec;
use tls_parser::{
    TlsExtension, parse_tls_client_hello_extension, parse_tls_handshake_client_hello,
};

use super::{
    HelloError, extension, extensions,
    fingerprint::Offer,
    registry::{cipher_name, is_alpn_grease, is_grease, legacy_version_name, version_name},
};

/// Cipher suites, groups or signature algorithms that are kept; real clients offer up to about 180
/// cipher suites. Fingerprints are made of all.
const LIST_MAX: usize = 256;
/// ALPN protocols that are kept.
const ALPN_MAX: usize = 32;
/// A DNS name has at most 253 characters and, on the wire, 255 bytes (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;

/// What a ClientHello says, as span attributes want it. GREASE is left out everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name (SNI): lower case, printable ASCII; absent without the extension. With
    /// [`ech`](Self::ech) it is the outer one.
    pub server_name: Option<String>,
    /// Protocols offered by ALPN, in order (`tap.tls.client.alpn`); bytes that are not printable
    /// ASCII escaped.
    pub alpn: Vec<String>,
    /// Highest version offered, as `tls.protocol.version` writes it (`1.3`).
    pub version: Option<&'static str>,
    /// Versions of the supported_versions extension, in order.
    pub versions: Vec<&'static str>,
    /// Cipher suites offered, IANA names, unassigned numbers left out
    /// (`tls.client.supported_ciphers`).
    pub ciphers: Vec<&'static str>,
    /// Groups offered, in order; [`group_name`](super::group_name) names them.
    pub groups: Vec<u16>,
    /// Signature algorithms offered, in order.
    pub signature_algorithms: Vec<u16>,
    /// EC point formats offered, in order.
    pub point_formats: Vec<u8>,
    /// An encrypted_client_hello extension is there, true or GREASE, which nobody can tell apart
    /// from outside (RFC 9849 §10.10.4): this is the outer hello.
    pub ech: bool,
    /// The session to resume up to TLS 1.2; in TLS 1.3 often random bytes. At most 32 bytes.
    pub session_id: SmallVec<[u8; 32]>,
    /// A session ticket is presented (RFC 5077).
    pub session_ticket: bool,
    /// A pre-shared key is presented, mostly of a session to resume (RFC 8446 §4.2.11).
    pub pre_shared_key: bool,
    /// Application data comes before the handshake's end (RFC 8446 §4.2.10).
    pub early_data: bool,
    /// JA3 (`tls.client.ja3`): 32 hexadecimal digits.
    pub ja3: String,
    /// JA4 (`tap.tls.client.ja4`): `t13d1516h2_8daaf6152771_e5627efa2ab1`.
    pub ja4: String,
}

impl ClientHello {
    /// Reads a message's body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, HelloError> {
        let (_, hello) =
            parse_tls_handshake_client_hello(body).map_err(|_| HelloError::Malformed)?;
        let mut offer = Offer {
            legacy_version: hello.version.0,
            version: hello.version.0,
            ciphers: without_grease(hello.ciphers.iter().map(|id| id.0)),
            ..Offer::default()
        };
        let mut found = Self {
            version: legacy_version_name(hello.version.0),
            ciphers: names(&offer.ciphers, cipher_name),
            session_id: hello.session_id.unwrap_or_default().into(),
            ..Self::default()
        };
        for extension in extensions(hello.ext.unwrap_or_default()) {
            let (kind, bytes) = extension?;
            if !is_grease(kind) {
                offer.extensions.push(kind);
                found.extension(kind, bytes, &mut offer);
            }
        }
        found.groups = kept(&offer.groups);
        found.signature_algorithms = kept(&offer.signature_algorithms);
        found.point_formats = offer.point_formats.to_vec();
        found.ja3 = offer.ja3();
        found.ja4 = offer.ja4();
        Ok(found)
    }

    /// Looks into one extension. A hello is read as far as it can be: one that is malformed is as
    /// good as absent, and of several of a type the first counts.
    fn extension(&mut self, kind: u16, bytes: &[u8], offer: &mut Offer) {
        match kind {
            extension::ENCRYPTED_CLIENT_HELLO => self.ech = true,
            extension::PRE_SHARED_KEY => self.pre_shared_key = true,
            extension::EARLY_DATA => self.early_data = true,
            // An empty one only asks for a ticket.
            extension::SESSION_TICKET => self.session_ticket |= bytes.len() > 4,
            extension::SERVER_NAME
            | extension::ALPN
            | extension::SUPPORTED_VERSIONS
            | extension::SUPPORTED_GROUPS
            | extension::SIGNATURE_ALGORITHMS
            | extension::EC_POINT_FORMATS => {
                if let Ok((_, content)) = parse_tls_client_hello_extension(bytes) {
                    self.list(&content, offer);
                }
            }
            _ => {}
        }
    }

    fn list(&mut self, content: &TlsExtension<'_>, offer: &mut Offer) {
        match content {
            TlsExtension::SNI(names) if self.server_name.is_none() => {
                const HOST_NAME: u8 = 0;
                self.server_name = names
                    .iter()
                    .find(|(kind, _)| kind.0 == HOST_NAME)
                    .and_then(|(_, bytes)| host_name(bytes));
            }
            TlsExtension::ALPN(protocols) if self.alpn.is_empty() => {
                let mut protocols =
                    protocols.iter().filter(|protocol| !is_alpn_grease(protocol)).peekable();
                offer.alpn = protocols.peek().map(|protocol| SmallVec::from_slice(protocol));
                self.alpn = protocols
                    .take(ALPN_MAX)
                    .map(|protocol| protocol.escape_ascii().to_string())
                    .collect();
            }
            TlsExtension::SupportedVersions(versions) if self.versions.is_empty() => {
                let versions: SmallVec<[u16; 16]> =
                    without_grease(versions.iter().map(|version| version.0));
                if let Some(highest) = versions.iter().max() {
                    offer.version = *highest;
                    self.versions = names(&versions, version_name);
                    self.version = versions
                        .iter()
                        .filter(|version| version_name(**version).is_some())
                        .max()
                        .and_then(|version| version_name(*version))
                        .or(self.version);
                }
            }
            TlsExtension::EllipticCurves(groups) if offer.groups.is_empty() => {
                offer.groups = without_grease(groups.iter().map(|group| group.0));
            }
            TlsExtension::SignatureAlgorithms(schemes) if offer.signature_algorithms.is_empty() => {
                offer.signature_algorithms = without_grease(schemes.iter().copied());
            }
            TlsExtension::EcPointFormats(formats) if offer.point_formats.is_empty() => {
                offer.point_formats = SmallVec::from_slice(formats);
            }
            _ => {}
        }
    }

    /// For the fuzzer: what holds of any hello.
    pub(super) fn check(&self) {
        assert!(self.alpn.len() <= ALPN_MAX && self.ciphers.len() <= LIST_MAX);
        assert!(self.groups.len() <= LIST_MAX && self.signature_algorithms.len() <= LIST_MAX);
        assert!(self.versions.len() <= 128 && self.point_formats.len() <= 255);
        assert!(self.alpn.iter().all(|protocol| protocol.len() <= 4 * 255));
        assert!(self.session_id.len() <= 32);
        if let Some(name) = &self.server_name {
            assert!(!name.is_empty() && name.len() <= NAME_MAX);
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        assert!(self.ja3.len() == 32 && self.ja4.len() == 36);
    }
}

fn without_grease<const N: usize>(ids: impl Iterator<Item = u16>) -> SmallVec<[u16; N]>
where
    [u16; N]: smallvec::Array<Item = u16>,
{
    ids.filter(|id| !is_grease(*id)).collect()
}

fn names(ids: &[u16], name: fn(u16) -> Option<&'static str>) -> Vec<&'static str> {
    let mut names = Vec::with_capacity(ids.len().min(LIST_MAX));
    names.extend(ids.iter().filter_map(|id| name(*id)).take(LIST_MAX));
    names
}

fn kept(ids: &[u16]) -> Vec<u16> {
    ids[..ids.len().min(LIST_MAX)].to_vec()
}

/// A host name that may stand in an attribute: what is too long or not printable is no host name.
fn host_name(bytes: &[u8]) -> Option<String> {
    let fine =
        !bytes.is_empty() && bytes.len() <= NAME_MAX && bytes.iter().all(u8::is_ascii_graphic);
    let name = std::str::from_utf8(bytes).ok().filter(|_| fine)?;
    Some(name.to_ascii_lowercase())
}
