use super::*;
use crate::source::capture::tests::wire::{ipv4, ipv6, tcp};

const FROM: [u8; 4] = [10, 0, 0, 1];
const TO: [u8; 4] = [10, 0, 0, 2];

fn segment() -> Vec<u8> {
    tcp([40_000, 80], "A", [7, 9], Some(5), b"hello")
}

fn packet() -> Vec<u8> {
    ipv4(FROM, TO, 6, 3, &segment())
}

/// The payload of a frame, as TCP or UDP.
fn payload(link: u32, frame: &[u8]) -> Result<(u32, Vec<u8>), Skip> {
    let original = u32::try_from(frame.len()).unwrap();
    parse(link, frame, original).map(|packet| match packet.body {
        Body::Tcp(segment) => (segment.len, segment.payload.to_vec()),
        Body::Udp(payload) => (0, payload.to_vec()),
    })
}

#[test]
fn a_segment_is_read() {
    let packet = packet();
    let parsed = parse(101, &packet, 57).unwrap();
    let end = |address: [u8; 4], port| Endpoint { address: mapped(address), port };
    assert_eq!((parsed.from, parsed.to), (end(FROM, 40_000), end(TO, 80)));
    let segment = Segment {
        sequence: 7,
        acknowledged: 9,
        flags: flag::ACK,
        len: 5,
        payload: b"hello",
        id: 3,
        timestamp: Some(5),
    };
    assert_eq!(parsed.body, Body::Tcp(segment));
}

#[test]
fn every_link_type_leads_to_the_packet() {
    let (four, six) = (packet(), ipv6([1; 16], [2; 16], 6, &segment()));
    let ether = |tags: &[u8], ip: &[u8]| [&[0; 12], tags, ip].concat();
    let after = |head: &[u8], ip: &[u8]| [head, ip].concat();
    let mut sll = vec![0; 14];
    sll.extend([8, 0]);
    let mut sll2 = vec![0x86, 0xdd];
    sll2.extend([0; 18]);
    let rows: &[(&str, u32, Vec<u8>)] = &[
        ("Ethernet", 1, ether(&[8, 0], &four)),
        ("with padding", 1, [ether(&[8, 0], &four), vec![0; 9]].concat()),
        ("IPv6", 1, ether(&[0x86, 0xdd], &six)),
        ("VLAN", 1, ether(&[0x81, 0, 0, 5, 8, 0], &four)),
        ("QinQ", 1, ether(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x86, 0xdd], &six)),
        ("cooked v1", 113, after(&sll, &four)),
        ("cooked v2", 276, after(&sll2, &six)),
        ("null of a little-endian host", 0, after(&[2, 0, 0, 0], &four)),
        ("null of a big-endian host", 0, after(&[0, 0, 0, 2], &four)),
        ("null of Darwin", 0, after(&[30, 0, 0, 0], &six)),
        ("loop", 108, after(&[0, 0, 0, 24], &six)),
        ("raw", 101, four.clone()),
        ("raw", 12, six.clone()),
        ("raw", 14, four.clone()),
        ("IPv4", 228, four.clone()),
        ("IPv6", 229, six.clone()),
    ];
    for (name, link, frame) in rows {
        assert_eq!(payload(*link, frame), Ok((5, b"hello".to_vec())), "{name}");
        // Whatever is captured of it, nothing but less comes out; what is there of the payload is.
        for kept in 0..frame.len() {
            let original = u32::try_from(frame.len()).unwrap();
            match parse(*link, &frame[..kept], original) {
                Ok(Packet { body: Body::Tcp(segment), .. }) => {
                    assert_eq!(segment.len, 5, "{name} {kept}");
                    assert!(b"hello".starts_with(segment.payload));
                }
                other => assert_eq!(other, Err(Skip::Malformed), "{name} {kept}"),
            }
        }
    }
    assert_eq!(payload(147, &four), Err(Skip::Link));
}

#[test]
fn ipv6_extension_headers_are_passed_over() {
    let next = |next: u8, len: u8, rest: usize| [vec![next, len], vec![0; rest]].concat();
    let body = |headers: &[Vec<u8>]| [headers.concat(), segment()].concat();
    let rows = [
        ("hop by hop", 0, body(&[next(6, 0, 6)])),
        ("routing, options", 43, body(&[next(60, 2, 22), next(6, 1, 14)])),
        ("authentication", 51, body(&[next(6, 4, 22)])),
        ("the only fragment", 44, body(&[next(6, 0, 6)])),
    ];
    for (name, first, body) in rows {
        let packet = ipv6([1; 16], [2; 16], first, &body);
        assert_eq!(payload(229, &packet), Ok((5, b"hello".to_vec())), "{name}");
    }
    let endless = ipv6([1; 16], [2; 16], 60, &[60, 0, 0, 0, 0, 0, 0, 0].repeat(30));
    assert_eq!(payload(229, &endless), Err(Skip::Other));
}

#[test]
fn fragments_are_known_as_such() {
    for (fields, is_fragment) in
        [([0x20, 0], true), ([0, 1], true), ([0x40, 0], false), ([0x80, 0], false)]
    {
        let mut packet = packet();
        packet[6..8].copy_from_slice(&fields);
        assert_eq!(payload(101, &packet).is_err(), is_fragment, "{fields:?}");
    }
    for field in [1, 8, 9] {
        let body = [vec![6, 0, 0, field, 0, 0, 0, 0], segment()].concat();
        assert_eq!(payload(229, &ipv6([1; 16], [2; 16], 44, &body)), Err(Skip::Fragment));
    }
}

#[test]
fn packets_that_the_network_card_will_cut_up_have_the_length_of_the_wire() {
    let long = vec![b'x'; 70_000];
    let segment = [&tcp([1, 2], "A", [0, 0], None, b"")[..], &long].concat();
    let mut four = ipv4(FROM, TO, 6, 1, &segment);
    four[2..4].copy_from_slice(&[0, 0]);
    let mut six = ipv6([1; 16], [2; 16], 6, &segment);
    six[4..6].copy_from_slice(&[0, 0]);
    for packet in [four, six] {
        let original = u32::try_from(packet.len()).unwrap();
        let parsed = parse(101, &packet[..100], original).unwrap();
        let Body::Tcp(segment) = parsed.body else { panic!() };
        let headers = packet.len() - 70_000;
        assert_eq!((segment.len, segment.payload.len()), (70_000, 100 - headers));
    }
}

#[test]
fn senseless_headers_are_malformed() {
    let with = |at: usize, value: u8| {
        let mut packet = packet();
        packet[at] = value;
        payload(101, &packet)
    };
    assert_eq!(with(0, 0x44), Err(Skip::Malformed)); // a header of 16 bytes
    assert_eq!(with(0, 0x55), Err(Skip::Malformed)); // IP version 5
    assert_eq!(with(3, 30), Err(Skip::Malformed)); // shorter than its headers
    assert_eq!(with(32, 0x40), Err(Skip::Malformed)); // a TCP header of 16 bytes
    assert_eq!(with(32, 0xf0), Err(Skip::Malformed)); // longer than the packet
    assert_eq!(with(9, 1), Err(Skip::Other)); // ICMP
    assert_eq!(payload(1, &[0; 60]), Err(Skip::Other));
}

#[test]
fn options_lead_to_the_timestamp() {
    let rows: &[(&[u8], Option<u32>)] = &[
        (&[1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 0], Some(5)),
        (&[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0, 1, 3, 3, 7], Some(256)),
        (&[0, 1, 8, 10, 0, 0, 0, 5], None),
        (&[2, 4, 5, 180], None),
        (&[3, 0, 8, 10, 0, 0, 0, 5], Some(5)), // a length of 0 is passed over
        (&[5, 40, 1], None),
        (&[8, 10, 0], None),
        (&[8], None),
        (&[], None),
    ];
    for (options, wanted) in rows {
        assert_eq!(timestamp(options), *wanted, "{options:?}");
    }
}

#[test]
fn datagrams_are_read() {
    let udp = [&[0, 53, 0x9c, 0x40, 0, 13, 0, 0][..], b"reply"].concat();
    let frame = ipv4(FROM, TO, 17, 1, &udp);
    let parsed = parse(101, &frame, 33).unwrap();
    assert_eq!((parsed.body, parsed.from.port, parsed.to.port), (Body::Udp(b"reply"), 53, 40_000));
}
