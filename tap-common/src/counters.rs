//! The counters that the kernel programs keep: for every kind of record, how many were due and
//! how many were dropped, by reason.
//!
//! `seen = delivered + dropped` holds for each kind at rest; while records wait in a ring the
//! difference is what is in it.

use crate::record::Kind;

/// Why the kernel side dropped a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Drop {
    /// The ring had no room.
    RingFull = 0,
    /// The packet's bytes could not be read.
    Unreadable = 1,
}

impl Drop {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::RingFull, Self::Unreadable];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Things that are no record but must not be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Event {
    /// A payload was left out of a data record because its ring was nearly full.
    PayloadShed = 0,
    /// Socket storage could not be made (memory): the connection is not seen.
    NoStorage = 1,
    /// A connection was not looked at: it is tap's own.
    Own = 2,
    /// A segment's headers could not be understood.
    Malformed = 3,
    /// A segment lay outside any window of its connection.
    OutOfWindow = 4,
    /// A connection was not looked at, by its direction.
    Direction = 5,
    /// A connection was not looked at, as it is inside the loopback net.
    Loopback = 6,
    /// A connection was not looked at: a rule excludes it.
    Excluded = 7,
    /// A connection was not looked at: no rule includes it.
    NotIncluded = 8,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 9] = [
        Self::PayloadShed,
        Self::NoStorage,
        Self::Own,
        Self::Malformed,
        Self::OutOfWindow,
        Self::Direction,
        Self::Loopback,
        Self::Excluded,
        Self::NotIncluded,
    ];

    /// Those that mean a connection that is not looked at.
    pub const FILTERED: [Self; 5] =
        [Self::Own, Self::Direction, Self::Loopback, Self::Excluded, Self::NotIncluded];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PayloadShed => "payload_shed",
            Self::NoStorage => "no_storage",
            Self::Own => "self",
            Self::Malformed => "malformed",
            Self::OutOfWindow => "out_of_window",
            Self::Direction => "direction",
            Self::Loopback => "loopback",
            Self::Excluded => "exclude",
            Self::NotIncluded => "include",
        }
    }
}

/// Counters before the events: for each kind its `seen` and one per [`Drop`].
const PER_KIND: u32 = 1 + Drop::ALL.len() as u32;

/// Slots of the counter array.
pub const SLOTS: u32 = Kind::ALL.len() as u32 * PER_KIND + Event::ALL.len() as u32;

/// Slot of the records of `kind` that were due.
pub const fn seen(kind: Kind) -> u32 {
    (kind as u32 - 1) * PER_KIND
}

/// Slot of the records of `kind` that were dropped for `reason`.
pub const fn dropped(kind: Kind, reason: Drop) -> u32 {
    seen(kind) + 1 + reason as u32
}

/// Slot of `event`.
pub const fn event(event: Event) -> u32 {
    Kind::ALL.len() as u32 * PER_KIND + event as u32
}
