//! When a request that failed is tried again: settings in, pauses out. The words and the rule are
//! the Collector's (`retry_on_failure`).

use std::time::Duration;

use crate::config::exporters::RetryOnFailure;

/// `retry_on_failure`, as it holds for one exporter of one signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Whether anything is tried again.
    pub enabled: bool,
    /// The first pause, about.
    pub initial: Duration,
    /// How much shorter or longer each pause may be; 0.5 is up to half. Taps that lost their
    /// collector together do not come back together.
    pub randomization: f64,
    /// Each pause is so many times the last one.
    pub multiplier: f64,
    /// The longest pause, about.
    pub longest: Duration,
    /// From the first attempt on; `None` is without end.
    pub give_up: Option<Duration>,
}

impl Default for Retry {
    /// What holds without the block: a collector that restarts is found again soon.
    fn default() -> Self {
        Self {
            enabled: true,
            initial: Duration::from_secs(1),
            randomization: 0.5,
            multiplier: 1.5,
            longest: Duration::from_secs(30),
            give_up: Some(Duration::from_secs(300)),
        }
    }
}

impl Retry {
    /// What `block` says; where it names no `max_elapsed_time`, what is `stored` on disk is never
    /// given up: that would lose what was accepted.
    pub fn of(block: &RetryOnFailure, stored: bool) -> Self {
        Self {
            enabled: block.enabled,
            initial: block.initial_interval,
            randomization: block.randomization_factor,
            multiplier: block.multiplier,
            longest: block.max_interval,
            give_up: match block.max_elapsed_time {
                None => Self::default().give_up.filter(|_| !stored),
                Some(limit) => Some(limit).filter(|limit| !limit.is_zero()),
            },
        }
    }
}

/// The shortest pause: settings of zero must not become a loop without one.
const SHORTEST: Duration = Duration::from_millis(10);

/// The longest time for which a receiver is believed to know when it will be back.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// Pauses between the attempts of one request.
#[derive(Debug)]
pub struct Backoff {
    retry: Retry,
    /// Seconds of the next pause, before its random part.
    next: f64,
}

impl Backoff {
    /// The pauses that `retry` asks for.
    pub const fn new(retry: Retry) -> Self {
        Self { retry, next: retry.initial.as_secs_f64() }
    }

    /// The next pause; `asked` is what the receiver wants it to be.
    pub fn pause(&mut self, asked: Option<Duration>) -> Duration {
        let longest = self.retry.longest.as_secs_f64();
        let middle = self.next.min(longest);
        self.next = (middle * self.retry.multiplier).min(longest);
        if let Some(asked) = asked {
            return asked.clamp(SHORTEST, LONGEST_ASKED);
        }
        let mut random = [0; 4];
        // Without randomness the pause is the shortest of its range.
        getrandom::fill(&mut random).unwrap_or_default();
        let random = f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX);
        let pause = middle * (1.0 + self.retry.randomization * (2.0 * random - 1.0));
        // Days are for ever, and no settings make this panic.
        Duration::try_from_secs_f64(pause.min(1e6)).unwrap_or(self.retry.longest).max(SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_their_range() {
        let collector = Retry { initial: Duration::from_secs(5), ..Retry::default() };
        let fixed = Retry { randomization: 0.0, multiplier: 2.0, ..Retry::default() };
        for retry in [Retry::default(), collector, fixed] {
            let mut backoff = Backoff::new(retry);
            for attempt in 0..20 {
                let grown = retry.initial.as_secs_f64() * retry.multiplier.powi(attempt);
                let middle = grown.min(30.0);
                let pause = backoff.pause(None).as_secs_f64();
                let (least, most) = (1.0 - retry.randomization, 1.0 + retry.randomization);
                assert!(
                    pause >= middle * least - 1e-6 && pause <= middle * most + 1e-6,
                    "{attempt}: {pause}"
                );
            }
        }
    }

    #[test]
    fn no_settings_make_a_loop_without_pause_or_a_panic() {
        let zero = Duration::ZERO;
        for (initial, multiplier, longest) in [
            (zero, 1.5, zero),
            (zero, 0.0, Duration::MAX),
            (Duration::MAX, f64::MAX, Duration::MAX),
            (Duration::from_secs(1), f64::NAN, Duration::from_secs(1)),
        ] {
            let mut backoff =
                Backoff::new(Retry { initial, multiplier, longest, ..Retry::default() });
            for _ in 0..50 {
                assert!(backoff.pause(None) >= SHORTEST);
            }
        }
    }

    #[test]
    fn what_the_receiver_asks_for_holds_up_to_an_hour() {
        let mut backoff = Backoff::new(Retry::default());
        for (asked, expected) in [(0, 10), (7, 7_000), (u64::MAX, 3_600_000)] {
            let pause = backoff.pause(Some(Duration::from_secs(asked)));
            assert_eq!(pause, Duration::from_millis(expected));
        }
    }
}
