//! Processors of metrics. Comes in: finished OTLP requests, once an interval, so that the generated types are cheap
//! enough; goes out: the same, changed, and how many data points were taken out.
#![forbid(unsafe_code)]

use bytes::Bytes;
use bytestring::ByteString;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{InstrumentationScope, KeyValue},
    metrics::v1::{self as proto, AggregationTemporality, metric::Data, number_data_point},
    resource::v1::Resource as ProtoResource,
};
use prost::Message as _;

use super::data::{Attributes, Resource, Scope, Source, Value, decode, encode};

/// A metric, without its points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: ByteString,
    /// Its description.
    pub description: ByteString,
    /// Its unit.
    pub unit: ByteString,
    /// `Gauge`, `Sum`, `Histogram`, `ExponentialHistogram` or `Summary`.
    pub kind: &'static str,
    /// Of a sum: it does not fall.
    pub monotonic: bool,
    /// `CUMULATIVE`, `DELTA` or `UNSPECIFIED`.
    pub temporality: &'static str,
}

/// A data point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// Its attributes.
    pub attributes: Attributes,
    /// Of a gauge or a sum: the number.
    pub value: Value,
    /// Of the others: how many were measured.
    pub count: Value,
    /// Of the others: what they sum up to, if it is known.
    pub sum: Value,
    /// Since when, ns since 1970.
    pub start_ns: u64,
    /// Of when, ns since 1970.
    pub time_ns: u64,
}

/// A step of a pipeline of metrics. Resources come first, then their scopes, metrics, points.
pub trait OfMetrics: Send {
    /// Changes a resource.
    fn resource(&mut self, resource: &mut Resource) {
        let _ = resource;
    }
    /// Changes a scope.
    fn scope(&mut self, scope: &mut Scope, resource: &Resource) {
        let (_, _) = (scope, resource);
    }
    /// Changes a metric's texts; false: all of its points are taken out.
    fn metric(&mut self, metric: &mut Metric, source: &Source) -> bool {
        let (_, _) = (metric, source);
        true
    }
    /// Changes a point's attributes; false: it is taken out.
    fn point(&mut self, point: &mut Point, metric: &Metric, source: &Source) -> bool {
        let (_, _, _) = (point, metric, source);
        true
    }
}

/// Its processors in their order.
pub type Chain = Vec<Box<dyn OfMetrics>>;

/// What the processors make of a request; how many points they have taken out.
pub fn run(
    chain: &mut Chain,
    mut request: ExportMetricsServiceRequest,
) -> Result<(ExportMetricsServiceRequest, u64), decode::Malformed> {
    let mut out = 0;
    for processor in chain {
        for of in &mut request.resource_metrics {
            out += step(&mut **processor, of)?;
        }
        request.resource_metrics.retain(|of| !of.scope_metrics.is_empty());
    }
    Ok((request, out))
}

fn step(
    processor: &mut dyn OfMetrics,
    of: &mut proto::ResourceMetrics,
) -> Result<u64, decode::Malformed> {
    let written = of.resource.take().unwrap_or_default();
    let mut resource = decode::resource(&written.encode_to_vec().into(), ByteString::default())?;
    processor.resource(&mut resource);
    of.resource = Some(ProtoResource { attributes: pairs(&resource.attributes)?, ..written });
    let mut source = Source { resource: resource.into(), ..Source::default() };
    let mut out = 0;
    for of in &mut of.scope_metrics {
        let written = of.scope.take().unwrap_or_default();
        let mut scope = decode::scope(&written.encode_to_vec().into(), ByteString::default())?;
        processor.scope(&mut scope, &source.resource);
        let attributes = pairs(&scope.attributes)?;
        let (name, version) = (scope.name.to_string(), scope.version.to_string());
        of.scope = Some(InstrumentationScope { name, version, attributes, ..written });
        source.scope = scope.into();
        for metric in &mut of.metrics {
            out += step_metric(processor, metric, &source)?;
        }
        of.metrics.retain(|metric| points(metric) > 0);
    }
    of.scope_metrics.retain(|of| !of.metrics.is_empty());
    Ok(out)
}

fn step_metric(
    processor: &mut dyn OfMetrics,
    of: &mut proto::Metric,
    source: &Source,
) -> Result<u64, decode::Malformed> {
    let before = points(of);
    let mut metric = about(of);
    if !processor.metric(&mut metric, source) {
        of.data = None;
        return Ok(before);
    }
    of.name = metric.name.to_string();
    of.description = metric.description.to_string();
    of.unit = metric.unit.to_string();
    let mut failed = None;
    let mut each = |attributes: &mut Vec<KeyValue>, point: Point| {
        let keeps = || {
            let mut point = Point { attributes: attributes_of(attributes)?, ..point };
            let keeps = processor.point(&mut point, &metric, source);
            *attributes = pairs(&point.attributes)?;
            Ok(keeps)
        };
        keeps().unwrap_or_else(|error| {
            failed = Some(error);
            true
        })
    };
    let optional = |number: Option<f64>| number.map_or(Value::Empty, Value::Double);
    let whole = |number: u64| Value::Int(number.cast_signed());
    match &mut of.data {
        Some(Data::Gauge(proto::Gauge { data_points, .. }))
        | Some(Data::Sum(proto::Sum { data_points, .. })) => data_points.retain_mut(|it| {
            let value = match it.value {
                Some(number_data_point::Value::AsInt(number)) => Value::Int(number),
                Some(number_data_point::Value::AsDouble(number)) => Value::Double(number),
                None => Value::Empty,
            };
            let (start_ns, time_ns) = (it.start_time_unix_nano, it.time_unix_nano);
            each(&mut it.attributes, Point { value, start_ns, time_ns, ..Point::default() })
        }),
        Some(Data::Histogram(of)) => of.data_points.retain_mut(|it| {
            let (start_ns, time_ns) = (it.start_time_unix_nano, it.time_unix_nano);
            let (count, sum) = (whole(it.count), optional(it.sum));
            each(&mut it.attributes, Point { count, sum, start_ns, time_ns, ..Point::default() })
        }),
        Some(Data::ExponentialHistogram(of)) => of.data_points.retain_mut(|it| {
            let (start_ns, time_ns) = (it.start_time_unix_nano, it.time_unix_nano);
            let (count, sum) = (whole(it.count), optional(it.sum));
            each(&mut it.attributes, Point { count, sum, start_ns, time_ns, ..Point::default() })
        }),
        Some(Data::Summary(of)) => of.data_points.retain_mut(|it| {
            let (start_ns, time_ns) = (it.start_time_unix_nano, it.time_unix_nano);
            let (count, sum) = (whole(it.count), Value::Double(it.sum));
            each(&mut it.attributes, Point { count, sum, start_ns, time_ns, ..Point::default() })
        }),
        None => {}
    }
    failed.map_or_else(|| Ok(before - points(of)), Err)
}

/// How many points a metric has.
fn points(of: &proto::Metric) -> u64 {
    let count = match &of.data {
        Some(Data::Gauge(of)) => of.data_points.len(),
        Some(Data::Sum(of)) => of.data_points.len(),
        Some(Data::Histogram(of)) => of.data_points.len(),
        Some(Data::ExponentialHistogram(of)) => of.data_points.len(),
        Some(Data::Summary(of)) => of.data_points.len(),
        None => 0,
    };
    count as u64
}

fn about(of: &proto::Metric) -> Metric {
    let temporality = |number: i32| match AggregationTemporality::try_from(number) {
        Ok(AggregationTemporality::Delta) => "DELTA",
        Ok(AggregationTemporality::Cumulative) => "CUMULATIVE",
        _ => "UNSPECIFIED",
    };
    let (kind, monotonic, temporality) = match &of.data {
        Some(Data::Gauge(_)) => ("Gauge", false, "UNSPECIFIED"),
        Some(Data::Sum(of)) => ("Sum", of.is_monotonic, temporality(of.aggregation_temporality)),
        Some(Data::Histogram(of)) => ("Histogram", false, temporality(of.aggregation_temporality)),
        Some(Data::ExponentialHistogram(of)) => {
            ("ExponentialHistogram", false, temporality(of.aggregation_temporality))
        }
        Some(Data::Summary(_)) => ("Summary", false, "UNSPECIFIED"),
        None => ("None", false, "UNSPECIFIED"),
    };
    Metric {
        name: of.name.as_str().into(),
        description: of.description.as_str().into(),
        unit: of.unit.as_str().into(),
        kind,
        monotonic,
        temporality,
    }
}

fn attributes_of(pairs: &mut Vec<KeyValue>) -> Result<Attributes, decode::Malformed> {
    let of = ProtoResource { attributes: std::mem::take(pairs), ..ProtoResource::default() };
    Ok(decode::resource(&of.encode_to_vec().into(), ByteString::default())?.attributes)
}

fn pairs(attributes: &Attributes) -> Result<Vec<KeyValue>, decode::Malformed> {
    let resource = Resource { attributes: attributes.clone(), ..Resource::default() };
    let bytes = Bytes::from(encode::resource(&resource));
    ProtoResource::decode(bytes).map(|of| of.attributes).map_err(|_| decode::NO_ATTRIBUTES)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
