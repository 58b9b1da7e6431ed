//! What holds for the items of every capture, whatever is in it: for the fuzzer and for tests.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use tap_common::{
    limits::PAYLOAD_MAX,
    record::{Close, Header, Lane, flags},
};

use super::{Capture, Item, Settings, Wall, reassembly::HELD_TOTAL_MAX};
use crate::source::decode::Record;

/// What was told of one connection.
#[derive(Default)]
struct Told {
    /// Records by lane.
    came: [u32; 3],
    /// Where the next bytes of each direction begin at the earliest.
    next: [u64; 2],
    /// Time of the newest record of each direction.
    time_ns: [u64; 2],
    open: bool,
    over: bool,
}

/// Checks items as they come.
#[derive(Default)]
struct Check {
    told: HashMap<u64, Told>,
    now: Wall,
    ended: bool,
}

impl Check {
    fn item(&mut self, item: Item<'_>) {
        assert!(!self.ended, "an item after the end");
        let (Item::Record { now, .. }
        | Item::GivenUp { now, .. }
        | Item::Dns { now, .. }
        | Item::End { now, .. }) = item;
        assert!(now >= self.now, "the clock goes back");
        self.now = now;
        match item {
            Item::Record { record: Record::Open(open), .. } => {
                let told = self.record(&open.header);
                assert!(!told.open, "opened twice");
                told.open = true;
                assert!(open.connection.flags & flags::ESTABLISHED != 0);
            }
            Item::Record { record: Record::Data(data, payload), .. } => {
                let told = self.record(&data.header);
                assert!(told.open, "data before the open");
                assert_eq!(data.header.payload_len as usize, payload.len());
                assert!(payload.len() <= PAYLOAD_MAX && payload.len() <= data.segment_len as usize);
                let way = if data.header.lane == Lane::Receive as u8 { 0 } else { 1 };
                assert!(data.offset >= told.next[way], "bytes told twice");
                assert!(data.position <= data.offset && data.previous_ns <= data.header.time_ns);
                assert!(data.header.time_ns >= told.time_ns[way], "time goes back");
                told.next[way] = data.offset + u64::from(data.segment_len);
                told.time_ns[way] = data.header.time_ns;
            }
            Item::Record { record: Record::Close(close), .. } => {
                self.record(&close.header);
                self.over(&close);
            }
            Item::Record { record, .. } => panic!("{record:?} is of no capture"),
            Item::GivenUp { close, .. } => self.over(close),
            Item::Dns { payload, .. } => assert!(!payload.is_empty()),
            Item::End { open, .. } => {
                open.iter().for_each(|close| self.over(close));
                assert!(self.told.values().all(|told| told.over), "never ended");
                self.ended = true;
            }
        }
    }

    fn record(&mut self, header: &Header) -> &mut Told {
        assert!(header.time_ns <= self.now.0, "a record of the future");
        let told = self.told.entry(header.cookie).or_default();
        assert!(!told.over, "a record after the end of its connection");
        let came = &mut told.came[usize::from(header.lane)];
        assert_eq!(header.number, *came);
        *came += 1;
        told
    }

    fn over(&mut self, close: &Close) {
        let told = self.told.entry(close.header.cookie).or_default();
        assert!(!told.over, "ended twice");
        told.over = true;
        assert_eq!(close.sent, told.came);
        assert!((0..2).all(|way| close.bytes[way] >= told.next[way]), "{close:?} {:?}", told.next);
        assert!(close.header.time_ns >= close.connection.opened_ns);
    }
}

/// Reads `bytes` as a capture; the items must make sense, and memory stay bounded.
pub fn run(bytes: &[u8]) {
    let wanted = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let settings = Settings {
        payload_per_turn: [0, 100, 100_000][usize::from(wanted % 3)],
        connections: 16,
        turns: 8,
        ..Settings::default()
    };
    let Ok(mut capture) = Capture::new(bytes, settings) else { return };
    let mut check = Check::default();
    while let Ok(Some(_)) = capture.step(&mut |item| check.item(item)) {
        let connections = &capture.connections;
        assert!(connections.count() <= 16 && connections.held() <= HELD_TOTAL_MAX + (1 << 20));
    }
    capture.end(&mut |item| check.item(item));
    assert!(check.ended && capture.connections.held() == 0);
}
