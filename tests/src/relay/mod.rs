//! A bad network: frames between two namespaces pass through a relay that drops, doubles, delays
//! and forges them as a test says. (The project's machines have no `netem`.)
//!
//! ```text
//!   left: eth0 ── left │ relay │ right ── right: eth0
//! ```

pub mod frame;
mod pump;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;

use self::pump::Pump;
use crate::netns::{Namespace, Pair, cable};

/// Where a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the namespace `left`.
    Left,
    /// From the namespace `right`.
    Right,
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It is lost.
    Drop,
    /// It goes on twice.
    Twice,
    /// It goes on later, behind what comes in between.
    Late(Duration),
    /// These frames go before it, forged.
    After(Vec<Vec<u8>>),
}

/// Decides about each frame.
pub trait Policy: FnMut(Side, &[u8]) -> Verdict + Send + 'static {}
impl<T: FnMut(Side, &[u8]) -> Verdict + Send + 'static> Policy for T {}

/// What the relay did.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames that came.
    pub seen: AtomicU64,
    /// Frames lost.
    pub dropped: AtomicU64,
    /// Frames doubled.
    pub doubled: AtomicU64,
    /// Frames held back.
    pub delayed: AtomicU64,
    /// Frames forged.
    pub forged: AtomicU64,
}

impl Counts {
    /// Lost, doubled and held back so far.
    pub fn disturbed(&self) -> [u64; 3] {
        [&self.dropped, &self.doubled, &self.delayed].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Two namespaces with the relay between them.
pub struct Relay {
    /// The two ends.
    pub ends: Pair,
    /// What it did.
    pub counts: Arc<Counts>,
    /// Ends before `ends` do.
    _pump: Pump,
}

impl Relay {
    /// A relay that treats frames as `policy` says.
    pub fn new(policy: impl Policy) -> Result<Self> {
        let (left, right, middle) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        // The middle must not take part: no router solicitations, no multicast reports.
        middle.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        for (end, inside) in [(&left, "left"), (&right, "right")] {
            cable((end, "eth0"), (&middle, inside))?;
            end.offload_off("eth0")?;
        }
        let ends = Pair::addressed(left, right)?;
        let counts = Arc::new(Counts::default());
        let pump = Pump::start(&middle, Box::new(policy), Arc::clone(&counts))?;
        Ok(Self { ends, counts, _pump: pump })
    }
}

/// How often a [`rough`] network does what, in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct Roughness {
    /// Frames lost.
    pub loss: u64,
    /// Frames doubled.
    pub doubled: u64,
    /// Frames held back for some milliseconds.
    pub delayed: u64,
}

/// Loses, doubles and reorders TCP segments at random, the same way for the same `seed`.
pub fn rough(seed: u64, how: Roughness) -> impl Policy {
    let mut random = seed.max(1);
    move |_side: Side, bytes: &[u8]| {
        if frame::Segment::parse(bytes).is_none() {
            return Verdict::Pass;
        }
        // xorshift64 (Marsaglia 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let dice = random % 1000;
        if dice < how.loss {
            Verdict::Drop
        } else if dice < how.loss + how.doubled {
            Verdict::Twice
        } else if dice < how.loss + how.doubled + how.delayed {
            Verdict::Late(Duration::from_millis(1 + random / 1000 % 8))
        } else {
            Verdict::Pass
        }
    }
}

#[cfg(test)]
mod tests;
