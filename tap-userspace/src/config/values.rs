//! Values of the configuration file: numbers with units, secrets, and how they are written again.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that no log shows.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

/// With this tag a secret is written, for [`super::show`] to know it by.
pub(super) const SECRET: &str = "secret";

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_newtype_variant("Secret", 0, SECRET, &self.0)
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A scalar of YAML, number or text, as text.
pub(in crate::config) struct Scalar(pub(in crate::config) String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar(from, |text| {
            text.map(Self::from).ok_or_else(|| "a number or text is missing".into())
        })
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A scalar of YAML as `parse` has it; `None` is nothing at all. What is wrong with it is told with
/// its place, which is known only while it is read.
pub(in crate::config) fn scalar<'de, T, D: Deserializer<'de>>(
    from: D,
    parse: impl FnOnce(Option<&str>) -> Result<T, String>,
) -> Result<T, D::Error> {
    // As text, whatever it looks like: a token of digits is to keep its zeros.
    struct Visitor<F>(F);
    impl<'de, T, F: FnOnce(Option<&str>) -> Result<T, String>> de::Visitor<'de> for Visitor<F> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("one value")
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
            (self.0)(Some(value)).map_err(E::custom)
        }
        fn visit_none<E: de::Error>(self) -> Result<T, E> {
            (self.0)(None).map_err(E::custom)
        }
        fn visit_unit<E: de::Error>(self) -> Result<T, E> {
            (self.0)(None).map_err(E::custom)
        }
        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<T, D::Error> {
            from.deserialize_str(self)
        }
    }
    from.deserialize_option(Visitor(parse))
}

/// A number with one of `units` behind it.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let (_, factor) = units.iter().find(|(unit, _)| *unit == text[digits..].trim())?;
    number.checked_mul(*factor)
}

pub(in crate::config) fn duration<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Duration, D::Error> {
    let Scalar(text) = Scalar::deserialize(from)?;
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    match with_unit(&text, &units) {
        Some(ms) if ms >= 1000 => Ok(Duration::from_millis(ms)),
        _ => Err(de::Error::custom(format!(
            "`{text}` is no duration of at least 1s: write 30s, 10m or 1h"
        ))),
    }
}

pub(in crate::config) fn size(text: &str) -> Option<u64> {
    with_unit(text, &[("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)])
}

/// A duration in the largest unit that it is a whole number of.
pub(in crate::config) fn write_duration<S: Serializer>(
    duration: &Duration,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_str(&shown_duration(*duration))
}

/// As [`write_duration`], where there may be none.
pub(in crate::config) fn write_some_duration<S: Serializer>(
    duration: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => write_duration(duration, to),
        None => to.serialize_none(),
    }
}

fn shown_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units = [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
    ];
    match units.iter().find(|(_, unit)| nanos > 0 && nanos.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", nanos / unit),
        None if nanos == 0 => "0s".to_owned(),
        None => format!("{nanos}ns"),
    }
}

/// Bytes in the largest unit that they are a whole number of; below one KiB, a number.
pub(in crate::config) fn write_size<N: Copy + TryInto<u64>, S: Serializer>(
    size: &N,
    to: S,
) -> Result<S::Ok, S::Error> {
    let bytes: u64 = (*size).try_into().unwrap_or(u64::MAX);
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => to.serialize_str(&format!("{}{name}", bytes / unit)),
        None => to.serialize_u64(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (ms, shown) in
            [(1000, "1s"), (600_000, "10m"), (90_000, "90s"), (1500, "1500ms"), (7_200_000, "2h")]
        {
            let duration = Duration::from_millis(ms);
            assert_eq!(shown_duration(duration), shown);
            let read = super::duration(serde_yaml::Deserializer::from_str(shown)).unwrap();
            assert_eq!(read, duration);
        }
        assert_eq!(shown_duration(Duration::ZERO), "0s");
        assert_eq!(shown_duration(Duration::from_nanos(1_001)), "1001ns");
        for (bytes, shown) in [(4096, "4KiB"), (100, "100"), (1 << 30, "1GiB"), (0, "0")] {
            let value = write_size(&bytes, serde_yaml::value::Serializer).unwrap();
            let text = serde_yaml::to_string(&value).unwrap();
            assert_eq!(text.trim(), shown);
            assert_eq!(size(text.trim()), Some(bytes));
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret("hush".into());
        assert!(!format!("{secret:?}").contains("hush"));
    }
}
