//! The smaller blocks of the configuration file: `connection`, `rings`, `trace`, `resource`, `http`,
//! `db`, `eventstore`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use tap_common::limits;

use super::{
    schema,
    values::{Scalar, Secret, duration, size, write_duration, write_size},
};

/// Block `eventstore`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EventStore {
    /// Whether each write to a backend has a span, where spans are exported.
    pub spans: bool,
}

impl Default for EventStore {
    fn default() -> Self {
        Self { spans: true }
    }
}

/// Blocks `http` and `db`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Exchanges {
    /// Whether each exchange has a span of its own, a child of its connection's.
    pub spans: bool,
}

/// Block `connection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Connections {
    /// After this long a connection's span is exported and its next segment begins.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::duration")]
    pub max_age: Duration,
    /// Whether log records tell when a connection opens, goes on for so long, and is over.
    pub logs: bool,
    /// Most connections that are open at a time; the oldest goes.
    pub table_size: usize,
}

impl Default for Connections {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(600), logs: false, table_size: 262_144 }
    }
}

/// Block `rings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rings {
    /// Bytes for opens, closes and process life, which must not be lost: a power of two from 64KiB to
    /// 1GiB.
    #[serde(deserialize_with = "ring_size", serialize_with = "write_size")]
    #[schemars(schema_with = "schema::size")]
    pub life: u32,
    /// Bytes for turns and payload, which may be shed: a power of two from 64KiB to 1GiB.
    #[serde(deserialize_with = "ring_size", serialize_with = "write_size")]
    #[schemars(schema_with = "schema::size")]
    pub data: u32,
}

impl Default for Rings {
    fn default() -> Self {
        Self { life: limits::LIFE_RING_DEFAULT, data: limits::DATA_RING_DEFAULT }
    }
}

/// Block `trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// How trace ids are made.
    pub identity: TraceIdentity,
    /// Fleet secret mixed into shared ids.
    pub key: Option<Secret>,
}

/// `trace.identity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TraceIdentity {
    /// Derived from the initial sequence numbers, so both ends agree.
    #[default]
    Shared,
    /// Random.
    Random,
    /// Random, the first 32 bits the time, as AWS X-Ray wants.
    Xray,
}

/// Block `resource`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Detectors {
    /// Clouds whose metadata service is asked at the start; nobody is asked by default.
    pub detectors: Vec<Detector>,
    /// Longest wait for each.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::duration")]
    pub timeout: Duration,
}

impl Default for Detectors {
    fn default() -> Self {
        Self { detectors: Vec::new(), timeout: Duration::from_secs(5) }
    }
}

/// Of `resource.detectors`, named as the Collector's resource detection processor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Detector {
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    Gcp,
    /// Azure.
    Azure,
}

impl Detector {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Gcp => "gcp",
            Self::Azure => "azure",
        }
    }
}

fn ring_size<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let Scalar(text) = Scalar::deserialize(from)?;
    match size(&text) {
        Some(bytes) if bytes.is_power_of_two() && (1 << 16..=1 << 30).contains(&bytes) => {
            Ok(bytes as u32)
        }
        _ => Err(de::Error::custom(format!(
            "`{text}` is no ring size: write a power of two from 64KiB to 1GiB, as 16MiB"
        ))),
    }
}
