//! What one connection may hold in memory, whatever its ends say: hostile streams through the
//! whole connection stage, and the bytes that are really allocated, by a counting allocator.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    sync::Arc,
};

use tap_common::record::{
    self, Close, Connection, Data, Header, Kind, LANES, Lane, Open, RECEIVE, TRANSMIT, Tuple, flags,
};
use tap_userspace::{
    config::file::Config,
    connection::{
        identity::Identities,
        table::{Settings, Table},
    },
    protocol::{content::Collect, conversation::MEMORY_MAX},
    source::decode::Record,
};

/// Counts what each thread holds; tests run on threads of their own.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends counts no more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: the system's allocator does the work, with what it was given.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What an entry of the table holds besides its conversation: itself, 128 turns, its events.
const ENTRY: isize = 32 << 10;

/// What one record may take on top for a moment: the exchanges that it ends, and a copy of what a
/// buffer holds while it grows.
const MOMENT: isize = 1 << 20;

/// One connection in a table of its own; this host is the client.
struct Stage {
    table: Table,
    now: u64,
    numbers: [u32; 2],
    positions: [u64; 2],
    /// Bytes held now; most of them between records, and at any moment.
    holds: isize,
    held: isize,
    peak: isize,
    told: usize,
}

impl Stage {
    fn new(port: u16, collect: Option<Arc<Collect>>) -> Self {
        let settings = Settings {
            capacity: 16,
            max_age_ns: u64::MAX,
            event_limit: 128,
            lives: false,
            parse: true,
            statements: true,
            collect,
            self_tgid: 0,
        };
        let table = Table::new(settings, Identities::new(&Config::default().trace, false));
        let mut stage = Self {
            table,
            now: 1_000_000_000,
            numbers: [0; 2],
            positions: [0; 2],
            holds: 0,
            held: 0,
            peak: 0,
            told: 0,
        };
        stage.table.set_clock(stage.now, 0);
        if port != LOST {
            let header = stage.header(Kind::Open, Lane::Life, 0);
            let open = Open { header, connection: connection(port) };
            stage.record(&Record::Open(open));
        }
        stage
    }

    fn header(&self, kind: Kind, lane: Lane, number: u32) -> Header {
        Header {
            kind: kind as u8,
            lane: lane as u8,
            flags: 0,
            payload_len: 0,
            cookie: 1,
            generation: 0,
            number,
            time_ns: self.now,
        }
    }

    fn record(&mut self, record: &Record<'_>) {
        let before = HELD.get();
        PEAK.set(before);
        self.table.record(record, None);
        self.peak = self.peak.max(self.holds + PEAK.get() - before);
        self.told += self.table.take_transactions().len();
        drop((self.table.take_interests(), self.table.take_finished()));
        self.holds += HELD.get() - before;
        self.held = self.held.max(self.holds);
    }

    /// A record of `bytes` at `offset`; the kernel has taken what is before `position`.
    fn seen(&mut self, direction: usize, offset: u64, position: u64, bytes: &[u8]) {
        self.now += 1000;
        self.table.set_clock(self.now, 0);
        let lane = if direction == RECEIVE { Lane::Receive } else { Lane::Transmit };
        let mut header = self.header(Kind::Data, lane, self.numbers[direction]);
        header.flags = flags::TURN;
        header.payload_len = bytes.len() as u32;
        self.numbers[direction] += 1;
        let data = Data {
            header,
            offset,
            position,
            previous_ns: self.now - 500,
            segment_len: bytes.len() as u32,
            turn: 1,
            tgid: 0,
            pad: 0,
        };
        self.record(&Record::Data(data, bytes));
    }

    /// Bytes in records of `size`.
    fn say(&mut self, direction: usize, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size) {
            let at = self.positions[direction];
            self.positions[direction] += piece.len() as u64;
            self.seen(direction, at, at, piece);
        }
    }

    fn client(&mut self, bytes: &[u8]) {
        self.say(TRANSMIT, bytes, tap_common::limits::PAYLOAD_MAX);
    }

    fn server(&mut self, bytes: &[u8]) {
        self.say(RECEIVE, bytes, tap_common::limits::PAYLOAD_MAX);
    }

    /// What real programs said, from `tests/fixtures/queries`, up to `until` pieces.
    fn talk(&mut self, name: &str, until: usize) {
        let path = format!("{}/../tests/fixtures/queries/{name}.talk", env!("CARGO_MANIFEST_DIR"));
        let file = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let comment = file.iter().position(|byte| *byte == b'\n').expect("a line of comment");
        let mut rest = &file[comment + 1..];
        for _ in 0..until {
            let Some(([side, len @ ..], after)) = rest.split_first_chunk::<5>() else { break };
            let (bytes, after) = after.split_at(u32::from_le_bytes(*len) as usize);
            if *side == b'C' {
                self.client(bytes);
            } else {
                self.server(bytes);
            }
            rest = after;
        }
    }

    fn close(&mut self, port: u16) {
        let mut close = Close {
            header: self.header(Kind::Close, Lane::Life, 1),
            connection: connection(port),
            bytes: self.positions,
            turns: [0; 2],
            cut_at: [u64::MAX; 2],
            last_ns: [self.now; 2],
            sent: [0; LANES],
            srtt_us: 0,
            retransmits: 0,
            error: 0,
            old_state: 0,
            error_known: 0,
            unacknowledged: 0,
            pad: 0,
        };
        close.sent = [2, self.numbers[RECEIVE], self.numbers[TRANSMIT]];
        self.record(&Record::Close(close));
    }
}

fn connection(port: u16) -> Connection {
    Connection {
        tuple: Tuple {
            local: [0; 16],
            remote: [0; 16],
            local_port: 40_000,
            remote_port: port,
            pad: 0,
        },
        opened_ns: 1_000_000_000,
        cgroup: 0,
        tgid: 0,
        local_isn: 1,
        remote_isn: 2,
        flags: record::flags::ACTIVE | record::flags::ESTABLISHED,
        pad: 0,
    }
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The client's preface and settings, and the server's.
fn http2(stage: &mut Stage) {
    stage.client(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    stage.client(&frame(4, 0, 0, &[]));
    stage.server(&[frame(4, 0, 0, &[]), frame(4, 1, 0, &[])].concat());
    stage.client(&frame(4, 1, 0, &[]));
}

/// A literal field of HPACK with a new name, `len` bytes long (below 16,000), added to the table.
fn literal(len: usize) -> Vec<u8> {
    let rest = len - 127;
    let mut field = vec![0x40, 1, b'x', 0x7f, rest as u8 | 0x80, (rest >> 7) as u8];
    field.extend(vec![b'v'; len]);
    field
}

/// `GET /` in HPACK's static table.
const GET: [u8; 3] = [0x82, 0x86, 0x84];

/// Bytes that an endless thing goes on for: far more than any bound.
const ENDLESS: usize = 8 << 20;

/// Port of a server of which no open came: nobody knows whose the exchanges are.
const LOST: u16 = 0;

/// A server's port, and what the ends of a connection to it do.
type Case = (&'static str, u16, fn(&mut Stage));

const HTTP: &[Case] = &[
    ("endless header", 80, |stage| {
        stage.client(b"GET / HTTP/1.1\r\nX: ");
        stage.client(&vec![b'a'; ENDLESS]);
    }),
    ("endless header fields", 80, |stage| {
        stage.client(b"GET / HTTP/1.1\r\n");
        stage.client(&b"x: y\r\n".repeat(ENDLESS / 6));
    }),
    ("endless header of a response", 80, |stage| {
        stage.client(b"GET / HTTP/1.1\r\n\r\n");
        stage.server(b"HTTP/1.1 200 OK\r\nX: ");
        stage.server(&vec![b'a'; ENDLESS]);
    }),
    ("endless chunk extension", 80, |stage| {
        stage.client(b"GET / HTTP/1.1\r\n\r\n");
        stage.server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=");
        stage.server(&vec![b'a'; ENDLESS]);
    }),
    ("endless trailers", 80, |stage| {
        stage.client(b"GET / HTTP/1.1\r\n\r\n");
        stage.server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n");
        stage.server(&b"x: y\r\n".repeat(ENDLESS / 6));
    }),
    ("endless interim responses", 80, |stage| {
        stage.client(b"GET / HTTP/1.1\r\n\r\n");
        stage.server(&b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n".repeat(50_000));
    }),
    ("requests without an answer", 80, |stage| {
        let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(8000));
        (0..1000).for_each(|_| stage.client(head.as_bytes()));
    }),
    ("1-byte segments", 80, |stage| {
        for _ in 0..200 {
            let head = b"GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n";
            stage.say(TRANSMIT, head, 1);
            stage.say(RECEIVE, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 1);
        }
    }),
    ("every other byte", 80, |stage| {
        stage.client(b"GET /a HTTP/1.1\r\n");
        for at in 0..100_000u64 {
            stage.seen(TRANSMIT, 17 + 2 * at, 17, b"x");
            stage.seen(RECEIVE, 1 + 2 * at, 0, b"x");
        }
    }),
    ("segments beyond a hole", 80, |stage| {
        for at in 0..2000u64 {
            stage.seen(RECEIVE, 10 + 4000 * at, 0, &[b'x'; 4000]);
        }
    }),
    ("exchanges of nobody", LOST, |stage| {
        let request = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(8000));
        for _ in 0..1000 {
            stage.client(request.as_bytes());
            stage.server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        }
    }),
    ("endless frames of a WebSocket", 80, |stage| {
        stage.client(b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket";
        stage.server(format!("{head}\r\n\r\n").as_bytes());
        stage.client(&[0x01, 0xff, 0, 0, 0, 0, 0x7f, 0, 0, 0, 1, 2, 3, 4]);
        stage.client(&vec![0; ENDLESS]);
    }),
];

const HTTP2: &[Case] = &[
    ("HPACK bomb", 80, |stage| {
        http2(stage);
        stage.client(&frame(1, 5, 1, &[&GET[..], &literal(4000)].concat()));
        for stream in 1..200u32 {
            // 16,000 times the field of 4,000 bytes.
            let block = [&GET[..], &vec![0xbe; 16_000]].concat();
            stage.client(&frame(1, 5, 2 * stream + 1, &block));
        }
    }),
    ("10,000 streams at once", 80, |stage| {
        http2(stage);
        for stream in 0..10_000u32 {
            stage.client(&frame(1, 5, 2 * stream + 1, &[&GET[..], &literal(1000)].concat()));
        }
    }),
    ("endless header block", 80, |stage| {
        http2(stage);
        stage.client(&frame(1, 1, 1, &GET));
        (0..500).for_each(|_| stage.client(&frame(9, 0, 1, &literal(15_000))));
    }),
    ("1-byte segments of HTTP/2", 80, |stage| {
        http2(stage);
        for stream in 0..300u32 {
            let request = frame(1, 5, 2 * stream + 1, &[&GET[..], &literal(200)].concat());
            stage.say(TRANSMIT, &request, 1);
        }
    }),
    ("a largest frame that never ends", 80, |stage| {
        http2(stage);
        stage.client(&[0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1]);
        stage.client(&vec![0; ENDLESS]);
    }),
    ("endless settings", 80, |stage| {
        http2(stage);
        let settings = frame(4, 0, 0, &[0, 1, 0xff, 0xff, 0xff, 0xff]);
        stage.server(&settings.repeat(100_000));
        (0..2000).for_each(|_| stage.client(&frame(1, 5, 1, &literal(10_000))));
    }),
];

const OTHERS: &[Case] = &[
    ("endless TLS ClientHello", 443, |stage| {
        for _ in 0..ENDLESS / 16_000 {
            let mut record = vec![22, 3, 1, 0x3e, 0x80];
            record.extend([1, 0xff, 0xff, 0xff, 3, 3]);
            record.resize(5 + 16_000, 0x5a);
            stage.client(&record);
        }
    }),
    ("TLS handshake messages without end", 443, |stage| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tls/curl.client.bin");
        stage.client(&fs::read(path).expect("a fixture"));
        for _ in 0..ENDLESS / 16_000 {
            // Certificates of the largest size.
            let mut record = vec![22, 3, 3, 0x3e, 0x80, 11, 0xff, 0xff, 0xff];
            record.resize(5 + 16_000, 0x5a);
            stage.server(&record);
        }
    }),
    ("TLS records of one byte", 443, |stage| {
        (0..100_000).for_each(|_| stage.client(&[22, 3, 1, 0, 1, 1]));
    }),
    ("nested and endless Redis arrays", 6379, |stage| {
        stage.client(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
        stage.server(&b"*1000000000\r\n".repeat(100_000));
    }),
    ("an endless Redis command", 6379, |stage| {
        stage.client(b"*1000000000\r\n$3\r\nSET\r\n");
        stage.client(&b"$3\r\nabc\r\n".repeat(ENDLESS / 9));
    }),
    ("Redis commands without an answer", 6379, |stage| {
        let command = format!("*3\r\n$3\r\nSET\r\n$900\r\n{}\r\n$1\r\na\r\n", "k".repeat(900));
        (0..5000).for_each(|_| stage.client(command.as_bytes()));
    }),
    ("an endless PostgreSQL message", 5432, |stage| {
        stage.talk("psql", 6);
        stage.client(&[b'Q', 0x3f, 0xff, 0xff, 0xff]);
        stage.client(&b"SELECT 'a' || ".repeat(ENDLESS / 14));
    }),
    ("PostgreSQL statements without end", 5432, |stage| {
        stage.talk("psql", 6);
        for number in 0..5000u32 {
            let text = format!("s{number}\0SELECT {} FROM t{number}\0\0\0", "a,".repeat(900));
            let mut parse = vec![b'P'];
            parse.extend((text.len() as u32 + 4).to_be_bytes());
            parse.extend(text.as_bytes());
            stage.client(&parse);
        }
    }),
    ("an endless MySQL packet", 3306, |stage| {
        stage.talk("pymysql", 3);
        stage.client(&[0xff, 0xff, 0xff, 0, 3]);
        stage.client(&b"SELECT 'a' + ".repeat(ENDLESS / 13));
    }),
    ("MySQL statements without an answer", 3306, |stage| {
        stage.talk("pymysql", 3);
        for number in 0..5000u32 {
            let text = format!("\x16SELECT {} FROM t{number}", "a,".repeat(900));
            let len = (text.len() as u32).to_le_bytes();
            stage.client(&[&len[..3], &[0], text.as_bytes()].concat());
        }
    }),
    ("an endless Kafka request", 9092, |stage| {
        stage.talk("kafka-1", 4);
        stage.client(&[0x3f, 0xff, 0xff, 0xff, 0, 0, 0, 3, 0, 0, 0, 9, 0, 1, b'c']);
        stage.client(&vec![0; ENDLESS]);
    }),
    ("Kafka requests without an answer", 9092, |stage| {
        stage.talk("kafka-1", 4);
        for number in 0..5000u32 {
            let topic = "t".repeat(249);
            let mut body = vec![0, 3, 0, 1];
            body.extend(number.to_be_bytes());
            body.extend([0, 1, b'c', 0, 0, 0, 1, 0, 249]);
            body.extend(topic.as_bytes());
            stage.client(&[&(body.len() as u32).to_be_bytes()[..], &body].concat());
        }
    }),
    ("an endless line of SMTP", 25, |stage| {
        stage.server(b"220 mail.example ESMTP\r\n");
        stage.client(b"EHLO ");
        stage.client(&vec![b'a'; ENDLESS]);
        stage.server(&b"250-a\r\n".repeat(ENDLESS / 7));
    }),
    ("what is no protocol, byte by byte", 9999, |stage| {
        for number in 0..100_000u32 {
            stage.say(TRANSMIT, &[number as u8 | 0x80], 1);
            stage.say(RECEIVE, &[number as u8 | 0x80], 1);
        }
    }),
];

/// Contents, which are kept where objects are made of them.
const CONTENTS: &[Case] = &[
    ("a content without end", 80, |stage| {
        stage.client(b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n");
        stage.client(&vec![b'a'; ENDLESS]);
    }),
    ("chunks without end", 80, |stage| {
        stage.client(b"GET / HTTP/1.1\r\n\r\n");
        stage.server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        stage.server(&b"1\r\na\r\n".repeat(ENDLESS / 6));
    }),
    ("contents without an answer", 80, |stage| {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n";
        let request = [&head[..], &[b'a'; 100_000]].concat();
        (0..200).for_each(|_| stage.client(&request));
    }),
    ("contents of nobody", LOST, |stage| {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n";
        let request = [&head[..], &[b'a'; 100_000]].concat();
        for _ in 0..200 {
            stage.client(&request);
            stage.server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        }
    }),
    ("contents of many streams", 80, |stage| {
        http2(stage);
        for stream in 0..2000 {
            stage.client(&frame(1, 4, 2 * stream + 1, &GET));
            stage.client(&frame(0, 0, 2 * stream + 1, &[b'a'; 16_000]));
        }
    }),
];

#[test]
fn what_a_connection_holds_is_bounded_whatever_it_says() {
    for contents in [false, true] {
        for case in [HTTP, HTTP2, OTHERS, CONTENTS].into_iter().flatten() {
            bounded(case, contents.then(|| Arc::new(Collect::new(256 << 10, 64 << 20))));
        }
    }
}

/// One of them, with contents of messages kept or not.
fn bounded((name, port, act): &Case, collect: Option<Arc<Collect>>) {
    let contents = collect.as_ref().map_or(0, |collect| collect.connection);
    let bound = (MEMORY_MAX + contents) as isize + ENTRY;
    let mut stage = Stage::new(*port, collect.clone());
    act(&mut stage);
    stage.close(*port);
    let Stage { held, peak, told, .. } = stage;
    drop(stage.table);
    println!("{name:<40} {held:>9} held {peak:>9} at a moment {told:>7} exchanges");
    assert!(held <= bound, "{name}: {held} bytes held");
    assert!(peak <= bound + MOMENT, "{name}: {peak} bytes at a moment");
    assert_eq!(collect.map_or(0, |collect| collect.held()), 0, "{name}: nobody gave it back");
}

/// The measure itself: what is not bounded is seen.
#[test]
fn the_allocator_counts() {
    let before = HELD.get();
    let held = vec![0u8; 1 << 20];
    assert_eq!(HELD.get() - before, 1 << 20);
    drop(held);
    assert_eq!(HELD.get(), before);
}
