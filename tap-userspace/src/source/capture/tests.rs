//! Captures → items: what a capture tells, in a form that tests can look at.

mod begins;
mod real;
mod rules;
mod turns;
pub mod wire;

use tap_common::record::{Close, Data, Open};

use super::{Capture, Counts, Item, Settings};
use crate::source::decode::Record;

/// Everything that a capture told.
#[derive(Default)]
pub struct Seen {
    pub opens: Vec<Open>,
    pub data: Vec<(Data, Vec<u8>)>,
    pub closes: Vec<Close>,
    pub given_up: Vec<Close>,
    pub open: Vec<Close>,
    pub dns: Vec<Vec<u8>>,
    pub counts: Counts,
    pub error: Option<String>,
}

impl Seen {
    pub fn of(bytes: &[u8], settings: &Settings) -> Self {
        // What holds for every capture holds for this one.
        super::fuzz_capture(bytes);
        let mut seen = Self::default();
        let mut capture = Capture::new(bytes, settings.clone()).unwrap();
        loop {
            match capture.step(&mut |item| seen.item(item)) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    seen.error = Some(error.to_string());
                    break;
                }
            }
        }
        capture.end(&mut |item| seen.item(item));
        seen.counts = capture.counts();
        seen
    }

    fn item(&mut self, item: Item<'_>) {
        match item {
            Item::Record { record: Record::Open(open), .. } => self.opens.push(open),
            Item::Record { record: Record::Close(close), .. } => self.closes.push(close),
            Item::Record { record: Record::Data(data, payload), .. } => {
                self.data.push((data, payload.to_vec()));
            }
            Item::Record { record, .. } => panic!("{record:?}"),
            Item::GivenUp { close, .. } => self.given_up.push(*close),
            Item::Dns { payload, .. } => self.dns.push(payload.to_vec()),
            Item::End { open, .. } => self.open.extend(open),
        }
    }

    /// The only close.
    pub fn close(&self) -> &Close {
        let (closes, open) = (&self.closes, &self.open);
        assert!(closes.len() == 1 && open.is_empty(), "closed {closes:?}, open {open:?}");
        &closes[0]
    }

    /// The bytes that were told of a direction, `.` for each that was not.
    pub fn stream(&self, direction: usize) -> String {
        let mut stream = Vec::new();
        for (data, payload) in self.data.iter().filter(|(data, _)| way(data) == direction) {
            let end = data.offset as usize + data.segment_len as usize;
            stream.resize(stream.len().max(end), b'.');
            stream[data.offset as usize..][..payload.len()].copy_from_slice(payload);
        }
        String::from_utf8(stream).unwrap()
    }
}

/// `RECEIVE` or `TRANSMIT`.
pub fn way(data: &Data) -> usize {
    usize::from(data.header.lane) - 1
}
