//! What the traces pipeline carries: spans of connections, of writes to backends and, where the
//! configuration asks for them, of the exchanges within connections. One queue takes all, so one
//! identity counts all.

use super::{
    Sink,
    console::{Form, Printed},
    items::Reason,
    line, object, otlp,
    queue::Queued,
    records::RecordOf,
    table,
};
use crate::{
    connection::{model::Connection, transaction::Transaction},
    policy::{
        data::{Record as _, Source, Span, encode},
        stage::Processed,
    },
    telemetry::{
        child,
        eventstore::{self, Write},
        log, span,
    },
};

/// What becomes a span.
#[derive(Clone, Debug)]
pub enum SpanOf {
    /// A connection.
    Connection(Connection),
    /// An exchange: a child of its connection's span.
    Exchange(Transaction),
    /// A write to a backend.
    Write(Box<Write>),
    /// Whatever it was, processors have had it.
    Made(Box<Span>),
}

impl Processed for SpanOf {
    type Record = Span;

    fn made(span: Span) -> Self {
        Self::Made(Box::new(span))
    }
}

impl From<Connection> for SpanOf {
    fn from(connection: Connection) -> Self {
        Self::Connection(connection)
    }
}

impl Queued for SpanOf {
    fn weight(&self) -> usize {
        match self {
            Self::Connection(connection) => connection.weight(),
            Self::Exchange(transaction) => transaction.weight(),
            Self::Write(_) => size_of::<Self>() + size_of::<Write>(),
            Self::Made(span) => size_of::<Self>() + span.weight(),
        }
    }

    fn trace_id(&self) -> &[u8; 16] {
        match self {
            Self::Connection(connection) => connection.trace_id(),
            Self::Exchange(transaction) => transaction.trace_id(),
            Self::Write(write) => &write.trace_id,
            Self::Made(span) => &span.trace_id,
        }
    }
}

impl Printed for SpanOf {
    fn print(&self, form: Form, terms: &log::Terms, out: &mut Vec<u8>) {
        match (self, form) {
            (Self::Connection(connection), _) => connection.print(form, terms, out),
            (Self::Exchange(transaction), Form::Table) => table::exchange(transaction, out),
            (Self::Exchange(transaction), Form::Lines) => line::child(transaction, terms, out),
            // Nobody offers them to a console: each would be a line about other lines.
            (Self::Write(_), _) => {}
            (Self::Made(span), _) => line::made(span, out),
        }
    }
}

/// Encodes them.
pub struct Spans(pub log::Terms);

impl otlp::Encoder for Spans {
    type Item = SpanOf;
    const SCOPES: &'static [&'static str] =
        &[span::SCOPE, log::SCOPES[0], log::SCOPES[1], eventstore::SCOPE];

    fn scope(&self, of: &SpanOf) -> usize {
        match of {
            SpanOf::Connection(_) => 0,
            SpanOf::Exchange(transaction) => 1 + log::scope(transaction),
            SpanOf::Write(_) | SpanOf::Made(_) => 1 + log::SCOPES.len(),
        }
    }

    fn source<'a>(&self, of: &'a SpanOf) -> Option<&'a Source> {
        match of {
            SpanOf::Made(span) => Some(&span.source),
            _ => None,
        }
    }

    fn encode(&self, of: &SpanOf, out: &mut Vec<u8>) {
        match of {
            SpanOf::Connection(connection) => span::encode(connection, &self.0.limits, out),
            SpanOf::Exchange(transaction) => child::encode(transaction, &self.0, out),
            SpanOf::Write(write) => eventstore::encode(write, &self.0.limits, out),
            SpanOf::Made(span) => encode::span(span, out),
        }
    }
}

/// The way in for exchanges: each becomes a log record, and a span where these are wanted.
#[derive(Clone, Debug)]
pub struct Exchanges {
    pub(super) logs: Sink<RecordOf>,
    pub(super) spans: Sink<SpanOf>,
    /// By scope.
    pub(super) wanted: [bool; log::SCOPES.len()],
    /// Makes objects of them first.
    pub(super) objects: Option<object::Intake>,
}

impl Exchanges {
    /// Takes exchanges; never blocks, and counts what there is no room for.
    pub fn offer(&self, batch: Vec<Transaction>) {
        let Some(batch) = self.objects(batch, false) else { return };
        let (spans, logs) = self.part(batch);
        self.spans.offer(spans);
        self.logs.offer(logs);
    }

    /// Takes exchanges and waits for room: for a source that can wait, a recording.
    pub fn offer_waiting(&self, batch: Vec<Transaction>) {
        let Some(batch) = self.objects(batch, true) else { return };
        let (spans, logs) = self.part(batch);
        self.spans.offer_waiting(spans);
        self.logs.offer_waiting(logs);
    }

    /// How many spans and log records would become of `batch`.
    pub(super) fn count(&self, batch: &[Transaction]) -> [u64; 2] {
        let spans = batch.iter().filter(|it| self.is_span(it)).count();
        [spans as u64, batch.len() as u64]
    }

    /// Counts so many of them as lost before they came here.
    pub(super) fn lose(&self, [spans, logs]: [u64; 2], reason: Reason) {
        self.spans.lose(spans, reason);
        self.logs.lose(logs, reason);
    }

    /// Takes nothing in any more.
    pub(super) fn close(&self) {
        self.spans.close();
        self.logs.close();
    }

    fn is_span(&self, transaction: &Transaction) -> bool {
        self.spans.is_wanted() && self.wanted[log::scope(transaction)]
    }

    /// What does not come back from where objects are made.
    fn objects(&self, batch: Vec<Transaction>, wait: bool) -> Option<Vec<Transaction>> {
        match &self.objects {
            Some(objects) => {
                let records = self.count(&batch);
                objects.offer(batch, records, wait)
            }
            None => Some(batch),
        }
    }

    /// What goes to the spans, and what to the log records.
    fn part(&self, batch: Vec<Transaction>) -> (Vec<SpanOf>, Vec<Transaction>) {
        if self.logs.is_wanted() {
            let spans = batch.iter().filter(|it| self.is_span(it)).cloned();
            (spans.map(SpanOf::Exchange).collect(), batch)
        } else {
            (
                batch.into_iter().filter(|it| self.is_span(it)).map(SpanOf::Exchange).collect(),
                Vec::new(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Then a batch of connections becomes one of spans where it lies, without another allocation.
    #[test]
    fn a_span_is_no_larger_than_its_connection() {
        assert_eq!(size_of::<SpanOf>(), size_of::<Connection>());
    }
}
