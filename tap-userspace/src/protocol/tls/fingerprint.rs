//! Fingerprints of hellos. In: the numbers of a hello in wire order, without GREASE. Out: JA3 and
//! JA3S (<https://github.com/salesforce/ja3>, README) and JA4
//! (<https://github.com/FoxIO-LLC/ja4>, `technical_details/JA4.md`).
//!
//! A hello is below 64 KiB, so the texts that are hashed are below three times that.
#![forbid(unsafe_code)]

use md5::Md5;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use super::extension;

/// What of a ClientHello goes into its fingerprints: as on the wire, GREASE left out.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// The version that the hello itself names.
    pub legacy_version: u16,
    /// The highest of supported_versions; without it the legacy one.
    pub version: u16,
    /// Cipher suites.
    pub ciphers: SmallVec<[u16; 64]>,
    /// Extension types.
    pub extensions: SmallVec<[u16; 32]>,
    /// Groups of the supported_groups extension.
    pub groups: SmallVec<[u16; 16]>,
    /// EC point formats.
    pub point_formats: SmallVec<[u8; 8]>,
    /// Signature algorithms.
    pub signature_algorithms: SmallVec<[u16; 32]>,
    /// The first protocol of ALPN.
    pub alpn: Option<SmallVec<[u8; 16]>>,
}

impl Offer {
    /// JA3: the MD5 of [`ja3_text`](Self::ja3_text).
    pub fn ja3(&self) -> String {
        hex(&Md5::digest(self.ja3_text()))
    }

    /// What JA3 hashes: `769,47-53-5,0-10-11,23-24-25,0`.
    pub fn ja3_text(&self) -> String {
        let mut text = String::with_capacity(256);
        decimal(&mut text, self.legacy_version);
        let formats = self.point_formats.iter().map(|format| u16::from(*format));
        decimals(&mut text, self.ciphers.iter().copied());
        decimals(&mut text, self.extensions.iter().copied());
        decimals(&mut text, self.groups.iter().copied());
        decimals(&mut text, formats);
        text
    }

    /// JA4: `t13d1516h2_8daaf6152771_e5627efa2ab1`.
    pub fn ja4(&self) -> String {
        let [first, ciphers, extensions] = self.ja4_parts();
        [first, short_hash(&ciphers), short_hash(&extensions)].join("_")
    }

    /// JA4_r: JA4 with what it hashes in place of the hashes.
    pub fn ja4_raw(&self) -> String {
        self.ja4_parts().join("_")
    }

    fn ja4_parts(&self) -> [String; 3] {
        let version = match self.version {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            0x0002 => "s2",
            _ => "00",
        };
        let server_name = self.extensions.contains(&extension::SERVER_NAME);
        let [begin, end] = ja4_alpn(self.alpn.as_deref().unwrap_or_default());
        let first = format!(
            "t{version}{}{:02}{:02}{begin}{end}",
            if server_name { 'd' } else { 'i' },
            self.ciphers.len().min(99),
            self.extensions.len().min(99),
        );
        let mut sorted = self.ciphers.clone();
        sorted.sort_unstable();
        let mut ciphers = String::with_capacity(5 * sorted.len());
        hex_list(&mut ciphers, sorted.iter().copied());

        let mut sorted: SmallVec<[u16; 32]> = self.extensions.clone();
        sorted.retain(|kind| !matches!(*kind, extension::SERVER_NAME | extension::ALPN));
        sorted.sort_unstable();
        let mut extensions =
            String::with_capacity(5 * (sorted.len() + self.signature_algorithms.len()));
        hex_list(&mut extensions, sorted.iter().copied());
        if !self.signature_algorithms.is_empty() {
            extensions.push('_');
            hex_list(&mut extensions, self.signature_algorithms.iter().copied());
        }
        [first, ciphers, extensions]
    }
}

/// JA3S of a ServerHello's version, cipher suite and extension types: the MD5 of `769,47,65281-0`.
/// A server has no GREASE to leave out.
pub fn ja3s(legacy_version: u16, cipher: u16, extensions: &[u16]) -> String {
    hex(&Md5::digest(ja3s_text(legacy_version, cipher, extensions)))
}

pub(super) fn ja3s_text(legacy_version: u16, cipher: u16, extensions: &[u16]) -> String {
    let mut text = String::with_capacity(64);
    decimal(&mut text, legacy_version);
    decimals(&mut text, [cipher].into_iter());
    decimals(&mut text, extensions.iter().copied());
    text
}

/// The first and last characters of the first ALPN value; of its hexadecimal form if one of them
/// is not alphanumeric.
fn ja4_alpn(protocol: &[u8]) -> [char; 2] {
    match protocol {
        [] => ['0', '0'],
        [first, ..] => {
            let last = protocol.last().unwrap_or(first);
            if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
                [char::from(*first), char::from(*last)]
            } else {
                [digit(first >> 4), digit(last & 0xf)]
            }
        }
    }
}

/// The first twelve digits of the SHA-256; zeros for nothing.
fn short_hash(text: &str) -> String {
    if text.is_empty() {
        return "000000000000".to_owned();
    }
    hex(&Sha256::digest(text)[..6])
}

fn digit(nibble: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(nibble & 0xf)])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// `1301,1302`
fn hex_list(text: &mut String, values: impl Iterator<Item = u16>) {
    for (n, value) in values.enumerate() {
        if n > 0 {
            text.push(',');
        }
        for shift in [12, 8, 4, 0] {
            text.push(digit((value >> shift) as u8));
        }
    }
}

/// `,47-53-5`: `format!` would take most of the time that a hello costs.
fn decimals(text: &mut String, values: impl Iterator<Item = u16>) {
    text.push(',');
    for (n, value) in values.enumerate() {
        if n > 0 {
            text.push('-');
        }
        decimal(text, value);
    }
}

fn decimal(text: &mut String, value: u16) {
    let mut begun = false;
    for unit in [10_000, 1000, 100, 10, 1] {
        let digit = value / unit % 10;
        begun |= digit > 0 || unit == 1;
        if begun {
            text.push(char::from(b'0' + digit as u8));
        }
    }
}
