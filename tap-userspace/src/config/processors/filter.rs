//! `filter`: items that one of its conditions holds of go no further. The keys are the Collector's
//! filter processor's; its conditions are CEL instead of OTTL.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::policy::{
    data::{LogRecord, Span},
    expression::{EventOf, Expression, MetricOf, PointOf, Subject},
};

/// Settings of a `filter` processor.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// What a condition does that cannot be told: it does not hold, either way.
    pub error_mode: ErrorMode,
    /// Of spans.
    pub traces: Traces,
    /// Of log records.
    pub logs: Logs,
    /// Of metrics.
    pub metrics: Metrics,
}

/// `error_mode`. The Collector's default `propagate`, which drops what a condition fails of, is not
/// tap's: CEL fails where OTTL says false (`attributes["n"] > 1` without such an attribute).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErrorMode {
    /// The failure is logged, once for each condition, and the item goes on.
    #[default]
    Ignore,
    /// The item goes on.
    Silent,
}

/// `traces`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// A span goes no further.
    #[serde(deserialize_with = "conditions::<_, Span>")]
    #[schemars(with = "Vec<String>")]
    pub span: Vec<Expression>,
    /// An event is taken out of its span.
    #[serde(deserialize_with = "conditions::<_, EventOf>")]
    #[schemars(with = "Vec<String>")]
    pub spanevent: Vec<Expression>,
}

/// `logs`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// A log record goes no further.
    #[serde(deserialize_with = "conditions::<_, LogRecord>")]
    #[schemars(with = "Vec<String>")]
    pub log_record: Vec<Expression>,
}

/// `metrics`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// A metric goes no further, with all of its points.
    #[serde(deserialize_with = "conditions::<_, MetricOf>")]
    #[schemars(with = "Vec<String>")]
    pub metric: Vec<Expression>,
    /// A data point goes no further.
    #[serde(deserialize_with = "conditions::<_, PointOf>")]
    #[schemars(with = "Vec<String>")]
    pub datapoint: Vec<Expression>,
}

/// Reads a list of conditions over `S`s.
pub(super) fn conditions<'de, D: Deserializer<'de>, S: Subject>(
    from: D,
) -> Result<Vec<Expression>, D::Error> {
    /// Made where it stands, so that a mistake has its place.
    struct Condition<S>(Expression, std::marker::PhantomData<S>);
    impl<'de, S: Subject> Deserialize<'de> for Condition<S> {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let source = String::deserialize(from)?;
            let condition = Expression::condition::<S>(&source).map_err(de::Error::custom)?;
            Ok(Self(condition, std::marker::PhantomData))
        }
    }
    let found = Option::<Vec<Condition<S>>>::deserialize(from)?;
    Ok(found.unwrap_or_default().into_iter().map(|condition| condition.0).collect())
}
