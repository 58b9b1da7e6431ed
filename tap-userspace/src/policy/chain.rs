//! The processors that a pipeline's configuration names, ready to run.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::{
    data::{LogRecord, Span},
    filter::Filter,
    stage::Chain,
};
use crate::config::processors::Processor;

/// Those of a pipeline of spans.
pub fn of_spans(named: &[(Arc<str>, Processor)]) -> Chain<Span> {
    let mut chain: Chain<Span> = Vec::new();
    for (_, processor) in named {
        match processor {
            // The exporters' queues do this.
            Processor::Batch(_) => {}
            Processor::Filter(settings) => chain.push(Box::new(Filter::new((**settings).clone()))),
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
            Processor::Filter(settings) => chain.push(Box::new(Filter::new((**settings).clone()))),
        }
    }
    chain
}
