//! Complaints about one thing that does not work, held to one a minute: a collector that is away,
//! or a disk that is full, is told of, and does not fill the log.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between complaints.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// When the last one was made.
#[derive(Debug, Default)]
pub struct Complaints {
    last: Mutex<Option<Instant>>,
}

impl Complaints {
    /// Whether one may be made now; then it is.
    pub fn may(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY);
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    /// It works again. The next complaint still waits for its minute, so that an endpoint that
    /// comes and goes does not fill the log.
    pub fn recovered(&self, endpoint: &str) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some() {
            tracing::debug!(endpoint, "Spans are sent.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_complaint_a_minute() {
        let complaints = Complaints::default();
        assert!(complaints.may());
        assert!(!complaints.may());
        let past = Instant::now().checked_sub(COMPLAIN_EVERY);
        *complaints.last.lock().unwrap() = past;
        assert_eq!(complaints.may(), past.is_some());
    }
}
