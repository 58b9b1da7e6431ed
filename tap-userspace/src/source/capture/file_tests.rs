use super::*;
use crate::source::capture::tests::wire::{pcap_head, pcap_packet};

/// Writes pcapng blocks in one byte order.
#[derive(Clone, Copy)]
struct Blocks {
    big: bool,
}

impl Blocks {
    fn four(self, value: u32) -> [u8; 4] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn two(self, value: u16) -> [u8; 2] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn block(self, kind: u32, content: &[u8]) -> Vec<u8> {
        let pad = vec![0; content.len().next_multiple_of(4) - content.len()];
        let len = self.four((12 + content.len() + pad.len()) as u32);
        [&self.four(kind)[..], &len, content, &pad, &len].concat()
    }

    fn section(self) -> Vec<u8> {
        let version = [self.two(1), self.two(0)].concat();
        self.block(SECTION, &[&self.four(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat())
    }

    fn interface(self, link: u16, snaplen: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut content = [&self.two(link)[..], &[0; 2], &self.four(snaplen)].concat();
        for (code, value) in options {
            content.extend([self.two(*code), self.two(value.len() as u16)].concat());
            content.extend(*value);
            content.resize(content.len().next_multiple_of(4), 0);
        }
        if !options.is_empty() {
            content.extend([0; 4]);
        }
        self.block(block::INTERFACE, &content)
    }

    fn stamped(self, first: &[u8], stamp: u64, data: &[u8], original: u32) -> Vec<u8> {
        let words = [(stamp >> 32) as u32, stamp as u32, data.len() as u32, original];
        [first, &words.map(|word| self.four(word)).concat(), data].concat()
    }

    fn enhanced(self, interface: u32, stamp: u64, data: &[u8], original: u32) -> Vec<u8> {
        self.block(block::ENHANCED, &self.stamped(&self.four(interface), stamp, data, original))
    }

    fn obsolete(self, interface: u16, stamp: u64, data: &[u8]) -> Vec<u8> {
        let first = [self.two(interface), self.two(3)].concat();
        self.block(block::PACKET, &self.stamped(&first, stamp, data, data.len() as u32))
    }

    fn simple(self, data: &[u8], original: u32) -> Vec<u8> {
        self.block(block::SIMPLE, &[&self.four(original)[..], data].concat())
    }
}

/// Time, link type, bytes and original length of each packet; the error at the end.
type Read = (Vec<(u64, u32, Vec<u8>, u32)>, Option<String>);

fn read(bytes: &[u8]) -> Read {
    read_from(bytes)
}

fn read_from(from: impl io::Read) -> Read {
    let mut packets = Vec::new();
    let mut reader = match Reader::new(from) {
        Ok(reader) => reader,
        Err(error) => return (packets, Some(error.to_string())),
    };
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => {
                packets.push((packet.time_ns, packet.link, packet.data.to_vec(), packet.original));
            }
            Ok(None) => return (packets, None),
            Err(error) => return (packets, Some(error.to_string())),
        }
    }
}

fn packet(time_ns: u64, link: u32, data: &[u8], original: u32) -> (u64, u32, Vec<u8>, u32) {
    (time_ns, link, data.to_vec(), original)
}

#[test]
fn pcap_is_read_in_every_form() {
    let time = 1_700_000_000_123_456;
    for big in [false, true] {
        let body = [
            pcap_packet(big, time, b"one", 3),
            pcap_packet(big, time + 1, b"", 0),
            pcap_packet(big, time + 2, b"cut", 1500),
        ];
        let file = [pcap_head(big, 0x1000_0000 | 276), body.concat()].concat();
        let ns = |after: u64| (time + after) * 1000;
        let wanted = [
            packet(ns(0), 276, b"one", 3),
            packet(ns(1), 276, b"", 0),
            packet(ns(2), 276, b"cut", 1500),
        ];
        assert_eq!(read(&file), (wanted.to_vec(), None), "big-endian: {big}");
        // The same numbers as ns.
        let mut nanos = file.clone();
        nanos[..4].copy_from_slice(&if big {
            [0xa1, 0xb2, 0x3c, 0x4d]
        } else {
            [0x4d, 0x3c, 0xb2, 0xa1]
        });
        assert_eq!(read(&nanos).0[0].0, 1_700_000_000_000_123_456);
    }
    let mut modified = pcap_head(false, 1);
    modified[..4].copy_from_slice(&0xa1b2_cd34_u32.to_le_bytes());
    let mut frame = pcap_packet(false, time, b"one", 3);
    frame.splice(16..16, [0; 8]);
    assert_eq!(read(&[modified, frame].concat()), (vec![packet(time * 1000, 1, b"one", 3)], None));
}

#[test]
fn pcapng_is_read_in_every_form() {
    for big in [false, true] {
        let to = Blocks { big };
        let offset: i64 = -3600;
        let offset = if big { offset.to_be_bytes() } else { offset.to_le_bytes() };
        let file = [
            to.section(),
            to.interface(1, 0, &[]),
            to.interface(113, 4, &[(2, b"name"), (9, &[9])]),
            to.interface(101, 0, &[(9, &[0x80 | 10]), (14, &offset)]),
            to.enhanced(0, 5_000_001, b"micro", 5),
            to.block(5, b"statistics of an interface"),
            to.enhanced(1, 5_000_000_001, b"nano", 900),
            to.block(0x0bad, &vec![7; 3 << 20]), // of nobody's business, and longer than the buffer
            to.enhanced(2, 7200 << 10 | 512, b"binary", 6),
            to.obsolete(1, 6_000_000_000, b"old"),
            to.simple(b"simply", 6),
        ]
        .concat();
        let wanted = vec![
            packet(5_000_001_000, 1, b"micro", 5),
            packet(5_000_000_001, 113, b"nano", 900),
            packet(3_600_500_000_000, 101, b"binary", 6),
            packet(6_000_000_000, 113, b"old", 3),
            // It has no time: that of the packet before.
            packet(6_000_000_000, 1, b"simply", 6),
        ];
        assert_eq!(read(&file), (wanted.clone(), None), "big-endian: {big}");
        // The next section, of the other byte order, has interfaces of its own.
        let other = Blocks { big: !big };
        let next = [
            other.section(),
            other.interface(228, 4, &[]),
            other.simple(b"cut!", 60),
            other.enhanced(0, 9, b"last", 4),
        ]
        .concat();
        let (packets, error) = read(&[file, next].concat());
        assert_eq!(error, None);
        assert_eq!(packets[..5], wanted[..]);
        let more = [packet(6_000_000_000, 228, b"cut!", 60), packet(9_000, 228, b"last", 4)];
        assert_eq!(packets[5..], more);
    }
}

#[test]
fn errors_name_the_packet_and_its_offset() {
    let to = Blocks { big: false };
    let good = [to.section(), to.interface(1, 0, &[]), to.enhanced(0, 1, b"good", 4)].concat();
    let len = good.len();
    let bad = |what: &str| {
        Some(format!(
            "packet 2, offset {len}: the capture is damaged ({what}); everything before it was replayed"
        ))
    };
    let longer = |mut block: Vec<u8>, at: usize| {
        block[at..at + 4].copy_from_slice(&200_u32.to_le_bytes());
        block
    };
    let mut lengths = to.enhanced(0, 1, b"data", 4);
    let last = lengths.len() - 4;
    lengths[last] ^= 4;
    let rows = [
        (to.enhanced(7, 1, b"data", 4), "a packet of an interface that is not described"),
        (longer(to.enhanced(0, 1, b"data", 4), 20), "a block of unknown form"),
        (longer(to.obsolete(0, 1, b"data"), 20), "a packet longer than its block"),
        (longer(to.simple(b"data", 4), 8), "a packet longer than its block"),
        (lengths, "a block whose two lengths differ"),
        (vec![6, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0], "a block of impossible length"),
        (vec![6, 0, 0, 0, 33, 0, 0, 0, 0, 0, 0, 0], "a block of impossible length"),
        (vec![6, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0], "a block of impossible length"),
        (to.interface(1, 0, &[(9, &[40])]), "an impossible timestamp resolution"),
        (to.interface(1, 0, &[(9, &[0x80 | 64])]), "an impossible timestamp resolution"),
        (to.block(SECTION, &[0; 16]), "a section without byte order"),
    ];
    for (block, what) in rows {
        let (packets, error) = read(&[&good[..], &block].concat());
        assert_eq!((packets.len(), error), (1, bad(what)));
    }
    let cut = format!(
        "packet 2, offset {len}: the capture is cut off; everything before it was replayed"
    );
    for more in [&to.enhanced(0, 1, b"data", 4)[..20], &to.block(5, &[0; 99])[..30], &[6]] {
        assert_eq!(read(&[&good[..], more].concat()).1, Some(cut.clone()));
    }
    let file = [pcap_head(false, 1), pcap_packet(false, 1, &[1; 10], 10)].concat();
    let mut huge = file.clone();
    huge[35] = 0x40;
    let error = "packet 1, offset 24: the capture is damaged (a packet of impossible length); everything before it was replayed";
    assert_eq!(read(&huge).1.as_deref(), Some(error));
    let error = "packet 1, offset 24: the capture is cut off; everything before it was replayed";
    assert_eq!(read(&file[..49]).1.as_deref(), Some(error));
    assert_eq!(read(&file[..30]).1.as_deref(), Some(error));
}

#[test]
fn what_is_no_capture_is_refused() {
    let error = |bytes: &[u8]| read(bytes).1.unwrap();
    for bytes in [&b""[..], b"TAPREC\0\x01and so on and so on", b"\x0a\x0d", &[0; 100]] {
        assert_eq!(error(bytes), ReadError::NoCapture.to_string());
        assert!(!is_capture(bytes));
    }
    for bytes in [&b"\x1f\x8b\x08 and so on"[..], b"\x28\xb5\x2f\xfd and", b"\xfd7zXZ\0 and so on"]
    {
        assert_eq!(error(bytes), ReadError::Compressed.to_string());
    }
    let cut = "packet 1, offset 0: the capture is cut off; everything before it was replayed";
    assert_eq!(error(&pcap_head(true, 1)[..20]), cut);
    assert!(is_capture(&pcap_head(true, 1)) && is_capture(&Blocks { big: true }.section()));
}

/// Gives its bytes a few at a time.
struct Drip<'a>(&'a [u8], usize);

impl io::Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.1.min(buffer.len()).min(self.0.len());
        let (now, later) = self.0.split_at(len);
        buffer[..len].copy_from_slice(now);
        self.0 = later;
        Ok(len)
    }
}

#[test]
fn packets_come_out_however_the_file_comes_in() {
    let to = Blocks { big: false };
    let packets = (0..300).map(|n| to.enhanced(0, n, &vec![n as u8; n as usize * 9], 3000));
    let mut file = [to.section(), to.interface(1, 0, &[])].concat();
    packets.for_each(|packet| file.extend(packet));
    let whole = read(&file);
    assert_eq!((whole.0.len(), &whole.1), (300, &None));
    for piece in [1, 7, 1000, 65_537] {
        assert_eq!(read_from(Drip(&file, piece)), whole);
    }
}

#[test]
fn times_of_every_clock_are_exact() {
    let clock = |units, offset| Clock { units, offset };
    let ns = |clock: Clock, stamp: u64| clock.ns((stamp >> 32) as u32, stamp as u32);
    assert_eq!(ns(Clock::MICROSECONDS, 1_700_000_000_123_456), 1_700_000_000_123_456_000);
    assert_eq!(ns(clock(1_000_000_000, 0), u64::MAX), u64::MAX);
    assert_eq!(ns(clock(1, i64::MAX), u64::MAX), u64::MAX);
    assert_eq!(ns(clock(1, i64::MIN), 5), 0);
    assert_eq!(ns(clock(1 << 20, 0), 3 << 19), 1_500_000_000);
    assert_eq!(ns(clock(10_u64.pow(12), 0), 1_234_567), 1234);
    assert_eq!(ns(clock(10_u64.pow(19), 0), u64::MAX), 1_844_674_407);
}
