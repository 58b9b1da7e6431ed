//! What the logs pipeline carries: records of exchanges and, where the configuration asks for them,
//! of connections. One queue takes both, so one identity counts both.

use super::{
    Sink,
    console::{Form, Printed},
    line, otlp,
    queue::Queued,
};
use crate::{
    connection::{clock, life::Life, model::Connection, transaction::Transaction},
    policy::{
        data::{LogRecord, Record as _, Source, encode},
        stage::Processed,
    },
    telemetry::{life, log, span},
};

/// What becomes a log record.
#[derive(Clone, Debug)]
pub enum RecordOf {
    /// An exchange.
    Exchange(Transaction),
    /// A moment of a connection.
    Connection(Box<Life>),
    /// Whatever it was, processors have had it.
    Made(Box<LogRecord>),
}

impl Processed for RecordOf {
    type Record = LogRecord;

    fn made(record: LogRecord) -> Self {
        Self::Made(Box::new(record))
    }
}

impl From<Transaction> for RecordOf {
    fn from(transaction: Transaction) -> Self {
        Self::Exchange(transaction)
    }
}

impl Queued for RecordOf {
    fn weight(&self) -> usize {
        match self {
            Self::Exchange(transaction) => transaction.weight(),
            // Its process is shared with others.
            Self::Connection(life) => {
                size_of::<Self>()
                    + size_of::<Life>()
                    + life.server.as_ref().map_or(0, |name| name.len())
            }
            Self::Made(record) => size_of::<Self>() + record.weight(),
        }
    }

    fn trace_id(&self) -> &[u8; 16] {
        match self {
            Self::Exchange(transaction) => transaction.trace_id(),
            Self::Connection(life) => &life.identity.trace_id,
            Self::Made(record) => &record.trace_id,
        }
    }
}

impl Printed for RecordOf {
    fn print(&self, form: Form, terms: &log::Terms, out: &mut Vec<u8>) {
        match self {
            Self::Exchange(transaction) => transaction.print(form, terms, out),
            Self::Connection(life) => line::life(life, terms, out),
            Self::Made(record) => line::record(record, out),
        }
    }
}

/// Encodes them.
pub struct Records(pub log::Terms);

impl otlp::Encoder for Records {
    type Item = RecordOf;
    const SCOPES: &'static [&'static str] = &[log::SCOPES[0], log::SCOPES[1], span::SCOPE];

    fn scope(&self, of: &RecordOf) -> usize {
        match of {
            RecordOf::Exchange(transaction) => log::scope(transaction),
            RecordOf::Connection(_) | RecordOf::Made(_) => log::SCOPES.len(),
        }
    }

    fn source<'a>(&self, of: &'a RecordOf) -> Option<&'a Source> {
        match of {
            RecordOf::Made(record) => Some(&record.source),
            _ => None,
        }
    }

    fn encode(&self, of: &RecordOf, out: &mut Vec<u8>) {
        let observed_ns = clock::wall();
        match of {
            RecordOf::Exchange(transaction) => {
                log::encode(transaction, &self.0, observed_ns, out);
            }
            RecordOf::Connection(life) => life::encode(life, &self.0, observed_ns, out),
            RecordOf::Made(record) => encode::log_record(record, out),
        }
    }
}

/// The way in for moments of connections; `None` where nobody wants them.
#[derive(Clone, Debug)]
pub struct Lives(pub(super) Option<Sink<RecordOf>>);

impl Lives {
    /// Whether anybody takes them.
    pub const fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Takes what opened; never blocks, and counts what there is no room for.
    pub fn opened(&self, lives: Vec<Life>) {
        if let Some(sink) = &self.0 {
            sink.offer(records(lives));
        }
    }

    /// The same for a source that can wait, a recording.
    pub fn opened_waiting(&self, lives: Vec<Life>) {
        if let Some(sink) = &self.0 {
            sink.offer_waiting(records(lives));
        }
    }

    /// Takes the ends of connections, or of segments of them.
    pub fn ended(&self, connections: &[Connection]) {
        self.opened(self.of(connections));
    }

    /// The same for a source that can wait.
    pub fn ended_waiting(&self, connections: &[Connection]) {
        self.opened_waiting(self.of(connections));
    }

    fn of(&self, connections: &[Connection]) -> Vec<Life> {
        // Not a step for each connection where nobody listens.
        let wanted = if self.is_wanted() { connections } else { &[] };
        wanted.iter().map(Life::from).collect()
    }
}

fn records(lives: Vec<Life>) -> Vec<RecordOf> {
    lives.into_iter().map(|life| RecordOf::Connection(Box::new(life))).collect()
}
