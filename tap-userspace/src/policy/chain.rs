//! The processors that a pipeline's configuration names, ready to run.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::{
    attributes::{OnAttributes, OnResource},
    data::{LogRecord, Span},
    filter::Filter,
    group::Group,
    metrics,
    redaction::Redaction,
    stage::Chain,
    transform::{Running, Transform},
};
use crate::config::processors::Processor;

/// Those of a pipeline of spans.
pub fn of_spans(named: &[(Arc<str>, Processor)]) -> Chain<Span> {
    let mut chain: Chain<Span> = Vec::new();
    for (_, processor) in named {
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
        }
    }
    chain
}

/// Those of a pipeline of log records.
pub fn of_logs(named: &[(Arc<str>, Processor)]) -> Chain<LogRecord> {
    let mut chain: Chain<LogRecord> = Vec::new();
    for (_, processor) in named {
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
        }
    }
    chain
}

/// Those of a pipeline of metrics.
pub fn of_metrics(named: &[(Arc<str>, Processor)]) -> metrics::Chain {
    let mut chain = metrics::Chain::new();
    for (_, processor) in named {
        match processor {
            // Refused there is the one, and the exporters' queues do the other.
            Processor::Group(_) | Processor::Batch(_) => {}
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
