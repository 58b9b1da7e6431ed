//! Histograms: explicit bounds, or base-2 exponential ones (OpenTelemetry metrics data model,
//! "ExponentialHistogram"), with exemplars. Comes in: measurements that are not negative; goes out:
//! counts. Memory is bounded: the buckets are as many as the bounds, or [`Run::MOST`].

/// Largest scale of an exponential histogram: the specification's default.
const LARGEST_SCALE: i32 = 20;

/// Exemplars kept of an exponential histogram, whose buckets move.
const EXEMPLARS: usize = 8;

/// How measurements are put in buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Aggregation {
    /// By the bounds of the instrument (`explicit_bucket_histogram`).
    #[default]
    Explicit,
    /// By powers of a base that follows the values (`base2_exponential_bucket_histogram`).
    Exponential,
}

/// A measurement that stands for others of its bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// What was measured.
    pub value: f64,
    /// When, Unix nanoseconds.
    pub time_ns: u64,
    /// In which trace.
    pub trace_id: [u8; 16],
    /// In which span of it.
    pub span_id: [u8; 8],
}

/// Measurements of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The smallest; infinite where there is none.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How they are spread.
    pub buckets: Buckets,
    /// The newest of each bucket where these are explicit, else some; empty until there is one.
    exemplars: Vec<Option<Exemplar>>,
}

/// How measurements are spread.
#[derive(Clone, Debug, PartialEq)]
pub enum Buckets {
    /// One more count than there are bounds.
    Explicit(&'static [f64], Box<[u64]>),
    /// Exponential.
    Exponential(Exponential),
}

impl Histogram {
    /// An empty one.
    pub fn new(aggregation: Aggregation, bounds: &'static [f64]) -> Self {
        let buckets = match aggregation {
            Aggregation::Explicit => {
                Buckets::Explicit(bounds, vec![0; bounds.len() + 1].into_boxed_slice())
            }
            Aggregation::Exponential => Buckets::Exponential(Exponential::default()),
        };
        let (min, max) = (f64::INFINITY, 0.0);
        Self { count: 0, sum: 0.0, min, max, buckets, exemplars: Vec::new() }
    }

    /// Takes in a measurement; what is negative or no number counts as 0.
    pub fn record(&mut self, value: f64, exemplar: Option<Exemplar>) {
        let value = if value > 0.0 && value.is_finite() { value } else { 0.0 };
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let (place, places) = match &mut self.buckets {
            Buckets::Explicit(bounds, counts) => {
                // A bound belongs to the bucket below it.
                let bucket = bounds.iter().position(|bound| value <= *bound);
                let bucket = bucket.unwrap_or(bounds.len());
                counts[bucket] += 1;
                (bucket, counts.len())
            }
            Buckets::Exponential(exponential) => {
                exponential.record(value);
                // The upper bits of a product with a large odd number are as good as drawn.
                let drawn = self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                (drawn as usize % EXEMPLARS, EXEMPLARS)
            }
        };
        if exemplar.is_some() {
            self.exemplars.resize(places, None);
            self.exemplars[place] = exemplar.map(|exemplar| Exemplar { value, ..exemplar });
        }
    }

    /// All exemplars.
    pub fn exemplars(&self) -> impl Iterator<Item = &Exemplar> {
        self.exemplars.iter().flatten()
    }

    /// The exemplar of an explicit bucket.
    pub fn exemplar(&self, bucket: usize) -> Option<&Exemplar> {
        self.exemplars.get(bucket)?.as_ref()
    }
}

/// Bucket `i` holds what is above `base^i` and not above `base^(i+1)`, base = 2^(2^-scale).
#[derive(Clone, Debug, PartialEq)]
pub struct Exponential {
    /// How fine the buckets are.
    pub scale: i32,
    /// Measurements of 0.
    pub zero: u64,
    /// The others.
    pub positive: Run,
}

impl Default for Exponential {
    fn default() -> Self {
        Self { scale: LARGEST_SCALE, zero: 0, positive: Run::default() }
    }
}

impl Exponential {
    fn record(&mut self, value: f64) {
        if value == 0.0 {
            self.zero += 1;
            return;
        }
        let index = index(value, self.scale);
        let coarser = self.positive.coarser_for(index);
        if coarser > 0 {
            self.scale -= coarser;
            self.positive.coarsen(coarser);
        }
        self.positive.add(index >> coarser);
    }
}

/// The bucket of a positive value ("exact" at scales up to 0, by logarithm above, as the data model
/// describes).
fn index(value: f64, scale: i32) -> i32 {
    const FRACTION_BITS: u32 = 52;
    const BIAS: i32 = 1023;
    // The smallest normal number stands for what is below it.
    let bits = value.max(f64::MIN_POSITIVE).to_bits();
    let exponent = ((bits >> FRACTION_BITS) & 0x7ff) as i32 - BIAS;
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    if fraction == 0 {
        // A power of two is the upper bound of its bucket.
        return if scale >= 0 { (exponent << scale) - 1 } else { (exponent - 1) >> -scale };
    }
    if scale <= 0 {
        return exponent >> -scale;
    }
    let scaled = value.max(f64::MIN_POSITIVE).log2() * f64::from(1 << scale);
    // Rounding must not move it beyond the power of two around it.
    (scaled.ceil() as i32 - 1).clamp(exponent << scale, ((exponent + 1) << scale) - 1)
}

/// Counts of neighbouring buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Index of the first.
    pub offset: i32,
    /// Their counts; no more than [`Self::MOST`].
    pub counts: Vec<u64>,
}

impl Run {
    /// Most buckets: the specification's default.
    pub const MOST: usize = 160;

    /// By how much the scale must fall for `index` to have a place.
    fn coarser_for(&self, index: i32) -> i32 {
        let Some(last) = self.counts.len().checked_sub(1) else { return 0 };
        let (mut low, mut high) = (self.offset.min(index), (self.offset + last as i32).max(index));
        let mut coarser = 0;
        while (high - low) as usize >= Self::MOST {
            (low, high) = (low >> 1, high >> 1);
            coarser += 1;
        }
        coarser
    }

    fn coarsen(&mut self, by: i32) {
        let offset = self.offset >> by;
        let mut counts = Vec::new();
        for (at, count) in self.counts.iter().enumerate() {
            let bucket = (((self.offset + at as i32) >> by) - offset) as usize;
            if counts.len() <= bucket {
                counts.resize(bucket + 1, 0);
            }
            counts[bucket] += count;
        }
        *self = Self { offset, counts };
    }

    fn add(&mut self, index: i32) {
        if self.counts.is_empty() {
            self.offset = index;
        }
        if index < self.offset {
            let more = (self.offset - index) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, more));
            self.offset = index;
        }
        let at = (index - self.offset) as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[0.5, 1.0, 2.0];

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        for (value, bucket) in [
            (0.0, 0),
            (0.5, 0),
            (0.500_001, 1),
            (2.0, 2),
            (2.1, 3),
            (f64::INFINITY, 0),
            (f64::NAN, 0),
            (-1.0, 0),
        ] {
            let mut histogram = Histogram::new(Aggregation::Explicit, BOUNDS);
            histogram.record(value, None);
            let Buckets::Explicit(_, counts) = &histogram.buckets else { unreachable!() };
            assert_eq!(counts.iter().position(|count| *count == 1), Some(bucket), "{value}");
            assert!(histogram.sum.is_finite() && histogram.min == histogram.max);
        }
    }

    /// The bucket's bounds, by the definition.
    fn range(index: i32, scale: i32) -> (f64, f64) {
        let bound = |index: i32| (f64::from(index) * 2f64.powi(-scale)).exp2();
        (bound(index), bound(index + 1))
    }

    #[test]
    fn exponential_indexes_are_those_of_the_definition() {
        for (value, scale, expected) in [
            (1.0, 0, -1),
            (1.000_001, 0, 0),
            (2.0, 0, 0),
            (4.0, 0, 1),
            (4.1, -1, 1),
            (4.0, -1, 0),
            (0.5, -1, -1),
            (0.25, 1, -5),
            (1.5, 1, 1),
            (f64::MAX, -10, 0),
            (f64::MIN_POSITIVE, -10, -1),
            (f64::MIN_POSITIVE / 4.0, 0, -1023),
        ] {
            assert_eq!(index(value, scale), expected, "{value} {scale}");
        }
        for scale in [-3, -1, 0, 1, 4, 9] {
            for value in [1e-9, 0.001, 0.0123, 0.7, 1.1, 3.0, 17.0, 1e6] {
                let (low, high) = range(index(value, scale), scale);
                assert!(low < value * (1.0 + 1e-12) && value <= high * (1.0 + 1e-12), "{value}");
            }
        }
    }

    #[test]
    fn an_exponential_histogram_keeps_every_count_in_its_bound() {
        let mut histogram = Histogram::new(Aggregation::Exponential, BOUNDS);
        let mut value = 1e-300;
        let mut recorded = 0;
        while value < 1e300 {
            histogram.record(value, None);
            histogram.record(0.0, None);
            (value, recorded) = (value * 1.7, recorded + 1);
        }
        // From above, too.
        histogram.record(1e-307, None);
        let Buckets::Exponential(Exponential { scale, zero, positive }) = &histogram.buckets else {
            unreachable!()
        };
        assert!(positive.counts.len() <= Run::MOST && *scale < 0, "{scale}");
        assert_eq!(*zero, recorded);
        assert_eq!(positive.counts.iter().sum::<u64>(), recorded + 1);
        assert_eq!(histogram.count, 2 * recorded + 1);
    }

    #[test]
    fn coarsening_moves_counts_to_where_the_values_would_be() {
        let values: Vec<f64> = (1..400).map(|n| f64::from(n) * 0.013).collect();
        let mut run = Exponential::default();
        values.iter().for_each(|value| run.record(*value));
        let mut direct = Run { offset: 0, counts: vec![] };
        let mut indexes: Vec<_> = values.iter().map(|value| index(*value, run.scale)).collect();
        indexes.sort_unstable();
        indexes.into_iter().for_each(|index| direct.add(index));
        assert_eq!(run.positive, direct);
    }

    #[test]
    fn the_newest_exemplar_of_a_bucket_stays() {
        let exemplar =
            |time_ns| Exemplar { value: 0.0, time_ns, trace_id: [1; 16], span_id: [2; 8] };
        let mut histogram = Histogram::new(Aggregation::Explicit, BOUNDS);
        for (value, time) in [(0.1, 1), (3.0, 2), (0.2, 3)] {
            histogram.record(value, Some(exemplar(time)));
        }
        histogram.record(0.3, None);
        let told: Vec<_> = histogram.exemplars().map(|it| (it.value, it.time_ns)).collect();
        assert_eq!(told, [(0.2, 3), (3.0, 2)]);
        assert_eq!(histogram.exemplar(1), None);
        let mut exponential = Histogram::new(Aggregation::Exponential, BOUNDS);
        (0..100).for_each(|time| exponential.record(1.0, Some(exemplar(time))));
        assert!((1..=EXEMPLARS).contains(&exponential.exemplars().count()));
    }
}
