//! Packets and capture files for tests.

use std::net::IpAddr;

use crate::source::capture::link::flag;

/// An address and port.
pub type End = (IpAddr, u16);

/// The ends of the connection that [`Film`] shows: the client's and the server's.
pub fn ends() -> [End; 2] {
    [("10.0.0.1".parse().unwrap(), 40_000), ("10.0.0.2".parse().unwrap(), 80)]
}

/// Flags from their letters.
pub fn flags(letters: &str) -> u8 {
    letters.chars().fold(0, |all, letter| {
        all | match letter {
            'F' => flag::FIN,
            'S' => flag::SYN,
            'R' => flag::RST,
            'A' => flag::ACK,
            other => panic!("no flag {other}"),
        }
    })
}

/// A TCP segment with a timestamp option, if there is one.
pub fn tcp(
    [from, to]: [u16; 2],
    letters: &str,
    [seq, ack]: [u32; 2],
    stamp: Option<u32>,
    payload: &[u8],
) -> Vec<u8> {
    let words = if stamp.is_some() { 8 } else { 5 };
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    bytes.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
    bytes.extend([words << 4, flags(letters), 1, 0, 0, 0, 0, 0]);
    if let Some(stamp) = stamp {
        bytes.extend([1, 1, 8, 10]);
        bytes.extend([stamp.to_be_bytes(), [0; 4]].concat());
    }
    bytes.extend(payload);
    bytes
}

/// An IPv4 packet.
pub fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, id: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend((20 + body.len() as u16).to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend([0x40, 0, 64, protocol, 0, 0]);
    bytes.extend([from, to].concat());
    bytes.extend(body);
    bytes
}

/// An IPv6 packet.
pub fn ipv6(from: [u8; 16], to: [u8; 16], next: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend([from, to].concat());
    bytes.extend(body);
    bytes
}

/// A pcap file of raw IP, under way.
#[derive(Clone)]
pub struct Film {
    /// Time of each packet in µs, and the packet.
    pub packets: Vec<(u64, Vec<u8>)>,
    /// Initial sequence numbers.
    pub isn: [u32; 2],
    /// Whether packets have an identification and a timestamp that tell copies from repetitions.
    pub marked: bool,
    /// Most bytes kept of a packet.
    pub snaplen: usize,
    pub ends: [End; 2],
}

impl Film {
    pub fn new() -> Self {
        let isn = [1000, 5000];
        Self { packets: Vec::new(), isn, marked: true, snaplen: usize::MAX, ends: ends() }
    }

    /// A segment of side 0 (client) or 1 at `time` in ms; sequence and acknowledgment numbers count
    /// from the initial ones.
    pub fn seg(&mut self, time: u64, side: usize, flags: &str, at: [u32; 2], payload: &str) {
        let number = self.packets.len() as u32 + 1;
        let [from, to] = [self.ends[side], self.ends[1 - side]];
        let seq = self.isn[side].wrapping_add(at[0]);
        let ack = if flags.contains('A') { self.isn[1 - side].wrapping_add(at[1]) } else { 0 };
        let stamp = self.marked.then_some(number * 10);
        let id = if self.marked { number as u16 } else { 0 };
        let body = tcp([from.1, to.1], flags, [seq, ack], stamp, payload.as_bytes());
        let packet = match (from.0, to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from.octets(), to.octets(), 6, id, &body),
            (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(from.octets(), to.octets(), 6, &body),
            _ => panic!("two families"),
        };
        self.packets.push((time * 1000, packet));
    }

    /// The three packets of a handshake, 1 ms apart.
    pub fn handshake(&mut self, time: u64) {
        self.seg(time, 0, "S", [0, 0], "");
        self.seg(time + 1, 1, "SA", [0, 1], "");
        self.seg(time + 2, 0, "A", [1, 1], "");
    }

    /// Without its first packets.
    pub fn from(mut self, first: usize) -> Self {
        self.packets.drain(..first);
        self
    }

    /// The file.
    pub fn pcap(&self) -> Vec<u8> {
        let mut file = pcap_head(false, 101);
        for (time, packet) in &self.packets {
            let kept = &packet[..packet.len().min(self.snaplen)];
            file.extend(pcap_packet(false, *time, kept, packet.len()));
        }
        file
    }
}

/// A pcap file's head, in µs.
pub fn pcap_head(big: bool, link: u32) -> Vec<u8> {
    let four = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let version = if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
    [four(0xa1b2_c3d4), version, four(0), four(0), four(262_144), four(link)].concat()
}

/// A pcap packet, its time in the file's unit as if that were µs.
pub fn pcap_packet(big: bool, time: u64, kept: &[u8], original: usize) -> Vec<u8> {
    let four = |value: u64| {
        let value = value as u32;
        if big { value.to_be_bytes() } else { value.to_le_bytes() }
    };
    let (seconds, fraction) = (time / 1_000_000, time % 1_000_000);
    let mut bytes =
        [four(seconds), four(fraction), four(kept.len() as u64), four(original as u64)].concat();
    bytes.extend(kept);
    bytes
}
