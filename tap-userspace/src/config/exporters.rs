//! Block `exporters` of the configuration file: how each exporter queues and tries again. Keys,
//! nesting and defaults are the Collector's (exporterhelper, configretry); what differs is said at
//! the key.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// Block `exporters`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exporters {
    /// The exporter that the environment's `OTEL_EXPORTER_OTLP_*` describe.
    #[serde(deserialize_with = "or_default")]
    pub otlp: Otlp,
}

/// `exporters.otlp`. A block that is absent leaves its part to `OTEL_BSP_*` and `OTEL_BLRP_*`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// Where requests wait.
    pub sending_queue: Option<SendingQueue>,
    /// When a request that failed is tried again.
    pub retry_on_failure: Option<RetryOnFailure>,
}

impl Exporters {
    /// The same without queues on disk, for a process that has another's configuration.
    pub fn in_memory(mut self) -> Self {
        if let Some(queue) = &mut self.otlp.sending_queue {
            queue.storage = None;
        }
        self
    }
}

/// `sending_queue`; each signal has a queue of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SendingQueue {
    /// Whether there is one.
    pub enabled: bool,
    /// Requests under way at a time: 10; with `storage` 1, which keeps the order, and after a crash
    /// no more than so many are sent twice.
    #[serde(deserialize_with = "count")]
    pub num_consumers: Option<usize>,
    /// What may wait, measured by `sizer`.
    #[serde(deserialize_with = "size")]
    pub queue_size: u64,
    /// What finds no room waits before the queue, as far as there is room there; else it is dropped.
    pub block_on_overflow: bool,
    /// What `queue_size` counts.
    pub sizer: Sizer,
    /// Folder of a queue on disk. The Collector names an extension here.
    #[serde(deserialize_with = "folder")]
    pub storage: Option<PathBuf>,
    /// Most bytes of the files of one queue in `storage`; tap's own key.
    #[serde(deserialize_with = "storage_limit")]
    pub storage_limit: u64,
}

impl Default for SendingQueue {
    fn default() -> Self {
        Self {
            enabled: true,
            num_consumers: None,
            queue_size: 1000,
            block_on_overflow: false,
            sizer: Sizer::Requests,
            storage: None,
            storage_limit: 1 << 30,
        }
    }
}

/// `sending_queue.sizer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sizer {
    /// Requests.
    #[default]
    Requests,
    /// Spans or log records.
    Items,
    /// Bytes.
    Bytes,
}

/// `retry_on_failure`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RetryKeys")]
pub struct RetryOnFailure {
    /// Whether anything is tried again.
    pub enabled: bool,
    /// The first pause.
    pub initial_interval: Duration,
    /// How much shorter or longer each pause may be, as a part of it.
    pub randomization_factor: f64,
    /// Each pause is so many times the last one.
    pub multiplier: f64,
    /// The longest pause.
    pub max_interval: Duration,
    /// A request that fails for so long is dropped; zero: never. Where it is absent, 5 minutes, or
    /// never where the queue is on disk.
    pub max_elapsed_time: Option<Duration>,
}

/// The block as it is written.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RetryKeys {
    enabled: bool,
    #[serde(deserialize_with = "duration")]
    initial_interval: Duration,
    randomization_factor: f64,
    multiplier: f64,
    #[serde(deserialize_with = "duration")]
    max_interval: Duration,
    #[serde(deserialize_with = "some_duration")]
    max_elapsed_time: Option<Duration>,
}

impl Default for RetryKeys {
    fn default() -> Self {
        Self {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            randomization_factor: 0.5,
            multiplier: 1.5,
            max_interval: Duration::from_secs(30),
            max_elapsed_time: None,
        }
    }
}

impl TryFrom<RetryKeys> for RetryOnFailure {
    type Error = &'static str;

    fn try_from(keys: RetryKeys) -> Result<Self, Self::Error> {
        let limit = keys.max_elapsed_time.filter(|limit| !limit.is_zero());
        let below = |least: Duration| limit.is_some_and(|limit| limit < least);
        if !(0.0..=1.0).contains(&keys.randomization_factor) {
            return Err("`randomization_factor` must be from 0 to 1");
        }
        if !(keys.multiplier >= 0.0 && keys.multiplier.is_finite()) {
            return Err("`multiplier` must be a number that is not negative");
        }
        if keys.enabled && below(keys.initial_interval) {
            return Err("`max_elapsed_time` must not be less than `initial_interval`");
        }
        if keys.enabled && below(keys.max_interval) {
            return Err("`max_elapsed_time` must not be less than `max_interval`");
        }
        Ok(Self {
            enabled: keys.enabled,
            initial_interval: keys.initial_interval,
            randomization_factor: keys.randomization_factor,
            multiplier: keys.multiplier,
            max_interval: keys.max_interval,
            max_elapsed_time: keys.max_elapsed_time,
        })
    }
}

/// `otlp:` with nothing behind it is all defaults, as in the Collector.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

fn count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    match Option::<i64>::deserialize(from)? {
        None => Ok(None),
        // Each is a task with a request of its own.
        Some(count @ 1..=1000) => Ok(Some(count as usize)),
        Some(count) => Err(de::Error::custom(format!("`{count}` is no count from 1 to 1000"))),
    }
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match i64::deserialize(from)? {
        size @ 1.. => Ok(size.cast_unsigned()),
        size => Err(de::Error::custom(format!("`{size}` is no size of at least 1"))),
    }
}

fn folder<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    match Option::<PathBuf>::deserialize(from)? {
        Some(folder) if !folder.is_absolute() => Err(de::Error::custom(format!(
            "`{}` is no absolute path: tap has no storage extensions, give the folder itself, as \
             /var/lib/tap/queue",
            folder.display()
        ))),
        folder => Ok(folder),
    }
}

fn storage_limit<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let super::file::Scalar(text) = super::file::Scalar::deserialize(from)?;
    match super::file::size(&text) {
        Some(bytes) if bytes >= 1 << 20 => Ok(bytes),
        _ => Err(de::Error::custom(format!("`{text}` is no size of at least 1MiB: write 1GiB"))),
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let super::file::Scalar(text) = super::file::Scalar::deserialize(from)?;
    go_duration(&text).ok_or_else(|| {
        de::Error::custom(format!("`{text}` is no duration: write 500ms, 30s, 5m or 1h30m"))
    })
}

fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// A duration as Go writes it (`time.ParseDuration`), not negative: numbers with units, `0` alone.
fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Exporters, serde_yaml::Error> {
        serde_yaml::from_str(text)
    }

    #[test]
    fn defaults_are_the_collectors() {
        let all = "otlp: { sending_queue: { enabled: true, num_consumers: 10, queue_size: 1000, \
                   block_on_overflow: false, sizer: requests, storage: null, storage_limit: 1GiB }, \
                   retry_on_failure: { enabled: true, initial_interval: 5s, \
                   randomization_factor: 0.5, multiplier: 1.5, max_interval: 30s } }";
        let mut all = parse(all).unwrap();
        let queue = all.otlp.sending_queue.as_mut().unwrap();
        assert_eq!(queue.num_consumers.take(), Some(10));
        assert_eq!(all, parse("otlp: { sending_queue: {}, retry_on_failure: {} }").unwrap());
        for nothing in ["{}", "otlp:\n", "otlp: {}"] {
            assert_eq!(parse(nothing).unwrap(), Exporters::default(), "{nothing}");
        }
    }

    #[test]
    fn the_annotated_file_says_the_defaults() {
        let file = include_str!("../../../config/tap.yaml");
        let (_, block) = file.split_once("\n  otlp: {}").unwrap();
        let lines = block.lines().filter_map(|line| line.strip_prefix("  # "));
        let said: Otlp = serde_yaml::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap();
        let mut plain = parse("otlp: { sending_queue: {}, retry_on_failure: {} }").unwrap().otlp;
        plain.sending_queue.as_mut().unwrap().num_consumers = Some(10);
        plain.retry_on_failure.as_mut().unwrap().max_elapsed_time = Some(Duration::from_secs(300));
        assert_eq!(said, plain);
    }

    #[test]
    fn a_block_of_the_contract_is_read() {
        let text = "otlp:\n  sending_queue: { queue_size: 10000, storage: /var/lib/tap/queue }\n  \
                    retry_on_failure: { max_elapsed_time: 5m }\n";
        let otlp = parse(text).unwrap().otlp;
        let (queue, retry) = (otlp.sending_queue.unwrap(), otlp.retry_on_failure.unwrap());
        assert_eq!((queue.queue_size, queue.storage), (10_000, Some("/var/lib/tap/queue".into())));
        assert_eq!(retry.max_elapsed_time, Some(Duration::from_secs(300)));
    }

    #[test]
    fn mistakes_are_told() {
        for (text, wanted) in [
            ("otlp: { sending_queue: { num_consumers: 0 } }", "no count"),
            ("otlp: { sending_queue: { num_consumers: 5000 } }", "no count"),
            ("otlp: { sending_queue: { queue_size: -1 } }", "no size"),
            ("otlp: { sending_queue: { sizer: spans } }", "spans"),
            ("otlp: { sending_queue: { storage: file_storage } }", "absolute"),
            ("otlp: { sending_queue: { storage_limit: 1KiB } }", "1MiB"),
            ("otlp: { sending_queue: { wait: true } }", "unknown field `wait`"),
            ("otlp: { retry_on_failure: { initial_interval: 5 } }", "no duration"),
            ("otlp: { retry_on_failure: { initial_interval: -5s } }", "no duration"),
            ("otlp: { retry_on_failure: { randomization_factor: 2 } }", "from 0 to 1"),
            ("otlp: { retry_on_failure: { multiplier: -1 } }", "negative"),
            ("otlp: { retry_on_failure: { multiplier: .nan } }", "negative"),
            ("otlp: { retry_on_failure: { max_elapsed_time: 1s } }", "`initial_interval`"),
            ("otlp: { retry_on_failure: { max_elapsed_time: 10s } }", "`max_interval`"),
            ("zipkin: {}", "unknown field `zipkin`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn durations_are_go_s() {
        for (text, ms) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("300ms", Some(300)),
            ("1.5h", Some(5_400_000)),
            ("1h30m", Some(5_400_000)),
            ("1m0.5s", Some(60_500)),
            ("2000us", Some(2)),
            ("", None),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("1d", None),
            ("1..5s", None),
            ("99999999999999999999999h", None),
        ] {
            assert_eq!(go_duration(text), ms.map(Duration::from_millis), "{text}");
        }
    }
}
