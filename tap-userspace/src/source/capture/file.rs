//! Capture files, packet by packet: pcap (both byte orders, µs and ns) and pcapng (sections,
//! interfaces, their clocks). Comes in: a file's bytes. Goes out: [`Packet`]s in the file's order.
//!
//! A block is framed here and handed to `pcap-parser` whole: its own readers grow their buffer as
//! a damaged length asks, and cannot tell a cut-off file from a damaged one. The two options that
//! make a pcapng clock are read here too, as pcap-parser 0.17 refuses binary resolutions and takes
//! big-endian offsets for little-endian.
#![forbid(unsafe_code)]

use std::io::{self, Read};

use pcap_parser::{
    InterfaceDescriptionBlock, OptionCode, PcapHeader, parse_block_be, parse_block_le,
    parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header,
    parse_sectionheaderblock, pcapng::Block,
};

/// Longest packet or block that is read: four times what libpcap ever writes
/// (`MAXIMUM_SNAPLEN`, 256 KiB), room for the largest packets of the kernel (BIG TCP, 512 KiB).
/// Blocks that are no packets are passed over whatever their length.
const BLOCK_MAX: usize = 1 << 20;

/// Most interfaces of a section; tools write a few.
const INTERFACES_MAX: usize = 65_536;

/// Read from the file at once.
const BUFFER: usize = 256 << 10;

/// A packet as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Unix time in nanoseconds.
    pub time_ns: u64,
    /// Link type of its interface (LINKTYPE_… of tcpdump.org).
    pub link: u32,
    /// What was captured of it.
    pub data: &'a [u8],
    /// Its length on the wire.
    pub original: u32,
}

/// Why a capture cannot be read, or not to its end. Packets count from 1, as Wireshark does.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("cannot read the capture: {0}")]
    Io(#[from] io::Error),
    /// It is no capture.
    #[error("offset 0: this is no packet capture (neither pcap nor pcapng)")]
    NoCapture,
    /// It is compressed.
    #[error("offset 0: the capture is compressed; decompress it first (gunzip, unzstd, xz -d)")]
    Compressed,
    /// The file ends inside a packet or block: the capturing program was killed, or the file was
    /// truncated.
    #[error(
        "packet {packet}, offset {offset}: the capture is cut off; everything before it was replayed"
    )]
    Truncated {
        /// The packet that would have come next.
        packet: u64,
        /// Where its block begins in the file.
        offset: u64,
    },
    /// A packet or block is damaged.
    #[error(
        "packet {packet}, offset {offset}: the capture is damaged ({what}); everything before it was replayed"
    )]
    Damaged {
        /// The packet that would have come next.
        packet: u64,
        /// Where its block begins in the file.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Whether a file that begins with these bytes is a packet capture.
pub fn is_capture(first: &[u8]) -> bool {
    let Some(first) = first.first_chunk() else { return false };
    // A section header; pcap in µs, ns and Kuznetzov's form, and in the other byte order.
    matches!(
        u32::from_le_bytes(*first),
        SECTION | 0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34 | 0xd4c3_b2a1 | 0x4d3c_b2a1
    )
}

/// Type of a section header block, the same in both byte orders.
const SECTION: u32 = 0x0a0d_0d0a;

/// The types of the other blocks that are read (draft-ietf-opsawg-pcapng §4).
mod block {
    pub const INTERFACE: u32 = 1;
    pub const PACKET: u32 = 2;
    pub const SIMPLE: u32 = 3;
    pub const ENHANCED: u32 = 6;
}

/// What the file's blocks are.
#[derive(Debug)]
enum Format {
    Pcap { order: Order, link: u32, fraction_ns: u64 },
    Pcapng { big: bool, interfaces: Vec<Interface> },
}

/// Byte order and head of pcap packets.
#[derive(Clone, Copy, Debug)]
enum Order {
    Little,
    Big,
    /// Alexey Kuznetzov's format, with 24 bytes before each packet.
    Modified,
}

/// An interface of a pcapng section.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u32,
    /// Bytes kept of each packet; 0 for all.
    snaplen: u32,
    clock: Clock,
}

/// How an interface counts time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    /// Units per second.
    units: u64,
    /// To be added, seconds.
    offset: i64,
}

impl Clock {
    const MICROSECONDS: Self = Self { units: 1_000_000, offset: 0 };

    /// Unix nanoseconds of the timestamp; what does not fit becomes the nearest that does.
    fn ns(self, high: u32, low: u32) -> u64 {
        let stamp = u64::from(high) << 32 | u64::from(low);
        let seconds = i128::from(stamp / self.units) + i128::from(self.offset);
        let fraction = u128::from(stamp % self.units) * 1_000_000_000 / u128::from(self.units);
        let ns = seconds * 1_000_000_000 + fraction.cast_signed();
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

/// Reads a capture.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    buffer: Vec<u8>,
    /// `begin <= end <= buffer.len()`: what was read and is not consumed.
    begin: usize,
    end: usize,
    /// Where `begin` stands in the file.
    offset: u64,
    format: Format,
    /// Packets that were given out.
    packets: u64,
    /// Time of the packet before, for blocks that have none.
    time_ns: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the file's head.
    pub fn new(from: R) -> Result<Self, ReadError> {
        let mut reader = Self {
            from,
            buffer: vec![0; BUFFER],
            begin: 0,
            end: 0,
            offset: 0,
            format: Format::Pcapng { big: false, interfaces: Vec::new() },
            packets: 0,
            time_ns: 0,
        };
        reader.fill(24)?;
        match *reader.data() {
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0xfd, b'7', b'z', ..] => {
                return Err(ReadError::Compressed);
            }
            _ if !is_capture(reader.data()) => return Err(ReadError::NoCapture),
            [0x0a, 0x0d, 0x0d, 0x0a, ..] => return Ok(reader),
            _ => {}
        }
        let header = match parse_pcap_header(reader.data()) {
            Ok((_, header)) => header,
            Err(_) => return Err(reader.truncated()),
        };
        reader.consume(24);
        reader.format = pcap(&header);
        Ok(reader)
    }

    /// The next packet; `None` at the end of the file.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, ReadError> {
        match self.format {
            Format::Pcap { order, link, fraction_ns } => self.pcap_packet(order, link, fraction_ns),
            Format::Pcapng { .. } => self.pcapng_packet(),
        }
    }

    fn pcap_packet(
        &mut self,
        order: Order,
        link: u32,
        fraction_ns: u64,
    ) -> Result<Option<Packet<'_>>, ReadError> {
        let head = if matches!(order, Order::Modified) { 24 } else { 16 };
        if !self.fill(head)? {
            return if self.data().is_empty() { Ok(None) } else { Err(self.truncated()) };
        }
        let big = matches!(order, Order::Big);
        let captured = word(self.data(), 8, big).unwrap_or(0) as usize;
        if captured > BLOCK_MAX {
            return Err(self.damaged("a packet of impossible length"));
        }
        let len = head + captured;
        if !self.fill(len)? {
            return Err(self.truncated());
        }
        let (at, offset, packet) = (self.begin, self.offset, self.packets + 1);
        self.consume(len);
        self.packets += 1;
        let parse = match order {
            Order::Little => parse_pcap_frame,
            Order::Big => parse_pcap_frame_be,
            Order::Modified => parse_pcap_frame_modified,
        };
        let what = "a packet of unknown form";
        let Ok((_, frame)) = parse(&self.buffer[at..at + len]) else {
            return Err(ReadError::Damaged { packet, offset, what });
        };
        let time_ns =
            u64::from(frame.ts_sec) * 1_000_000_000 + u64::from(frame.ts_usec) * fraction_ns;
        let original = frame.origlen.max(frame.caplen);
        Ok(Some(Packet { time_ns, link, data: frame.data, original }))
    }

    fn pcapng_packet(&mut self) -> Result<Option<Packet<'_>>, ReadError> {
        loop {
            let Some((kind, len)) = self.block()? else { return Ok(None) };
            let (at, offset, packet) = (self.begin, self.offset, self.packets + 1);
            let damaged = |what| ReadError::Damaged { packet, offset, what };
            self.consume(len);
            let Format::Pcapng { big, interfaces } = &mut self.format else { return Ok(None) };
            let bytes = &self.buffer[at..at + len];
            if kind == SECTION {
                parse_sectionheaderblock(bytes).map_err(|_| damaged("a broken section header"))?;
                interfaces.clear();
                continue;
            }
            let parse = if *big { parse_block_be } else { parse_block_le };
            let (_, parsed) = parse(bytes).map_err(|_| damaged("a block of unknown form"))?;
            let found = match parsed {
                Block::InterfaceDescription(described) => {
                    if interfaces.len() >= INTERFACES_MAX {
                        return Err(damaged("too many interfaces"));
                    }
                    let clock = clock(&described, *big)
                        .ok_or_else(|| damaged("an impossible timestamp resolution"))?;
                    let link = described.linktype.0.cast_unsigned() & 0xffff;
                    interfaces.push(Interface { link, snaplen: described.snaplen, clock });
                    continue;
                }
                Block::EnhancedPacket(packet) => Some(Found {
                    interface: packet.if_id,
                    stamp: Some((packet.ts_high, packet.ts_low)),
                    begin: 28,
                    captured: packet.caplen,
                    original: packet.origlen,
                }),
                Block::SimplePacket(packet) => {
                    let snaplen = interfaces.first().map_or(0, |interface| interface.snaplen);
                    let snaplen = if snaplen == 0 { u32::MAX } else { snaplen };
                    let captured = packet.origlen.min(snaplen);
                    let original = packet.origlen;
                    Some(Found { interface: 0, stamp: None, begin: 12, captured, original })
                }
                Block::Unknown(unknown) => obsolete(unknown.data, *big),
                _ => continue,
            };
            let longer = "a packet longer than its block";
            let found = found.ok_or_else(|| damaged(longer))?;
            let interface = interfaces
                .get(found.interface as usize)
                .ok_or_else(|| damaged("a packet of an interface that is not described"))?;
            let end = found.begin.saturating_add(found.captured as usize);
            if end > len - 4 {
                return Err(damaged(longer));
            }
            if let Some((high, low)) = found.stamp {
                self.time_ns = interface.clock.ns(high, low);
            }
            self.packets += 1;
            return Ok(Some(Packet {
                time_ns: self.time_ns,
                link: interface.link,
                data: &self.buffer[at + found.begin..at + end],
                original: found.original.max(found.captured),
            }));
        }
    }

    /// Brings the next block that is of interest into the buffer, whole; its type and length.
    fn block(&mut self) -> Result<Option<(u32, usize)>, ReadError> {
        loop {
            if !self.fill(12)? {
                return if self.data().is_empty() { Ok(None) } else { Err(self.truncated()) };
            }
            let Format::Pcapng { big, .. } = &mut self.format else { return Ok(None) };
            let data = &self.buffer[self.begin..self.end];
            if word(data, 0, false) == Some(SECTION) {
                // The byte-order magic.
                *big = match word(data, 8, false) {
                    Some(0x1a2b_3c4d) => false,
                    Some(0x4d3c_2b1a) => true,
                    _ => return Err(self.damaged("a section without byte order")),
                };
            }
            let big = *big;
            let (Some(kind), Some(len)) = (word(data, 0, big), word(data, 4, big)) else {
                return Err(self.truncated());
            };
            if len < 12 || len % 4 != 0 {
                return Err(self.damaged("a block of impossible length"));
            }
            if !matches!(
                kind,
                SECTION | block::INTERFACE | block::PACKET | block::SIMPLE | block::ENHANCED
            ) {
                self.pass_over(u64::from(len))?;
                continue;
            }
            let len = len as usize;
            if len > BLOCK_MAX {
                return Err(self.damaged("a block of impossible length"));
            }
            if !self.fill(len)? {
                return Err(self.truncated());
            }
            if word(self.data(), len - 4, big) != word(self.data(), 4, big) {
                return Err(self.damaged("a block whose two lengths differ"));
            }
            return Ok(Some((kind, len)));
        }
    }

    fn pass_over(&mut self, len: u64) -> Result<(), ReadError> {
        let buffered = usize::try_from(len).unwrap_or(usize::MAX).min(self.data().len());
        let rest = len - buffered as u64;
        if rest > 0 && io::copy(&mut (&mut self.from).take(rest), &mut io::sink())? < rest {
            return Err(self.truncated());
        }
        self.consume(buffered);
        self.offset += rest;
        Ok(())
    }

    fn data(&self) -> &[u8] {
        &self.buffer[self.begin..self.end]
    }

    fn consume(&mut self, len: usize) {
        self.begin += len;
        self.offset += len as u64;
    }

    /// Reads until `len` bytes are in the buffer; whether there are so many.
    fn fill(&mut self, len: usize) -> Result<bool, ReadError> {
        if self.end - self.begin >= len {
            return Ok(true);
        }
        self.buffer.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.begin = 0;
        if self.buffer.len() < len {
            // `len` is at most a head more than `BLOCK_MAX`.
            self.buffer.resize(len, 0);
        }
        while self.end < len {
            match self.from.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    const fn truncated(&self) -> ReadError {
        ReadError::Truncated { packet: self.packets + 1, offset: self.offset }
    }

    const fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { packet: self.packets + 1, offset: self.offset, what }
    }
}

/// A packet of a pcapng block.
struct Found {
    interface: u32,
    stamp: Option<(u32, u32)>,
    /// Where in the block its bytes begin.
    begin: usize,
    captured: u32,
    original: u32,
}

/// The obsolete packet block (draft-ietf-opsawg-pcapng, appendix A), which `pcap-parser` does not
/// know.
fn obsolete(content: &[u8], big: bool) -> Option<Found> {
    let at = |at| word(content, at, big);
    let two = *content.first_chunk()?;
    let interface = if big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) };
    Some(Found {
        interface: interface.into(),
        stamp: Some((at(4)?, at(8)?)),
        begin: 28,
        captured: at(12)?,
        original: at(16)?,
    })
}

/// What a pcap file's header says of its packets.
fn pcap(header: &PcapHeader) -> Format {
    let order = match header {
        _ if header.is_modified_format() => Order::Modified,
        _ if header.is_bigendian() => Order::Big,
        _ => Order::Little,
    };
    // The bits above tell of the frame check sequence.
    let link = header.network.0.cast_unsigned() & 0x03ff_ffff;
    let fraction_ns = if header.is_nanosecond_precision() { 1 } else { 1000 };
    Format::Pcap { order, link, fraction_ns }
}

/// The clock of an interface; `None` if its unit is beyond all sense.
fn clock(described: &InterfaceDescriptionBlock<'_>, big: bool) -> Option<Clock> {
    let mut clock = Clock::MICROSECONDS;
    for option in &described.options {
        match (option.code, option.value()) {
            (OptionCode::IfTsresol, [exponent, ..]) => {
                let base: u64 = if exponent & 0x80 == 0 { 10 } else { 2 };
                clock.units = base.checked_pow(u32::from(exponent & 0x7f))?;
            }
            (OptionCode::IfTsoffset, value) => {
                let eight = *value.first_chunk()?;
                clock.offset =
                    if big { i64::from_be_bytes(eight) } else { i64::from_le_bytes(eight) };
            }
            _ => {}
        }
    }
    Some(clock)
}

fn word(bytes: &[u8], at: usize, big: bool) -> Option<u32> {
    let four = *bytes.get(at..)?.first_chunk()?;
    Some(if big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
