//! The processors that a pipeline's configuration names, ready to run.
#![forbid(unsafe_code)]

use std::{sync::Arc, time::Instant};

use super::{
    attributes::{OnAttributes, OnResource},
    data::{LogRecord, Span},
    filter::Filter,
    group::Group,
    memory::{Limiter, Pressure},
    metrics,
    probability::sampler::Sampler,
    redaction::Redaction,
    stage::Chain,
    tail::{self, Verdicts},
    transform::{Running, Transform},
};
use crate::{
    config::processors::Processor,
    telemetry::metric::{Family, Number, Registry},
};

/// What processors of all pipelines share.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Where their numbers are.
    pub registry: Arc<Registry>,
    /// What tail samplers have decided, for log records.
    pub verdicts: Verdicts,
    /// Whether memory is short.
    pub pressure: Pressure,
}

/// Where a processor stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its pipeline.
    pub pipeline: &'a str,
    /// Its own name.
    pub processor: &'a Arc<str>,
    /// What it shares with others.
    pub shared: &'a Shared,
}

impl Place<'_> {
    /// A number of this processor.
    pub fn number(&self, family: Family, labels: &[(&'static str, &str)]) -> Number {
        let own = [("pipeline", self.pipeline), ("processor", &**self.processor)];
        let labels: Vec<_> = own.into_iter().chain(labels.iter().copied()).collect();
        self.shared.registry.number(family, &labels)
    }
}

/// Those of a pipeline of spans.
pub fn of_spans(pipeline: &str, named: &[(Arc<str>, Processor)], shared: &Shared) -> Chain<Span> {
    let mut chain: Chain<Span> = Vec::new();
    for (name, processor) in named {
        let place = Place { pipeline, processor: name, shared };
        match processor {
            // The exporters' queues do this.
            Processor::Batch(_) => {}
            Processor::Attributes(settings) => {
                chain.push(Box::new(OnAttributes((**settings).clone())));
            }
            Processor::Filter(settings) => chain.push(Box::new(Filter::new((**settings).clone()))),
            Processor::Group(settings) => chain.push(Box::new(Group::new(settings.clone()))),
            Processor::Redaction(settings) => chain.push(Box::new(Redaction::new(settings))),
            Processor::Resource(settings) => {
                chain.push(Box::new(OnResource::new((**settings).clone())));
            }
            Processor::Transform(settings) => {
                chain.push(Box::new(Transform::new(&settings.trace_statements)));
            }
            Processor::MemoryLimiter(settings) => {
                chain.push(Box::new(Limiter::new(*settings, &place)));
            }
            Processor::ProbabilisticSampler(settings) => {
                chain.push(Box::new(Sampler::new((**settings).clone(), &place)));
            }
            Processor::TailSampling(settings) => {
                chain.push(Box::new(tail::Sampler::new(settings, &place, Instant::now())));
            }
        }
    }
    chain
}

/// Those of a pipeline of log records.
pub fn of_logs(
    pipeline: &str,
    named: &[(Arc<str>, Processor)],
    shared: &Shared,
) -> Chain<LogRecord> {
    let mut chain: Chain<LogRecord> = Vec::new();
    for (name, processor) in named {
        let place = Place { pipeline, processor: name, shared };
        match processor {
            Processor::Batch(_) => {}
            Processor::Attributes(settings) => {
                chain.push(Box::new(OnAttributes((**settings).clone())));
            }
            Processor::Filter(settings) => chain.push(Box::new(Filter::new((**settings).clone()))),
            Processor::Group(settings) => chain.push(Box::new(Group::new(settings.clone()))),
            Processor::Redaction(settings) => chain.push(Box::new(Redaction::new(settings))),
            Processor::Resource(settings) => {
                chain.push(Box::new(OnResource::new((**settings).clone())));
            }
            Processor::Transform(settings) => {
                chain.push(Box::new(Transform::new(&settings.log_statements)));
            }
            Processor::MemoryLimiter(settings) => {
                chain.push(Box::new(Limiter::new(*settings, &place)));
            }
            Processor::ProbabilisticSampler(settings) => {
                chain.push(Box::new(Sampler::new((**settings).clone(), &place)));
            }
            Processor::TailSampling(settings) => {
                chain.push(Box::new(tail::logs::Follower::new(settings, &place)));
            }
        }
    }
    chain
}

/// Those of a pipeline of metrics.
pub fn of_metrics(named: &[(Arc<str>, Processor)]) -> metrics::Chain {
    let mut chain = metrics::Chain::new();
    for (_, processor) in named {
        match processor {
            // The exporters' queues do the first; of metrics there are too few for the second to matter.
            Processor::Batch(_) | Processor::MemoryLimiter(_) => {}
            // The configuration has refused these.
            Processor::Group(_)
            | Processor::ProbabilisticSampler(_)
            | Processor::TailSampling(_) => {}
            Processor::Attributes(settings) => {
                chain.push(Box::new(OnAttributes((**settings).clone())));
            }
            Processor::Filter(settings) => chain.push(Box::new(Filter::new((**settings).clone()))),
            Processor::Redaction(settings) => chain.push(Box::new(Redaction::new(settings))),
            Processor::Resource(settings) => {
                chain.push(Box::new(OnResource::new((**settings).clone())));
            }
            Processor::Transform(settings) => {
                for group in &settings.metric_statements {
                    chain.push(Box::new(Running::new(group)));
                }
            }
        }
    }
    chain
}
