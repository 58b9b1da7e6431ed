use super::*;
use crate::protocol::exchange::Message;

/// A server's view of a connection: what comes in and goes out, and how far the kernel is.
struct Bench {
    conversation: Conversation,
    at: [u64; 2],
    now: u64,
}

impl Bench {
    fn new(parse: bool) -> Self {
        let conversation = Conversation::new([80, 50_000], false, parse);
        Self { conversation, at: [0, 0], now: 0 }
    }

    /// Bytes that the kernel takes.
    fn say(&mut self, direction: usize, bytes: &[u8]) {
        self.cut(direction, bytes, bytes.len());
    }

    /// Of `len` bytes these were captured.
    fn cut(&mut self, direction: usize, bytes: &[u8], len: usize) {
        self.seen(direction, self.at[direction], bytes, len);
        self.at[direction] += len as u64;
    }

    /// Bytes at a place, of which the kernel has taken nothing yet.
    fn seen(&mut self, direction: usize, offset: u64, bytes: &[u8], len: usize) {
        self.now += 1000;
        self.conversation.take(&Captured {
            direction,
            offset,
            bytes,
            len: len as u32,
            position: self.at[direction],
            previous_ns: self.now - 500,
            at_ns: self.now,
        });
    }

    fn protocols(&mut self) -> Vec<Protocol> {
        let names = self.conversation.found().into_iter().filter_map(|found| match found.what {
            What::Protocol(protocol) => Some(protocol),
            What::ClientHello => None,
        });
        names.collect()
    }

    fn requests(&mut self) -> Vec<(String, Option<u16>, u64)> {
        let http = self.conversation.exchanges().into_iter().map(|exchange| {
            let Message::Http(http) = exchange.message else { panic!("{exchange:?}") };
            (http.target, http.status, exchange.ended_ns)
        });
        http.collect()
    }
}

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn an_exchange_is_told_with_its_response_in_any_pieces() {
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    for size in 1..=response.len() {
        let mut bench = Bench::new(true);
        REQUEST.chunks(size).for_each(|piece| bench.say(RECEIVE, piece));
        response.chunks(size).for_each(|piece| bench.say(TRANSMIT, piece));
        assert_eq!(bench.protocols(), [Protocol::Http1], "{size}");
        let now = bench.now;
        assert_eq!(bench.requests(), [("/a".into(), Some(200), now)], "{size}");
        assert_eq!(bench.conversation.client(), Some(RECEIVE));
        assert_eq!(bench.conversation.version(), Some("1.1"));
    }
}

#[test]
fn a_body_that_is_not_captured_ends_with_its_last_byte() {
    let mut bench = Bench::new(true);
    bench.say(RECEIVE, REQUEST);
    bench.cut(TRANSMIT, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", 44);
    // Nothing of it is seen until the next response tells that all of it went, and when.
    bench.at[TRANSMIT] += 100_000;
    bench.say(RECEIVE, REQUEST);
    assert_eq!(bench.requests(), []);
    bench.say(TRANSMIT, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let now = bench.now;
    let told = bench.requests();
    assert_eq!(told, [("/a".into(), Some(200), now - 500), ("/a".into(), Some(404), now)]);
}

#[test]
fn without_readers_only_names_are_told() {
    let mut bench = Bench::new(false);
    bench.say(RECEIVE, REQUEST);
    bench.say(TRANSMIT, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(bench.protocols(), [Protocol::Http1]);
    assert!(bench.requests().is_empty());
    assert_eq!(bench.conversation.memory(), 0);
}

#[test]
fn protocols_inside_a_tunnel_are_told_too() {
    for parse in [false, true] {
        let mut bench = Bench::new(parse);
        bench.say(RECEIVE, b"CONNECT example.org:80 HTTP/1.1\r\n\r\n");
        bench.say(TRANSMIT, b"HTTP/1.1 200 Connection established\r\n\r\n");
        bench.say(RECEIVE, b"*1\r\n$4\r\nPING\r\n");
        bench.say(TRANSMIT, b"+PONG\r\n");
        assert_eq!(bench.protocols(), [Protocol::Http1, Protocol::Redis]);
    }
}

#[test]
fn bytes_that_tell_nothing_are_unknown_once() {
    for parse in [false, true] {
        // By what both ends say, and at the end of too little.
        let mut bench = Bench::new(parse);
        for _ in 0..2 {
            bench.say(RECEIVE, &[0; 100]);
            bench.say(TRANSMIT, &[1; 100]);
        }
        assert_eq!(bench.protocols(), [Protocol::Unknown]);
        let mut bench = Bench::new(parse);
        bench.say(RECEIVE, b"GE");
        assert_eq!(bench.protocols(), []);
        bench.conversation.end([2, 0], [bench.now, 0], bench.now);
        assert_eq!(bench.protocols(), [Protocol::Unknown]);
        // Without its beginning it is looked at again, as one that was joined.
        let mut bench = Bench::new(parse);
        bench.at[RECEIVE] = 100;
        bench.say(RECEIVE, REQUEST);
        assert_eq!(bench.protocols(), [Protocol::Http1]);
        // Nothing was said, or what it is stands outside.
        let mut bench = Bench::new(parse);
        bench.conversation.end([0, 0], [0, 0], 1);
        assert_eq!(bench.protocols(), []);
        let mut bench = Bench::new(parse);
        bench.say(RECEIVE, b"CONNECT example.org:80 HTTP/1.1\r\n\r\n");
        bench.say(TRANSMIT, b"HTTP/1.1 200 Connection established\r\n\r\n");
        bench.say(RECEIVE, &[0; 100]);
        bench.say(TRANSMIT, &[1; 100]);
        bench.conversation.end([0, 0], [0, 0], bench.now);
        assert_eq!(bench.protocols(), [Protocol::Http1]);
    }
    // In the middle of a connection the next look may tell, up to a number of looks.
    let conversation = Conversation::new([0, 0], true, false);
    let mut bench = Bench { conversation, at: [0, 0], now: 0 };
    for n in 0..40 {
        bench.say(RECEIVE, &[0; 100]);
        bench.say(TRANSMIT, &[1; 100]);
        assert_eq!(bench.protocols().len(), usize::from(n == TRIES), "{n}");
    }
}

#[test]
fn dns_messages_are_told_on_its_port_in_any_pieces() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/dns/captured.txt");
    let text = std::fs::read_to_string(path).unwrap();
    // Two questions and their answers on one connection.
    let lines: Vec<(usize, Vec<u8>)> = text
        .lines()
        .filter(|line| line.contains("127.0.0.1:39489"))
        .map(|line| {
            let hex = line.rsplit(' ').next().unwrap();
            let pairs = (0..hex.len()).step_by(2);
            let bytes = pairs.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
            let asked = line.starts_with("tcp 127.0.0.1:39489");
            (if asked { TRANSMIT } else { RECEIVE }, bytes.collect())
        })
        .collect();
    assert_eq!(lines.len(), 4);
    for (port, size) in [(53, 1), (53, 2), (53, 7), (53, 1000), (5311, 1000)] {
        for parse in [false, true] {
            let mut bench = Bench::new(parse);
            bench.conversation = Conversation::new([40_000, port], false, parse);
            let mut told = Vec::new();
            for (direction, bytes) in &lines {
                for piece in bytes.chunks(size) {
                    bench.say(*direction, piece);
                    let dns = bench.conversation.dns().into_iter();
                    told.extend(dns.map(|message| (message.direction, message.bytes)));
                }
            }
            assert_eq!(bench.protocols(), [Protocol::Dns]);
            if port == 53 {
                let whole =
                    lines.iter().map(|(direction, bytes)| (*direction, bytes[2..].to_vec()));
                assert_eq!(told, whole.collect::<Vec<_>>(), "{size}");
                assert_eq!(bench.conversation.interest(), Interest::Turns);
            } else {
                assert_eq!(told, []);
            }
        }
    }
}

#[test]
fn statements_are_told_where_they_are_wanted() {
    for (wanted, text) in [(false, None), (true, Some("SET ? ?"))] {
        let mut conversation = Conversation::new([40_000, 6379], false, true);
        conversation = conversation.with_statements(wanted);
        let mut bench = Bench { conversation, at: [0, 0], now: 0 };
        bench.say(TRANSMIT, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$6\r\nsecret\r\n");
        bench.say(RECEIVE, b"+OK\r\n");
        let exchanges = bench.conversation.exchanges();
        let [Exchange { message: Message::Query(query), .. }] = &exchanges[..] else {
            panic!("{exchanges:?}")
        };
        assert_eq!(query.text.as_deref(), text);
    }
}

#[test]
fn what_the_kernel_did_not_take_is_forgotten() {
    let hello =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tls/go.client.bin"))
            .unwrap();
    for cut in [1, 5, 60, 700, 1400] {
        let mut bench = Bench::new(false);
        for piece in [&hello[..cut], &hello[cut..]] {
            let junk = vec![b'!'; piece.len()];
            bench.seen(RECEIVE, bench.at[RECEIVE], &junk, junk.len());
            bench.say(RECEIVE, piece);
        }
        let server = bench.conversation.client_hello().map(|hello| hello.server_name.clone());
        let whole = {
            let mut bench = Bench::new(false);
            bench.say(RECEIVE, &hello);
            bench.conversation.client_hello().map(|hello| hello.server_name.clone())
        };
        assert!(whole.is_some());
        assert_eq!(server, whole, "{cut}");
    }
}

#[test]
fn halves_that_change_places_or_come_again_are_read() {
    let hello =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tls/go.client.bin"))
            .unwrap();
    let mut bench = Bench::new(false);
    bench.seen(RECEIVE, 700, &hello[700..], hello.len() - 700);
    bench.seen(RECEIVE, 0, &hello[..700], 700);
    bench.seen(RECEIVE, 0, &hello[..700], 700);
    let name = bench.conversation.client_hello().and_then(|hello| hello.server_name.as_deref());
    assert_eq!(name, Some("tap.example"));
}

#[test]
fn a_hello_beyond_the_capture_is_truncated_and_a_lost_one_is_a_gap() {
    let hello =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tls/go.client.bin"))
            .unwrap();
    let mut bench = Bench::new(false);
    bench.cut(RECEIVE, &hello[..400], hello.len());
    bench.say(TRANSMIT, b"\x15\x03\x03\0\x02\x02\x28");
    assert!(bench.conversation.is_truncated() && !bench.conversation.has_gap());
    let mut bench = Bench::new(false);
    bench.say(RECEIVE, &hello[..400]);
    bench.at[RECEIVE] += 200;
    bench.say(RECEIVE, &hello[600..]);
    assert!(bench.conversation.has_gap() && !bench.conversation.is_truncated());
    // Of what is no known protocol nothing was wanted.
    let mut bench = Bench::new(true);
    bench.cut(RECEIVE, &[0; 100], 200);
    bench.say(TRANSMIT, &[1; 100]);
    assert!(!bench.conversation.has_gap() && !bench.conversation.is_truncated());
    assert_eq!(bench.conversation.interest(), Interest::Nothing);
}

#[test]
fn any_bytes_are_survived_within_the_bound() {
    let mut noise = crate::protocol::noise::Noise::new(0x7461_7009);
    let request = b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    for n in 0..20_000 {
        let mut bytes = vec![noise.byte(), noise.byte(), noise.byte(), noise.byte()];
        if n % 2 == 0 {
            bytes.extend_from_slice(request);
        } else {
            bytes.extend((0..noise.below(600)).map(|_| noise.byte()));
        }
        noise.stir(&mut bytes);
        fuzz_conversation(&bytes);
    }
}
