//! Series: what instruments with the same attributes have measured, by the values of these. Comes in:
//! [`Labels`] with measurements; goes out: samples. Bounded: beyond [`LIMIT`] the rest is one series,
//! `otel.metric.overflow`, so that no measurement is missing from the sums.

use hashbrown::HashMap;

use super::{
    Family, Kind, Label, Sample, Samples, Value,
    histogram::{Aggregation, Histogram},
};
use crate::telemetry::semconv::Key;

/// Most series of an instrument, the overflow included (OpenTelemetry metrics SDK, "Cardinality
/// limits").
pub const LIMIT: usize = 2_000;

/// Longest value of a label; what is longer is cut.
const LONGEST: usize = 200;

/// Instruments that measure the same things, and so have the same attributes.
#[derive(Debug)]
pub struct Group {
    /// Their attributes.
    pub keys: &'static [&'static Key],
    /// The instruments.
    pub instruments: &'static [Instrument],
}

/// One of a group.
#[derive(Debug)]
pub struct Instrument {
    /// Name, unit, kind.
    pub family: Family,
    /// Bounds of an explicit histogram.
    pub bounds: &'static [f64],
    /// An attribute of its own: the family is shared.
    pub extra: Option<(&'static Key, &'static str)>,
}

impl Instrument {
    /// A histogram.
    pub const fn histogram(family: Family, bounds: &'static [f64]) -> Self {
        Self { family, bounds, extra: None }
    }

    /// A counter.
    pub const fn counter(family: Family) -> Self {
        Self { family, bounds: &[], extra: None }
    }
}

/// The values of a group's attributes, as bytes, which are hashed and compared in one piece.
#[derive(Clone, Debug, Default)]
pub struct Labels(Vec<u8>);

const ABSENT: u8 = 0;
const INT: u8 = 1;
/// And the length that follows.
const TEXT: u8 = 2;

impl Labels {
    /// Begins anew. The values follow in the order of the group's keys.
    pub fn clear(&mut self) -> &mut Self {
        self.0.clear();
        self
    }

    /// The next attribute is text.
    pub fn text(&mut self, value: &str) -> &mut Self {
        let mut end = value.len().min(LONGEST);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        self.0.extend_from_slice(&[TEXT, end as u8]);
        self.0.extend_from_slice(&value.as_bytes()[..end]);
        self
    }

    /// The next attribute is a number.
    pub fn int(&mut self, value: i64) -> &mut Self {
        self.0.push(INT);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// The next attribute is not there.
    pub fn absent(&mut self) -> &mut Self {
        self.0.push(ABSENT);
        self
    }

    /// The next attribute may be text.
    pub fn maybe(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.absent(),
        }
    }
}

/// The labels that were written as `bytes`.
fn read(keys: &[&'static Key], mut bytes: &[u8]) -> Vec<(&'static str, Label)> {
    let mut labels = Vec::with_capacity(keys.len());
    for key in keys {
        let label = match bytes {
            [INT, rest @ ..] => {
                let Some((value, rest)) = rest.split_first_chunk() else { break };
                bytes = rest;
                Label::Int(i64::from_le_bytes(*value))
            }
            [TEXT, len, rest @ ..] => {
                let Some((value, rest)) = rest.split_at_checked(usize::from(*len)) else { break };
                bytes = rest;
                Label::Text(String::from_utf8_lossy(value).into_owned())
            }
            _ => {
                bytes = bytes.get(1..).unwrap_or_default();
                continue;
            }
        };
        labels.push((key.name, label));
    }
    labels
}

/// What one instrument has measured in one series.
#[derive(Clone, Debug)]
pub enum Cell {
    /// A counter.
    Sum(u64),
    /// A histogram.
    Histogram(Histogram),
}

impl Cell {
    /// Adds to a counter.
    pub const fn add(&mut self, count: u64) {
        if let Self::Sum(sum) = self {
            *sum = sum.saturating_add(count);
        }
    }

    /// Adds to a histogram.
    pub fn record(&mut self, value: f64, exemplar: Option<super::histogram::Exemplar>) {
        if let Self::Histogram(histogram) = self {
            histogram.record(value, exemplar);
        }
    }

    fn value(&self) -> Option<Value> {
        match self {
            Self::Sum(0) => None,
            Self::Sum(sum) => Some(Value::Number(*sum)),
            Self::Histogram(histogram) if histogram.count == 0 => None,
            Self::Histogram(histogram) => Some(Value::Histogram(Box::new(histogram.clone()))),
        }
    }
}

type Cells = Box<[Cell]>;

/// All series of a group.
#[derive(Debug)]
pub struct Series {
    group: &'static Group,
    aggregation: Aggregation,
    /// Since when, where it begins anew with each reading (delta temporality).
    delta_since: Option<u64>,
    cells: HashMap<Box<[u8]>, Cells>,
    overflow: Option<Cells>,
}

impl Series {
    /// None yet. `delta_since`: now, where each reading begins anew.
    pub fn new(group: &'static Group, aggregation: Aggregation, delta_since: Option<u64>) -> Self {
        Self { group, aggregation, delta_since, cells: HashMap::new(), overflow: None }
    }

    /// The cells of a series, in the order of the group's instruments.
    pub fn at(&mut self, labels: &Labels) -> &mut [Cell] {
        let Self { group, aggregation, cells, overflow, .. } = self;
        let fresh = || group.instruments.iter().map(|it| cell(it, *aggregation)).collect();
        if cells.len() >= LIMIT - 1 && !cells.contains_key(&labels.0[..]) {
            return overflow.get_or_insert_with(fresh);
        }
        cells.entry_ref(&labels.0[..]).or_insert_with(fresh)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.cells.len() + usize::from(self.overflow.is_some())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was measured, in the order of the labels; of delta temporality it is then empty.
    pub fn take(&mut self, now_ns: u64) -> Taken {
        let delta_since = self.delta_since;
        let (cells, overflow) = match &mut self.delta_since {
            None => (self.cells.clone(), self.overflow.clone()),
            Some(since) => {
                *since = now_ns.max(*since);
                (std::mem::take(&mut self.cells), self.overflow.take())
            }
        };
        Taken { group: self.group, delta_since, cells, overflow }
    }
}

/// What [`Series::take`] took. Making samples of it needs no lock.
pub struct Taken {
    group: &'static Group,
    delta_since: Option<u64>,
    cells: HashMap<Box<[u8]>, Cells>,
    overflow: Option<Cells>,
}

impl Taken {
    /// Puts it in.
    pub fn put(self, samples: &mut Samples) {
        let Self { group, delta_since, cells, overflow } = self;
        let mut cells: Vec<_> = cells.into_iter().collect();
        cells.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let labelled = cells.into_iter().map(|(labels, cells)| (read(group.keys, &labels), cells));
        let rest = overflow.map(|cells| (vec![("otel.metric.overflow", Label::Bool(true))], cells));
        for (labels, cells) in labelled.chain(rest) {
            for (instrument, cell) in group.instruments.iter().zip(&cells) {
                let Some(value) = cell.value() else { continue };
                let mut labels = labels.clone();
                let extra = instrument.extra.iter();
                labels.extend(extra.map(|(key, value)| (key.name, Label::from(*value))));
                let name = instrument.family.name;
                samples.push(Sample { name, labels, value, delta_since });
            }
        }
    }
}

fn cell(instrument: &Instrument, aggregation: Aggregation) -> Cell {
    match instrument.family.kind {
        Kind::Histogram => Cell::Histogram(Histogram::new(aggregation, instrument.bounds)),
        Kind::Counter | Kind::Gauge => Cell::Sum(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{metric::Reader, semconv as key};

    static GROUP: Group = Group {
        keys: &[&key::SERVER_ADDRESS, &key::SERVER_PORT, &key::ERROR_TYPE],
        instruments: &[
            Instrument::counter(Family::counter("c", "C.")),
            Instrument::histogram(Family::histogram("h", "s", "H."), &[1.0]),
        ],
    };

    fn samples(series: &mut Series, now: u64) -> Vec<Sample> {
        let mut samples = Samples::new(Reader::Push);
        series.take(now).put(&mut samples);
        samples.into_list()
    }

    #[test]
    fn labels_come_back_as_they_were_written() {
        let long = "ä".repeat(LONGEST);
        let mut labels = Labels::default();
        for (address, port, error, expected) in [
            (Some("a"), Some(80), None, vec!["a", "80"]),
            (Some(""), None, Some("x"), vec!["", "x"]),
            (None, Some(-1), Some("é"), vec!["-1", "é"]),
            (None, None, None, vec![]),
            (Some(&*long), None, None, vec![&long[..LONGEST]]),
        ] {
            labels.clear().maybe(address);
            match port {
                Some(port) => labels.int(port),
                None => labels.absent(),
            };
            labels.maybe(error);
            let told: Vec<_> =
                read(GROUP.keys, &labels.0).into_iter().map(|(_, it)| it.to_string()).collect();
            assert_eq!(told, expected);
        }
        // What nobody writes does no harm.
        for bytes in [&[][..], &[TEXT], &[TEXT, 9, 1], &[INT, 1], &[7, 7, 7, 7]] {
            assert!(read(GROUP.keys, bytes).is_empty(), "{bytes:?}");
        }
    }

    #[test]
    fn the_rest_is_one_series_and_nothing_is_missing() {
        let mut series = Series::new(&GROUP, Aggregation::Explicit, None);
        let mut labels = Labels::default();
        for round in 0..2 {
            for port in 0..LIMIT as i64 + 500 {
                labels.clear().absent().int(port).absent();
                series.at(&labels)[0].add(1);
                series.at(&labels)[1].record(0.5, None);
            }
            assert_eq!(series.len(), LIMIT, "{round}");
        }
        let told = samples(&mut series, 0);
        let sums: Vec<_> = told.iter().filter(|sample| sample.name == "c").collect();
        assert_eq!(sums.len(), LIMIT);
        let total: u64 = sums
            .iter()
            .map(|sample| match sample.value {
                Value::Number(number) => number,
                Value::Histogram(_) => unreachable!(),
            })
            .sum();
        assert_eq!(total, 2 * (LIMIT as u64 + 500));
        let rest: Vec<_> = told
            .iter()
            .filter(|it| it.labels == [("otel.metric.overflow", Label::Bool(true))])
            .collect();
        assert_eq!(rest.len(), 2);
        assert_eq!(rest[0].value, Value::Number(2 * 501));
    }

    #[test]
    fn delta_begins_anew_and_cumulative_does_not() {
        for (delta_since, expected) in [(None, [Some(1), Some(2)]), (Some(5), [Some(1), Some(1)])] {
            let mut series = Series::new(&GROUP, Aggregation::Explicit, delta_since);
            let mut labels = Labels::default();
            labels.text("a").int(1).absent();
            for (round, expected) in expected.into_iter().enumerate() {
                series.at(&labels)[0].add(1);
                let told = samples(&mut series, 10 + round as u64);
                let numbers: Vec<_> = told.iter().map(|it| it.value.clone()).collect();
                assert_eq!(numbers, expected.map(Value::Number).into_iter().collect::<Vec<_>>());
                let since = delta_since.map(|first| [first, 10][round]);
                assert_eq!(told[0].delta_since, since);
            }
        }
    }
}
