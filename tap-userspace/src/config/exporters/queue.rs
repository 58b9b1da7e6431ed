//! `sending_queue` and `retry_on_failure` of an exporter: how requests wait and are tried again.
//! Keys, nesting and defaults are the Collector's (exporterhelper, configretry); what differs is
//! said at the key.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::{
    place::{Mistake, Step},
    schema,
    values::{scalar, size as bytes, write_duration, write_size, write_some_duration},
};

/// `sending_queue`; each signal has a queue of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SendingQueue {
    /// Whether there is one.
    pub enabled: bool,
    /// Requests under way at a time: 10; with `storage` 1, which keeps the order, and after a crash
    /// no more than so many are sent twice.
    #[serde(deserialize_with = "count")]
    #[schemars(range(min = 1, max = 1000))]
    pub num_consumers: Option<usize>,
    /// What may wait, measured by `sizer`.
    #[serde(deserialize_with = "size")]
    #[schemars(range(min = 1))]
    pub queue_size: u64,
    /// What finds no room waits before the queue, as far as there is room there; else it is dropped.
    pub block_on_overflow: bool,
    /// What `queue_size` counts.
    pub sizer: Sizer,
    /// Folder of a queue on disk. The Collector names an extension here.
    #[serde(deserialize_with = "folder")]
    pub storage: Option<PathBuf>,
    /// Most bytes of the files of one queue in `storage`; tap's own key.
    #[serde(deserialize_with = "storage_limit", serialize_with = "write_size")]
    #[schemars(schema_with = "schema::size")]
    pub storage_limit: u64,
    /// How many items make a request, and how long they wait for it.
    pub batch: Option<Batch>,
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
            batch: None,
        }
    }
}

/// `sending_queue.batch`: what a `batch` processor would do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// Longest wait for a request to fill.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::go_duration")]
    pub flush_timeout: Duration,
    /// Fewest items of a full request.
    pub min_size: usize,
    /// Most items of a request; zero: any number.
    pub max_size: usize,
    /// What they are measured in.
    #[serde(deserialize_with = "items")]
    pub sizer: Sizer,
}

impl Default for Batch {
    fn default() -> Self {
        let flush_timeout = Duration::from_millis(200);
        Self { flush_timeout, min_size: 8192, max_size: 0, sizer: Sizer::Items }
    }
}

impl Batch {
    /// Items of a full request: one of just the least size is neither too small nor too large.
    pub fn size(&self) -> usize {
        match (self.min_size, self.max_size) {
            (0, 0) => Self::default().min_size,
            (0, most) => most,
            (least, _) => least,
        }
    }
}

/// `sending_queue.sizer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryOnFailure {
    /// Whether anything is tried again.
    pub enabled: bool,
    /// The first pause.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::go_duration")]
    pub initial_interval: Duration,
    /// How much shorter or longer each pause may be, as a part of it.
    #[serde(deserialize_with = "part")]
    #[schemars(range(min = 0, max = 1))]
    pub randomization_factor: f64,
    /// Each pause is so many times the last one.
    #[serde(deserialize_with = "factor")]
    #[schemars(range(min = 0))]
    pub multiplier: f64,
    /// The longest pause.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::go_duration")]
    pub max_interval: Duration,
    /// A request that fails for so long is dropped; zero: never. Where it is absent, 5 minutes, or
    /// never where the queue is on disk.
    #[serde(deserialize_with = "some_duration", serialize_with = "write_some_duration")]
    #[schemars(schema_with = "schema::some_go_duration")]
    pub max_elapsed_time: Option<Duration>,
}

impl Default for RetryOnFailure {
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

impl SendingQueue {
    /// What no key alone shows to be wrong.
    pub(super) fn check(&self, at: &[Step]) -> Result<(), Mistake> {
        let Some(batch) = &self.batch else { return Ok(()) };
        let at = |key, why| Err(Mistake::at(at, ["sending_queue", "batch", key], why));
        if batch.max_size > 0 && batch.max_size < batch.min_size {
            return at("max_size", "it must not be less than `min_size`, which is 8192 by default");
        }
        if batch.flush_timeout.is_zero() {
            return at("flush_timeout", "it must be more than zero");
        }
        Ok(())
    }
}

impl RetryOnFailure {
    /// What no key alone shows to be wrong.
    pub(in crate::config) fn check(&self, at: &[Step]) -> Result<(), Mistake> {
        let limit = self.max_elapsed_time.filter(|limit| self.enabled && !limit.is_zero());
        let below = |least: Duration| limit.is_some_and(|limit| limit < least);
        let other = match () {
            () if below(self.initial_interval) => "initial_interval",
            () if below(self.max_interval) => "max_interval",
            () => return Ok(()),
        };
        let why = format!("it must not be less than `{other}`");
        Err(Mistake::at(at, ["retry_on_failure", "max_elapsed_time"], why))
    }
}

fn count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    scalar(from, |text| {
        let Some(text) = text else { return Ok(None) };
        // Each is a task with a request of its own.
        let count = text.parse().ok().filter(|count| (1..=1000).contains(count));
        count.map(Some).ok_or_else(|| format!("`{text}` is no count from 1 to 1000"))
    })
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    scalar(from, |text| {
        let text = text.unwrap_or_default();
        let size = text.parse().ok().filter(|size| *size > 0);
        size.ok_or_else(|| format!("`{text}` is no size of at least 1"))
    })
}

fn folder<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    scalar(from, |text| match text.map(PathBuf::from) {
        Some(folder) if !folder.is_absolute() => Err(format!(
            "`{}` is no absolute path: tap has no storage extensions, give the folder itself, as \
             /var/lib/tap/queue",
            folder.display()
        )),
        folder => Ok(folder),
    })
}

fn items<'de, D: Deserializer<'de>>(from: D) -> Result<Sizer, D::Error> {
    scalar(from, |text| match text {
        Some("items") => Ok(Sizer::Items),
        _ => Err("tap's batches are measured in items: write `items`".into()),
    })
}

fn part<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    scalar(from, |text| {
        let part = text.and_then(|text| text.parse().ok());
        let part = part.filter(|part| (0.0..=1.0).contains(part));
        part.ok_or_else(|| format!("`{}` is no number from 0 to 1", text.unwrap_or_default()))
    })
}

fn factor<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    scalar(from, |text| {
        let factor = text.and_then(|text| text.parse().ok());
        let factor = factor.filter(|factor: &f64| factor.is_finite() && *factor >= 0.0);
        let shown = text.unwrap_or_default();
        factor.ok_or_else(|| format!("`{shown}` must be a number that is not negative"))
    })
}

fn storage_limit<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    scalar(from, |text| {
        let text = text.unwrap_or_default();
        let size = bytes(text).filter(|size| *size >= 1 << 20);
        size.ok_or_else(|| format!("`{text}` is no size of at least 1MiB: write 1GiB"))
    })
}

pub(in crate::config) fn duration<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Duration, D::Error> {
    scalar(from, |text| read_duration(text.unwrap_or_default()))
}

pub(super) fn some_duration<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    scalar(from, |text| text.map(read_duration).transpose())
}

fn read_duration(text: &str) -> Result<Duration, String> {
    go_duration(text)
        .ok_or_else(|| format!("`{text}` is no duration: write 500ms, 30s, 5m or 1h30m"))
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
