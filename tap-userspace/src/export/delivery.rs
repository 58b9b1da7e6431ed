//! How items wait and are sent: what the configuration's `sending_queue` and `retry_on_failure`
//! say, and where they are silent the environment's `OTEL_BSP_*` and `OTEL_BLRP_*`, made into one
//! set of settings for one signal of one exporter.

use std::{path::PathBuf, time::Duration};

use super::{disk::Limits, queue::Bounds, retry::Retry};
use crate::config::{
    environment::{Batching, Metering},
    exporters::{File, Otlp, RetryOnFailure, SendingQueue, Sizer},
    http_capture::HttpCapture,
    processors::Batch,
};

/// Requests under way at a time without a `sending_queue`: a distant collector's round trip must
/// not be the limit.
const CONSUMERS: usize = 4;

/// The Collector's `num_consumers`.
const QUEUE_CONSUMERS: usize = 10;

/// Readings of metrics that wait at a time where the configuration says nothing.
const MOST_READINGS: usize = 1000;

/// Longest pause between attempts to write to a file.
const FILE_AGAIN: Duration = Duration::from_secs(5);

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

/// What a `batch` processor makes of the environment's batching: the queue holds two batches at
/// least, one that fills and one that leaves.
pub fn batched(batch: &Batch, batching: &Batching) -> Batching {
    let size = match batch.send_batch_max_size {
        0 => batch.send_batch_size.max(1),
        most => batch.send_batch_size.clamp(1, most),
    };
    Batching {
        max_batch: size,
        max_queue: batching.max_queue.max(size.saturating_mul(2)),
        delay: batch.timeout,
        ..batching.clone()
    }
}

impl Delivery {
    /// What `exporter` and `batching` make together.
    pub fn new(exporter: &Otlp, batching: &Batching) -> Self {
        let queue = exporter.sending_queue.as_ref();
        let batch = queue.and_then(|queue| queue.batch.as_ref());
        let batching = &match batch {
            Some(batch) => Batching {
                max_batch: batch.size(),
                max_queue: batching.max_queue.max(batch.size()),
                delay: batch.flush_timeout,
                ..batching.clone()
            },
            None => batching.clone(),
        };
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
            retry: retry(exporter.retry_on_failure.as_ref(), batching.give_up, storage.is_some()),
            storage,
        }
    }

    /// The same for metrics, of which one reading is a request or more: what waits is measured in
    /// these, and they leave one after the other, since an old number must not follow a newer one.
    pub fn of_metrics(exporter: &Otlp, batching: &Batching, metering: &Metering) -> Self {
        let one = Batching {
            max_queue: MOST_READINGS,
            max_batch: 1,
            delay: Duration::ZERO,
            give_up: metering.give_up,
            ..batching.clone()
        };
        let mut delivery = Self::new(exporter, &one);
        delivery.bounds.batch = 1;
        delivery.bounds.delay = Duration::ZERO;
        delivery.bounds.bytes = delivery.bounds.bytes.min(batching.max_bytes);
        delivery.consumers = 1;
        delivery
    }

    /// The same for objects: each is a request of its own. One that is stored twice is the same one,
    /// so several leave at a time, from the disk too.
    pub fn of_objects(capture: &HttpCapture) -> Self {
        let queue = &capture.sending_queue;
        let storage = storage(queue);
        let size = usize::try_from(queue.queue_size).unwrap_or(usize::MAX);
        let (items, bytes) = match queue.sizer {
            // The disk has bounds of its own.
            _ if storage.is_some() => (usize::MAX, usize::MAX),
            Sizer::Requests | Sizer::Items => (size, usize::MAX),
            Sizer::Bytes => (usize::MAX, size),
        };
        let bytes = bytes.min(capture.memory_limit);
        let give_up = Retry::default().give_up;
        Self {
            bounds: Bounds { items, bytes, batch: 1, delay: Duration::ZERO },
            consumers: queue.num_consumers.unwrap_or(QUEUE_CONSUMERS),
            block: false,
            retry: retry(capture.retry_on_failure.as_ref(), give_up, storage.is_some()),
            storage,
        }
    }

    /// What is written to a file waits in memory, and is written in its order.
    pub fn of_file(mut self, file: &File) -> Self {
        self.bounds.delay = file.flush_interval;
        self.consumers = 1;
        // A file is near: it is looked at again soon.
        self.retry.longest = FILE_AGAIN;
        self
    }
}

/// The folder, in that of all queues, of a signal's queue at an exporter. Others' names make others,
/// `otlp/tempo` too.
pub fn folder(exporter: &str, signal: &str) -> String {
    let escaped = exporter.replace('%', "%25").replace('/', "%2F");
    format!("{escaped}-{signal}")
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

/// The queue on disk that a `sending_queue` asks for.
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
fn retry(block: Option<&RetryOnFailure>, give_up: Option<Duration>, stored: bool) -> Retry {
    match block {
        Some(block) => Retry::of(block, stored),
        None => Retry { give_up: give_up.filter(|_| !stored), ..Retry::default() },
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

    #[test]
    fn batches_may_be_the_queues_own() {
        let own = of("sending_queue: { batch: { flush_timeout: 2s, min_size: 9000 } }");
        let bounds = own.bounds;
        assert_eq!((bounds.batch, bounds.delay), (9_000, Duration::from_secs(2)));
        assert_eq!(bounds.items, 9_000_000);
        for (yaml, size) in [("{}", 8192), ("{ min_size: 0, max_size: 7 }", 7)] {
            let bounds = of(&format!("sending_queue: {{ storage: /q, batch: {yaml} }}")).bounds;
            assert_eq!((bounds.batch, bounds.items), (size, 2_048.max(size)), "{yaml}");
        }
    }

    #[test]
    fn metrics_and_files_keep_their_order() {
        let environment = crate::config::environment::Environment::read([("", ""); 0]).unwrap();
        let (batching, metering) = (Batching::default(), environment.metering());
        let of = |yaml: &str| {
            let exporter = serde_yaml::from_str(yaml).unwrap();
            Delivery::of_metrics(&exporter, &batching, metering)
        };
        for (yaml, items, give_up) in [
            ("{}", 1_000, Some(30)),
            ("sending_queue: { queue_size: 7, num_consumers: 10 }", 7, Some(30)),
            ("retry_on_failure: {}", 1_000, Some(300)),
            ("sending_queue: { storage: /q }", 1_000, None),
        ] {
            let Delivery { bounds, consumers, retry, .. } = of(yaml);
            assert_eq!((bounds.items, bounds.batch, consumers), (items, 1, 1), "{yaml}");
            assert_eq!((bounds.delay, bounds.bytes), (Duration::ZERO, 64 << 20), "{yaml}");
            assert_eq!(retry.give_up.map(|limit| limit.as_secs()), give_up, "{yaml}");
        }
        let file = File { flush_interval: Duration::from_secs(9), ..File::default() };
        let written = Delivery::new(&Otlp::default(), &batching).of_file(&file);
        assert_eq!((written.bounds.delay, written.consumers), (file.flush_interval, 1));
        assert_eq!(written.bounds.items, 65_536);
    }

    #[test]
    fn objects_leave_one_by_one_and_several_at_a_time() {
        let memory = 64 << 20;
        for (yaml, items, bytes, consumers, give_up) in [
            ("{}", 1_000, memory, 10, Some(300)),
            ("sending_queue: { queue_size: 7, num_consumers: 3 }", 7, memory, 3, Some(300)),
            ("sending_queue: { queue_size: 9, sizer: bytes }", usize::MAX, 9, 10, Some(300)),
            ("sending_queue: { storage: /q, queue_size: 7 }", usize::MAX, memory, 10, None),
            ("retry_on_failure: { max_elapsed_time: 1m }", 1_000, memory, 10, Some(60)),
        ] {
            let of = Delivery::of_objects(&serde_yaml::from_str(yaml).unwrap());
            assert_eq!((of.bounds.items, of.bounds.bytes, of.consumers), (items, bytes, consumers));
            assert_eq!((of.bounds.batch, of.bounds.delay), (1, Duration::ZERO));
            assert_eq!(of.retry.give_up.map(|limit| limit.as_secs()), give_up, "{yaml}");
            assert_eq!(of.storage.is_some(), yaml.contains("storage"), "{yaml}");
        }
    }

    #[test]
    fn every_queue_has_a_folder_of_its_own() {
        let names = ["otlp", "otlp/tempo", "otlp%2Ftempo", "otlp/a/b", "otlp/.."];
        let folders = names.map(|name| folder(name, "logs"));
        assert_eq!(folders[..2], ["otlp-logs", "otlp%2Ftempo-logs"]);
        for (index, folder) in folders.iter().enumerate() {
            assert!(!folder.contains('/') && !folders[..index].contains(folder), "{folder}");
        }
    }
}
