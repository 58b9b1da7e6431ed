//! Values as texts, and out of the configuration. Comes in: a [`Value`], or YAML; goes out: the text that the
//! Collector's `AsString` gives, or a [`Value`].

use std::{
    borrow::Cow,
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use base64::Engine as _;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess},
};

use super::{Attributes, Value};
use crate::config::schema;

impl Value {
    /// As a text: numbers in decimal, bytes in base64, lists and maps as JSON with sorted keys.
    pub fn as_text(&self) -> Cow<'_, str> {
        match self {
            Self::Empty => Cow::Borrowed(""),
            Self::Text(text) => Cow::Borrowed(text),
            Self::Bool(truth) => Cow::Borrowed(if *truth { "true" } else { "false" }),
            Self::Int(number) => Cow::Owned(number.to_string()),
            Self::Double(number) => Cow::Owned(double(*number)),
            Self::Bytes(bytes) => {
                Cow::Owned(base64::engine::general_purpose::STANDARD.encode(bytes))
            }
            Self::Array(_) | Self::Map(_) => {
                let mut out = String::new();
                json(self, &mut out);
                Cow::Owned(out)
            }
        }
    }
}

/// A number as JavaScript and Go's JSON write it.
fn double(number: f64) -> String {
    if !number.is_finite() {
        let name =
            if number.is_nan() { "NaN" } else { ["+Inf", "-Inf"][usize::from(number < 0.0)] };
        return format!("json: unsupported value: {name}");
    }
    let size = number.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    if text.contains("e-") { text } else { text.replacen('e', "e+", 1) }
}

fn json(value: &Value, out: &mut String) {
    let quoted = |text: &str, out: &mut String| {
        // A text can be written always.
        let text = serde_json::to_string(text).unwrap_or_default();
        for character in text.chars() {
            match character {
                '<' => out.push_str("\\u003c"),
                '>' => out.push_str("\\u003e"),
                '&' => out.push_str("\\u0026"),
                '\u{2028}' => out.push_str("\\u2028"),
                '\u{2029}' => out.push_str("\\u2029"),
                _ => out.push(character),
            }
        }
    };
    match value {
        Value::Empty => out.push_str("null"),
        Value::Text(_) | Value::Bytes(_) => quoted(&value.as_text(), out),
        Value::Bool(_) | Value::Int(_) | Value::Double(_) => out.push_str(&value.as_text()),
        Value::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                json(value, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by(|one, other| one.0.cmp(other.0));
            out.push('{');
            for (index, (key, value)) in pairs.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                quoted(key, out);
                out.push(':');
                json(value, out);
            }
            out.push('}');
        }
    }
}

impl Attributes {
    /// A number that equal attributes in equal order share.
    pub fn digest(&self) -> u64 {
        fn of(value: &Value, hasher: &mut DefaultHasher) {
            std::mem::discriminant(value).hash(hasher);
            match value {
                Value::Empty => {}
                Value::Text(text) => text.hash(hasher),
                Value::Bool(truth) => truth.hash(hasher),
                Value::Int(number) => number.hash(hasher),
                Value::Double(number) => number.to_bits().hash(hasher),
                Value::Bytes(bytes) => bytes.hash(hasher),
                Value::Array(values) => values.iter().for_each(|value| of(value, hasher)),
                Value::Map(map) => all(map, hasher),
            }
        }
        fn all(map: &Attributes, hasher: &mut DefaultHasher) {
            for (key, value) in map.iter() {
                key.hash(hasher);
                of(value, hasher);
            }
        }
        let mut hasher = DefaultHasher::new();
        all(self, &mut hasher);
        hasher.finish()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Empty => to.serialize_unit(),
            Self::Text(text) => to.serialize_str(text),
            Self::Bool(truth) => to.serialize_bool(*truth),
            Self::Int(number) => to.serialize_i64(*number),
            Self::Double(number) => to.serialize_f64(*number),
            Self::Bytes(_) => to.serialize_str(&self.as_text()),
            Self::Array(values) => to.collect_seq(values),
            Self::Map(map) => to.collect_map(map.iter().map(|(key, value)| (&**key, value))),
        }
    }
}

schema::by_hand!(Value, {});

/// From YAML; the type is that of the scalar there.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true, false, a list or a map")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Empty)
            }

            fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
                Ok(Value::Bool(truth))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Int(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
                i64::try_from(number).map(Value::Int).map_err(|_| {
                    E::custom(format!("{number} is too large: an attribute has 64 bits, signed"))
                })
            }

            fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
                Ok(Value::Double(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::from(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Value::Array(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut attributes = Attributes::default();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    attributes.set(key, value);
                }
                Ok(Value::Map(attributes))
            }
        }
        from.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_the_collectors() {
        let map = |pairs: &[(&'static str, Value)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).into(), value.clone()));
            Value::Map(Attributes(pairs.collect()))
        };
        for (value, text) in [
            (Value::Empty, ""),
            ("a<b".into(), "a<b"),
            (true.into(), "true"),
            ((-5i64).into(), "-5"),
            (1.0.into(), "1"),
            (99.1.into(), "99.1"),
            (0.000_000_1.into(), "1e-7"),
            (1e21.into(), "1e+21"),
            (1e20.into(), "100000000000000000000"),
            (f64::NAN.into(), "json: unsupported value: NaN"),
            (Value::Bytes(vec![1, 2, 255].into()), "AQL/"),
            (Value::Array(vec![1i64.into(), "x".into(), Value::Empty]), r#"[1,"x",null]"#),
            (map(&[("b", 2.5.into()), ("a", "<\n".into())]), r#"{"a":"\u003c\n","b":2.5}"#),
        ] {
            assert_eq!(value.as_text(), text);
        }
    }

    #[test]
    fn yaml_has_types() {
        let value: Value =
            serde_yaml::from_str("{ a: 1, b: 1.5, c: true, d: x, e: [2], f: null }").unwrap();
        let Value::Map(map) = value else { panic!("{value:?}") };
        assert_eq!(map.get("a"), Some(&Value::Int(1)));
        assert_eq!(map.get("b"), Some(&Value::Double(1.5)));
        assert_eq!(map.get("c"), Some(&Value::Bool(true)));
        assert_eq!(map.get("d"), Some(&"x".into()));
        assert_eq!(map.get("e"), Some(&Value::Array(vec![Value::Int(2)])));
        assert_eq!(map.get("f"), Some(&Value::Empty));
        let large: Result<Value, _> = serde_yaml::from_str("9223372036854775808");
        assert!(large.unwrap_err().to_string().contains("too large"));
    }
}
