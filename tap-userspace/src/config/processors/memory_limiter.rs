//! `memory_limiter`: items are refused while tap uses too much memory. Keys, nesting and defaults are
//! those of the Collector's processor of that name (v0.158). What it measures is the memory of the
//! daemon that is not shared with others, which is also what a container's limit counts.

use std::{borrow::Cow, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::{exporters::queue::duration, schema, values::write_duration};

/// Settings of a `memory_limiter` processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimiter {
    /// Time between two looks.
    pub check_interval: Duration,
    /// The hard limit, and how far below it the soft one is.
    pub limit: Limit,
    /// All of it as it is written.
    written: Keys,
}

/// The limits as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// In MiB.
    Mib {
        /// `limit_mib`.
        limit: u32,
        /// `spike_limit_mib`; 0: a fifth of the limit.
        spike: u32,
    },
    /// In percent of the memory that there is: the container's, else the host's.
    Percentage {
        /// `limit_percentage`.
        limit: u32,
        /// `spike_limit_percentage`; 0: a fifth of the limit.
        spike: u32,
    },
}

impl Limit {
    /// Bytes of the soft and the hard limit, where there are `total` bytes.
    pub fn bytes(self, total: u64) -> (u64, u64) {
        let (hard, spike) = match self {
            Self::Mib { limit, spike } => (u64::from(limit) << 20, u64::from(spike) << 20),
            Self::Percentage { limit, spike } => {
                let share = |percent: u32| (u128::from(total) * u128::from(percent) / 100) as u64;
                (share(limit), share(spike))
            }
        };
        let spike = if spike == 0 { hard / 5 } else { spike };
        (hard.saturating_sub(spike), hard)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::go_duration")]
    check_interval: Duration,
    limit_mib: u32,
    spike_limit_mib: u32,
    limit_percentage: u32,
    spike_limit_percentage: u32,
    // The Collector's, for its garbage collector; tap has none.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::go_duration")]
    min_gc_interval_when_soft_limited: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::go_duration")]
    min_gc_interval_when_hard_limited: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::go_duration")]
    max_gc_interval_when_soft_limited: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::go_duration")]
    max_gc_interval_when_hard_limited: Duration,
}

impl<'de> Deserialize<'de> for MemoryLimiter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let keys = Option::<Keys>::deserialize(from)?.unwrap_or_default();
        let check_interval = keys.check_interval;
        keys.limit()
            .and_then(|limit| match check_interval.as_millis() {
                0 => Err("a memory_limiter needs a `check_interval`, as 1s"),
                _ => Ok(Self { check_interval, limit, written: keys }),
            })
            .map_err(de::Error::custom)
    }
}

impl Serialize for MemoryLimiter {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(to)
    }
}

impl JsonSchema for MemoryLimiter {
    fn schema_name() -> Cow<'static, str> {
        "MemoryLimiter".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Keys::json_schema(generator)
    }
}

impl Keys {
    fn limit(&self) -> Result<Limit, &'static str> {
        let Self { limit_mib, spike_limit_mib, limit_percentage, spike_limit_percentage, .. } =
            *self;
        if limit_percentage > 100 || spike_limit_percentage > 100 {
            return Err("`limit_percentage` and `spike_limit_percentage` are at most 100");
        }
        if limit_percentage > 0 && limit_percentage <= spike_limit_percentage {
            return Err("`spike_limit_percentage` must be below `limit_percentage`");
        }
        match (limit_mib, limit_percentage) {
            (0, 0) => Err("a memory_limiter needs a `limit_mib` or a `limit_percentage`"),
            (0, limit) => Ok(Limit::Percentage { limit, spike: spike_limit_percentage }),
            (limit, _) if limit <= spike_limit_mib => {
                Err("`spike_limit_mib` must be below `limit_mib`")
            }
            (limit, _) => Ok(Limit::Mib { limit, spike: spike_limit_mib }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_the_collector_s() {
        const MIB: u64 = 1 << 20;
        for (yaml, total, expected) in [
            ("{ check_interval: 1s, limit_mib: 100 }", 0, Ok((80 * MIB, 100 * MIB))),
            (
                "{ check_interval: 1s, limit_mib: 4000, spike_limit_mib: 800 }",
                0,
                Ok((3200 * MIB, 4000 * MIB)),
            ),
            (
                "{ check_interval: 100ms, limit_percentage: 75, spike_limit_percentage: 15 }",
                1000,
                Ok((600, 750)),
            ),
            ("{ check_interval: 1s, limit_percentage: 50 }", 1000, Ok((400, 500))),
            // The fixed ones come first.
            (
                "{ check_interval: 1s, limit_mib: 10, limit_percentage: 50 }",
                1000,
                Ok((8 * MIB, 10 * MIB)),
            ),
            ("{ limit_mib: 10 }", 0, Err("check_interval")),
            ("{ check_interval: 0s, limit_mib: 10 }", 0, Err("check_interval")),
            ("{ check_interval: 1s }", 0, Err("limit_mib")),
            ("", 0, Err("limit_mib")),
            (
                "{ check_interval: 1s, limit_mib: 10, spike_limit_mib: 10 }",
                0,
                Err("spike_limit_mib"),
            ),
            ("{ check_interval: 1s, limit_percentage: 101 }", 0, Err("100")),
            (
                "{ check_interval: 1s, limit_percentage: 20, spike_limit_percentage: 20 }",
                0,
                Err("below"),
            ),
            ("{ check_interval: 1s, limit_mb: 10 }", 0, Err("limit_mib")),
        ] {
            let read = serde_yaml::from_str::<MemoryLimiter>(yaml);
            match (read, expected) {
                (Ok(read), Ok(expected)) => assert_eq!(read.limit.bytes(total), expected, "{yaml}"),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{yaml}: {error}");
                }
                (read, expected) => panic!("{yaml}: {read:?} {expected:?}"),
            }
        }
    }
}
