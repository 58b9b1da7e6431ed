//! `attributes` and `resource`: a list of actions on attributes. Keys, defaults and what is refused are the
//! Collector's; only `from_context` is not there, as nobody sends to tap.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{made_of, matching::Properties};
use crate::{
    config::{environment::Signal, place::closest},
    policy::{
        actions::{Action, Keys, Put, Type},
        data::Value,
        pattern::Pattern,
    },
};

/// Settings of an `attributes` processor.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    /// What is done to the attributes of each span, log record or data point.
    #[serde(deserialize_with = "actions")]
    #[schemars(with = "Vec<Written>")]
    pub actions: Vec<Action>,
    /// Only to items that this is true of.
    #[serde(default)]
    pub include: Option<Properties>,
    /// Not to items that this is true of.
    #[serde(default)]
    pub exclude: Option<Properties>,
}

impl Attributes {
    /// Why it can be in no pipeline of this signal, if it cannot.
    pub fn refuses(&self, signal: Signal) -> Option<&'static str> {
        self.include.iter().chain(&self.exclude).find_map(|properties| properties.refuses(signal))
    }
}

/// Settings of a `resource` processor.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// What is done to the resource's attributes.
    #[serde(deserialize_with = "actions")]
    #[schemars(with = "Vec<Written>")]
    pub attributes: Vec<Action>,
}

/// An action as it is written.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Action")]
struct Written {
    /// insert, update, upsert, delete, hash, extract or convert.
    action: String,
    /// The attribute; for `delete` and `hash` it, or a `pattern`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    key: String,
    /// For `insert`, `update` and `upsert`: what is put there.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    /// For the same: the attribute whose value is put there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    from_attribute: String,
    #[serde(default, deserialize_with = "from_context", skip_serializing)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "it is refused")]
    from_context: (),
    /// For the same: what is put there if there is no such attribute.
    #[serde(skip_serializing_if = "Option::is_none")]
    default_value: Option<Value>,
    /// For `delete` and `hash` of keys; for `extract` of the value, its groups with names.
    #[serde(default, deserialize_with = "pattern", skip_serializing_if = "Option::is_none")]
    pattern: Option<Pattern>,
    /// For `convert`: int, double or string.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    converted_type: String,
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let text =
            |key: &Option<bytestring::ByteString>| key.as_deref().unwrap_or_default().to_owned();
        let of = |action: &str| Written { action: action.to_owned(), ..Written::default() };
        let keys =
            |keys: &Keys, of| Written { key: text(&keys.key), pattern: keys.pattern.clone(), ..of };
        let written = match self {
            Self::Put { key, there, absent, value } => Written {
                key: key.to_string(),
                value: value.value.clone(),
                from_attribute: text(&value.from),
                default_value: value.default.clone(),
                ..of(match (there, absent) {
                    (false, _) => "insert",
                    (true, false) => "update",
                    (true, true) => "upsert",
                })
            },
            Self::Delete(which) => keys(which, of("delete")),
            Self::Hash(which) => keys(which, of("hash")),
            Self::Extract(key, pattern) => {
                Written { key: key.to_string(), pattern: Some(pattern.clone()), ..of("extract") }
            }
            Self::Convert(key, to) => {
                let name = match to {
                    Type::Text => "string",
                    Type::Int => "int",
                    Type::Double => "double",
                };
                Written { key: key.to_string(), converted_type: name.to_owned(), ..of("convert") }
            }
        };
        written.serialize(to)
    }
}

fn from_context<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    de::IgnoredAny::deserialize(from)?;
    Err(de::Error::custom(
        "the Collector has `from_context` here, tap does not, as nobody sends to it: use `value` or \
         `from_attribute`",
    ))
}

/// An empty pattern is none.
fn pattern<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Pattern>, D::Error> {
    let source = Option::<String>::deserialize(from)?.filter(|source| !source.is_empty());
    source.map(|source| Pattern::new(&source).map_err(de::Error::custom)).transpose()
}

/// Reads actions, each where it stands, so that a mistake has its place.
fn actions<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Action>, D::Error> {
    struct Read(Action);
    impl<'de> Deserialize<'de> for Read {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            made_of(from, Written::action).map(Self)
        }
    }
    let actions = Option::<Vec<Read>>::deserialize(from)?.unwrap_or_default();
    if actions.is_empty() {
        return Err(de::Error::custom(
            "it needs an action, as { key: a, value: b, action: upsert }",
        ));
    }
    Ok(actions.into_iter().map(|read| read.0).collect())
}

const ACTIONS: [&str; 7] = ["insert", "update", "upsert", "delete", "hash", "extract", "convert"];

impl Written {
    fn action(self) -> Result<Action, String> {
        let name = self.action.to_lowercase();
        if !ACTIONS.contains(&&*name) {
            let more = closest(&name, &ACTIONS).map_or_else(
                || format!("there are {}", ACTIONS.join(", ")),
                |meant| format!("did you mean `{meant}`?"),
            );
            return Err(format!("`{}` is no action: {more}", self.action));
        }
        let keys = matches!(&*name, "delete" | "hash");
        if self.key.is_empty() && !(keys && self.pattern.is_some()) {
            let what = if keys { "`key` or a `pattern`" } else { "`key`" };
            return Err(format!("the action `{name}` needs a {what}"));
        }
        let unused = |there: bool, key: &str| match there {
            true => Err(format!("the action `{name}` does not use `{key}`: leave it out")),
            false => Ok(()),
        };
        let puts = matches!(&*name, "insert" | "update" | "upsert");
        if !puts {
            unused(self.value.is_some(), "value")?;
            unused(!self.from_attribute.is_empty(), "from_attribute")?;
        }
        if name != "convert" {
            unused(!self.converted_type.is_empty(), "converted_type")?;
        }
        if puts || name == "convert" {
            unused(self.pattern.is_some(), "pattern")?;
        }
        let Self { key, value, from_attribute, default_value, pattern, converted_type, .. } = self;
        Ok(match &*name {
            "delete" | "hash" => {
                let keys = Keys { key: (!key.is_empty()).then(|| key.into()), pattern };
                if name == "delete" { Action::Delete(keys) } else { Action::Hash(keys) }
            }
            "extract" => Action::Extract(key.into(), groups(pattern)?),
            "convert" => {
                let to = match &*converted_type {
                    "string" => Type::Text,
                    "int" => Type::Int,
                    "double" => Type::Double,
                    "" => {
                        return Err("the action `convert` needs a `converted_type`: int, double \
                                      or string"
                            .to_owned());
                    }
                    other => {
                        return Err(format!(
                            "`{other}` is no `converted_type`: there are int, double and string"
                        ));
                    }
                };
                Action::Convert(key.into(), to)
            }
            _ => {
                let from = (!from_attribute.is_empty()).then(|| from_attribute.into());
                if value.is_some() && from.is_some() {
                    return Err(format!("`{key}` has both `value` and `from_attribute`: take one"));
                }
                if value.is_none() && from.is_none() && default_value.is_none() {
                    return Err(format!(
                        "the action `{name}` needs a `value`, a `from_attribute` or a `default_value`"
                    ));
                }
                Action::Put {
                    key: key.into(),
                    there: name != "insert",
                    absent: name != "update",
                    value: Put { value, from, default: default_value },
                }
            }
        })
    }
}

/// A pattern for `extract`: all of its groups have names.
fn groups(pattern: Option<Pattern>) -> Result<Pattern, String> {
    let pattern = pattern.ok_or("the action `extract` needs a `pattern`, as ^/(?P<first>[^/]*)")?;
    let mut names = pattern.regex().capture_names().skip(1).peekable();
    if names.peek().is_none() {
        return Err(format!("`{}` has no group with a name, as (?P<name>…)", pattern.source()));
    }
    if names.any(|name| name.is_none()) {
        return Err(format!(
            "`{}` has a group without a name: write (?P<name>…) or (?:…)",
            pattern.source()
        ));
    }
    drop(names);
    Ok(pattern)
}
