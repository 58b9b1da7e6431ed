//! Numbers as OTLP messages (opentelemetry-proto 1.9, `metrics/v1/metrics.proto`). Once an interval,
//! so that the generated types are cheap enough.

use std::collections::HashMap;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint,
        Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, Sum, exemplar, exponential_histogram_data_point, metric::Data,
        number_data_point,
    },
    resource::v1::Resource as ProtoResource,
};

use super::{Family, Kind, Label, LabelSet, Read, Sample, Value, histogram};
use crate::telemetry::{resource::Resource, semconv};

/// Most points of a request: gRPC servers take 4 MiB unless told otherwise, and a histogram with
/// its attributes and exemplars has some 1.5 kB.
const MOST_POINTS: usize = 2_000;

/// What a sum is told of (`OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temporality {
    /// All since the start.
    #[default]
    Cumulative,
    /// What came since it was last told.
    Delta,
    /// Delta for what is measured, cumulative for what is read (tap's own numbers).
    LowMemory,
}

/// Makes requests of readings, and remembers of them what deltas need.
#[derive(Debug)]
pub struct Encoder {
    temporality: Temporality,
    resource: ProtoResource,
    started_ns: u64,
    /// When the reading before was made; newer exemplars are told.
    read_ns: u64,
    /// What was last told of tap's own counters, where deltas are.
    told: HashMap<(&'static str, LabelSet), u64>,
}

impl Encoder {
    /// For numbers that count since `started_ns`.
    pub fn new(resource: &Resource, temporality: Temporality, started_ns: u64) -> Self {
        let attributes = resource.attributes().iter();
        let attributes =
            attributes.map(|(key, value)| pair(key, any_value::Value::StringValue(value.clone())));
        let resource =
            ProtoResource { attributes: attributes.collect(), ..ProtoResource::default() };
        Self { temporality, resource, started_ns, read_ns: started_ns, told: HashMap::new() }
    }

    /// The requests that tell a reading of `now_ns`, and how many points each has.
    pub fn encode(
        &mut self,
        read: Vec<Read>,
        now_ns: u64,
    ) -> Vec<(ExportMetricsServiceRequest, u64)> {
        let mut requests = Vec::new();
        let (mut scopes, mut points) = (Vec::new(), 0);
        for Read { family, mut samples } in read {
            while !samples.is_empty() {
                let room = samples.len().min(MOST_POINTS - points);
                let rest = samples.split_off(room);
                points += samples.len();
                put(&mut scopes, &family, self.metric(&family, samples, now_ns));
                if points == MOST_POINTS {
                    requests.push((self.request(std::mem::take(&mut scopes)), points as u64));
                    points = 0;
                }
                samples = rest;
            }
        }
        if points > 0 {
            requests.push((self.request(scopes), points as u64));
        }
        self.read_ns = now_ns;
        requests
    }

    fn request(&self, scope_metrics: Vec<ScopeMetrics>) -> ExportMetricsServiceRequest {
        let resource_metrics = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics,
            schema_url: semconv::SCHEMA_URL.to_owned(),
        };
        ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }
    }

    fn metric(&mut self, family: &Family, samples: Vec<Sample>, now_ns: u64) -> Metric {
        let own_delta = self.temporality == Temporality::Delta;
        let delta = samples.first().is_some_and(|sample| sample.delta_since.is_some())
            || own_delta && family.kind == Kind::Counter;
        let aggregation_temporality =
            if delta { AggregationTemporality::Delta } else { AggregationTemporality::Cumulative }
                as i32;
        let data = match family.kind {
            Kind::Gauge => {
                Data::Gauge(Gauge { data_points: self.numbers(samples, false, 0, now_ns) })
            }
            Kind::Counter => Data::Sum(Sum {
                data_points: self.numbers(samples, own_delta, self.started_ns, now_ns),
                aggregation_temporality,
                is_monotonic: true,
            }),
            Kind::Histogram => self.histograms(samples, aggregation_temporality, now_ns),
        };
        Metric {
            name: family.name.to_owned(),
            description: family.help.to_owned(),
            unit: family.unit.to_owned(),
            metadata: Vec::new(),
            data: Some(data),
        }
    }

    fn numbers(
        &mut self,
        samples: Vec<Sample>,
        own_delta: bool,
        started_ns: u64,
        now_ns: u64,
    ) -> Vec<NumberDataPoint> {
        let mut points = Vec::with_capacity(samples.len());
        for sample in samples {
            let Value::Number(mut number) = sample.value else { continue };
            let mut since = sample.delta_since.unwrap_or(started_ns);
            let attributes = attributes(&sample.labels);
            if own_delta && sample.delta_since.is_none() {
                let told = self.told.entry((sample.name, sample.labels)).or_default();
                (number, *told) = (number.saturating_sub(*told), number);
                since = self.read_ns;
            }
            points.push(NumberDataPoint {
                attributes,
                start_time_unix_nano: since,
                time_unix_nano: now_ns,
                value: Some(number_data_point::Value::AsInt(number.cast_signed())),
                ..NumberDataPoint::default()
            });
        }
        points
    }

    fn histograms(&self, samples: Vec<Sample>, aggregation_temporality: i32, now_ns: u64) -> Data {
        let (mut explicit, mut exponential) = (Vec::new(), Vec::new());
        for sample in &samples {
            let Value::Histogram(histogram) = &sample.value else { continue };
            let since = sample.delta_since.unwrap_or(self.started_ns);
            let attributes = attributes(&sample.labels);
            let exemplars = self.exemplars(histogram);
            let (count, sum) = (histogram.count, Some(histogram.sum));
            let (min, max) = (Some(histogram.min), Some(histogram.max));
            match &histogram.buckets {
                histogram::Buckets::Explicit(bounds, counts) => {
                    explicit.push(HistogramDataPoint {
                        attributes,
                        start_time_unix_nano: since,
                        time_unix_nano: now_ns,
                        count,
                        sum,
                        bucket_counts: counts.to_vec(),
                        explicit_bounds: bounds.to_vec(),
                        exemplars,
                        flags: 0,
                        min,
                        max,
                    });
                }
                histogram::Buckets::Exponential(buckets) => {
                    let run = &buckets.positive;
                    exponential.push(ExponentialHistogramDataPoint {
                        attributes,
                        start_time_unix_nano: since,
                        time_unix_nano: now_ns,
                        count,
                        sum,
                        scale: buckets.scale,
                        zero_count: buckets.zero,
                        positive: Some(exponential_histogram_data_point::Buckets {
                            offset: run.offset,
                            bucket_counts: run.counts.clone(),
                        }),
                        negative: None,
                        flags: 0,
                        exemplars,
                        min,
                        max,
                        zero_threshold: 0.0,
                    });
                }
            }
        }
        // One aggregation holds for all.
        if exponential.is_empty() {
            Data::Histogram(Histogram { data_points: explicit, aggregation_temporality })
        } else {
            let data_points = exponential;
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points,
                aggregation_temporality,
            })
        }
    }

    fn exemplars(&self, histogram: &histogram::Histogram) -> Vec<Exemplar> {
        let newer = histogram.exemplars().filter(|exemplar| exemplar.time_ns > self.read_ns);
        newer
            .map(|it| Exemplar {
                filtered_attributes: Vec::new(),
                time_unix_nano: it.time_ns,
                span_id: it.span_id.to_vec(),
                trace_id: it.trace_id.to_vec(),
                value: Some(exemplar::Value::AsDouble(it.value)),
            })
            .collect()
    }
}

/// Puts a metric under its scope.
fn put(scopes: &mut Vec<ScopeMetrics>, family: &Family, metric: Metric) {
    let known = scopes
        .iter_mut()
        .find(|it| it.scope.as_ref().is_some_and(|scope| scope.name == family.scope));
    if let Some(scope) = known {
        return scope.metrics.push(metric);
    }
    let scope = InstrumentationScope {
        name: family.scope.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let schema_url = semconv::SCHEMA_URL.to_owned();
    scopes.push(ScopeMetrics { scope: Some(scope), metrics: vec![metric], schema_url });
}

fn attributes(labels: &LabelSet) -> Vec<KeyValue> {
    let value = |label: &Label| match label {
        Label::Text(text) => any_value::Value::StringValue(text.clone()),
        Label::Int(int) => any_value::Value::IntValue(*int),
        Label::Bool(truth) => any_value::Value::BoolValue(*truth),
    };
    labels.iter().map(|(key, label)| pair(key, value(label))).collect()
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::{
        super::histogram::{Aggregation, Exemplar as Known, Histogram as Measured},
        *,
    };

    const OWN: Family = Family::counter("own_total", "Own.");
    const OPEN: Family = Family::gauge("open", "Open.");
    const TOOK: Family = Family::histogram("took", "s", "Took.").of("tap.http", "s");

    fn sample(family: &Family, label: usize, value: Value, delta_since: Option<u64>) -> Sample {
        let labels = vec![("n", Label::Int(label as i64)), ("on", Label::Bool(true))];
        Sample { name: family.name, labels, value, delta_since }
    }

    fn number(family: &Family, number: u64, delta_since: Option<u64>) -> Read {
        let samples = vec![sample(family, 0, Value::Number(number), delta_since)];
        Read { family: *family, samples }
    }

    fn metrics(requests: Vec<(ExportMetricsServiceRequest, u64)>) -> Vec<Metric> {
        let resources = requests.into_iter().flat_map(|(request, _)| request.resource_metrics);
        resources.flat_map(|it| it.scope_metrics).flat_map(|it| it.metrics).collect()
    }

    fn whole(point: &NumberDataPoint) -> (u64, i64) {
        let Some(number_data_point::Value::AsInt(value)) = point.value else { panic!("{point:?}") };
        (point.start_time_unix_nano, value)
    }

    #[test]
    fn counters_are_told_as_the_preference_says() {
        use Temporality::{Cumulative, Delta, LowMemory};
        // Begin and value at 10, where 5 were counted, and at 20, where 7 were.
        for (temporality, delta_since, expected, delta) in [
            (Cumulative, None, [(1, 5), (1, 7)], false),
            (Delta, None, [(1, 5), (10, 2)], true),
            (LowMemory, None, [(1, 5), (1, 7)], false),
            (Delta, Some(3), [(3, 5), (3, 7)], true),
            (LowMemory, Some(3), [(3, 5), (3, 7)], true),
        ] {
            let mut encoder = Encoder::new(&Resource::default(), temporality, 1);
            for ((now, counted), expected) in [(10, 5), (20, 7)].into_iter().zip(expected) {
                let read = vec![number(&OWN, counted, delta_since), number(&OPEN, counted, None)];
                let metrics = metrics(encoder.encode(read, now));
                let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:?}") };
                assert_eq!(whole(&sum.data_points[0]), expected, "{temporality:?} {now}");
                let told = sum.aggregation_temporality == AggregationTemporality::Delta as i32;
                assert!(sum.is_monotonic && told == delta, "{temporality:?} {sum:?}");
                let Some(Data::Gauge(gauge)) = &metrics[1].data else { panic!("{metrics:?}") };
                assert_eq!(whole(&gauge.data_points[0]), (0, counted as i64));
            }
        }
    }

    #[test]
    fn requests_are_bounded_and_hold_every_point() {
        for count in [0, 1, MOST_POINTS - 1, MOST_POINTS, MOST_POINTS + 1, 3 * MOST_POINTS] {
            let samples = (0..count).map(|n| sample(&OWN, n, Value::Number(1), None)).collect();
            let read = vec![Read { family: OWN, samples }, number(&OPEN, 1, None)];
            let mut encoder = Encoder::new(&Resource::default(), Temporality::Cumulative, 1);
            let requests = encoder.encode(read, 2);
            assert!(requests.iter().all(|(_, points)| (1..=MOST_POINTS as u64).contains(points)));
            assert_eq!(requests.iter().map(|it| it.1).sum::<u64>(), count as u64 + 1);
            let told: usize = metrics(requests)
                .iter()
                .map(|metric| match &metric.data {
                    Some(Data::Sum(sum)) => sum.data_points.len(),
                    Some(Data::Gauge(gauge)) => gauge.data_points.len(),
                    other => panic!("{other:?}"),
                })
                .sum();
            assert_eq!(told, count + 1);
        }
    }

    #[test]
    fn histograms_are_told_in_their_own_form_with_new_exemplars() {
        for aggregation in [Aggregation::Explicit, Aggregation::Exponential] {
            let mut encoder = Encoder::new(&Resource::default(), Temporality::Cumulative, 1);
            let mut measured = Measured::new(aggregation, &[1.0]);
            let known = Known { value: 0.0, time_ns: 5, trace_id: [3; 16], span_id: [4; 8] };
            measured.record(0.5, Some(known));
            measured.record(0.0, None);
            let value = Value::Histogram(Box::new(measured));
            for (now, exemplars) in [(10, 1), (20, 0)] {
                let samples = vec![sample(&TOOK, 0, value.clone(), None)];
                let requests = encoder.encode(vec![Read { family: TOOK, samples }], now);
                let scopes = &requests[0].0.resource_metrics[0].scope_metrics;
                assert_eq!(scopes[0].scope.as_ref().unwrap().name, "tap.http");
                let told = match &scopes[0].metrics[0].data {
                    Some(Data::Histogram(it)) => {
                        let point = &it.data_points[0];
                        assert_eq!(point.bucket_counts, [2, 0]);
                        (point.count, point.sum, point.min, point.max, point.exemplars.clone())
                    }
                    Some(Data::ExponentialHistogram(it)) => {
                        let point = &it.data_points[0];
                        let positive = point.positive.as_ref().unwrap();
                        assert_eq!((point.zero_count, &*positive.bucket_counts), (1, &[1][..]));
                        (point.count, point.sum, point.min, point.max, point.exemplars.clone())
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!((told.0, told.1, told.2, told.3), (2, Some(0.5), Some(0.0), Some(0.5)));
                assert_eq!(told.4.len(), exemplars, "{now}");
                assert!(told.4.iter().all(|it| it.trace_id == [3; 16] && it.span_id == [4; 8]));
            }
        }
    }
}
