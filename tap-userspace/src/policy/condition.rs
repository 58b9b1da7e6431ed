//! Conditions in CEL (the Common Expression Language). Comes in: an expression's source once, and
//! for each exchange its [`Variables`]. Goes out: whether it holds.
//!
//! What an expression may be, and cost, is [`super::expression`]'s.
//!
//! | variable | is |
//! | --- | --- |
//! | `request.method`, `.scheme`, `.host`, `.path`, `.query`, `.protocol` | as in the log record, secrets not taken out; empty where unknown |
//! | `request.headers`, `response.headers` | a map from names in lower case to values, those of repeated fields joined by `, ` |
//! | `request.bytes`, `response.bytes` | on the wire |
//! | `response.status` | 0 where there was no response |
//! | `duration_ms` | with fractions |
//! | `direction` | `egress` or `ingress` |
//! | `error` | `error.type` of the record, or empty |
//! | `connection.id`, `connection.client.address`, `.client.port`, `.server.address`, `.server.port` | |
//! | `process.exe`, `.name`, `.pid`, `.owner` | of the local end; empty or 0 where unknown |
#![forbid(unsafe_code)]

use std::{collections::HashMap, fmt, sync::Arc};

use cel::{Context, ExecutionError, Program, Value};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::expression;
pub use super::expression::{Error, Failed};
use crate::{
    connection::{model::Role, transaction::Transaction},
    protocol::exchange::{Headers, Message},
    telemetry::log,
};

/// The variables.
const NAMES: [&str; 7] =
    ["request", "response", "duration_ms", "direction", "error", "connection", "process"];

/// An expression that is true or false of an exchange.
#[derive(Clone)]
pub struct Condition {
    source: String,
    program: Arc<Program>,
    /// By [`NAMES`]: it asks for this one.
    wants: [bool; NAMES.len()],
    /// It asks for header fields.
    headers: bool,
}

impl Condition {
    /// Reads an expression.
    pub fn compile(source: &str) -> Result<Self, Error> {
        let (program, variables) = expression::compile(source, &NAMES)?;
        let wants = NAMES.map(|name| variables.iter().any(|it| it == name));
        let headers = source.contains("headers");
        let program = Arc::new(program);
        let condition = Self { source: source.to_owned(), program, wants, headers };
        // A function that there is not shows when it is called, unless it never is.
        match condition.run(&Variables::example()) {
            Err(ExecutionError::UndeclaredReference(name)) => {
                Err(Error::UnknownFunction(name.to_string()))
            }
            _ => Ok(condition),
        }
    }

    /// Whether it holds of these.
    pub fn holds(&self, variables: &Variables) -> Result<bool, Failed> {
        match self.run(variables) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => {
                let kind = other.type_of();
                Err(Failed(format!("`{}` is a {kind}, not true or false", self.source)))
            }
            Err(error) => Err(Failed(format!("`{}`: {error}", self.source))),
        }
    }

    fn run(&self, variables: &Variables) -> Result<Value, ExecutionError> {
        let mut context = Context::with_env(expression::env().clone());
        for (index, name) in NAMES.iter().enumerate().filter(|(index, _)| self.wants[*index]) {
            if let Some(value) = &variables.0[index] {
                context.add_variable_from_value(*name, value.clone());
            }
        }
        self.program.execute(&context)
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.source)
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.source)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::compile(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// What conditions are asked about.
pub struct Variables([Option<Value>; NAMES.len()]);

type Map = HashMap<&'static str, Value>;

impl Variables {
    /// Those of an exchange that one of `conditions` asks for.
    pub fn of<'a>(
        transaction: &Transaction,
        conditions: impl IntoIterator<Item = &'a Condition>,
    ) -> Self {
        let (mut wants, mut headers) = ([false; NAMES.len()], false);
        for condition in conditions {
            wants.iter_mut().zip(condition.wants).for_each(|(all, one)| *all |= one);
            headers |= condition.headers;
        }
        let mut index = 0;
        Self(wants.map(|wanted| {
            index += 1;
            wanted.then(|| value(index - 1, transaction, headers))
        }))
    }

    /// Of an exchange of which nothing is known.
    fn example() -> Self {
        let empty = || Value::from("");
        let end = || Map::from([("address", empty()), ("port", Value::Int(0))]).into();
        let fields = || Value::from(HashMap::<String, String>::new());
        let request = ["method", "scheme", "host", "path", "query", "protocol"];
        let mut request: Map = request.into_iter().map(|name| (name, empty())).collect();
        request.extend([("headers", fields()), ("bytes", Value::Int(0))]);
        let response =
            Map::from([("status", Value::Int(0)), ("headers", fields()), ("bytes", Value::Int(0))]);
        let connection = Map::from([("id", empty()), ("client", end()), ("server", end())]);
        let process = Map::from([
            ("exe", empty()),
            ("name", empty()),
            ("pid", Value::Int(0)),
            ("owner", empty()),
        ]);
        Self([
            Some(request.into()),
            Some(response.into()),
            Some(Value::Float(0.0)),
            Some(empty()),
            Some(empty()),
            Some(connection.into()),
            Some(process.into()),
        ])
    }
}

/// The variable at `index` of [`NAMES`].
fn value(index: usize, transaction: &Transaction, headers: bool) -> Value {
    let (about, exchange) = (&transaction.about, &transaction.exchange);
    let http = match &exchange.message {
        Message::Http(http) => Some(&**http),
        Message::WebSocket(_) | Message::Query(_) => None,
    };
    let fields = |of: Option<&Headers>| match of.filter(|_| headers) {
        Some(of) => joined(of),
        None => HashMap::<String, String>::new().into(),
    };
    let bytes = |side: usize| Value::Int(exchange.bytes[side].cast_signed());
    match index {
        0 => {
            let target = http.map_or("", |http| &http.target);
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let protocol = log::protocol(exchange);
            Map::from([
                ("method", http.map_or("", |http| &http.method).into()),
                ("scheme", http.map_or("", log::scheme).into()),
                ("host", http.and_then(|http| http.host()).unwrap_or_default().into()),
                ("path", path.into()),
                ("query", query.into()),
                ("protocol", (&*protocol).into()),
                ("headers", fields(http.map(|http| &http.request))),
                ("bytes", bytes(0)),
            ])
            .into()
        }
        1 => Map::from([
            ("status", Value::Int(http.and_then(|http| http.status).unwrap_or(0).into())),
            ("headers", fields(http.map(|http| &http.response))),
            ("bytes", bytes(1)),
        ])
        .into(),
        2 => Value::Float(log::milliseconds(exchange)),
        3 => log::direction(about.role).into(),
        4 => log::error_type(transaction).as_deref().unwrap_or_default().into(),
        5 => {
            let (client, server) = match about.role {
                Role::Client => (about.local, about.peer),
                Role::Server => (about.peer, about.local),
            };
            let end = |(address, port): (std::net::IpAddr, u16)| -> Value {
                let address = address.to_canonical().to_string();
                Map::from([("address", address.into()), ("port", Value::Int(port.into()))]).into()
            };
            let id = about.id.encode();
            Map::from([
                ("id", log::id(&id).into()),
                ("client", end(client)),
                ("server", end(server)),
            ])
            .into()
        }
        _ => {
            let process = about.process.as_deref();
            let text = |of: Option<&str>| Value::from(of.unwrap_or_default());
            Map::from([
                ("exe", text(process.map(|it| &*it.executable))),
                ("name", text(process.map(|it| &*it.name))),
                ("pid", Value::Int(process.map_or(0, |it| it.pid).into())),
                ("owner", text(process.map(|it| &*it.owner))),
            ])
            .into()
        }
    }
}

/// Fields by name.
fn joined(headers: &Headers) -> Value {
    let mut fields: HashMap<String, String> = HashMap::new();
    for (name, value) in headers.iter() {
        fields
            .entry(name.to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    fields.into()
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
