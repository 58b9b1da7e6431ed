//! Numbers as JSON lines for standard output, one a series: a flat object of time, name, unit and
//! value, with the series's labels.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{self as proto, metric::Data, number_data_point},
};
use serde_json::{Map, Value as Json, json};

use super::{
    Label, Read, Sample, Value,
    histogram::{Buckets, Histogram},
};
use crate::export::line::time;

/// Appends the lines of a reading of `now_ns`; how many they are.
pub fn lines(read: &[Read], now_ns: u64, out: &mut Vec<u8>) -> u64 {
    let mut count = 0;
    for Read { family, samples } in read {
        for sample in samples {
            out.extend_from_slice(b"{\"time\":");
            time(now_ns, out);
            let mut object = Map::new();
            object.insert("name".to_owned(), family.name.into());
            if !family.unit.is_empty() {
                object.insert("unit".to_owned(), family.unit.into());
            }
            tell(sample, &mut object);
            out.push(b',');
            let text = Json::Object(object).to_string();
            out.extend_from_slice(&text.as_bytes()[1..]);
            out.push(b'\n');
            count += 1;
        }
    }
    count
}

fn tell(sample: &Sample, object: &mut Map<String, Json>) {
    for (key, label) in &sample.labels {
        let value = match label {
            Label::Text(text) => text.as_str().into(),
            Label::Int(int) => (*int).into(),
            Label::Bool(truth) => (*truth).into(),
        };
        object.insert((*key).to_owned(), value);
    }
    match &sample.value {
        Value::Number(number) => drop(object.insert("value".to_owned(), (*number).into())),
        Value::Histogram(histogram) => histogram_members(histogram, object),
    }
}

fn histogram_members(histogram: &Histogram, object: &mut Map<String, Json>) {
    let Histogram { count, sum, min, max, buckets, .. } = histogram;
    let mut put = |name: &str, value: Json| drop(object.insert(name.to_owned(), value));
    put("count", json!(count));
    put("sum", json!(sum));
    put("min", json!(min));
    put("max", json!(max));
    match buckets {
        Buckets::Explicit(bounds, counts) => {
            put("bounds", json!(bounds));
            put("buckets", json!(counts));
        }
        Buckets::Exponential(exponential) => {
            put("scale", json!(exponential.scale));
            put("zero", json!(exponential.zero));
            put("offset", json!(exponential.positive.offset));
            put("buckets", json!(exponential.positive.counts));
        }
    }
}

/// Appends the lines of a request that processors have made.
pub fn of_request(request: &ExportMetricsServiceRequest, out: &mut Vec<u8>) {
    let scopes = request.resource_metrics.iter().flat_map(|of| &of.scope_metrics);
    for metric in scopes.flat_map(|of| &of.metrics) {
        let mut point = |time_ns: u64, attributes: &[KeyValue], members: Json| {
            out.extend_from_slice(b"{\"time\":");
            time(time_ns, out);
            let mut object = Map::new();
            object.insert("name".to_owned(), metric.name.as_str().into());
            if !metric.unit.is_empty() {
                object.insert("unit".to_owned(), metric.unit.as_str().into());
            }
            for KeyValue { key, value, .. } in attributes {
                object.insert(key.clone(), json_of(value.as_ref()));
            }
            if let Json::Object(members) = members {
                object.extend(members);
            }
            out.push(b',');
            let text = Json::Object(object).to_string();
            out.extend_from_slice(&text.as_bytes()[1..]);
            out.push(b'\n');
        };
        match &metric.data {
            Some(Data::Gauge(proto::Gauge { data_points, .. }))
            | Some(Data::Sum(proto::Sum { data_points, .. })) => {
                for it in data_points {
                    let value = match it.value {
                        Some(number_data_point::Value::AsInt(number)) => json!(number),
                        Some(number_data_point::Value::AsDouble(number)) => json!(number),
                        None => Json::Null,
                    };
                    point(it.time_unix_nano, &it.attributes, json!({ "value": value }));
                }
            }
            Some(Data::Histogram(of)) => {
                for it in &of.data_points {
                    let members = json!({
                        "count": it.count,
                        "sum": it.sum,
                        "min": it.min,
                        "max": it.max,
                        "bounds": it.explicit_bounds,
                        "buckets": it.bucket_counts,
                    });
                    point(it.time_unix_nano, &it.attributes, members);
                }
            }
            Some(Data::ExponentialHistogram(of)) => {
                for it in &of.data_points {
                    let positive = it.positive.as_ref();
                    let members = json!({
                        "count": it.count,
                        "sum": it.sum,
                        "min": it.min,
                        "max": it.max,
                        "scale": it.scale,
                        "zero": it.zero_count,
                        "offset": positive.map(|it| it.offset),
                        "buckets": positive.map(|it| &it.bucket_counts),
                    });
                    point(it.time_unix_nano, &it.attributes, members);
                }
            }
            // tap makes none.
            Some(Data::Summary(_)) | None => {}
        }
    }
}

/// An attribute's value.
fn json_of(value: Option<&AnyValue>) -> Json {
    use any_value::Value;

    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.as_str().into(),
        Some(Value::BoolValue(truth)) => (*truth).into(),
        Some(Value::IntValue(number)) => (*number).into(),
        Some(Value::DoubleValue(number)) => (*number).into(),
        Some(other) => serde_json::to_value(other).unwrap_or_default(),
        None => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::histogram::Aggregation, *};
    use crate::telemetry::metric::Family;

    #[test]
    fn a_line_is_an_object() {
        let labels = vec![("a.b", Label::Int(7)), ("c", Label::from("x\"y"))];
        let mut histogram = Histogram::new(Aggregation::Explicit, &[1.0]);
        histogram.record(0.5, None);
        let number = Value::Number(3);
        for (value, expected) in [
            (number, r#","unit":"s","value":3}"#),
            (
                Value::Histogram(Box::new(histogram)),
                r#","bounds":[1.0],"buckets":[1,0],"c":"x\"y","count":1,"max":0.5,"min":0.5,"#,
            ),
        ] {
            let sample = Sample { name: "n", labels: labels.clone(), value, delta_since: None };
            let read = [Read { family: Family::histogram("n", "s", ""), samples: vec![sample] }];
            let mut out = Vec::new();
            assert_eq!(lines(&read, 1_700_000_000_000_000_000, &mut out), 1);
            let text = String::from_utf8(out).unwrap();
            let json: Json = serde_json::from_str(&text).unwrap();
            assert_eq!((&json["a.b"], &json["c"]), (&json!(7), &json!("x\"y")));
            assert!(json["time"].as_str().unwrap().starts_with("2023-11-14T22:13:20"), "{text}");
            assert!(text.contains(expected), "{text}");
        }
    }
}
