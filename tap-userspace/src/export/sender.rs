//! Requests to where one exporter sends them, again and again while that may help. Comes in: a request in its
//! protocol's form; goes out: an [`End`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    complaints::Complaints,
    items::{Attempt, Counts, Items, Reason},
    retry::{Backoff, Retry},
    transport::{Outcome, Prepared, Transport},
    writes::{Begun, Writer},
};
use crate::telemetry::eventstore::Became;

/// Longest pause between attempts once tap is leaving.
const LEAVING_PAUSE: Duration = Duration::from_millis(250);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The receiver has taken all but `rejected` items.
    Taken {
        /// Items that it refuses for good.
        rejected: u64,
    },
    /// The receiver refuses all of it for good.
    Refused,
    /// It was tried for too long.
    Exhausted,
    /// tap leaves, and somebody else will send it.
    Left,
}

impl End {
    /// Puts the items of a request where they belong; the caller has taken them from elsewhere.
    pub const fn book(self, counts: &mut Counts, count: u64) {
        match self {
            Self::Taken { rejected } => {
                counts.exported += count - rejected;
                counts.rejected += rejected;
            }
            Self::Refused => counts.rejected += count,
            Self::Exhausted => counts.drop(Reason::RetryExhausted, count),
            Self::Left => counts.held += count,
        }
    }
}

/// A request on its way to its end.
#[derive(Debug)]
pub struct Sending {
    message: Prepared,
    count: u64,
    began: Instant,
    /// What its span will tell, if there is to be one.
    write: Option<Begun>,
}

impl Sending {
    /// The memory, to be used again; `None` where somebody still reads it.
    pub fn into_buffer(self) -> Option<Vec<u8>> {
        self.message.into_buffer()
    }
}

/// The way to one endpoint, and how long it is tried.
#[derive(Debug)]
pub struct Sender {
    transport: Transport,
    retry: Retry,
    complaints: Complaints,
    writer: Writer,
    items: Arc<Items>,
    leaving: watch::Receiver<bool>,
}

impl Sender {
    /// Sends by `transport`; `writer` is told of requests, `items` counts attempts, and `leaving`
    /// says when tap is about to end.
    pub fn new(
        transport: Transport,
        retry: Retry,
        writer: Writer,
        items: Arc<Items>,
        leaving: watch::Receiver<bool>,
    ) -> Self {
        Self { transport, retry, complaints: Complaints::default(), writer, items, leaving }
    }

    /// When a request is tried again.
    pub const fn retry(&self) -> Retry {
        self.retry
    }

    /// Brings the request `message[start..]` of `count` items into its protocol's form.
    pub fn prepare(&self, message: Vec<u8>, start: usize, count: u64) -> Result<Sending, End> {
        let request = self.transport.otlp(&message[start..]);
        let mut write = self.writer.begin(request.unwrap_or_default(), count);
        match self.transport.prepare(message, start) {
            Ok(message) => {
                // What the encoding took is none of the backend's time.
                if let Some(write) = &mut write {
                    write.start();
                }
                Ok(Sending { message, count, began: Instant::now(), write })
            }
            Err(cause) => {
                self.refused(&cause, "report this as a bug", count);
                Err(End::Refused)
            }
        }
    }

    /// Sends a request until it is taken or refused, or it has taken too long; or, if it is `kept`
    /// elsewhere, until tap leaves and the receiver does not take it.
    pub async fn deliver(&self, sending: &mut Sending, kept: bool) -> End {
        let mut backoff = Backoff::new(self.retry);
        loop {
            let asked = match self.attempt(sending).await {
                Ok(end) => return end,
                Err(asked) => asked,
            };
            if let Some(end) = self.wait(&mut backoff, asked, sending, kept).await {
                return end;
            }
        }
    }

    /// One attempt; an error is worth another one, which the receiver may have told when to make.
    pub async fn attempt(&self, sending: &mut Sending) -> Result<End, Option<Duration>> {
        let count = sending.count;
        let left = self.retry.give_up.map(|limit| limit.saturating_sub(sending.began.elapsed()));
        let timeout = match (self.transport.timeout(), left) {
            (Some(timeout), Some(left)) => Some(timeout.min(left)),
            (timeout, left) => timeout.or(left),
        };
        if let Some(write) = &mut sending.write {
            write.attempt();
        }
        match self.transport.attempt(&sending.message, timeout).await {
            Outcome::Taken { rejected, message } => {
                self.items.attempted(Attempt::Taken);
                let rejected = rejected.min(count);
                if rejected > 0 {
                    self.refused(&message, "look into the collector's log", rejected);
                } else if message.is_empty() {
                    self.complaints.recovered(&self.transport.endpoint());
                } else {
                    self.warned(&message);
                }
                self.told(
                    sending,
                    if rejected > 0 { Became::Partial(rejected) } else { Became::Ok },
                );
                Ok(End::Taken { rejected })
            }
            Outcome::Refused { cause, remedy, error } => {
                self.items.attempted(Attempt::Refused);
                self.refused(&cause, remedy, count);
                if let Some(write) = &mut sending.write {
                    write.failed(error);
                }
                self.told(sending, Became::Refused);
                Ok(End::Refused)
            }
            Outcome::Again { cause, after, error } => {
                self.items.attempted(Attempt::Failed);
                self.unreachable(&cause);
                if let Some(write) = &mut sending.write {
                    write.failed(error);
                }
                Err(after)
            }
        }
    }

    /// The pause before the next attempt, or why there is none.
    pub async fn wait(
        &self,
        backoff: &mut Backoff,
        asked: Option<Duration>,
        sending: &mut Sending,
        kept: bool,
    ) -> Option<End> {
        let mut leaving = self.leaving.clone();
        if kept && *leaving.borrow() {
            return Some(End::Left);
        }
        let pause = backoff.pause(asked);
        let spent = sending.began.elapsed() + pause;
        let exhausted = self.retry.give_up.is_some_and(|limit| spent > limit);
        if exhausted || !self.retry.enabled {
            self.told(sending, Became::Dropped);
            return Some(End::Exhausted);
        }
        if asked.is_some() && !kept {
            // The receiver is not asked before it wants to be.
            tokio::time::sleep(pause).await;
        } else if *leaving.borrow() {
            tokio::time::sleep(pause.min(LEAVING_PAUSE)).await;
        } else {
            // Whichever is first.
            drop(tokio::time::timeout(pause, leaving.changed()).await);
        }
        (kept && *leaving.borrow()).then_some(End::Left)
    }

    /// The request's span tells what became of it.
    fn told(&self, sending: &mut Sending, became: Became) {
        self.writer.end(sending.write.take(), sending.message.len() as u64, became);
    }

    fn unreachable(&self, cause: &str) {
        if self.complaints.may() {
            let (exporter, endpoint) = (self.transport.exporter(), self.transport.endpoint());
            let (items, remedy) = (self.transport.items(), self.transport.remedy());
            let [_, sent] = self.transport.words();
            tracing::warn!(exporter, endpoint, cause, remedy, "{items} cannot be {sent}.");
        }
    }

    /// All is taken, and there is something to say of it.
    fn warned(&self, said: &str) {
        if self.complaints.may() {
            let (exporter, endpoint) = (self.transport.exporter(), self.transport.endpoint());
            let items = self.transport.items().to_lowercase();
            tracing::warn!(exporter, endpoint, said, "The collector has taken {items}, and warns.");
        }
    }

    fn refused(&self, cause: &str, remedy: &str, rejected: u64) {
        if self.complaints.may() {
            let (exporter, endpoint) = (self.transport.exporter(), self.transport.endpoint());
            let items = self.transport.items().to_lowercase();
            let [receiver, _] = self.transport.words();
            tracing::warn!(
                exporter,
                endpoint,
                cause,
                remedy,
                rejected,
                "The {receiver} refuses {items}."
            );
        }
    }
}
