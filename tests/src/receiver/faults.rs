//! Faults that the receiver was told to meet requests with.

use std::{collections::VecDeque, sync::Mutex, time::Duration};

/// What happens to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused for now: gRPC `UNAVAILABLE`, HTTP 503. It is to be sent again.
    Unavailable,
    /// Refused for good: gRPC `INVALID_ARGUMENT`, HTTP 400. It must not be sent again.
    Rejected,
    /// Taken, but so many spans of it are said to be refused (`partial_success`).
    Partial(i64),
    /// Taken, but answered late.
    Late(Duration),
    /// Taken at once, but answered late.
    Unanswered(Duration),
    /// Refused for so many seconds: gRPC `RESOURCE_EXHAUSTED` with `RetryInfo`, HTTP 429 with
    /// `Retry-After`.
    Throttled(u8),
}

/// Faults yet to come, one a request.
#[derive(Debug, Default)]
pub struct Faults(Mutex<VecDeque<Fault>>);

impl Faults {
    /// Adds one at the end.
    pub fn push(&self, fault: Fault) {
        self.0.lock().expect("no holder panics").push_back(fault);
    }

    /// The one for the request at hand.
    pub fn next(&self) -> Option<Fault> {
        self.0.lock().expect("no holder panics").pop_front()
    }
}
