//! Finished connections and exchanges to standard output, by a thread of its own: a reader that hangs must not
//! hang tap, and one that is gone only means that lines are dropped and counted.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Instant,
};

use tokio::sync::oneshot;

use super::{
    items::{Counts, Items, Reason},
    line,
    queue::{self, Batch, Queue, Queued},
    table,
};
use crate::{
    connection::{model::Connection, transaction::Transaction},
    telemetry::log::Terms,
};

/// How connections are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A table for people.
    Table,
    /// JSON lines for programs.
    Lines,
}

/// Prints batches to `W`.
#[derive(Debug)]
pub struct Printer<W> {
    form: Form,
    terms: Terms,
    output: W,
    buffer: Vec<u8>,
}

impl<W: Write> Printer<W> {
    /// Prints to `output`; a table begins with its head.
    pub fn new(form: Form, terms: Terms, output: W) -> Self {
        let mut buffer = Vec::new();
        if form == Form::Table {
            table::head(&mut buffer);
        }
        Self { form, terms, output, buffer }
    }

    /// Prints a batch in one piece.
    pub fn print<T: Printed>(&mut self, batch: &Batch<T>) -> io::Result<()> {
        for item in batch.iter().flatten() {
            item.print(self.form, &self.terms, &mut self.buffer);
        }
        let written = self.output.write_all(&self.buffer).and_then(|()| self.output.flush());
        self.buffer.clear();
        written
    }
}

/// What can be printed.
pub trait Printed: Queued {
    /// Appends its line or row.
    fn print(&self, form: Form, terms: &Terms, out: &mut Vec<u8>);
}

impl Printed for Connection {
    fn print(&self, form: Form, terms: &Terms, out: &mut Vec<u8>) {
        match form {
            Form::Table => table::row(self, out),
            Form::Lines => line::line(self, &terms.limits, out),
        }
    }
}

impl Printed for Transaction {
    fn print(&self, _form: Form, terms: &Terms, out: &mut Vec<u8>) {
        line::transaction(self, terms, out);
    }
}

/// The running thread.
#[derive(Debug)]
pub struct Exporter<T> {
    queue: Arc<Queue<T>>,
    items: Arc<Items>,
    ended: oneshot::Receiver<()>,
}

impl<T: Printed> Exporter<T> {
    /// Starts printing what `queue` gives.
    pub fn start<W: Write + Send + 'static>(
        mut printer: Printer<W>,
        queue: Arc<Queue<T>>,
        items: Arc<Items>,
    ) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let (from, counts) = (queue.clone(), items.clone());
        std::thread::Builder::new().name("tap-console".into()).spawn(move || {
            let mut complained = false;
            // Begins a table at once.
            let mut batch = Some(Batch::<T>::new());
            while let Some(next) = batch {
                let spans = next.iter().map(|chunk| queue::count(chunk)).sum::<u64>();
                let printed = printer.print(&next);
                counts.update(|counts| {
                    counts.held -= spans;
                    match printed {
                        Ok(()) => counts.exported += spans,
                        Err(_) => counts.drop(Reason::Output, spans),
                    }
                });
                if let (Err(cause), false) = (printed, complained) {
                    complained = true;
                    tracing::warn!(%cause, "Standard output cannot be written; nothing is printed any more.");
                }
                batch = from.take_blocking();
            }
            // Nobody waits any more if the deadline is over.
            end.send(()).unwrap_or_default();
        })?;
        Ok(Self { queue, items, ended })
    }

    /// Prints what is queued, until `deadline`; what remains then is dropped.
    pub async fn shutdown(self, deadline: Instant) {
        self.queue.close();
        // Over either way; a thread that hangs in a write ends with the process.
        let ended = tokio::time::timeout_at(deadline.into(), self.ended).await;
        self.queue.clear();
        let late = ended.is_err();
        let end = |counts: &mut Counts| {
            let queued = std::mem::take(&mut counts.queued);
            counts.drop(Reason::Shutdown, queued);
            if !late {
                let held = std::mem::take(&mut counts.held);
                counts.drop(Reason::Shutdown, held);
            }
        };
        if late { self.items.update(end) } else { self.items.settle(end) }
    }
}
