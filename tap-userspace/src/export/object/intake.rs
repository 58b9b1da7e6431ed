//! The way to the thread that makes objects. Comes in: transactions; goes out: the same to the thread, or back
//! where there is no room. Owns the count of what is inside, so that what the thread cannot finish in
//! time is counted to the unit.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
    mpsc::{SyncSender, TrySendError},
};

use crate::{
    connection::transaction::Transaction,
    export::{
        items::{Items, Reason},
        queue::Queued as _,
    },
    protocol::exchange::Message,
};

/// What the thread is given.
pub(super) enum Given {
    /// Transactions; whether it may wait for room on their behalf.
    Batch(Vec<Transaction>, bool),
    /// No more.
    End,
}

/// What is to become of transactions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Due {
    /// Objects, at most.
    pub objects: u64,
    /// Spans and log records.
    pub records: [u64; 2],
}

/// What is due of the transactions that were given to the thread and that it has not handed on. Once
/// it is given up nobody else may count it, and the thread ends.
#[derive(Debug)]
pub(super) struct Inside(Mutex<Option<Due>>);

impl Default for Inside {
    fn default() -> Self {
        Self(Mutex::new(Some(Due::default())))
    }
}

impl Inside {
    /// Changes what is due; `None` where that was given up.
    fn change(&self, change: impl FnOnce(&mut Due)) -> Option<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(change)
    }

    /// So much more is inside; `None` where it was given up.
    pub fn add(&self, due: Due) -> Option<()> {
        self.change(|all| {
            all.objects += due.objects;
            all.records[0] += due.records[0];
            all.records[1] += due.records[1];
        })
    }

    /// So much is no longer inside; `None` where it was given up.
    pub fn take(&self, due: Due) -> Option<()> {
        self.change(|all| {
            all.objects -= due.objects;
            all.records[0] -= due.records[0];
            all.records[1] -= due.records[1];
        })
    }

    /// All that is inside, which from now on nobody else counts.
    pub fn give_up(&self) -> Due {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }
}

/// The way in for transactions.
#[derive(Clone, Debug)]
pub struct Intake {
    pub(super) sender: SyncSender<Given>,
    /// Bytes of what is inside.
    pub(super) bytes: Arc<AtomicUsize>,
    /// Most bytes of it, where nobody may wait.
    pub(super) most: usize,
    /// Counts of objects.
    pub(super) items: Arc<Items>,
    pub(super) inside: Arc<Inside>,
}

impl Intake {
    /// Takes transactions, of which so many spans and log `records` will become; waits for room if it
    /// `may`. What there is no room for comes back, to go on without objects.
    pub fn offer(
        &self,
        batch: Vec<Transaction>,
        records: [u64; 2],
        may: bool,
    ) -> Option<Vec<Transaction>> {
        // Nobody knows yet which of them will become objects.
        let objects = batch.iter().filter(|it| is_http(it)).count() as u64;
        let due = Due { objects, records };
        let weight = weight(&batch);
        let before = self.bytes.fetch_add(weight, Relaxed);
        let (back, reason) = if !may && before > self.most {
            (batch, Reason::QueueFull)
        } else if self.inside.add(due).is_none() {
            (batch, Reason::Shutdown)
        } else {
            let (back, reason) = match self.give(Given::Batch(batch, may), may) {
                Ok(()) => return None,
                Err(TrySendError::Full(back)) => (back, Reason::QueueFull),
                Err(TrySendError::Disconnected(back)) => (back, Reason::Shutdown),
            };
            // What was given up meanwhile is counted.
            self.inside.take(due)?;
            let Given::Batch(batch, _) = back else { return None };
            (batch, reason)
        };
        Some(self.refused(back, weight, objects, reason))
    }

    fn give(&self, given: Given, may: bool) -> Result<(), TrySendError<Given>> {
        match may {
            true => self.sender.send(given).map_err(|error| TrySendError::Disconnected(error.0)),
            false => self.sender.try_send(given),
        }
    }

    fn refused(
        &self,
        mut batch: Vec<Transaction>,
        weight: usize,
        objects: u64,
        reason: Reason,
    ) -> Vec<Transaction> {
        self.bytes.fetch_sub(weight, Relaxed);
        batch.iter_mut().for_each(forget_content);
        self.items.update(|counts| {
            counts.produced += objects;
            counts.drop(reason, objects);
        });
        batch
    }
}

pub(super) fn weight(batch: &[Transaction]) -> usize {
    batch.iter().map(|transaction| transaction.weight()).sum()
}

pub(super) const fn is_http(transaction: &Transaction) -> bool {
    matches!(transaction.exchange.message, Message::Http(_))
}

pub(super) fn forget_content(transaction: &mut Transaction) {
    if let Message::Http(http) = &mut transaction.exchange.message {
        http.content = None;
    }
}
