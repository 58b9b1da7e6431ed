//! Ethernet frames with a TCP segment over IPv4: reading them, and forging others like them.

/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// Bits of the TCP header's flags.
pub mod flag {
    /// FIN
    pub const FIN: u8 = 1;
    /// SYN
    pub const SYN: u8 = 1 << 1;
    /// RST
    pub const RST: u8 = 1 << 2;
    /// PSH
    pub const PSH: u8 = 1 << 3;
    /// ACK
    pub const ACK: u8 = 1 << 4;
}

/// A frame that holds a TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    frame: &'a [u8],
    /// `ETHERNET < tcp < data <= end <= frame.len()`
    tcp: usize,
    data: usize,
    end: usize,
}

impl<'a> Segment<'a> {
    /// The segment in `frame`, if there is one.
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET..)?;
        if frame[12..14] != [8, 0] || ip.first()? >> 4 != 4 || *ip.get(9)? != 6 {
            return None;
        }
        let tcp = ETHERNET + usize::from(ip[0] & 15) * 4;
        let end = ETHERNET + usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let data = tcp + usize::from(frame.get(tcp + 12)? >> 4) * 4;
        (tcp + 20 <= data && data <= end && end <= frame.len()).then_some(Self {
            frame,
            tcp,
            data,
            end,
        })
    }

    /// Its sequence number.
    pub fn seq(&self) -> u32 {
        self.word(4)
    }

    /// Its acknowledgement number.
    pub fn ack(&self) -> u32 {
        self.word(8)
    }

    /// Its flags, see [`flag`].
    pub fn flags(&self) -> u8 {
        self.frame[self.tcp + 13]
    }

    /// Whether `flags` are all set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags() & flags == flags
    }

    /// Its payload.
    pub fn payload(&self) -> &'a [u8] {
        &self.frame[self.data..self.end]
    }

    /// Whether it is an ACK and nothing else.
    pub fn is_bare_ack(&self) -> bool {
        self.payload().is_empty() && self.flags() == flag::ACK
    }

    /// Whether its checksum is right.
    pub fn checksum_is_right(&self) -> bool {
        checksum(&self.frame[ETHERNET..self.end], self.tcp - ETHERNET) == 0
    }

    /// Another frame of the same connection and direction, with this one's headers and options.
    pub fn forge(&self, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.frame[..self.data].to_vec();
        frame.extend_from_slice(payload);
        let total = (frame.len() - ETHERNET) as u16;
        frame[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&total.to_be_bytes());
        frame[self.tcp + 4..self.tcp + 8].copy_from_slice(&seq.to_be_bytes());
        frame[self.tcp + 13] = flags;
        seal(&mut frame, self.tcp);
        frame
    }

    fn word(&self, at: usize) -> u32 {
        let at = self.tcp + at;
        let bytes = &self.frame[at..at + 4];
        bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
    }
}

/// Makes the TCP checksum of a frame wrong.
pub fn spoil(mut frame: Vec<u8>) -> Vec<u8> {
    if let Some(tcp) = Segment::parse(&frame).map(|segment| segment.tcp) {
        frame[tcp + 16] ^= 0x55;
    }
    frame
}

/// Computes both checksums.
fn seal(frame: &mut [u8], tcp: usize) {
    frame[ETHERNET + 10..ETHERNET + 12].fill(0);
    let header = fold(sum(&frame[ETHERNET..tcp]));
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&header.to_be_bytes());
    frame[tcp + 16..tcp + 18].fill(0);
    let segment = checksum(&frame[ETHERNET..], tcp - ETHERNET);
    frame[tcp + 16..tcp + 18].copy_from_slice(&segment.to_be_bytes());
}

/// The TCP checksum over the packet `ip` whose segment begins at `tcp`; 0 where the one in place
/// is right (RFC 1071).
fn checksum(ip: &[u8], tcp: usize) -> u16 {
    let length = (ip.len() - tcp) as u32;
    fold(sum(&ip[12..20]) + 6 + length + sum(&ip[tcp..]))
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
