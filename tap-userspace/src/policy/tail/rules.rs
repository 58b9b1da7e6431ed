//! What policies say of a trace. Comes in: its spans, in the order that they came; goes out: a
//! [`Decision`]. What looks odd is the Collector's (v0.158), whose decisions these are: an attribute of
//! another type counts as 0, false or the empty text.
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, time::Duration};

use super::TraceId;
use crate::{
    config::processors::tail_sampling::{
        self as settings, Cel, Latency, Matches, Rate, Rule, SpanCount,
    },
    policy::{
        data::{Attributes, Span, Value},
        expression::EventOf,
        filter::{any, tell},
        probability::{fnv64, tracestate::TraceState},
    },
};

/// What is hashed before the trace id where no salt is given.
const SALT: &str = "default-hash-seed";

/// What a policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    NotSampled,
    /// It keeps the trace.
    Sampled,
    /// The trace is left out, whatever others say.
    Dropped,
}

impl Decision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NotSampled, Self::Sampled, Self::Dropped];

    /// Its label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotSampled => "not_sampled",
            Self::Sampled => "sampled",
            Self::Dropped => "dropped",
        }
    }

    const fn sampled_if(holds: bool) -> Self {
        if holds { Self::Sampled } else { Self::NotSampled }
    }
}

/// What is known of a trace.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Its spans, in the order that they came.
    pub spans: Vec<Span>,
    /// Bytes of them in OTLP, if these are asked for.
    pub size: u64,
}

/// A running policy.
#[derive(Debug)]
pub struct Evaluator(Running);

#[derive(Debug)]
enum Running {
    Always,
    Latency(Latency),
    StatusCode(Vec<u32>),
    Attribute {
        key: String,
        test: Test,
        invert: bool,
    },
    Spans(Bucket),
    Bytes(Bucket),
    SpanCount(SpanCount),
    TraceState {
        key: String,
        values: BTreeSet<String>,
    },
    TraceFlags,
    Hash {
        salt: String,
        most: u64,
    },
    /// And whether a failure was told.
    Cel(Box<Cel>, bool),
    And(Vec<Evaluator>),
    Not(Box<Evaluator>),
    Drop(Vec<Evaluator>),
    Composite {
        total: i64,
        policies: Vec<Share>,
        second: u64,
    },
}

/// What is asked of an attribute.
#[derive(Debug)]
enum Test {
    Number(i64, i64),
    Text(Matches),
    Truth(bool),
}

/// A policy within a composite one.
#[derive(Debug)]
struct Share {
    evaluator: Evaluator,
    /// Spans it may keep in a second, and those of this one.
    allocated: i64,
    used: i64,
}

impl Evaluator {
    /// Of a policy.
    pub fn new(policy: &settings::Policy) -> Self {
        let all = |policies: &[settings::Policy]| policies.iter().map(Self::new).collect();
        Self(match &policy.rule {
            Rule::AlwaysSample => Running::Always,
            Rule::Latency(it) => Running::Latency(*it),
            Rule::StatusCode(codes) => Running::StatusCode(codes.clone()),
            Rule::NumericAttribute(it) => {
                let or = |bound: i64, else_: i64| if bound == 0 { else_ } else { bound };
                let test = Test::Number(or(it.min_value, i64::MIN), or(it.max_value, i64::MAX));
                Running::Attribute { key: it.key.clone(), test, invert: it.invert_match }
            }
            Rule::StringAttribute(it) => {
                let test = Test::Text(it.matches.clone());
                Running::Attribute { key: it.key.clone(), test, invert: it.invert_match }
            }
            Rule::BooleanAttribute(it) => {
                let test = Test::Truth(it.value);
                Running::Attribute { key: it.key.clone(), test, invert: it.invert_match }
            }
            Rule::RateLimiting(rate) => Running::Spans(Bucket::new(*rate)),
            Rule::BytesLimiting(rate) => Running::Bytes(Bucket::new(*rate)),
            Rule::SpanCount(it) => Running::SpanCount(*it),
            Rule::TraceState(it) => {
                // No member can be longer.
                let fits = |value: &&String| !value.is_empty() && it.key.len() + value.len() < 256;
                let values = it.values.iter().filter(fits).cloned().collect();
                Running::TraceState { key: it.key.clone(), values }
            }
            Rule::TraceFlags => Running::TraceFlags,
            Rule::Probabilistic(it) => Running::Hash {
                salt: if it.hash_salt.is_empty() { SALT.to_owned() } else { it.hash_salt.clone() },
                most: most(it.sampling_percentage / 100.0),
            },
            Rule::Cel(it) => Running::Cel(it.clone(), false),
            Rule::And(policies) => Running::And(all(policies)),
            Rule::Not(policy) => Running::Not(Box::new(Self::new(policy))),
            Rule::Drop(policies) => Running::Drop(all(policies)),
            Rule::Composite(it) => Running::Composite {
                total: it.max_total_spans_per_second,
                policies: it
                    .policies
                    .iter()
                    .map(|(policy, allocated)| Share {
                        evaluator: Self::new(policy),
                        allocated: *allocated,
                        used: 0,
                    })
                    .collect(),
                second: 0,
            },
        })
    }

    /// Whether it needs [`Trace::size`].
    pub fn asks_sizes(&self) -> bool {
        match &self.0 {
            Running::Bytes(_) => true,
            Running::And(all) | Running::Drop(all) => all.iter().any(Self::asks_sizes),
            Running::Not(one) => one.asks_sizes(),
            Running::Composite { policies, .. } => {
                policies.iter().any(|share| share.evaluator.asks_sizes())
            }
            _ => false,
        }
    }

    /// What it says of a trace; `at`: the time since the sampler began.
    pub fn evaluate(&mut self, id: &TraceId, trace: &Trace, at: Duration) -> Decision {
        let spans = &trace.spans;
        let count = spans.len() as i64;
        Decision::sampled_if(match &mut self.0 {
            Running::Always => true,
            Running::Latency(it) => is_slow(*it, spans),
            Running::StatusCode(codes) => spans.iter().any(|span| codes.contains(&span.status)),
            Running::Attribute { key, test, invert } => holds(spans, key, test, *invert),
            Running::Spans(bucket) => bucket.take(count, at),
            Running::Bytes(bucket) => bucket.take(trace.size.cast_signed(), at),
            Running::SpanCount(SpanCount { min_spans, max_spans }) => {
                count >= i64::from(*min_spans)
                    && (*max_spans == 0 || count <= i64::from(*max_spans))
            }
            Running::TraceState { key, values } => spans.iter().any(|span| {
                TraceState::member(&span.trace_state, key).is_some_and(|it| values.contains(it))
            }),
            Running::TraceFlags => spans.iter().any(|span| span.flags & 1 != 0),
            Running::Hash { salt, most } => fnv64([salt.as_bytes(), id]) <= *most,
            Running::Cel(cel, told) => {
                let mut failed = tell(cel.error_mode, told, "tail_sampling");
                spans.iter().any(|span| {
                    any(&cel.span, span, &mut failed)
                        || span
                            .events
                            .iter()
                            .any(|event| any(&cel.spanevent, &EventOf(event, span), &mut failed))
                })
            }
            Running::And(all) => all_sample(all, id, trace, at),
            Running::Drop(all) => {
                if all_sample(all, id, trace, at) {
                    return Decision::Dropped;
                }
                false
            }
            Running::Not(one) => match one.evaluate(id, trace, at) {
                Decision::Dropped => return Decision::Dropped,
                decision => decision == Decision::NotSampled,
            },
            Running::Composite { total, policies, second } => {
                if *second != at.as_secs() {
                    *second = at.as_secs();
                    policies.iter_mut().for_each(|share| share.used = 0);
                }
                let first = policies.iter_mut().find_map(|share| {
                    let decision = share.evaluator.evaluate(id, trace, at);
                    (decision == Decision::Sampled).then_some(share)
                });
                // The first that would keep it decides, whether there is room or not.
                first.is_some_and(|share| {
                    let used = share.used + count;
                    let fits = used <= share.allocated && used <= *total;
                    if fits {
                        share.used = used;
                    }
                    fits
                })
            }
        })
    }
}

/// Whether all of them keep it; those after the first that does not are not asked.
fn all_sample(all: &mut [Evaluator], id: &TraceId, trace: &Trace, at: Duration) -> bool {
    all.iter_mut().all(|one| one.evaluate(id, trace, at) != Decision::NotSampled)
}

/// Whether the spans up to one of them took long enough, and with an upper bound, not too long.
fn is_slow(latency: Latency, spans: &[Span]) -> bool {
    let (mut first, mut last) = (0, 0);
    spans.iter().any(|span| {
        if first == 0 || span.start_ns < first {
            first = span.start_ns;
        }
        if last == 0 || span.end_ns > last {
            last = span.end_ns;
        }
        let ns = last.cast_signed().saturating_sub(first.cast_signed());
        let ms = ns / 1_000_000;
        let Latency { threshold_ms, upper_threshold_ms } = latency;
        ms > threshold_ms && (upper_threshold_ms == 0 || ms <= upper_threshold_ms)
    })
}

/// Whether an attribute of a resource or of a span is as asked; or, inverted, none is.
fn holds(spans: &[Span], key: &str, test: &Test, invert: bool) -> bool {
    let met = |span: &Span| {
        test.holds(&span.attributes, key, false)
            || test.holds(&span.source.resource.attributes, key, true)
    };
    match invert {
        false => spans.iter().any(met),
        true => !spans.iter().any(met),
    }
}

impl Test {
    fn holds(&self, attributes: &Attributes, key: &str, of_resource: bool) -> bool {
        let Some(value) = attributes.get(key) else { return false };
        match self {
            Self::Number(least, most) => {
                let number = if let Value::Int(number) = value { *number } else { 0 };
                (least..=most).contains(&&number)
            }
            Self::Truth(truth) => *truth == matches!(value, Value::Bool(true)),
            Self::Text(matches) => {
                let text = value.text().unwrap_or_default();
                (of_resource || !text.is_empty())
                    && match matches {
                        Matches::Values(values) => values.contains(text),
                        Matches::Patterns(all) => all.iter().any(|it| it.is_match(text)),
                    }
            }
        }
    }
}

/// The highest hash that is kept: a share of 2^64 - 1, reckoned with 64 bits of mantissa.
fn most(share: f64) -> u64 {
    if share >= 1.0 {
        return u64::MAX;
    }
    if share <= 0.0 || share.is_nan() {
        return 0;
    }
    let bits = share.to_bits();
    let (exponent, fraction) = ((bits >> 52) as i32, bits & ((1 << 52) - 1));
    // Below 2^-64 nothing is left of it.
    let mantissa = if exponent == 0 { fraction } else { fraction | 1 << 52 };
    let product = u128::from(u64::MAX) * u128::from(mantissa);
    // To 64 bits, to the nearest, and of two equally near to the even one.
    let spare = 64u32.saturating_sub(product.leading_zeros());
    let (half, cut) = ((1u128 << spare) >> 1, product & ((1u128 << spare) - 1));
    let mut rounded = product >> spare;
    if spare > 0 && (cut > half || (cut == half && rounded & 1 == 1)) {
        rounded += 1;
    }
    // The share is mantissa * 2^(exponent - 1075).
    let shift = 1075 - exponent.max(1) - spare as i32;
    match shift {
        0..128 => u64::try_from(rounded >> shift).unwrap_or(u64::MAX),
        128.. => 0,
        _ => u64::try_from(rounded << (-shift).min(63)).unwrap_or(u64::MAX),
    }
}

/// A bucket that fills steadily, full at the start (golang.org/x/time/rate).
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    tokens: f64,
    last: Option<Duration>,
}

impl Bucket {
    const fn new(rate: Rate) -> Self {
        Self { rate, tokens: rate.burst as f64, last: None }
    }

    /// Takes so many, if they are there.
    fn take(&mut self, count: i64, at: Duration) -> bool {
        let Rate { per_second, burst } = self.rate;
        let passed = self.last.map_or(Duration::ZERO, |last| at.saturating_sub(last));
        let rate = per_second.max(0) as f64;
        let tokens = (self.tokens + passed.as_secs_f64() * rate).min(burst as f64) - count as f64;
        // Less than a nanosecond's worth may be missing.
        let there = tokens >= 0.0 || (rate > 0.0 && -tokens / rate * 1e9 < 1.0);
        if count > burst || !there {
            return false;
        }
        (self.tokens, self.last) = (tokens, Some(at));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_hash_is_exact() {
        // (2^64 - 1) * share, as Go's big.Float of 64 bits has it.
        for (share, expected) in [
            (1.0, u64::MAX),
            (7.0, u64::MAX),
            (0.0, 0),
            (-1.0, 0),
            (0.5, (1 << 63) - 1),
            (0.25, (1 << 62) - 1),
            (f64::MIN_POSITIVE, 0),
            (5e-324, 0),
            (2f64.powi(-64), 0),
            (2f64.powi(-63), 1),
        ] {
            assert_eq!(most(share), expected, "{share}");
        }
        for percent in 1..100u32 {
            let share = f64::from(percent) / 100.0;
            let near = share * 2f64.powi(64);
            assert!((most(share) as f64 - near).abs() <= near * 1e-15, "{percent}");
        }
    }
}
