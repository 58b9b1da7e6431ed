//! `tail_sampling`: whether a trace goes on is decided once its spans are there. Keys, nesting, defaults
//! and decisions are those of the Collector's processor of that name (v0.158); `cel` stands where it has
//! `ottl_condition`.

use std::{borrow::Cow, collections::BTreeSet, time::Duration};

use regex::{Regex, RegexBuilder};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::filter::{ErrorMode, conditions};
use crate::{
    config::{exporters::queue::duration, schema, values::write_duration},
    policy::{
        data::Span,
        expression::{EventOf, Expression},
    },
};

/// Most traces and verdicts that may be asked for.
const TRACES_MAX: usize = 10_000_000;
/// Most policies, with those within others.
const POLICIES_MAX: usize = 1000;
/// Memory of a compiled pattern.
const PATTERN_MAX: usize = 1 << 20;

/// Settings of a `tail_sampling` processor.
#[derive(Clone, Debug, PartialEq)]
pub struct TailSampling {
    /// From a trace's first span to the decision.
    pub decision_wait: Duration,
    /// The same from its root span, if that is earlier; 0: it is not.
    pub decision_wait_after_root_received: Duration,
    /// Traces that are remembered, the decided ones too.
    pub num_traces: usize,
    /// Verdicts that are remembered longer, of traces that were kept.
    pub sampled_cache_size: usize,
    /// And of those that were not.
    pub non_sampled_cache_size: usize,
    /// The first policy that keeps a trace decides.
    pub sample_on_first_match: bool,
    /// Traces without a decision are left out as tap ends.
    pub drop_pending_traces_on_shutdown: bool,
    /// A trace that grows beyond is left out, in bytes of OTLP; 0: none is.
    pub maximum_trace_size_bytes: u64,
    /// tap's own: memory of all spans that wait. Beyond it the oldest traces are decided on early.
    pub maximum_buffer_size_bytes: usize,
    /// What decides.
    pub policies: Vec<Policy>,
    /// All of it as it is written.
    written: Keys,
}

/// One policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// What it asks.
    pub rule: Rule,
}

/// What a policy asks of a trace.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Nothing: it keeps all.
    AlwaysSample,
    /// That it took longer.
    Latency(Latency),
    /// That a span has one of these codes.
    StatusCode(Vec<u32>),
    /// That a whole number is in a range.
    NumericAttribute(NumericAttribute),
    /// That a text is one of some.
    StringAttribute(StringAttribute),
    /// That a truth is this one.
    BooleanAttribute(BooleanAttribute),
    /// That there is room for its spans.
    RateLimiting(Rate),
    /// That there is room for its bytes.
    BytesLimiting(Rate),
    /// So many spans.
    SpanCount(SpanCount),
    /// That a member of a span's `tracestate` has one of these values.
    TraceState(TraceState),
    /// That a span's `traceparent` said sampled.
    TraceFlags,
    /// A share.
    Probabilistic(Probabilistic),
    /// That a condition holds of a span, or of an event.
    Cel(Box<Cel>),
    /// All of these.
    And(Vec<Policy>),
    /// Not this.
    Not(Box<Policy>),
    /// All of these: then it is left out, whatever others say.
    Drop(Vec<Policy>),
    /// The first of these that keeps it, while there is room.
    Composite(Composite),
}

/// `latency`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Latency {
    /// More than this.
    pub threshold_ms: i64,
    /// And at most this; 0: any.
    pub upper_threshold_ms: i64,
}

/// `numeric_attribute`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NumericAttribute {
    /// Of the resource, or of a span.
    pub key: String,
    /// 0: none.
    pub min_value: i64,
    /// 0: none.
    pub max_value: i64,
    /// None may be in the range.
    pub invert_match: bool,
}

/// `string_attribute`.
#[derive(Clone, Debug)]
pub struct StringAttribute {
    /// Of the resource, or of a span.
    pub key: String,
    /// One of them.
    pub matches: Matches,
    /// None may be.
    pub invert_match: bool,
    /// Texts and patterns, as they are written.
    values: Vec<String>,
}

/// What a text is compared with.
#[derive(Clone, Debug)]
pub enum Matches {
    /// Texts.
    Values(BTreeSet<String>),
    /// Patterns, which may be anywhere in it.
    Patterns(Vec<Regex>),
}

impl PartialEq for StringAttribute {
    fn eq(&self, other: &Self) -> bool {
        let kind = |it: &Self| matches!(it.matches, Matches::Patterns(_));
        let of = |it: &Self| (it.key.clone(), it.values.clone(), it.invert_match, kind(it));
        of(self) == of(other)
    }
}

/// `boolean_attribute`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BooleanAttribute {
    /// Of the resource, or of a span.
    pub key: String,
    /// The truth.
    pub value: bool,
    /// None may have it.
    pub invert_match: bool,
}

/// `rate_limiting` and `bytes_limiting`: a bucket that fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So much comes in, in a second.
    pub per_second: i64,
    /// So much it can hold.
    pub burst: i64,
}

/// `span_count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SpanCount {
    /// At least.
    pub min_spans: i32,
    /// At most; 0: any.
    pub max_spans: i32,
}

/// `trace_state`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TraceState {
    /// The member.
    pub key: String,
    /// One of them.
    pub values: Vec<String>,
}

/// `probabilistic`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Probabilistic {
    /// Hashed before the trace id; empty: the Collector's own.
    pub hash_salt: String,
    /// Percent that are kept.
    pub sampling_percentage: f64,
}

/// `cel`, tap's own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cel {
    /// What is said of a condition that cannot be told; it does not hold.
    pub error_mode: ErrorMode,
    /// Of a span.
    #[serde(deserialize_with = "conditions::<_, Span>")]
    #[schemars(with = "Vec<String>")]
    pub span: Vec<Expression>,
    /// Of an event of a span.
    #[serde(deserialize_with = "conditions::<_, EventOf>")]
    #[schemars(with = "Vec<String>")]
    pub spanevent: Vec<Expression>,
}

/// `composite`.
#[derive(Clone, Debug, PartialEq)]
pub struct Composite {
    /// Spans that each of them may keep, in a second.
    pub max_total_spans_per_second: i64,
    /// In their order, with spans that each may keep.
    pub policies: Vec<(Policy, i64)>,
}

#[derive(PartialEq, Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::go_duration")]
    decision_wait: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::go_duration")]
    decision_wait_after_root_received: Duration,
    num_traces: usize,
    block_on_overflow: bool,
    /// The Collector reserves memory by it; tap's grows as it is used.
    expected_new_traces_per_sec: u64,
    policies: Vec<PolicyKeys>,
    decision_cache: DecisionCache,
    tail_storage: Option<String>,
    sample_on_first_match: bool,
    sampling_strategy: String,
    drop_pending_traces_on_shutdown: bool,
    maximum_trace_size_bytes: u64,
    maximum_buffer_size_bytes: usize,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            decision_wait: Duration::from_secs(30),
            decision_wait_after_root_received: Duration::ZERO,
            num_traces: 50_000,
            block_on_overflow: false,
            expected_new_traces_per_sec: 0,
            policies: Vec::new(),
            decision_cache: DecisionCache::default(),
            tail_storage: None,
            sample_on_first_match: false,
            sampling_strategy: COMPLETE.to_owned(),
            drop_pending_traces_on_shutdown: false,
            maximum_trace_size_bytes: 0,
            maximum_buffer_size_bytes: 256 << 20,
        }
    }
}

const COMPLETE: &str = "trace-complete";

#[derive(PartialEq, Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct DecisionCache {
    sampled_cache_size: usize,
    non_sampled_cache_size: usize,
}

/// A policy as it is written: the block of its type is read, and those of others may be there.
#[derive(PartialEq, Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct PolicyKeys {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "says_nothing")]
    latency: Latency,
    #[serde(skip_serializing_if = "says_nothing")]
    numeric_attribute: NumericAttribute,
    #[serde(skip_serializing_if = "says_nothing")]
    probabilistic: Probabilistic,
    #[serde(skip_serializing_if = "says_nothing")]
    status_code: StatusCodeKeys,
    #[serde(skip_serializing_if = "says_nothing")]
    string_attribute: StringKeys,
    #[serde(skip_serializing_if = "says_nothing")]
    rate_limiting: RateKeys,
    #[serde(skip_serializing_if = "says_nothing")]
    bytes_limiting: BytesKeys,
    #[serde(skip_serializing_if = "says_nothing")]
    span_count: SpanCount,
    #[serde(skip_serializing_if = "says_nothing")]
    trace_state: TraceState,
    #[serde(skip_serializing_if = "says_nothing")]
    boolean_attribute: BooleanAttribute,
    #[serde(skip_serializing_if = "says_nothing")]
    cel: Cel,
    #[serde(skip_serializing)]
    #[schemars(skip)]
    ottl_condition: Option<de::IgnoredAny>,
    #[serde(skip_serializing_if = "says_nothing")]
    and: AndKeys,
    #[serde(skip_serializing_if = "says_nothing")]
    not: NotKeys,
    #[serde(skip_serializing_if = "says_nothing")]
    drop: DropKeys,
    #[serde(skip_serializing_if = "says_nothing")]
    composite: CompositeKeys,
}

#[derive(PartialEq, Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct StatusCodeKeys {
    status_codes: Vec<String>,
}

#[derive(PartialEq, Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct StringKeys {
    key: String,
    values: Vec<String>,
    enabled_regex_matching: bool,
    /// The Collector remembers what patterns have matched; tap's need no memory to be fast.
    cache_max_size: i64,
    invert_match: bool,
}

#[derive(PartialEq, Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct RateKeys {
    spans_per_second: i64,
    burst_capacity: i64,
}

#[derive(PartialEq, Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct BytesKeys {
    bytes_per_second: i64,
    burst_capacity: i64,
}

#[derive(PartialEq, Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct AndKeys {
    and_sub_policy: Vec<PolicyKeys>,
}

#[derive(PartialEq, Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct DropKeys {
    drop_sub_policy: Vec<PolicyKeys>,
}

#[derive(PartialEq, Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct NotKeys {
    not_sub_policy: Option<Box<PolicyKeys>>,
}

#[derive(PartialEq, Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct CompositeKeys {
    max_total_spans_per_second: i64,
    /// Read and not used, as in the Collector: they are asked in the order of `composite_sub_policy`.
    policy_order: Vec<String>,
    composite_sub_policy: Vec<PolicyKeys>,
    rate_allocation: Vec<Allocation>,
}

#[derive(PartialEq, Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Allocation {
    policy: String,
    percent: i64,
}

impl<'de> Deserialize<'de> for TailSampling {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let keys = Option::<Keys>::deserialize(from)?.unwrap_or_default();
        keys.read().map_err(de::Error::custom)
    }
}

impl Serialize for TailSampling {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(to)
    }
}

impl JsonSchema for TailSampling {
    fn schema_name() -> Cow<'static, str> {
        "TailSampling".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Keys::json_schema(generator)
    }
}

/// Whether a block is as if it were not there.
fn says_nothing<T: Default + PartialEq>(block: &T) -> bool {
    *block == T::default()
}

impl Keys {
    fn read(self) -> Result<TailSampling, String> {
        let refuse = |why: &str| Err(why.to_owned());
        if self.block_on_overflow {
            return refuse(
                "`block_on_overflow`: nothing waits in tap; where there is no room the oldest trace \
                 is decided on early: leave it out",
            );
        }
        if self.tail_storage.is_some() {
            return refuse(
                "`tail_storage`: spans wait in memory, bounded by num_traces and \
                           maximum_buffer_size_bytes: leave it out",
            );
        }
        if self.sampling_strategy != COMPLETE {
            return Err(format!(
                "`sampling_strategy: {}`: tap decides on traces that are complete: leave it out",
                self.sampling_strategy
            ));
        }
        if self.policies.is_empty() {
            return refuse("a tail_sampling needs `policies`: without any it would keep nothing");
        }
        for (key, number) in [
            ("num_traces", self.num_traces),
            ("decision_cache.sampled_cache_size", self.decision_cache.sampled_cache_size),
            ("decision_cache.non_sampled_cache_size", self.decision_cache.non_sampled_cache_size),
        ] {
            if number > TRACES_MAX || (number == 0 && key == "num_traces") {
                return Err(format!("`{key}: {number}`: there can be 1 to {TRACES_MAX}"));
            }
        }
        if self.decision_wait > Duration::from_secs(24 * 3600) {
            return refuse("`decision_wait` is at most 24h");
        }
        if self.maximum_buffer_size_bytes < 1 << 20 {
            return refuse("`maximum_buffer_size_bytes` is at least 1048576");
        }
        let mut names = BTreeSet::new();
        let mut left = POLICIES_MAX;
        let mut policies = Vec::new();
        let written = self.clone();
        for keys in self.policies {
            let policy = keys.read(&TOP, &mut left)?;
            if !names.insert(policy.name.clone()) {
                return Err(format!("the policy `{}` is there twice", policy.name));
            }
            policies.push(policy);
        }
        Ok(TailSampling {
            decision_wait: self.decision_wait,
            decision_wait_after_root_received: self.decision_wait_after_root_received,
            num_traces: self.num_traces,
            sampled_cache_size: self.decision_cache.sampled_cache_size,
            non_sampled_cache_size: self.decision_cache.non_sampled_cache_size,
            sample_on_first_match: self.sample_on_first_match,
            drop_pending_traces_on_shutdown: self.drop_pending_traces_on_shutdown,
            maximum_trace_size_bytes: self.maximum_trace_size_bytes,
            maximum_buffer_size_bytes: self.maximum_buffer_size_bytes,
            policies,
            written,
        })
    }
}

/// Types that may stand at a place besides those that stand everywhere.
type Also = [&'static str];
const TOP: [&str; 4] = ["and", "not", "drop", "composite"];
const IN_AND: [&str; 1] = ["not"];
const IN_COMPOSITE: [&str; 1] = ["and"];

/// Types that stand everywhere.
const SHARED: [&str; 14] = [
    "always_sample",
    "latency",
    "numeric_attribute",
    "probabilistic",
    "status_code",
    "string_attribute",
    "rate_limiting",
    "bytes_limiting",
    "span_count",
    "trace_state",
    "boolean_attribute",
    "trace_flags",
    "cel",
    "ottl_condition",
];

impl PolicyKeys {
    /// `also`: the types with others in them that may stand here. `left`: policies that there may still be.
    fn read(self, also: &Also, left: &mut usize) -> Result<Policy, String> {
        let (name, kind) = (self.name.clone(), self.kind.clone());
        let Some(rest) = left.checked_sub(1) else {
            return Err(format!("more than {POLICIES_MAX} policies"));
        };
        *left = rest;
        if name.is_empty() && also == TOP {
            return Err("a policy needs a `name`".to_owned());
        }
        let wrong = |why: String| format!("policy `{name}`: {why}");
        if !SHARED.contains(&&*kind) && !also.contains(&&*kind) {
            return Err(wrong(unknown(&kind, also)));
        }
        let rule = self.rule(&kind, left).map_err(wrong)?;
        Ok(Policy { name, rule })
    }

    fn rule(self, kind: &str, left: &mut usize) -> Result<Rule, String> {
        let all = |list: Vec<Self>, left: &mut usize| {
            if list.is_empty() {
                return Err(format!("`{kind}` needs policies in `{kind}_sub_policy`"));
            }
            list.into_iter().map(|keys| keys.read(&IN_AND, left)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match kind {
            "always_sample" => Rule::AlwaysSample,
            "latency" => Rule::Latency(self.latency),
            "numeric_attribute" => {
                let it = self.numeric_attribute;
                if it.min_value == 0 && it.max_value == 0 {
                    return Err("give `min_value` or `max_value`, other than 0".to_owned());
                }
                Rule::NumericAttribute(it)
            }
            "probabilistic" if !self.probabilistic.sampling_percentage.is_finite() => {
                return Err("`sampling_percentage` is no number".to_owned());
            }
            "probabilistic" => Rule::Probabilistic(self.probabilistic),
            "status_code" => Rule::StatusCode(self.status_code.read()?),
            "string_attribute" => Rule::StringAttribute(self.string_attribute.read()?),
            "rate_limiting" => Rule::RateLimiting(Rate::of(
                self.rate_limiting.spans_per_second,
                self.rate_limiting.burst_capacity,
            )),
            "bytes_limiting" => Rule::BytesLimiting(Rate::of(
                self.bytes_limiting.bytes_per_second,
                self.bytes_limiting.burst_capacity,
            )),
            "span_count" => Rule::SpanCount(self.span_count),
            "trace_state" => Rule::TraceState(self.trace_state),
            "boolean_attribute" => Rule::BooleanAttribute(self.boolean_attribute),
            "trace_flags" => Rule::TraceFlags,
            "cel" if self.cel.span.is_empty() && self.cel.spanevent.is_empty() => {
                return Err("`cel` needs conditions in `span` or `spanevent`".to_owned());
            }
            "cel" => Rule::Cel(Box::new(self.cel)),
            "and" => Rule::And(all(self.and.and_sub_policy, left)?),
            "drop" => Rule::Drop(all(self.drop.drop_sub_policy, left)?),
            "not" => {
                let Some(inner) = self.not.not_sub_policy else {
                    return Err("`not` needs a policy in `not_sub_policy`".to_owned());
                };
                Rule::Not(Box::new(inner.read(&[], left)?))
            }
            "composite" => Rule::Composite(self.composite.read(left)?),
            _ => {
                return Err(
                    "conditions are CEL in tap: use `type: cel` with `cel: { span: [...] }`"
                        .to_owned(),
                );
            }
        })
    }
}

/// What is said of a type that cannot stand here.
fn unknown(kind: &str, also: &Also) -> String {
    let known =
        || SHARED.into_iter().filter(|it| *it != "ottl_condition").chain(also.iter().copied());
    if TOP.contains(&kind) {
        return format!("`{kind}` cannot stand within this one");
    }
    if kind.is_empty() {
        return format!("it needs a `type`: {}", known().collect::<Vec<_>>().join(", "));
    }
    let names: Vec<&str> = known().collect();
    match crate::config::place::closest(kind, &names) {
        Some(meant) => format!("`{kind}` is no type of policy; did you mean `{meant}`?"),
        None => format!("`{kind}` is no type of policy; there are {}", names.join(", ")),
    }
}

impl Rate {
    fn of(per_second: i64, burst: i64) -> Self {
        let burst = if burst > 0 { burst } else { per_second.saturating_mul(2) };
        Self { per_second, burst }
    }
}

impl StatusCodeKeys {
    fn read(self) -> Result<Vec<u32>, String> {
        if self.status_codes.is_empty() {
            return Err("`status_codes` needs one of OK, ERROR and UNSET".to_owned());
        }
        let number = |code: String| match &*code {
            "UNSET" => Ok(0),
            "OK" => Ok(1),
            "ERROR" => Ok(2),
            _ => Err(format!("`{code}` is no status code: there are OK, ERROR and UNSET")),
        };
        self.status_codes.into_iter().map(number).collect()
    }
}

impl StringKeys {
    fn read(self) -> Result<StringAttribute, String> {
        let Self { key, values, enabled_regex_matching, invert_match, .. } = self;
        let pattern = |text: &String| {
            RegexBuilder::new(text)
                .size_limit(PATTERN_MAX)
                .build()
                .map_err(|error| format!("`{text}` is no pattern: {error}"))
        };
        let matches = match enabled_regex_matching {
            true => Matches::Patterns(values.iter().map(pattern).collect::<Result<_, _>>()?),
            // None is the empty text.
            false => Matches::Values(values.iter().filter(|it| !it.is_empty()).cloned().collect()),
        };
        Ok(StringAttribute { key, matches, invert_match, values })
    }
}

impl CompositeKeys {
    fn read(self, left: &mut usize) -> Result<Composite, String> {
        let total = self.max_total_spans_per_second;
        let equal = total as f64 / self.composite_sub_policy.len() as f64;
        // Of several for one policy the last counts; one without any keeps nothing.
        let allocated = |name: &str| {
            let of = self.rate_allocation.iter().rev().find(|it| it.policy == name);
            of.map_or(0, |it| match it.percent {
                percent if percent > 0 => (percent as f64 / 100.0 * total as f64) as i64,
                _ => equal as i64,
            })
        };
        let names: Vec<&String> = self.composite_sub_policy.iter().map(|it| &it.name).collect();
        let named = self.rate_allocation.iter().map(|it| &it.policy).chain(&self.policy_order);
        if let Some(stranger) = named.into_iter().find(|name| !names.contains(name)) {
            return Err(format!("`{stranger}` is not among its `composite_sub_policy`"));
        }
        if self.composite_sub_policy.is_empty() {
            return Err("`composite` needs policies in `composite_sub_policy`".to_owned());
        }
        let policies = self.composite_sub_policy.iter().cloned().map(|keys| {
            let allocated = allocated(&keys.name);
            Ok::<_, String>((keys.read(&IN_COMPOSITE, left)?, allocated))
        });
        let policies = policies.collect::<Result<Vec<_>, _>>()?;
        Ok(Composite { max_total_spans_per_second: total, policies })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{
        file::Config,
        processors::{ProbabilisticSampler, Processor},
    };

    #[test]
    fn the_annotated_file_has_the_defaults() {
        let text = include_str!("../../../../config/tap.yaml");
        let (_, block) = text.split_once("\nprocessors: {}\n").unwrap();
        let (block, _) = block.split_once("\n\n").unwrap();
        let mut yaml = String::from("processors:\n");
        for line in block.lines() {
            yaml += &line.replacen("# ", "", 1);
            yaml.push('\n');
        }
        let config = Config::parse(&yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
        let named = |name| config.processors.find(name).unwrap().1;
        assert!(matches!(named("memory_limiter"), Processor::MemoryLimiter(_)));
        let Processor::ProbabilisticSampler(sampler) = named("probabilistic_sampler") else {
            panic!("{yaml}");
        };
        assert_eq!(**sampler, ProbabilisticSampler::default());
        let Processor::TailSampling(written) = named("tail_sampling") else { panic!("{yaml}") };
        let least = "{ policies: [{ name: a, type: always_sample }] }";
        let least: super::TailSampling = serde_yaml::from_str(least).unwrap();
        let settings = |of: &super::TailSampling| {
            let written = super::Keys { policies: Vec::new(), ..of.written.clone() };
            super::TailSampling { policies: Vec::new(), written, ..of.clone() }
        };
        assert_eq!(settings(written), settings(&least));
        // Every type, but the one that is refused.
        assert_eq!(written.policies.len(), super::SHARED.len() - 1 + super::TOP.len());
    }
}
