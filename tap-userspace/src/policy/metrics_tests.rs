use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
};

use super::*;
use crate::{config::processors::Processors, policy::chain};

/// A request with a point of each kind, and a second one of the sum, with these attributes.
fn request(attributes: &[(&'static str, Value)]) -> ExportMetricsServiceRequest {
    let attributes =
        Attributes(attributes.iter().map(|(key, value)| ((*key).into(), value.clone())).collect());
    let attributes = pairs(&attributes).unwrap();
    let number = |value| NumberDataPoint {
        attributes: attributes.clone(),
        value: Some(number_data_point::Value::AsInt(value)),
        time_unix_nano: 7,
        ..NumberDataPoint::default()
    };
    let data = [
        ("gauge", Data::Gauge(Gauge { data_points: vec![number(1)] })),
        (
            "sum",
            Data::Sum(Sum {
                data_points: vec![number(2), number(30)],
                aggregation_temporality: 2,
                is_monotonic: true,
            }),
        ),
        (
            "histogram",
            Data::Histogram(Histogram {
                data_points: vec![HistogramDataPoint {
                    attributes: attributes.clone(),
                    count: 4,
                    sum: Some(2.5),
                    bucket_counts: vec![4],
                    ..HistogramDataPoint::default()
                }],
                aggregation_temporality: 1,
            }),
        ),
        (
            "exponential",
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![ExponentialHistogramDataPoint {
                    attributes: attributes.clone(),
                    count: 5,
                    ..ExponentialHistogramDataPoint::default()
                }],
                aggregation_temporality: 2,
            }),
        ),
        (
            "summary",
            Data::Summary(Summary {
                data_points: vec![SummaryDataPoint {
                    attributes,
                    count: 6,
                    ..SummaryDataPoint::default()
                }],
            }),
        ),
    ];
    let metrics = data
        .into_iter()
        .map(|(name, data)| proto::Metric {
            name: name.to_owned(),
            unit: "1".to_owned(),
            data: Some(data),
            ..proto::Metric::default()
        })
        .collect();
    let mut resource = Resource::default();
    resource.attributes.set("service.name", "tap");
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource = ProtoResource {
        attributes: pairs(&resource.attributes).unwrap(),
        ..ProtoResource::default()
    };
    let resource =
        ResourceMetrics { resource: Some(resource), scope_metrics, ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }
}

fn run_yaml(
    yaml: &str,
    request: ExportMetricsServiceRequest,
) -> (ExportMetricsServiceRequest, u64) {
    let processors: Processors =
        serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    let named: Vec<_> = processors.iter().map(|(name, of)| (name.clone(), of.clone())).collect();
    run(&mut chain::of_metrics(&named), request).unwrap()
}

fn names(request: &ExportMetricsServiceRequest) -> Vec<(&str, u64)> {
    let scopes = request.resource_metrics.iter().flat_map(|of| &of.scope_metrics);
    scopes.flat_map(|of| &of.metrics).map(|of| (&*of.name, points(of))).collect()
}

const ALL: [(&str, u64); 5] =
    [("gauge", 1), ("sum", 2), ("histogram", 1), ("exponential", 1), ("summary", 1)];

#[test]
fn a_filter_takes_out_metrics_and_points() {
    for (conditions, left, out) in [
        ("metric: ['name == \"sum\"']", &[ALL[0], ALL[2], ALL[3], ALL[4]][..], 2),
        (
            "metric: ['type == \"Histogram\" && aggregation_temporality == \"DELTA\"']",
            &[ALL[0], ALL[1], ALL[3], ALL[4]],
            1,
        ),
        ("metric: ['is_monotonic', 'unit == \"By\"']", &[ALL[0], ALL[2], ALL[3], ALL[4]], 2),
        ("datapoint: ['value > 10']", &[ALL[0], ("sum", 1), ALL[2], ALL[3], ALL[4]], 1),
        ("datapoint: ['count == 4 && sum > 2.0']", &[ALL[0], ALL[1], ALL[3], ALL[4]], 1),
        ("datapoint: ['attributes[\"a\"] == \"b\" && name != \"gauge\"']", &ALL[..1], 5),
        ("datapoint: ['resource.attributes[\"service.name\"] == \"tap\"']", &[], 6),
        ("datapoint: ['time_ns == 7 && start_ns == 0']", &ALL[2..], 3),
    ] {
        let yaml = format!("filter: {{ metrics: {{ {conditions} }} }}");
        let (request, filtered) = run_yaml(&yaml, request(&[("a", "b".into())]));
        assert_eq!((names(&request), filtered), (left.to_vec(), out), "{yaml}");
        assert_eq!(request.resource_metrics.is_empty(), left.is_empty());
    }
}

#[test]
fn points_and_resources_are_changed_and_all_else_stays() {
    let before = request(&[("a", "4111111111111111".into()), ("b", 1i64.into())]);
    let (same, filtered) = run_yaml("redaction: { allow_all_keys: true }", before.clone());
    assert_eq!((same.encode_to_vec(), filtered), (with_scopes(before.clone()).encode_to_vec(), 0));
    let yaml = "
        resource: { attributes: [{key: zone, value: z, action: insert}] }
        attributes: { include: {match_type: strict, metric_names: [sum], resources: [{key: zone}]}, \
                      actions: [{key: b, action: delete}] }
        redaction: { allow_all_keys: true, detect: [card_number], summary: info }
        transform: { metric_statements: ['set(metric.unit, \"By\") where metric.name == \"gauge\"', \
                     'set(datapoint.attributes[\"c\"], metric.name) where datapoint.count == 6', \
                     'set(resource.attributes[\"r\"], true)'] }";
    let (after, filtered) = run_yaml(yaml, before);
    assert_eq!((names(&after), filtered), (ALL.to_vec(), 0));
    let of = &after.resource_metrics[0];
    let mut resource = of.resource.clone().unwrap().attributes;
    let resource = attributes_of(&mut resource).unwrap();
    assert_eq!(resource.get("zone"), Some(&"z".into()));
    assert_eq!(resource.get("r"), Some(&true.into()));
    let told: Vec<Vec<String>> = of.scope_metrics[0]
        .metrics
        .iter()
        .map(|metric| {
            let mut told = Vec::new();
            let mut tell = |pairs: &Vec<KeyValue>| {
                let map = Value::Map(attributes_of(&mut pairs.clone()).unwrap());
                told.push(map.as_text().into_owned());
            };
            match metric.data.as_ref().unwrap() {
                Data::Gauge(of) => of.data_points.iter().for_each(|it| tell(&it.attributes)),
                Data::Sum(of) => of.data_points.iter().for_each(|it| tell(&it.attributes)),
                Data::Histogram(of) => of.data_points.iter().for_each(|it| tell(&it.attributes)),
                Data::ExponentialHistogram(of) => {
                    of.data_points.iter().for_each(|it| tell(&it.attributes));
                }
                Data::Summary(of) => of.data_points.iter().for_each(|it| tell(&it.attributes)),
            }
            told
        })
        .collect();
    let masked = r#"{"a":"****","b":1,"redaction.masked.count":1}"#;
    let without = r#"{"a":"****","redaction.masked.count":1}"#;
    let named = r#"{"a":"****","b":1,"c":"summary","redaction.masked.count":1}"#;
    assert_eq!(
        told,
        [vec![masked], vec![without, without], vec![masked], vec![masked], vec![named]]
    );
    assert_eq!(of.scope_metrics[0].metrics[0].unit, "By");
    assert_eq!(of.scope_metrics[0].metrics[1].unit, "1");
}

/// A scope that is not there is written as one that says nothing.
fn with_scopes(mut request: ExportMetricsServiceRequest) -> ExportMetricsServiceRequest {
    for of in request.resource_metrics.iter_mut().flat_map(|of| &mut of.scope_metrics) {
        of.scope.get_or_insert_default();
    }
    request
}
