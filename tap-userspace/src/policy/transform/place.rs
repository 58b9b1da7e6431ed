//! What statements can change: places in items. Comes in: an item and a path; goes out: what lies there.

use bytestring::ByteString;

use super::parse::Step;
use crate::policy::{
    data::{Attributes, Event, LogRecord, Resource, Scope, Span, Value},
    expression::{CODES, Failed, KINDS},
    metrics::{Metric, Point},
};

/// Where a path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// The item's own attributes.
    Attributes,
    /// Those of its resource.
    Resource,
    /// Those of its scope.
    Scope,
    /// `scope.name`.
    ScopeName,
    /// `scope.version`.
    ScopeVersion,
    /// `name`.
    Name,
    /// `description`.
    Description,
    /// `unit`.
    Unit,
    /// `kind`.
    Kind,
    /// `status.code`.
    StatusCode,
    /// `status.message`.
    StatusMessage,
    /// `trace_state`.
    TraceState,
    /// `body`.
    Body,
    /// `severity_number`.
    SeverityNumber,
    /// `severity_text`.
    SeverityText,
    /// `event_name`.
    EventName,
}

/// What a place takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A map.
    Map,
    /// Any value.
    Any,
    /// A text.
    Text,
    /// One of these names, or its number.
    Name(&'static [&'static str]),
    /// A small number.
    Number,
}

impl Root {
    /// Each by the name that it has in statements.
    const NAMES: [(&'static str, Self); 16] = [
        ("attributes", Self::Attributes),
        ("resource.attributes", Self::Resource),
        ("scope.attributes", Self::Scope),
        ("scope.name", Self::ScopeName),
        ("scope.version", Self::ScopeVersion),
        ("name", Self::Name),
        ("description", Self::Description),
        ("unit", Self::Unit),
        ("kind", Self::Kind),
        ("status.code", Self::StatusCode),
        ("status.message", Self::StatusMessage),
        ("trace_state", Self::TraceState),
        ("body", Self::Body),
        ("severity_number", Self::SeverityNumber),
        ("severity_text", Self::SeverityText),
        ("event_name", Self::EventName),
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, root)| *root)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, root)| *root == self).map_or("", |(name, _)| name)
    }

    /// What it takes.
    pub const fn takes(self) -> Takes {
        match self {
            Self::Attributes | Self::Resource | Self::Scope => Takes::Map,
            Self::Body => Takes::Any,
            Self::Kind => Takes::Name(&KINDS),
            Self::StatusCode => Takes::Name(&CODES),
            Self::SeverityNumber => Takes::Number,
            Self::ScopeName
            | Self::ScopeVersion
            | Self::Name
            | Self::Description
            | Self::Unit
            | Self::StatusMessage
            | Self::TraceState
            | Self::SeverityText
            | Self::EventName => Takes::Text,
        }
    }
}

/// What lies at a root.
pub enum Place<'a> {
    /// A map.
    Map(&'a mut Attributes),
    /// Any value.
    Value(&'a mut Value),
    /// A text.
    Text(&'a mut ByteString),
    /// The number of a name, or a number alone.
    Number(&'a mut u32, &'static [&'static str]),
}

/// Items that statements change.
pub trait Places {
    /// The roots that it has.
    const ROOTS: &'static [Root];
    /// What lies at one of them.
    fn place(&mut self, root: Root) -> Option<Place<'_>>;
}

impl Places for Span {
    const ROOTS: &'static [Root] = &[
        Root::Attributes,
        Root::Name,
        Root::Kind,
        Root::StatusCode,
        Root::StatusMessage,
        Root::TraceState,
        Root::Resource,
        Root::Scope,
        Root::ScopeName,
        Root::ScopeVersion,
    ];

    fn place(&mut self, root: Root) -> Option<Place<'_>> {
        Some(match root {
            Root::Attributes => Place::Map(&mut self.attributes),
            Root::Name => Place::Text(&mut self.name),
            Root::Kind => Place::Number(&mut self.kind, &KINDS),
            Root::StatusCode => Place::Number(&mut self.status, &CODES),
            Root::StatusMessage => Place::Text(&mut self.status_message),
            Root::TraceState => Place::Text(&mut self.trace_state),
            _ => return above(&mut self.source, root),
        })
    }
}

impl Places for LogRecord {
    const ROOTS: &'static [Root] = &[
        Root::Attributes,
        Root::Body,
        Root::SeverityNumber,
        Root::SeverityText,
        Root::EventName,
        Root::Resource,
        Root::Scope,
        Root::ScopeName,
        Root::ScopeVersion,
    ];

    fn place(&mut self, root: Root) -> Option<Place<'_>> {
        Some(match root {
            Root::Attributes => Place::Map(&mut self.attributes),
            Root::Body => Place::Value(&mut self.body),
            Root::SeverityNumber => Place::Number(&mut self.severity, &[]),
            Root::SeverityText => Place::Text(&mut self.severity_text),
            Root::EventName => Place::Text(&mut self.event_name),
            _ => return above(&mut self.source, root),
        })
    }
}

/// What lies in the resource and the scope of an item; they are shared, and copied here.
fn above(source: &mut crate::policy::data::Source, root: Root) -> Option<Place<'_>> {
    use std::sync::Arc;

    Some(match root {
        Root::Resource => Place::Map(&mut Arc::make_mut(&mut source.resource).attributes),
        Root::Scope => Place::Map(&mut Arc::make_mut(&mut source.scope).attributes),
        Root::ScopeName => Place::Text(&mut Arc::make_mut(&mut source.scope).name),
        Root::ScopeVersion => Place::Text(&mut Arc::make_mut(&mut source.scope).version),
        _ => return None,
    })
}

impl Places for Event {
    const ROOTS: &'static [Root] = &[Root::Attributes, Root::Name];

    fn place(&mut self, root: Root) -> Option<Place<'_>> {
        match root {
            Root::Attributes => Some(Place::Map(&mut self.attributes)),
            Root::Name => Some(Place::Text(&mut self.name)),
            _ => None,
        }
    }
}

impl Places for Resource {
    const ROOTS: &'static [Root] = &[Root::Attributes, Root::Resource];

    fn place(&mut self, root: Root) -> Option<Place<'_>> {
        match root {
            Root::Attributes | Root::Resource => Some(Place::Map(&mut self.attributes)),
            _ => None,
        }
    }
}

impl Places for Scope {
    const ROOTS: &'static [Root] =
        &[Root::Attributes, Root::Name, Root::Scope, Root::ScopeName, Root::ScopeVersion];

    fn place(&mut self, root: Root) -> Option<Place<'_>> {
        match root {
            Root::Attributes | Root::Scope => Some(Place::Map(&mut self.attributes)),
            Root::Name | Root::ScopeName => Some(Place::Text(&mut self.name)),
            Root::ScopeVersion => Some(Place::Text(&mut self.version)),
            _ => None,
        }
    }
}

impl Places for Metric {
    const ROOTS: &'static [Root] = &[Root::Name, Root::Description, Root::Unit];

    fn place(&mut self, root: Root) -> Option<Place<'_>> {
        match root {
            Root::Name => Some(Place::Text(&mut self.name)),
            Root::Description => Some(Place::Text(&mut self.description)),
            Root::Unit => Some(Place::Text(&mut self.unit)),
            _ => None,
        }
    }
}

impl Places for Point {
    const ROOTS: &'static [Root] = &[Root::Attributes];

    fn place(&mut self, root: Root) -> Option<Place<'_>> {
        (root == Root::Attributes).then_some(Place::Map(&mut self.attributes))
    }
}

/// A way into an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where it begins.
    pub root: Root,
    /// How it goes on.
    pub steps: Vec<Step>,
}

/// What a path leads to.
pub enum Target<'a> {
    /// A map.
    Map(&'a mut Attributes),
    /// A value.
    Value(&'a mut Value),
    /// A text.
    Text(&'a mut ByteString),
}

impl Path {
    /// What lies at its end; `None` where there is nothing.
    pub fn find<'a, P: Places>(&self, item: &'a mut P) -> Option<Target<'a>> {
        let mut steps = self.steps.iter();
        let mut value = match (item.place(self.root)?, steps.len()) {
            (Place::Map(map), 0) => return Some(Target::Map(map)),
            (Place::Text(text), 0) => return Some(Target::Text(text)),
            (Place::Value(value), _) => value,
            (Place::Map(map), _) => match steps.next() {
                Some(Step::Key(key)) => map.get_mut(key)?,
                _ => return None,
            },
            (Place::Text(_) | Place::Number(..), _) => return None,
        };
        for step in steps {
            value = match (step, value) {
                (Step::Key(key), Value::Map(map)) => map.get_mut(key)?,
                (Step::Index(index), Value::Array(values)) => values.get_mut(*index)?,
                _ => return None,
            };
        }
        match value {
            Value::Map(map) => Some(Target::Map(map)),
            Value::Text(text) => Some(Target::Text(text)),
            _ => Some(Target::Value(value)),
        }
    }

    /// Puts a value there; maps on the way are made where they are not there.
    pub fn put<P: Places>(&self, item: &mut P, new: Value) -> Result<(), Failed> {
        let wrong =
            |new: &Value| Err(Failed(format!("`{}` cannot be {}", self.root.name(), shown(new))));
        let Some(place) = item.place(self.root) else { return wrong(&new) };
        let mut steps = self.steps.iter();
        let mut value = match (place, steps.len()) {
            (Place::Map(map), 0) => {
                let Value::Map(new) = new else { return wrong(&new) };
                *map = new;
                return Ok(());
            }
            (Place::Text(text), 0) => {
                let Value::Text(new) = new else { return wrong(&new) };
                *text = new;
                return Ok(());
            }
            (Place::Number(number, names), 0) => {
                let found = match &new {
                    Value::Int(new) => u32::try_from(*new).ok(),
                    Value::Text(new) => {
                        names.iter().position(|name| **name == **new).map(|at| at as u32)
                    }
                    _ => None,
                };
                match found.filter(|found| names.is_empty() || (*found as usize) < names.len()) {
                    Some(found) => *number = found,
                    None => return wrong(&new),
                }
                return Ok(());
            }
            (Place::Value(value), _) => value,
            (Place::Map(map), _) => match steps.next() {
                Some(Step::Key(key)) => entry(map, key),
                _ => return Err(Failed(format!("`{}` is no list", self.root.name()))),
            },
            (Place::Text(_) | Place::Number(..), _) => {
                return Err(Failed(format!("`{}` is no map", self.root.name())));
            }
        };
        for step in steps {
            if *value == Value::Empty && matches!(step, Step::Key(_)) {
                *value = Value::Map(Attributes::default());
            }
            value = match (step, value) {
                (Step::Key(key), Value::Map(map)) => entry(map, key),
                (Step::Index(index), Value::Array(values)) => match values.get_mut(*index) {
                    Some(value) => value,
                    None => return Err(Failed(format!("the list has no place {index}"))),
                },
                (Step::Key(key), _) => {
                    return Err(Failed(format!("`{key}` is to be put into what is no map")));
                }
                (Step::Index(index), _) => {
                    return Err(Failed(format!("{index} is to be put into what is no list")));
                }
            };
        }
        *value = new;
        Ok(())
    }
}

/// The value behind a key, made if it is not there.
fn entry<'a>(map: &'a mut Attributes, key: &str) -> &'a mut Value {
    let at = map.0.iter().position(|(known, _)| **known == *key);
    let at = at.unwrap_or_else(|| {
        map.0.push((key.into(), Value::Empty));
        map.0.len() - 1
    });
    &mut map.0[at].1
}

/// A value in an error.
fn shown(value: &Value) -> String {
    match value {
        Value::Map(_) => "a map".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Bytes(_) => "bytes".to_owned(),
        Value::Empty => "nothing".to_owned(),
        Value::Text(text) => format!("the text `{}`", text.chars().take(40).collect::<String>()),
        Value::Bool(_) | Value::Int(_) | Value::Double(_) => value.as_text().into_owned(),
    }
}
