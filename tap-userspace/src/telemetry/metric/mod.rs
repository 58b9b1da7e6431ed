//! All numbers that tap tells: a registry of counters, gauges and histograms. Stages put numbers in,
//! `/metrics` reads them as text ([`text`]) and [`super::meter`] sends them by OTLP ([`otlp`]).
//!
//! A number is either held here ([`Registry::number`], looked up once, then an atomic) or read
//! when somebody asks ([`Registry::source`]), where several numbers must be of one moment.

pub mod histogram;
pub mod line;
pub mod otlp;
pub mod series;
pub mod text;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use self::histogram::Histogram;

/// Instrumentation scope of tap's own metrics.
pub const OWN_SCOPE: &str = "tap.internal";

/// What a number does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It comes and goes.
    Gauge,
    /// Measurements in buckets.
    Histogram,
}

/// A family of numbers that differ in their labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Of tap's own: `tap_<stage>_<what>_<unit>_total`; of traffic: as the semantic conventions name
    /// it, with dots.
    pub name: &'static str,
    /// Its unit by UCUM, as the conventions write it; empty where the name says it.
    pub unit: &'static str,
    /// One sentence on it.
    pub help: &'static str,
    /// What it does.
    pub kind: Kind,
    /// Its instrumentation scope.
    pub scope: &'static str,
}

impl Family {
    /// A family of counters.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, unit: "", help, kind: Kind::Counter, scope: OWN_SCOPE }
    }

    /// A family of gauges.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { kind: Kind::Gauge, ..Self::counter(name, help) }
    }

    /// A family of histograms.
    pub const fn histogram(name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { kind: Kind::Histogram, unit, ..Self::counter(name, help) }
    }

    /// With another scope and a unit.
    pub const fn of(self, scope: &'static str, unit: &'static str) -> Self {
        Self { scope, unit, ..self }
    }
}

/// A label's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A truth.
    Bool(bool),
}

impl From<&str> for Label {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(int) => int.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
        }
    }
}

/// What tells a number from others of its family.
pub type LabelSet = Vec<(&'static str, Label)>;

/// What was counted or measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or gauge.
    Number(u64),
    /// Of a histogram.
    Histogram(Box<Histogram>),
}

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its family's name.
    pub name: &'static str,
    /// What tells it from others of its family.
    pub labels: LabelSet,
    /// The number.
    pub value: Value,
    /// Since when, Unix nanoseconds, where it tells what came since it was last read; else it tells
    /// all since the registry was made.
    pub delta_since: Option<u64>,
}

/// A number held in the registry. Clones are the same number.
#[derive(Clone, Debug, Default)]
pub struct Number(Arc<AtomicU64>);

impl Number {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// Sets it, if it is a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// `/metrics`, whenever somebody asks.
    Scrape,
    /// The exporters, each interval.
    Push,
}

/// Where numbers are read together.
#[derive(Debug)]
pub struct Samples {
    reader: Reader,
    list: Vec<Sample>,
}

impl Samples {
    /// None yet.
    pub const fn new(reader: Reader) -> Self {
        Self { reader, list: Vec::new() }
    }

    /// Who reads.
    pub const fn reader(&self) -> Reader {
        self.reader
    }

    /// Puts one in.
    pub fn put(&mut self, family: &Family, labels: &[(&'static str, &str)], value: u64) {
        let (labels, value) = (owned(labels), Value::Number(value));
        self.push(Sample { name: family.name, labels, value, delta_since: None });
    }

    /// Puts one in.
    pub fn push(&mut self, sample: Sample) {
        self.list.push(sample);
    }

    /// All of them.
    pub fn into_list(self) -> Vec<Sample> {
        self.list
    }
}

/// A family with its samples.
#[derive(Clone, Debug)]
pub struct Read {
    /// The family.
    pub family: Family,
    /// Its samples.
    pub samples: Vec<Sample>,
}

type Source = Arc<dyn Fn(&mut Samples) + Send + Sync>;

#[derive(Default)]
struct Inner {
    families: Vec<Family>,
    held: Vec<(Sample, Number)>,
    sources: Vec<Source>,
}

/// All of tap's numbers.
#[derive(Default)]
pub struct Registry(Mutex<Inner>);

impl Registry {
    /// The number of `family` with these labels; the same one when asked again.
    pub fn number(&self, family: Family, labels: &[(&'static str, &str)]) -> Number {
        self.declare(&[family]);
        let (labels, value) = (owned(labels), Value::Number(0));
        let sample = Sample { name: family.name, labels, value, delta_since: None };
        let mut inner = self.lock();
        if let Some((_, number)) = inner.held.iter().find(|(known, _)| *known == sample) {
            return number.clone();
        }
        let number = Number::default();
        inner.held.push((sample, number.clone()));
        number
    }

    /// Numbers of `families` that `read` puts in whenever somebody asks.
    pub fn source(&self, families: &[Family], read: impl Fn(&mut Samples) + Send + Sync + 'static) {
        self.declare(families);
        self.lock().sources.push(Arc::new(read));
    }

    /// All numbers, each source asked once; families in the order they were declared in, those
    /// without a number left out.
    pub fn read(&self, reader: Reader) -> Vec<Read> {
        let mut samples = Samples::new(reader);
        let (families, sources) = {
            let inner = self.lock();
            let held = inner.held.iter();
            samples.list.extend(held.map(|(sample, number)| Sample {
                value: Value::Number(number.value()),
                ..sample.clone()
            }));
            (inner.families.clone(), inner.sources.clone())
        };
        // A source may take its own locks, so none is held here.
        sources.iter().for_each(|read| read(&mut samples));
        let mut by_name: HashMap<&str, Vec<Sample>> = HashMap::new();
        for sample in samples.list {
            by_name.entry(sample.name).or_default().push(sample);
        }
        let read = families.into_iter().filter_map(|family| {
            let samples = by_name.remove(family.name)?;
            Some(Read { family, samples })
        });
        read.collect()
    }

    fn declare(&self, families: &[Family]) {
        let mut inner = self.lock();
        for family in families {
            if !inner.families.iter().any(|known| known.name == family.name) {
                inner.families.push(*family);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("families", &self.lock().families).finish()
    }
}

fn owned(labels: &[(&'static str, &str)]) -> LabelSet {
    labels.iter().map(|(name, value)| (*name, Label::from(*value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Family = Family::counter("tap_records_seen_total", "Records due.");
    const OPEN: Family = Family::gauge("tap_connection_open", "Connections in the table.");
    const NONE: Family = Family::gauge("tap_nothing", "Nothing.");

    #[test]
    fn a_number_is_the_same_when_asked_again_and_a_source_is_asked_once() {
        let registry = Registry::default();
        registry.number(SEEN, &[("kind", "a")]).add(2);
        registry.number(SEEN, &[("kind", "a")]).add(1);
        registry.number(SEEN, &[("kind", "b")]).add(5);
        let asked = Number::default();
        let count = asked.clone();
        registry.source(&[OPEN, NONE, SEEN], move |samples| {
            count.add(1);
            samples.put(&OPEN, &[], 7);
            samples.put(&SEEN, &[("kind", "c")], 9);
        });
        let read = registry.read(Reader::Scrape);
        let told: Vec<(&str, Vec<&Value>)> = read
            .iter()
            .map(|it| (it.family.name, it.samples.iter().map(|sample| &sample.value).collect()))
            .collect();
        let numbers = [3, 5, 9, 7].map(Value::Number);
        let [a, b, c, open] = &numbers;
        assert_eq!(told, [(SEEN.name, vec![a, b, c]), (OPEN.name, vec![open])]);
        assert_eq!(asked.value(), 1);
    }
}
