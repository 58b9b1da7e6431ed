//! One bounded look at the heads of both directions. In: their contiguous first bytes. Out: a
//! protocol, its version and which end is the client; or that more bytes are needed; or that it is
//! nothing tap knows, which is a valid outcome.
//!
//! Each protocol has a [`Rule`], found by the first byte. A rule says `No` at the first byte that
//! no head of its protocol has there, so `NeedMore` means that some further bytes would give a
//! protocol. What several protocols could have said (`220 ready`) is only `Perhaps`: the other
//! end's words confirm it, and where even these are shared (`QUIT`), the port does.
#![forbid(unsafe_code)]

mod amqp;
mod bittorrent;
mod cassandra;
mod dns;
mod fields;
#[cfg(test)]
mod foreign_tests;
mod ftp;
mod http;
mod imap;
mod kafka;
mod ldap;
mod memcached;
mod mongodb;
mod mqtt;
mod mysql;
mod nats;
mod pop3;
mod postgresql;
mod rdp;
mod redis;
mod smb;
mod smtp;
mod ssh;
#[cfg(test)]
mod tests;
mod tls;

use std::ops::RangeInclusive;

use fields::{Step, Stop};

use super::Protocol;
use crate::connection::model::Direction;

/// Bytes of a direction that are looked at.
pub const LOOK: usize = 512;

/// What a look at both heads gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// It is this.
    Known(Detected),
    /// It may become something known with more bytes.
    NeedMore,
    /// Nothing known, whatever follows.
    Unknown,
}

/// A protocol that was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detected {
    /// Which.
    pub protocol: Protocol,
    /// `network.protocol.version`, where the head tells it: HTTP (`1.0`, `1.1`, `2`), SSH (`2.0`),
    /// AMQP (`0-9-1`), MQTT (`3.1.1`), PostgreSQL (`3.0`), Cassandra (`4`), LDAP (`3`). That of TLS
    /// is in its hellos.
    pub version: Option<&'static str>,
    /// The direction in which the client speaks: [`Direction::Transmit`] where this host is the
    /// client. It tells the role in a connection whose opening was not seen. Where both ends of a
    /// protocol begin alike (SSH, AMQP 1.0, BitTorrent) it is the one that spoke alone, or that
    /// the ports tell, or else a guess.
    pub client: Direction,
}

/// Looks at the bytes that this host received and those that it sent. Either may be empty.
pub fn detect(receive: &[u8], transmit: &[u8]) -> Detection {
    detect_with(receive, transmit, [0, 0])
}

/// Like [`detect`], with the ports of this host and of its peer (0: not known). They count only
/// where the bytes allow a protocol but others could have said the same, or which end is the
/// client remains open.
pub fn detect_with(receive: &[u8], transmit: &[u8], ports: [u16; 2]) -> Detection {
    let heads = [receive, transmit].map(|head| &head[..head.len().min(LOOK)]);
    let mut looks = [Look::default(); 2];
    // What the client says goes first: a plain HTTP server answers a TLS hello with HTTP.
    for (at, head) in heads.iter().enumerate() {
        looks[at] = look(head);
        if let Some(said) = looks[at].sure
            && said.speaker == Speaker::Client
        {
            return known(said, at, ports);
        }
    }
    for (at, look) in looks.iter().enumerate() {
        if let Some(said) = look.sure {
            return known(said, at, ports);
        }
    }
    confirm(heads, looks, ports)
}

/// For the fuzzer: any bytes, cut anywhere into two directions.
#[doc(hidden)]
pub fn fuzz_detect(bytes: &[u8]) {
    let (cut, bytes) = bytes.split_first().map_or((0, bytes), |(cut, rest)| (*cut, rest));
    // In steps of four, so that both may fill the look.
    let cut = 4 * usize::from(cut);
    let (receive, transmit) = bytes.split_at(cut.min(bytes.len()));
    let there = detect(receive, transmit);
    let back = detect(transmit, receive);
    assert_eq!(matches!(there, Detection::Known(_)), matches!(back, Detection::Known(_)));
    assert_eq!(there == Detection::NeedMore, back == Detection::NeedMore);
    let full = |head: &[u8]| head.len() >= LOOK;
    assert!(!(full(receive) && full(transmit)) || there != Detection::NeedMore);
}

// === Rules ===

/// How a protocol is known.
struct Rule {
    /// What its heads begin with.
    first: &'static [RangeInclusive<u8>],
    /// What a head says that begins so.
    look: fn(&[u8]) -> Step<Said>,
    /// Whether what the other end says (second) confirms a head (first) that is only `Perhaps`.
    confirm: fn(&[u8], &[u8]) -> Step<Certainty>,
}

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    protocol: Protocol,
    version: Option<&'static str>,
    speaker: Speaker,
    certainty: Certainty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Client,
    Server,
    /// Both ends begin like this.
    Either,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    /// Nothing else begins like this.
    Sure,
    /// Other protocols do, too.
    Perhaps,
}

impl Said {
    const fn client(protocol: Protocol, version: Option<&'static str>) -> Self {
        Self { protocol, version, speaker: Speaker::Client, certainty: Certainty::Sure }
    }

    const fn server(protocol: Protocol, version: Option<&'static str>) -> Self {
        Self { protocol, version, speaker: Speaker::Server, certainty: Certainty::Sure }
    }

    const fn either(protocol: Protocol, version: Option<&'static str>) -> Self {
        Self { protocol, version, speaker: Speaker::Either, certainty: Certainty::Sure }
    }

    const fn perhaps(self) -> Self {
        Self { certainty: Certainty::Perhaps, ..self }
    }
}

/// A rule's `confirm` where its looks are sure.
fn never(_: &[u8], _: &[u8]) -> Step<Certainty> {
    Err(Stop::No)
}

/// Where two can claim a head, the one that needs more to do so goes first.
static RULES: [Rule; 23] = [
    http::RULE,
    tls::RULE,
    http::SETTINGS_RULE,
    redis::RULE,
    postgresql::RULE,
    kafka::RULE,
    mysql::RULE,
    mongodb::RULE,
    amqp::RULE,
    mqtt::RULE,
    nats::RULE,
    memcached::RULE,
    cassandra::RULE,
    ssh::RULE,
    smtp::RULE,
    ftp::RULE,
    imap::RULE,
    pop3::RULE,
    ldap::RULE,
    rdp::RULE,
    smb::RULE,
    dns::RULE,
    bittorrent::RULE,
];

/// For each first byte, the rules that want to look, as bits.
static BY_FIRST: [u32; 256] = by_first();

const fn by_first() -> [u32; 256] {
    assert!(RULES.len() <= u32::BITS as usize);
    let mut table = [0; 256];
    let mut at = 0;
    while at < RULES.len() {
        let mut range = 0;
        while range < RULES[at].first.len() {
            let mut byte = *RULES[at].first[range].start() as usize;
            while byte <= *RULES[at].first[range].end() as usize {
                table[byte] |= 1 << at;
                byte += 1;
            }
            range += 1;
        }
        at += 1;
    }
    table
}

/// What the rules say to one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    sure: Option<Said>,
    /// Rules that say `Perhaps`, as bits.
    perhaps: u32,
    /// Some rule wants more.
    more: bool,
}

fn look(head: &[u8]) -> Look {
    let mut look = Look::default();
    let Some(first) = head.first() else { return Look { more: true, ..look } };
    for at in bits(BY_FIRST[usize::from(*first)]) {
        match (RULES[at].look)(head) {
            Ok(said) if said.certainty == Certainty::Sure => {
                return Look { sure: Some(said), ..Look::default() };
            }
            Ok(_) => look.perhaps |= 1 << at,
            Err(Stop::More) => look.more |= head.len() < LOOK,
            Err(Stop::No) => {}
        }
    }
    look
}

fn confirm(heads: [&[u8]; 2], looks: [Look; 2], ports: [u16; 2]) -> Detection {
    let mut more = looks[0].more || looks[1].more;
    let mut by_port = None;
    for (at, other) in [(0, 1), (1, 0)] {
        for rule in bits(looks[at].perhaps).map(|rule| &RULES[rule]) {
            let Ok(said) = (rule.look)(heads[at]) else { continue };
            match (rule.confirm)(heads[at], heads[other]) {
                Ok(Certainty::Sure) => return known(said, at, ports),
                Ok(Certainty::Perhaps) => {
                    if ports.iter().any(|port| is_port(said.protocol, *port)) {
                        by_port = Some(known(said, at, ports));
                    }
                }
                Err(Stop::More) => more |= heads[other].len() < LOOK,
                Err(Stop::No) => {}
            }
        }
    }
    if more { Detection::NeedMore } else { by_port.unwrap_or(Detection::Unknown) }
}

/// `said` by the direction at `at`.
fn known(said: Said, at: usize, ports: [u16; 2]) -> Detection {
    let client = match said.speaker {
        Speaker::Client => at,
        Speaker::Server => 1 - at,
        Speaker::Either => {
            ports.iter().position(|port| is_port(said.protocol, *port)).unwrap_or(at)
        }
    };
    Detection::Known(Detected {
        protocol: said.protocol,
        version: said.version,
        client: if client == 0 { Direction::Receive } else { Direction::Transmit },
    })
}

/// Whether servers of `protocol` use `port`, for those protocols whose bytes can leave it open.
const fn is_port(protocol: Protocol, port: u16) -> bool {
    match protocol {
        Protocol::Smtp => matches!(port, 25 | 465 | 587 | 2525),
        Protocol::Ftp => matches!(port, 21 | 990 | 2121),
        Protocol::Pop3 => matches!(port, 110 | 995),
        Protocol::Memcached => port == 11211,
        Protocol::Rdp => port == 3389,
        Protocol::Ssh => matches!(port, 22 | 2222),
        Protocol::Amqp => matches!(port, 5671 | 5672),
        Protocol::Bittorrent => matches!(port, 6881..=6889),
        _ => false,
    }
}

/// The places of the bits that are set.
fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = set.trailing_zeros();
        (set != 0).then(|| {
            set &= set - 1;
            at as usize
        })
    })
}
