//! How items wait and are sent: what the configuration's `sending_queue` and `retry_on_failure`
//! say, and where they are silent the environment's `OTEL_BSP_*` and `OTEL_BLRP_*`, made into one
//! set of settings for one signal of one exporter.

use std::path::PathBuf;

use super::{disk::Limits, queue::Bounds, retry::Retry};
use crate::config::{
    environment::Batching,
    exporters::{Otlp, SendingQueue, Sizer},
};

/// Requests under way at a time without a `sending_queue`: a distant collector's round trip must
/// not be the limit.
const CONSUMERS: usize = 4;

/// The Collector's `num_consumers`.
const QUEUE_CONSUMERS: usize = 10;

/// Batches on disk at a time, whatever the sizer: each has 48 bytes in memory.
const MOST_BATCHES: u64 = 1 << 20;

/// The settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The queue in memory, where batches are made.
    pub bounds: Bounds,
    /// Requests under way at a time.
    pub consumers: usize,
    /// What finds no room on disk waits for it, in memory.
    pub block: bool,
    /// When a request is tried again.
    pub retry: Retry,
    /// The queue on disk.
    pub storage: Option<Storage>,
}

/// A queue on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The folder of all queues.
    pub folder: PathBuf,
    /// How much may wait there.
    pub limits: Limits,
}

impl Delivery {
    /// What `exporter` and `batching` make together.
    pub fn new(exporter: &Otlp, batching: &Batching) -> Self {
        let queue = exporter.sending_queue.as_ref();
        let storage = queue.filter(|queue| queue.enabled).and_then(storage);
        let consumers = match queue {
            None => CONSUMERS,
            // As in the Collector, whoever brings a batch sends it.
            Some(queue) if !queue.enabled => 1,
            // In order, and no more than one batch is sent twice after a crash.
            Some(queue) if storage.is_some() => queue.num_consumers.unwrap_or(1),
            Some(queue) => queue.num_consumers.unwrap_or(QUEUE_CONSUMERS),
        };
        Self {
            bounds: match queue {
                Some(queue) if queue.enabled && storage.is_none() => in_memory(queue, batching),
                _ => bounds(batching),
            },
            consumers,
            block: queue.is_some_and(|queue| queue.block_on_overflow),
            retry: retry(exporter, batching, storage.is_some()),
            storage,
        }
    }
}

const fn bounds(batching: &Batching) -> Bounds {
    Bounds {
        items: batching.max_queue,
        bytes: batching.max_bytes,
        batch: batching.max_batch,
        delay: batching.delay,
    }
}

/// The sending queue in memory holds what is not encoded yet, so a request is a full batch there.
/// What blocks in the Collector waits before the queue, where the batch processor's bounds hold:
/// the thread that traces never waits.
fn in_memory(queue: &SendingQueue, batching: &Batching) -> Bounds {
    let size = usize::try_from(queue.queue_size).unwrap_or(usize::MAX);
    let (items, bytes) = match queue.sizer {
        Sizer::Requests => (size.saturating_mul(batching.max_batch), usize::MAX),
        Sizer::Items => (size, usize::MAX),
        Sizer::Bytes => (usize::MAX, size),
    };
    let before = bounds(batching);
    let more = |most: usize, before: usize| {
        if queue.block_on_overflow { most.saturating_add(before) } else { most }
    };
    Bounds {
        items: more(items, before.items),
        bytes: more(bytes, before.bytes),
        batch: before.batch.min(items),
        ..before
    }
}

fn storage(queue: &SendingQueue) -> Option<Storage> {
    let folder = queue.storage.clone()?;
    let size = |sizer| if queue.sizer == sizer { queue.queue_size } else { u64::MAX };
    let limits = Limits {
        batches: size(Sizer::Requests).min(MOST_BATCHES),
        items: size(Sizer::Items),
        bytes: size(Sizer::Bytes),
        disk: queue.storage_limit,
    };
    Some(Storage { folder, limits })
}

/// On disk nothing is given up unless the configuration says so: that would lose what was accepted.
fn retry(exporter: &Otlp, batching: &Batching, stored: bool) -> Retry {
    let Some(block) = &exporter.retry_on_failure else {
        let give_up = if stored { None } else { batching.give_up };
        return Retry { give_up, ..Retry::default() };
    };
    let default = if stored { None } else { Retry::default().give_up };
    Retry {
        enabled: block.enabled,
        initial: block.initial_interval,
        randomization: block.randomization_factor,
        multiplier: block.multiplier,
        longest: block.max_interval,
        give_up: match block.max_elapsed_time {
            None => default,
            Some(limit) => Some(limit).filter(|limit| !limit.is_zero()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(yaml: &str) -> Delivery {
        let batching = Batching { max_queue: 2_048, max_batch: 100, ..Batching::default() };
        Delivery::new(&serde_yaml::from_str(yaml).unwrap(), &batching)
    }

    #[test]
    fn the_environment_holds_where_the_file_is_silent() {
        let silent = of("{}");
        assert_eq!((silent.bounds.items, silent.bounds.batch, silent.consumers), (2_048, 100, 4));
        assert_eq!(silent.retry, Retry::default());
        let off = of("sending_queue: { enabled: false, storage: /x }");
        assert_eq!((off.bounds.items, off.consumers, off.storage), (2_048, 1, None));
    }

    #[test]
    fn a_queue_in_memory_is_as_large_as_it_says() {
        for (yaml, items, bytes, batch) in [
            ("sending_queue: {}", 100_000, usize::MAX, 100),
            ("sending_queue: { queue_size: 7 }", 700, usize::MAX, 100),
            ("sending_queue: { queue_size: 7, block_on_overflow: true }", 2_748, usize::MAX, 100),
            ("sending_queue: { queue_size: 7, sizer: items }", 7, usize::MAX, 7),
            ("sending_queue: { queue_size: 65536, sizer: bytes }", usize::MAX, 65_536, 100),
        ] {
            let Delivery { bounds, consumers, retry, .. } = of(yaml);
            assert_eq!((bounds.items, bounds.bytes, bounds.batch), (items, bytes, batch), "{yaml}");
            assert_eq!((consumers, retry.give_up), (10, Some(Duration::from_secs(300))), "{yaml}");
        }
    }

    #[test]
    fn a_queue_on_disk_keeps_order_and_gives_nothing_up() {
        let stored = of("sending_queue: { storage: /q, queue_size: 9 }\nretry_on_failure: {}");
        let limits = Limits { batches: 9, items: u64::MAX, bytes: u64::MAX, disk: 1 << 30 };
        assert_eq!(stored.storage, Some(Storage { folder: "/q".into(), limits }));
        assert_eq!((stored.consumers, stored.bounds.items), (1, 2_048));
        assert_eq!((stored.retry.give_up, stored.retry.initial), (None, Duration::from_secs(5)));
        let told = of("sending_queue: { storage: /q, num_consumers: 3, sizer: bytes }\n\
                       retry_on_failure: { max_elapsed_time: 5m }");
        assert_eq!((told.consumers, told.storage.unwrap().limits.bytes), (3, 1_000));
        assert_eq!(told.retry.give_up, Some(Duration::from_secs(300)));
        let never = of("retry_on_failure: { max_elapsed_time: 0, initial_interval: 250ms }");
        assert_eq!((never.retry.give_up, never.retry.initial.as_millis()), (None, 250));
    }
}
