//! Numbers as JSON lines for standard output, one a series: a flat object of time, name, unit and
//! value, with the series's labels.

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
