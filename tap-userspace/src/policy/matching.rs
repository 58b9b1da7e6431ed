//! Which items the processor `attributes` changes: its `include` and `exclude`. Comes in: an item; goes out: whether it
//! matches.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::{
    data::{Attributes, LogRecord, Resource, Source, Span, Value},
    expression::KINDS,
    pattern::Pattern,
};

/// What is to be true of an item: all of it. What is empty is not asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// `service.name` of the resource; one of them.
    pub services: Vec<Text>,
    /// One of them.
    pub span_names: Vec<Text>,
    /// As `SPAN_KIND_SERVER`; one of them.
    pub span_kinds: Vec<Text>,
    /// The body as a text; one of them.
    pub log_bodies: Vec<Text>,
    /// One of them.
    pub log_severity_texts: Vec<Text>,
    /// How severe at least.
    pub log_severity_number: Option<Severity>,
    /// One of them.
    pub metric_names: Vec<Text>,
    /// All of them.
    pub attributes: Vec<(String, Attribute)>,
    /// All of them.
    pub resources: Vec<(String, Attribute)>,
    /// All of them.
    pub libraries: Vec<Library>,
}

/// What a text is to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Text {
    /// This one.
    Strict(String),
    /// One that this matches somewhere.
    Pattern(Pattern),
}

/// What an attribute is to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// There.
    There,
    /// This, of the same type.
    Is(Value),
    /// As a text; no list, map or bytes.
    Matches(Text),
}

/// `log_severity_number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Severity {
    /// The lowest.
    pub min: u32,
    /// Whether records without one match.
    pub undefined: bool,
}

/// An instrumentation scope.
#[derive(Clone, Debug, PartialEq)]
pub struct Library {
    /// Its name.
    pub name: Text,
    /// Its version, if that matters.
    pub version: Option<Text>,
}

impl Text {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Strict(wanted) => wanted == text,
            Self::Pattern(pattern) => pattern.matches(text),
        }
    }
}

fn one(of: &[Text], text: &str) -> bool {
    of.is_empty() || of.iter().any(|wanted| wanted.matches(text))
}

impl Attribute {
    fn matches(&self, value: &Value) -> bool {
        let text = |value: &Value| -> Option<String> {
            Some(match value {
                Value::Text(_) | Value::Bool(_) | Value::Int(_) => value.as_text().into_owned(),
                // Never with an exponent, unlike elsewhere.
                Value::Double(number) => number.to_string(),
                Value::Empty | Value::Bytes(_) | Value::Array(_) | Value::Map(_) => return None,
            })
        };
        match self {
            Self::There => true,
            Self::Is(wanted) => wanted == value,
            Self::Matches(wanted) => text(value).is_some_and(|text| wanted.matches(&text)),
        }
    }
}

fn each(of: &[(String, Attribute)], attributes: &Attributes) -> bool {
    of.iter().all(|(key, wanted)| attributes.get(key).is_some_and(|it| wanted.matches(it)))
}

impl Properties {
    fn common(&self, attributes: &Attributes, source: &Source) -> bool {
        let library = |Library { name, version }: &Library| {
            let of = &source.scope;
            name.matches(&of.name) && version.as_ref().is_none_or(|it| it.matches(&of.version))
        };
        self.libraries.iter().all(library)
            && each(&self.resources, &source.resource.attributes)
            && each(&self.attributes, attributes)
    }

    /// Whether a metric of this name and resource matches.
    pub fn metric(&self, name: &str, resource: &Resource) -> bool {
        one(&self.metric_names, name) && each(&self.resources, &resource.attributes)
    }
}

/// Items that can be asked.
pub trait Matched {
    /// Whether `properties` are true of it.
    fn matches(&self, properties: &Properties) -> bool;
}

impl Matched for Span {
    fn matches(&self, properties: &Properties) -> bool {
        let service = self.source.resource.attributes.get("service.name");
        // What the Collector takes in its place.
        let service = service.map_or(Cow::Borrowed("<nil-service-name>"), Value::as_text);
        let kind = || {
            KINDS
                .get(self.kind as usize)
                .map_or_else(String::new, |name| format!("SPAN_KIND_{name}"))
        };
        one(&properties.services, &service)
            && one(&properties.span_names, &self.name)
            && (properties.span_kinds.is_empty() || one(&properties.span_kinds, &kind()))
            && properties.common(&self.attributes, &self.source)
    }
}

impl Matched for LogRecord {
    fn matches(&self, properties: &Properties) -> bool {
        let severe = |wanted: Severity| match self.severity {
            0 => wanted.undefined,
            number => number >= wanted.min,
        };
        (properties.log_bodies.is_empty() || one(&properties.log_bodies, &self.body.as_text()))
            && one(&properties.log_severity_texts, &self.severity_text)
            && properties.log_severity_number.is_none_or(severe)
            && properties.common(&self.attributes, &self.source)
    }
}
