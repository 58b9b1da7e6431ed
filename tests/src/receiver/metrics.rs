//! OTLP metrics, as protobuf gives them, to [`Point`]s.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{
        AggregationTemporality, Exemplar, HistogramDataPoint, NumberDataPoint, metric::Data,
        number_data_point::Value,
    },
};

use super::convert::{attributes, hex};
use crate::span::Attributes;

/// What a point tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Number {
    /// Of a gauge.
    Gauge(u64),
    /// Of a sum that only grows.
    Sum(u64),
    /// Count and sum of a histogram with bounds.
    Explicit(u64, f64),
    /// Count and sum of an exponential histogram.
    Exponential(u64, f64),
}

impl Number {
    /// The value, or how many were measured.
    pub const fn count(&self) -> u64 {
        match *self {
            Self::Gauge(count)
            | Self::Sum(count)
            | Self::Explicit(count, _)
            | Self::Exponential(count, _) => count,
        }
    }
}

/// One point of one series.
#[derive(Clone, Debug)]
pub struct Point {
    /// The metric's name.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// Its scope's name.
    pub scope: String,
    /// The series.
    pub attributes: Attributes,
    /// What it tells.
    pub number: Number,
    /// Whether it tells what came since the point before.
    pub delta: bool,
    /// Begin and end of what it tells of.
    pub time_ns: (u64, u64),
    /// Trace ids of its exemplars.
    pub exemplars: Vec<String>,
}

/// Every point of a request.
pub fn points(request: ExportMetricsServiceRequest) -> Vec<Point> {
    let mut out = Vec::new();
    for of_scope in request.resource_metrics.into_iter().flat_map(|it| it.scope_metrics) {
        let scope = of_scope.scope.map(|it| it.name).unwrap_or_default();
        for metric in of_scope.metrics {
            let (name, unit) = (metric.name, metric.unit);
            let mut put = |number, pairs, delta: i32, time_ns, exemplars: Vec<Exemplar>| {
                out.push(Point {
                    metric: name.clone(),
                    unit: unit.clone(),
                    scope: scope.clone(),
                    attributes: attributes(pairs),
                    number,
                    delta: delta == AggregationTemporality::Delta as i32,
                    time_ns,
                    exemplars: exemplars.iter().map(|it| hex(&it.trace_id)).collect(),
                });
            };
            match metric.data {
                Some(Data::Gauge(gauge)) => {
                    for it in gauge.data_points {
                        let (number, times) = (Number::Gauge(whole(&it)), times(&it));
                        put(number, it.attributes, 0, times, it.exemplars);
                    }
                }
                Some(Data::Sum(sum)) => {
                    let delta = sum.aggregation_temporality;
                    for it in sum.data_points {
                        let (number, times) = (Number::Sum(whole(&it)), times(&it));
                        put(number, it.attributes, delta, times, it.exemplars);
                    }
                }
                Some(Data::Histogram(histogram)) => {
                    let delta = histogram.aggregation_temporality;
                    for it in histogram.data_points {
                        check(&it);
                        let number = Number::Explicit(it.count, it.sum());
                        let times = (it.start_time_unix_nano, it.time_unix_nano);
                        put(number, it.attributes, delta, times, it.exemplars);
                    }
                }
                Some(Data::ExponentialHistogram(histogram)) => {
                    let delta = histogram.aggregation_temporality;
                    for it in histogram.data_points {
                        let counts = it.positive.iter().flat_map(|it| &it.bucket_counts);
                        assert_eq!(it.count, it.zero_count + counts.sum::<u64>());
                        let number = Number::Exponential(it.count, it.sum());
                        let times = (it.start_time_unix_nano, it.time_unix_nano);
                        put(number, it.attributes, delta, times, it.exemplars);
                    }
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    out
}

/// What the protocol demands of a histogram.
fn check(point: &HistogramDataPoint) {
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1, "{point:?}");
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count, "{point:?}");
    assert!(point.explicit_bounds.is_sorted_by(|a, b| a < b), "{point:?}");
}

fn whole(point: &NumberDataPoint) -> u64 {
    match point.value {
        Some(Value::AsInt(int)) => int.try_into().expect("no number of tap's is negative"),
        ref other => panic!("{other:?}"),
    }
}

const fn times(point: &NumberDataPoint) -> (u64, u64) {
    (point.start_time_unix_nano, point.time_unix_nano)
}
