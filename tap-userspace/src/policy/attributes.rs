//! The processors `attributes` and `resource`: actions on the attributes of items, and on those of their
//! resource.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::{
    actions::apply,
    data::{Record, Resource, Source},
    matching::{Matched, Properties},
    metrics::{Metric, OfMetrics, Point},
    processor::{Processor, Tally},
    sources::Memo,
};
use crate::config::processors::actions;

/// A running `attributes`.
#[derive(Debug)]
pub struct OnAttributes(pub actions::Attributes);

impl OnAttributes {
    /// Whether it changes what `matches` is asked of.
    fn takes(&self, matches: impl Fn(&Properties) -> bool) -> bool {
        self.0.include.as_ref().is_none_or(|include| matches(&include.rules))
            && !self.0.exclude.as_ref().is_some_and(|exclude| matches(&exclude.rules))
    }
}

impl<R: Record + Matched> Processor<R> for OnAttributes {
    fn process(&mut self, batch: &mut Vec<R>, _now: Instant, _tally: &mut Tally) {
        for item in batch {
            if self.takes(|properties| item.matches(properties)) {
                apply(&self.0.actions, item.attributes_mut());
            }
        }
    }
}

impl OfMetrics for OnAttributes {
    fn point(&mut self, point: &mut Point, metric: &Metric, source: &Source) -> bool {
        if self.takes(|properties| properties.metric(&metric.name, &source.resource)) {
            apply(&self.0.actions, &mut point.attributes);
        }
        true
    }
}

/// A running `resource`.
#[derive(Debug)]
pub struct OnResource {
    settings: actions::Resource,
    known: Memo<Resource>,
}

impl OnResource {
    /// With these settings.
    pub fn new(settings: actions::Resource) -> Self {
        Self { settings, known: Memo::default() }
    }
}

impl<R: Record> Processor<R> for OnResource {
    fn process(&mut self, batch: &mut Vec<R>, _now: Instant, _tally: &mut Tally) {
        for item in batch {
            let change = |resource: &mut Resource| {
                apply(&self.settings.attributes, &mut resource.attributes);
            };
            self.known.change(&mut item.source_mut().resource, change);
        }
    }
}

impl OfMetrics for OnResource {
    fn resource(&mut self, resource: &mut Resource) {
        apply(&self.settings.attributes, &mut resource.attributes);
    }
}

#[cfg(test)]
#[path = "attributes_tests.rs"]
mod tests;
