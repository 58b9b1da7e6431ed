//! What the processors `attributes` and `resource` do to attributes, as the Collector's do. Comes in: attributes;
//! goes out: the same, changed in the order of the actions.
#![forbid(unsafe_code)]

use bytestring::ByteString;
use sha2::{Digest as _, Sha256};

use super::{
    data::{Attributes, Value},
    pattern::Pattern,
};

/// One action.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// `insert`, `update`, `upsert`.
    Put {
        /// The key.
        key: ByteString,
        /// Where there is such a key: `update` and `upsert`.
        there: bool,
        /// Where there is none: `insert` and `upsert`.
        absent: bool,
        /// What is put.
        value: Put,
    },
    /// `delete`.
    Delete(Keys),
    /// `hash`: SHA-256 in hex; the text as it is, numbers as 8 bytes with the lowest first, true and
    /// false as a byte. An empty text, and a value of another type, becomes an empty text.
    Hash(Keys),
    /// `extract`: named groups of the pattern, where it matches the text behind the key.
    Extract(ByteString, Pattern),
    /// `convert`.
    Convert(ByteString, Type),
}

/// What is put.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Put {
    /// This.
    pub value: Option<Value>,
    /// What stands behind this key.
    pub from: Option<ByteString>,
    /// If it does not stand there: this.
    pub default: Option<Value>,
}

/// Which keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keys {
    /// This one.
    pub key: Option<ByteString>,
    /// And those that this matches.
    pub pattern: Option<Pattern>,
}

/// `converted_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A text.
    Text,
    /// An integer.
    Int,
    /// A number with a fraction.
    Double,
}

impl Keys {
    fn is(&self, key: &str) -> bool {
        self.key.as_deref() == Some(key)
    }

    fn matches(&self, key: &str) -> bool {
        self.pattern.as_ref().is_some_and(|pattern| pattern.matches(key))
    }
}

/// Does them all.
pub fn apply(actions: &[Action], attributes: &mut Attributes) {
    actions.iter().for_each(|action| action.apply(attributes));
}

impl Action {
    fn apply(&self, attributes: &mut Attributes) {
        match self {
            Self::Put { key, there, absent, value } => {
                let wanted = if attributes.get(key).is_some() { *there } else { *absent };
                let from = || value.from.as_ref().and_then(|key| attributes.get(key));
                let found = value.value.as_ref().or_else(from).or(value.default.as_ref());
                if let Some(found) = found.filter(|_| wanted).cloned() {
                    attributes.set(key.clone(), found);
                }
            }
            Self::Delete(keys) => {
                attributes.0.retain(|(key, _)| !(keys.is(key) || keys.matches(key)));
            }
            Self::Hash(keys) => {
                for (key, value) in &mut attributes.0 {
                    // One that both name is hashed twice, as by the Collector.
                    if keys.is(key) {
                        *value = hashed(value);
                    }
                    if keys.matches(key) {
                        *value = hashed(value);
                    }
                }
            }
            Self::Extract(key, pattern) => {
                let Some(Value::Text(text)) = attributes.get(key) else { return };
                let text = text.clone();
                let Some(captures) = pattern.regex().captures(&text) else { return };
                for name in pattern.regex().capture_names().flatten() {
                    let part = captures.name(name).map_or("", |part| part.as_str());
                    attributes.set(name, part);
                }
            }
            Self::Convert(key, to) => {
                if let Some(value) = attributes.get_mut(key)
                    && let Some(converted) = converted(value, *to)
                {
                    *value = converted;
                }
            }
        }
    }
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a text cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

fn hashed(value: &Value) -> Value {
    let hashed = match value {
        Value::Text(text) => Sha256::digest(text.as_bytes()),
        Value::Bool(truth) => Sha256::digest([u8::from(*truth)]),
        Value::Int(number) => Sha256::digest(number.to_le_bytes()),
        Value::Double(number) => Sha256::digest(number.to_le_bytes()),
        Value::Empty | Value::Bytes(_) | Value::Array(_) | Value::Map(_) => return "".into(),
    };
    hex(&hashed).into()
}

/// A value as one of another type; `None` where it stays as it is.
fn converted(value: &Value, to: Type) -> Option<Value> {
    Some(match (to, value) {
        (Type::Text, Value::Text(_)) => return None,
        (Type::Text, _) => value.as_text().into_owned().into(),
        (Type::Int, Value::Double(number)) => Value::Int(*number as i64),
        (Type::Int, Value::Bool(truth)) => Value::Int((*truth).into()),
        (Type::Int, Value::Text(text)) => Value::Int(text.parse().ok()?),
        (Type::Double, Value::Int(number)) => Value::Double(*number as f64),
        (Type::Double, Value::Bool(truth)) => Value::Double(f64::from(u8::from(*truth))),
        (Type::Double, Value::Text(text)) => {
            let number: f64 = text.parse().ok()?;
            // Digits without an end that a number can have.
            if number.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) {
                return None;
            }
            Value::Double(number)
        }
        _ => return None,
    })
}
