//! The `probabilistic_sampler` processor. Comes in: spans and log records; goes out: those whose
//! randomness reaches the threshold, which says so: spans in `tracestate`, log records in
//! `sampling.threshold` and `sampling.randomness`. So what was left out can be reckoned with later.
#![forbid(unsafe_code)]

use std::{borrow::Cow, time::Instant};

use super::{Randomness, Threshold, fnv32, tracestate::TraceState};
use crate::{
    config::processors::probabilistic_sampler::{AttributeSource, Mode, ProbabilisticSampler},
    policy::{
        chain::Place,
        data::{Attributes, LogRecord, Span, Value},
        processor::{Processor, Tally},
    },
    telemetry::metric::{Family, Number},
};

const PRIORITY: &str = "sampling.priority";
const THRESHOLD: &str = "sampling.threshold";
const RANDOMNESS: &str = "sampling.randomness";

/// Buckets of the hash: 14 bits.
const BUCKETS: u32 = 1 << 14;

const ITEMS: Family = Family::counter(
    "tap_policy_sampler_items_total",
    "Items that a probabilistic sampler has decided on, by what it went by (`policy`).",
);

/// What a decision went by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// There was nothing to go by.
    Nothing,
    TraceIdHash,
    TraceId,
    Explicit,
    Priority,
    Attribute,
}

impl By {
    const ALL: [Self; 6] = [
        Self::Nothing,
        Self::TraceIdHash,
        Self::TraceId,
        Self::Explicit,
        Self::Priority,
        Self::Attribute,
    ];

    /// As the Collector calls it in its own metrics.
    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "missing_randomness",
            Self::TraceIdHash => "trace_id_hash",
            Self::TraceId => "trace_id_w3c",
            Self::Explicit => "sampling_randomness",
            Self::Priority => "sampling_priority",
            Self::Attribute => "attribute",
        }
    }
}

/// A running `probabilistic_sampler`.
#[derive(Debug)]
pub struct Sampler {
    settings: ProbabilisticSampler,
    how: How,
    /// By what was gone by, and whether it was sampled.
    counts: [[Number; 2]; By::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
enum How {
    Never,
    Hash(Threshold),
    Equalize(Threshold),
    /// The share, of what comes.
    Proportion(f64),
}

/// Where an item says its threshold and randomness.
trait Carrier {
    fn randomness(&self) -> Option<Randomness>;
    fn threshold(&self) -> Option<Threshold>;
    fn set_randomness(&mut self, randomness: Randomness);
    fn clear_threshold(&mut self);
    /// Says the threshold, unless a higher one is there.
    fn raise_threshold(&mut self, to: Threshold);
}

impl Sampler {
    /// With these settings.
    pub fn new(settings: ProbabilisticSampler, place: &Place<'_>) -> Self {
        let how = How::of(&settings);
        let counts = By::ALL.map(|by| {
            ["false", "true"]
                .map(|sampled| place.number(ITEMS, &[("policy", by.name()), ("sampled", sampled)]))
        });
        Self { settings, how, counts }
    }

    /// The threshold of an item. `carrier`: where it says what it is; none if that cannot be changed.
    /// `sound`: what it says can be read, and is not in the way.
    fn threshold(
        &self,
        by: By,
        randomness: Randomness,
        carrier: Option<&mut impl Carrier>,
        sound: bool,
    ) -> Threshold {
        let failed = match self.settings.fail_closed {
            true => Threshold::NEVER,
            false => Threshold::ALWAYS,
        };
        if !sound || by == By::Nothing {
            return failed;
        }
        let Some(carrier) = carrier else { return failed };
        let arriving = carrier.threshold();
        if arriving.is_some_and(|threshold| !threshold.samples(randomness)) {
            // It should not be here; what it says of its share is wrong.
            carrier.clear_threshold();
            return failed;
        }
        match self.how {
            How::Never => Threshold::NEVER,
            How::Hash(threshold) => threshold,
            How::Equalize(threshold) => {
                arriving.map_or(threshold, |arriving| arriving.max(threshold))
            }
            How::Proportion(share) => {
                let share = share * arriving.map_or(1.0, Threshold::probability);
                Threshold::of_probability(share, self.settings.sampling_precision)
                    .unwrap_or(Threshold::NEVER)
            }
        }
    }

    fn count(&self, by: By, sampled: bool) -> bool {
        self.counts[by as usize][usize::from(sampled)].add(1);
        sampled
    }

    /// Whether a span goes on.
    fn samples_span(&self, span: &mut Span) -> bool {
        let text = span.trace_state.clone();
        let (mut state, read) = TraceState::read(&text);
        let has_trace = span.trace_id != [0; 16];
        let mut sound = read.is_ok();
        let mut carrier = Some(&mut state);
        let (mut by, mut randomness) = (By::Nothing, Randomness::HIGHEST);
        match self.how {
            How::Never => by = By::Priority,
            How::Hash(_) => {
                if has_trace {
                    (by, randomness) = (By::TraceIdHash, self.hash(&span.trace_id));
                }
                if sound && (state.randomness().is_some() || state.threshold().is_some()) {
                    sound = false;
                }
                carrier = sound.then_some(&mut state);
                if let Some(carrier) = &mut carrier {
                    carrier.set_randomness(randomness);
                }
            }
            How::Equalize(_) | How::Proportion(_) => {
                match carrier.as_ref().and_then(|it| it.randomness()) {
                    _ if !sound => carrier = None,
                    Some(explicit) => (by, randomness) = (By::Explicit, explicit),
                    None if has_trace => {
                        (by, randomness) = (By::TraceId, Randomness::of_trace(&span.trace_id));
                    }
                    None => {}
                }
            }
        }
        let mut threshold = self.threshold(by, randomness, carrier.as_deref_mut(), sound);
        if let Some(forced) = span.attributes.get(PRIORITY).and_then(priority) {
            (by, threshold) = (By::Priority, forced);
        }
        let sampled = threshold.samples(randomness);
        if let (true, Some(carrier)) = (sampled, carrier) {
            carrier.raise_threshold(threshold);
            span.trace_state = carrier.text().into();
        }
        self.count(by, sampled)
    }

    /// Whether a log record goes on.
    fn samples_record(&self, record: &mut LogRecord) -> bool {
        let (mut by, mut randomness) = (By::Nothing, Randomness::HIGHEST);
        let has_trace = record.trace_id != [0; 16];
        let (said, mut sound) = Said::read(&record.attributes);
        let mut on = OnRecord { said, attributes: &mut record.attributes };
        let mut writable = true;
        match self.how {
            How::Never => by = By::Priority,
            How::Hash(_) => {
                let by_trace = self.settings.attribute_source == AttributeSource::TraceId;
                if by_trace && has_trace {
                    (by, randomness) = (By::TraceIdHash, self.hash(&record.trace_id));
                } else if !self.settings.from_attribute.is_empty()
                    && let Some(value) = on.attributes.get(&self.settings.from_attribute)
                    && let bytes = bytes_of(value)
                    && !bytes.is_empty()
                {
                    (by, randomness) = (By::Attribute, self.hash(&bytes));
                }
                if sound && (on.randomness().is_some() || on.threshold().is_some()) {
                    sound = false;
                }
                writable = sound;
                if sound && by != By::Nothing {
                    on.set_randomness(randomness);
                }
            }
            How::Equalize(_) | How::Proportion(_) => match on.randomness() {
                _ if !sound => writable = false,
                Some(explicit) => (by, randomness) = (By::Explicit, explicit),
                None if has_trace => {
                    (by, randomness) = (By::TraceId, Randomness::of_trace(&record.trace_id));
                }
                None => {}
            },
        }
        let mut threshold = self.threshold(by, randomness, writable.then_some(&mut on), sound);
        if let Some(own) = self.own_share(on.attributes) {
            (by, threshold) = (By::Priority, own);
        }
        let sampled = threshold.samples(randomness);
        if sampled && writable {
            on.raise_threshold(threshold);
        }
        self.count(by, sampled)
    }

    /// The threshold that a log record asks for.
    fn own_share(&self, attributes: &Attributes) -> Option<Threshold> {
        if self.settings.sampling_priority.is_empty() {
            return None;
        }
        let percent = match attributes.get(&self.settings.sampling_priority)? {
            Value::Int(percent) => *percent as f64,
            Value::Double(percent) => *percent,
            _ => return None,
        };
        Threshold::of_probability(percent / 100.0, self.settings.sampling_precision)
    }

    /// Randomness of a hash: of its 14 low bits the highest come first, as a low hash is sampled; what is
    /// left of the 56 bits is filled with the others.
    fn hash(&self, bytes: &[u8]) -> Randomness {
        let hash = fnv32([&self.settings.hash_seed.to_le_bytes(), bytes]);
        let low = u64::from(hash & (BUCKETS - 1));
        let high = u64::from(hash >> 18);
        let turned = u64::from(BUCKETS - 1) - low;
        Randomness::of(turned << 42 | (high ^ high << 10) << 14 | low)
    }
}

impl How {
    fn of(settings: &ProbabilisticSampler) -> Self {
        let percent = settings.sampling_percentage.min(100.0);
        if percent <= 0.0 {
            return Self::Never;
        }
        let share = (f64::from(percent) / 100.0).max(super::SMALLEST);
        match settings.mode {
            Mode::Equalizing => Threshold::of_probability(share, settings.sampling_precision)
                .map_or(Self::Never, Self::Equalize),
            Mode::Proportional => Self::Proportion(share),
            // Reckoned in 32 bits and cut off, as the Collector has always done.
            Mode::HashSeed => match (percent * (BUCKETS as f32 / 100.0)) as u32 {
                0 => Self::Never,
                kept => Self::Hash(Threshold::of(u64::from(BUCKETS - kept) << 42)),
            },
        }
    }
}

/// What OpenTracing's `sampling.priority` of a span forces.
fn priority(value: &Value) -> Option<Threshold> {
    let number = match value {
        Value::Int(number) => *number as f64,
        Value::Double(number) => *number,
        Value::Text(text) => text.parse().ok()?,
        _ => return None,
    };
    match number {
        0.0 => Some(Threshold::NEVER),
        number if number > 0.0 => Some(Threshold::ALWAYS),
        _ => None,
    }
}

impl Carrier for TraceState<'_> {
    fn randomness(&self) -> Option<Randomness> {
        Self::randomness(self)
    }

    fn threshold(&self) -> Option<Threshold> {
        Self::threshold(self)
    }

    fn set_randomness(&mut self, randomness: Randomness) {
        Self::set_randomness(self, randomness);
    }

    fn clear_threshold(&mut self) {
        Self::clear_threshold(self);
    }

    fn raise_threshold(&mut self, to: Threshold) {
        Self::raise_threshold(self, to);
    }
}

/// What a log record's attributes say.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    randomness: Option<Randomness>,
    threshold: Option<Threshold>,
}

impl Said {
    /// And whether all of it can be read.
    fn read(attributes: &Attributes) -> (Self, bool) {
        let text = |key| attributes.get(key).and_then(Value::text).filter(|text| !text.is_empty());
        let threshold = text(THRESHOLD).map(Threshold::read).transpose();
        let randomness = text(RANDOMNESS).map(Randomness::read).transpose();
        let sound = threshold.is_ok() && randomness.is_ok();
        let said = Self {
            randomness: randomness.unwrap_or_default(),
            threshold: threshold.unwrap_or_default(),
        };
        (said, sound)
    }
}

struct OnRecord<'a> {
    said: Said,
    attributes: &'a mut Attributes,
}

impl Carrier for OnRecord<'_> {
    fn randomness(&self) -> Option<Randomness> {
        self.said.randomness
    }

    fn threshold(&self) -> Option<Threshold> {
        self.said.threshold
    }

    fn set_randomness(&mut self, randomness: Randomness) {
        self.said.randomness = Some(randomness);
        self.attributes.set(RANDOMNESS, randomness.text());
    }

    fn clear_threshold(&mut self) {
        self.said.threshold = None;
        self.attributes.remove(THRESHOLD);
    }

    fn raise_threshold(&mut self, to: Threshold) {
        if self.said.threshold.is_none_or(|is| is <= to) {
            self.attributes.set(THRESHOLD, to.text());
        }
    }
}

/// The bytes that are hashed of an attribute: those of its text, as the Collector writes it.
fn bytes_of(value: &Value) -> Cow<'_, [u8]> {
    match value {
        Value::Bytes(bytes) => Cow::Borrowed(bytes),
        Value::Text(text) => Cow::Borrowed(text.as_bytes()),
        Value::Empty => Cow::Borrowed(b""),
        Value::Bool(truth) => Cow::Owned(truth.to_string().into_bytes()),
        Value::Int(number) => Cow::Owned(number.to_string().into_bytes()),
        other => Cow::Owned(json(other).to_string().into_bytes()),
    }
}

fn json(value: &Value) -> serde_json::Value {
    use base64::Engine as _;
    match value {
        Value::Empty => serde_json::Value::Null,
        Value::Text(text) => (&**text).into(),
        Value::Bool(truth) => (*truth).into(),
        Value::Int(number) => (*number).into(),
        // Without a fraction it is written without one.
        Value::Double(number) if number.fract() == 0.0 && number.abs() < 9e18 => {
            (*number as i64).into()
        }
        Value::Double(number) => (*number).into(),
        Value::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        Value::Array(values) => values.iter().map(json).collect(),
        Value::Map(map) => {
            let map: serde_json::Map<_, _> =
                map.iter().map(|(key, value)| (key.to_string(), json(value))).collect();
            map.into()
        }
    }
}

impl Processor<Span> for Sampler {
    fn process(&mut self, batch: &mut Vec<Span>, _now: Instant, tally: &mut Tally) {
        let before = batch.len();
        batch.retain_mut(|span| self.samples_span(span));
        tally.sampled += (before - batch.len()) as u64;
    }
}

impl Processor<LogRecord> for Sampler {
    fn process(&mut self, batch: &mut Vec<LogRecord>, _now: Instant, tally: &mut Tally) {
        let before = batch.len();
        batch.retain_mut(|record| self.samples_record(record));
        tally.sampled += (before - batch.len()) as u64;
    }
}
