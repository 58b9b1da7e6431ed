//! `probabilistic_sampler`: a share of all traces, and of log records, goes on. Keys, defaults and what
//! is kept are those of the Collector's processor of that name (v0.158).

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::policy::probability::{DIGITS, SMALLEST};

/// Settings of a `probabilistic_sampler` processor.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProbabilisticSampler {
    /// Percent that go on; 100 and more: all.
    #[serde(deserialize_with = "percentage")]
    pub sampling_percentage: f32,
    /// Samplers that follow one another keep the same items with the same seed, others with others.
    pub hash_seed: u32,
    /// How it is chosen; `hash_seed` where it is not said.
    pub mode: Mode,
    /// What cannot be decided (no randomness, a `tracestate` that cannot be read) does not go on.
    pub fail_closed: bool,
    /// Hex digits of a threshold, 1 to 14.
    #[serde(deserialize_with = "precision")]
    pub sampling_precision: usize,
    /// Of log records: what is hashed.
    pub attribute_source: AttributeSource,
    /// Of log records: the attribute that is hashed where there is no trace id, or `attribute_source` is
    /// `record`.
    pub from_attribute: String,
    /// Of log records: the attribute with a percentage of their own.
    pub sampling_priority: String,
}

/// `mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By a hash of the trace id and a seed; the randomness it makes is written to `tracestate`.
    #[default]
    #[serde(alias = "")]
    HashSeed,
    /// Down to this share of everything, whatever was left out before.
    Equalizing,
    /// This share of what comes.
    Proportional,
}

/// `attribute_source`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AttributeSource {
    /// The trace id.
    #[default]
    #[serde(rename = "traceID")]
    TraceId,
    /// `from_attribute`.
    #[serde(rename = "record")]
    Record,
}

impl Default for ProbabilisticSampler {
    fn default() -> Self {
        Self {
            sampling_percentage: 0.0,
            hash_seed: 0,
            mode: Mode::default(),
            fail_closed: true,
            sampling_precision: 4,
            attribute_source: AttributeSource::default(),
            from_attribute: String::new(),
            sampling_priority: String::new(),
        }
    }
}

fn percentage<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
    let percent = f32::deserialize(from)?;
    let ratio = f64::from(percent) / 100.0;
    if !percent.is_finite() || ratio < 0.0 || (ratio != 0.0 && ratio < SMALLEST) {
        return Err(de::Error::custom(format!(
            "{percent} is no percentage: write a number from 0 to 100 (and at least {:e}, if not 0)",
            SMALLEST * 100.0
        )));
    }
    Ok(percent)
}

fn precision<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    match u64::deserialize(from)? {
        digits if (1..=DIGITS as u64).contains(&digits) => Ok(digits as usize),
        digits => {
            Err(de::Error::custom(format!("{digits} hex digits: there can be 1 to {DIGITS}")))
        }
    }
}
