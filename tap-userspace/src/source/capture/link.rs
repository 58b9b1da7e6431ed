//! From a captured frame to its TCP segment or UDP datagram. Lengths are the IP header's, so that
//! a packet of which only the begin was captured still counts in full; checksums are not looked at,
//! as a sending host captures before its network card fills them in.
#![forbid(unsafe_code)]

/// A packet's ends, as records have them: IPv4 is IPv4-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address.
    pub address: [u8; 16],
    /// The port.
    pub port: u16,
}

impl From<Endpoint> for std::net::SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        let address = std::net::Ipv6Addr::from(endpoint.address).to_canonical();
        Self::new(address, endpoint.port)
    }
}

/// What a packet is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A TCP segment.
    Tcp(Segment<'a>),
    /// A UDP datagram's payload, as far as it was captured.
    Udp(&'a [u8]),
}

/// A packet that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Who sent it.
    pub from: Endpoint,
    /// To whom.
    pub to: Endpoint,
    /// What it holds.
    pub body: Body<'a>,
}

/// A TCP segment (RFC 9293 §3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number, where [`flag::ACK`] is set.
    pub acknowledged: u32,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Payload bytes on the wire.
    pub len: u32,
    /// What was captured of them, at most `len`.
    pub payload: &'a [u8],
    /// The IPv4 header's identification; 0 if there is none.
    pub id: u16,
    /// The sender's timestamp (RFC 7323 §3).
    pub timestamp: Option<u32>,
}

impl Segment<'_> {
    /// Whether one of these flags is set.
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// TCP's control bits.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset the connection.
    pub const RST: u8 = 4;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 16;
}

/// Why a packet is not looked at further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Neither TCP nor UDP over IP.
    Other,
    /// A fragment of an IP packet.
    Fragment,
    /// Its headers make no sense, or were not captured whole.
    Malformed,
    /// A link type that is not known here.
    Link,
}

/// EtherTypes.
mod ether {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
    /// IEEE 802.1Q, 802.1ad and what was used before it.
    pub const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
}

/// VLAN tags in a row that are passed over; two are in use.
const TAGS_MAX: usize = 4;

/// IPv6 extension headers in a row that are passed over (RFC 8200 §4.1 has six, each once).
const EXTENSIONS_MAX: usize = 8;

/// IP protocol numbers.
mod protocol {
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    /// Hop-by-hop, routing, destination options, mobility, HIP, shim6.
    pub const EXTENSIONS: [u8; 6] = [0, 43, 60, 135, 139, 140];
}

/// Link types (https://www.tcpdump.org/linktypes.html).
mod linktype {
    pub const NULL: u32 = 0;
    pub const ETHERNET: u32 = 1;
    /// Raw IP; the first two are BSD's own numbers for it (DLT_RAW), which some systems write.
    pub const RAW: [u32; 3] = [12, 14, 101];
    pub const LOOP: u32 = 108;
    pub const LINUX_SLL: u32 = 113;
    pub const IPV4: u32 = 228;
    pub const IPV6: u32 = 229;
    pub const LINUX_SLL2: u32 = 276;
}

/// Takes a frame of type `link` apart, of which `data` was captured and `original` bytes were on
/// the wire.
pub fn parse(link: u32, data: &[u8], original: u32) -> Result<Packet<'_>, Skip> {
    let frame = Cut { bytes: data, wire: original as usize };
    match link {
        linktype::ETHERNET => tagged(frame.u16(12)?, frame.after(14)?),
        linktype::LINUX_SLL => tagged(frame.u16(14)?, frame.after(16)?),
        linktype::LINUX_SLL2 => tagged(frame.u16(0)?, frame.after(20)?),
        linktype::NULL | linktype::LOOP => null(frame),
        linktype::IPV4 | linktype::IPV6 => ip(frame),
        _ if linktype::RAW.contains(&link) => ip(frame),
        _ => Err(Skip::Link),
    }
}

/// A piece of a packet: what was captured of it, and how long it was on the wire.
#[derive(Clone, Copy)]
struct Cut<'a> {
    bytes: &'a [u8],
    wire: usize,
}

impl<'a> Cut<'a> {
    fn array<const N: usize>(self, at: usize) -> Result<[u8; N], Skip> {
        let found = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        found.copied().ok_or(Skip::Malformed)
    }

    fn u8(self, at: usize) -> Result<u8, Skip> {
        self.bytes.get(at).copied().ok_or(Skip::Malformed)
    }

    fn u16(self, at: usize) -> Result<u16, Skip> {
        self.array(at).map(u16::from_be_bytes)
    }

    fn u32(self, at: usize) -> Result<u32, Skip> {
        self.array(at).map(u32::from_be_bytes)
    }

    /// What follows a header of `len` bytes, which was captured whole.
    fn after(self, len: usize) -> Result<Self, Skip> {
        let bytes = self.bytes.get(len..).ok_or(Skip::Malformed)?;
        Ok(Self { bytes, wire: self.wire.checked_sub(len).ok_or(Skip::Malformed)? })
    }

    /// As [`Self::after`], where the header's own end need not have been captured.
    fn payload(self, len: usize) -> Result<Self, Skip> {
        let bytes = self.bytes.get(len..).unwrap_or_default();
        Ok(Self { bytes, wire: self.wire.checked_sub(len).ok_or(Skip::Malformed)? })
    }

    /// Without what stands behind the first `wire` bytes.
    fn limited(self, wire: usize) -> Self {
        Self { bytes: &self.bytes[..self.bytes.len().min(wire)], wire }
    }
}

/// What an EtherType announces; VLAN tags are passed over.
fn tagged(mut ether: u16, mut rest: Cut<'_>) -> Result<Packet<'_>, Skip> {
    for _ in 0..=TAGS_MAX {
        match ether {
            ether::IPV4 | ether::IPV6 => return ip(rest),
            _ if ether::TAGS.contains(&ether) => {
                ether = rest.u16(2)?;
                rest = rest.after(4)?;
            }
            _ => return Err(Skip::Other),
        }
    }
    Err(Skip::Other)
}

/// BSD's loopback header: the address family, in the byte order of the capturing host.
fn null(frame: Cut<'_>) -> Result<Packet<'_>, Skip> {
    let family = frame.u32(0)?;
    // AF_INET, and AF_INET6 of Linux, OpenBSD, FreeBSD and Darwin.
    match family.min(family.swap_bytes()) {
        2 | 10 | 24 | 28 | 30 => ip(frame.after(4)?),
        _ => Err(Skip::Other),
    }
}

fn ip(packet: Cut<'_>) -> Result<Packet<'_>, Skip> {
    match packet.u8(0)? >> 4 {
        4 => ipv4(packet),
        6 => ipv6(packet),
        _ => Err(Skip::Malformed),
    }
}

/// RFC 791 §3.1.
fn ipv4(packet: Cut<'_>) -> Result<Packet<'_>, Skip> {
    let header = usize::from(packet.u8(0)? & 15) * 4;
    if header < 20 {
        return Err(Skip::Malformed);
    }
    let packet = match usize::from(packet.u16(2)?) {
        // A packet that the network card will cut up, longer than the field can say.
        0 => packet,
        total => packet.limited(total),
    };
    // Fragment offset and "more fragments".
    if packet.u16(6)? & 0x3fff != 0 {
        return Err(Skip::Fragment);
    }
    let from = mapped(packet.array(12)?);
    let to = mapped(packet.array(16)?);
    let id = packet.u16(4)?;
    transport(packet.u8(9)?, packet.payload(header)?, from, to, id)
}

fn mapped(four: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[10..12].copy_from_slice(&[0xff, 0xff]);
    address[12..].copy_from_slice(&four);
    address
}

/// RFC 8200 §3 and §4.
fn ipv6(packet: Cut<'_>) -> Result<Packet<'_>, Skip> {
    let (from, to) = (packet.array(8)?, packet.array(24)?);
    let mut next = packet.u8(6)?;
    let mut rest = match usize::from(packet.u16(4)?) {
        // A jumbogram (RFC 2675), or one that the network card will cut up.
        0 => packet.after(40)?,
        len => packet.after(40)?.limited(len),
    };
    for _ in 0..EXTENSIONS_MAX {
        let len = match next {
            protocol::FRAGMENT => {
                // Offset and "more fragments": a packet may be its own only fragment (RFC 6946).
                if rest.u16(2)? & 0xfff9 != 0 {
                    return Err(Skip::Fragment);
                }
                8
            }
            protocol::AUTHENTICATION => (usize::from(rest.u8(1)?) + 2) * 4,
            _ if protocol::EXTENSIONS.contains(&next) => (usize::from(rest.u8(1)?) + 1) * 8,
            _ => break,
        };
        next = rest.u8(0)?;
        rest = rest.after(len)?;
    }
    transport(next, rest, from, to, 0)
}

fn transport(
    protocol: u8,
    rest: Cut<'_>,
    from: [u8; 16],
    to: [u8; 16],
    id: u16,
) -> Result<Packet<'_>, Skip> {
    let body = match protocol {
        protocol::TCP => Body::Tcp(tcp(rest, id)?),
        protocol::UDP => Body::Udp(rest.payload(8)?.bytes),
        _ => return Err(Skip::Other),
    };
    let from = Endpoint { address: from, port: rest.u16(0)? };
    let to = Endpoint { address: to, port: rest.u16(2)? };
    Ok(Packet { from, to, body })
}

fn tcp(segment: Cut<'_>, id: u16) -> Result<Segment<'_>, Skip> {
    let header = usize::from(segment.u8(12)? >> 4) * 4;
    if header < 20 {
        return Err(Skip::Malformed);
    }
    let options = segment.bytes.get(20..header.min(segment.bytes.len())).unwrap_or_default();
    let payload = segment.payload(header)?;
    Ok(Segment {
        sequence: segment.u32(4)?,
        acknowledged: segment.u32(8)?,
        flags: segment.u8(13)?,
        len: u32::try_from(payload.wire).map_err(|_| Skip::Malformed)?,
        payload: &payload.bytes[..payload.bytes.len().min(payload.wire)],
        id,
        timestamp: timestamp(options),
    })
}

/// The timestamp option's value (RFC 7323 §3.2).
fn timestamp(mut options: &[u8]) -> Option<u32> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const TIMESTAMP: u8 = 8;
    loop {
        match *options {
            [TIMESTAMP, 10, a, b, c, d, ..] => return Some(u32::from_be_bytes([a, b, c, d])),
            [NOTHING, ref rest @ ..] => options = rest,
            [] | [END, ..] | [_] => return None,
            [_, len, ..] => options = options.get(usize::from(len).max(2)..)?,
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
