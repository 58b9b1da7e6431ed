//! The `filter` processor: items that one of its conditions holds of are counted as filtered; events
//! are taken out of their spans.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::{
    data::{LogRecord, Record, Source, Span},
    expression::{EventOf, Expression, Failed, MetricOf, PointOf, Subject},
    metrics::{Metric, OfMetrics, Point},
    processor::{Processor, Tally},
};
use crate::config::processors::filter::{self, ErrorMode};

/// A running `filter`.
#[derive(Debug)]
pub struct Filter {
    settings: filter::Filter,
    /// A failure has been told.
    told: bool,
}

impl Filter {
    /// With these settings.
    pub const fn new(settings: filter::Filter) -> Self {
        Self { settings, told: false }
    }
}

/// Whether one of `conditions` holds; the first failure is handed to `failed`.
pub(super) fn any<S: Subject>(
    conditions: &[Expression],
    subject: &S,
    failed: &mut impl FnMut(Failed),
) -> bool {
    conditions.iter().any(|condition| match condition.holds(subject) {
        Ok(holds) => holds,
        Err(error) => {
            failed(error);
            false
        }
    })
}

/// Tells the first failure of a condition of `whose`.
pub(super) fn tell(mode: ErrorMode, told: &mut bool, whose: &'static str) -> impl FnMut(Failed) {
    move |error| {
        if mode == ErrorMode::Ignore && !std::mem::replace(told, true) {
            tracing::warn!(%error, whose, "A condition cannot be told, and does not hold.");
        }
    }
}

/// Takes out what `drop` says.
fn retain<R: Record>(batch: &mut Vec<R>, tally: &mut Tally, mut drop: impl FnMut(&R) -> bool) {
    let before = batch.len();
    batch.retain(|item| !drop(item));
    tally.filtered += (before - batch.len()) as u64;
}

impl Processor<Span> for Filter {
    fn process(&mut self, batch: &mut Vec<Span>, _now: Instant, tally: &mut Tally) {
        let filter::Traces { span, spanevent } = &self.settings.traces;
        let mut failed = tell(self.settings.error_mode, &mut self.told, "filter");
        retain(batch, tally, |item| any(span, item, &mut failed));
        if spanevent.is_empty() {
            return;
        }
        for span in batch {
            let mut events = std::mem::take(&mut span.events);
            events.retain(|event| !any(spanevent, &EventOf(event, span), &mut failed));
            span.events = events;
        }
    }
}

impl Processor<LogRecord> for Filter {
    fn process(&mut self, batch: &mut Vec<LogRecord>, _now: Instant, tally: &mut Tally) {
        let mut failed = tell(self.settings.error_mode, &mut self.told, "filter");
        retain(batch, tally, |item| any(&self.settings.logs.log_record, item, &mut failed));
    }
}

impl OfMetrics for Filter {
    fn metric(&mut self, metric: &mut Metric, source: &Source) -> bool {
        let mut failed = tell(self.settings.error_mode, &mut self.told, "filter");
        !any(&self.settings.metrics.metric, &MetricOf(metric, source), &mut failed)
    }

    fn point(&mut self, point: &mut Point, metric: &Metric, source: &Source) -> bool {
        let mut failed = tell(self.settings.error_mode, &mut self.told, "filter");
        !any(&self.settings.metrics.datapoint, &PointOf(point, metric, source), &mut failed)
    }
}
