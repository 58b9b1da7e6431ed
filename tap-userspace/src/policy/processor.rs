//! What every processor is. Comes in: items of one pipeline in batches; goes out: those that pass, and in a
//! [`Tally`] what became of the others.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::data::Record;
use crate::export::items::{Counts, Reason};

/// A step of a pipeline. Each pipeline has its own, so it may keep what it likes, within bounds.
pub trait Processor<R: Record>: Send {
    /// Takes items; leaves those in `batch` that go on now. Each that does not is counted, unless it
    /// is kept for later.
    fn process(&mut self, batch: &mut Vec<R>, now: Instant, tally: &mut Tally);

    /// When it wants to be asked by [`Self::release`], even if nothing comes.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Gives out what it has kept and whose time has come; at the end (`all`) everything.
    fn release(&mut self, now: Instant, all: bool, tally: &mut Tally) -> Vec<R> {
        let (_, _, _) = (now, all, tally);
        Vec::new()
    }
}

/// What became of items that do not go on, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// A rule has taken them out.
    pub filtered: u64,
    /// A sampler has left them out.
    pub sampled: u64,
    /// The memory limiter has not let them in.
    pub refused: u64,
    /// A buffer was full.
    pub overflown: u64,
    /// It could not be read.
    pub unread: u64,
}

impl Tally {
    /// All of them.
    pub const fn all(&self) -> u64 {
        self.filtered + self.sampled + self.refused + self.overflown + self.unread
    }

    /// Moves them from where they were held.
    pub const fn book(&self, counts: &mut Counts) {
        counts.held -= self.all();
        counts.filtered += self.filtered;
        counts.sampled += self.sampled;
        counts.refused += self.refused;
        counts.drop(Reason::BufferFull, self.overflown);
        counts.drop(Reason::Unreadable, self.unread);
    }
}
