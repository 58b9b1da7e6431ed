//! Conditions in CEL on connections, for what the other keys of a rule cannot say. Comes in: an
//! expression's source once, and [`Facts`] of a connection. Goes out: whether it holds.
//!
//! Read and bounded as every expression ([`super::expression`]), and checked further: each field is one
//! of [`FIELDS`], and a connection of which nothing is known must make it true or false.
#![forbid(unsafe_code)]

use std::{collections::HashMap, fmt, net::IpAddr, sync::Arc};

use cel::{
    Context, ExecutionError, IdedExpr, Program, Value,
    common::ast::{EntryExpr, Expr},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{admission::Stage, expression};
use crate::{connection::model::Role, enrich::process::Process, protocol::tls::ClientHello};

/// The fields: name, what it is, and when it is known. Text is empty and a number 0 where it never is.
pub const FIELDS: [(&str, &str, Stage); 20] = [
    ("connection.direction", "`egress` or `ingress`", Stage::Open),
    ("connection.local.address", "of this host", Stage::Open),
    ("connection.local.port", "of this host", Stage::Open),
    ("connection.peer.address", "of the peer", Stage::Open),
    ("connection.peer.port", "of the peer", Stage::Open),
    ("connection.client.address", "of the end that opened it", Stage::Open),
    ("connection.client.port", "of the end that opened it", Stage::Open),
    ("connection.server.address", "of the other end", Stage::Open),
    ("connection.server.port", "of the other end", Stage::Open),
    ("connection.peer.name", "by the DNS answers seen", Stage::Protocol),
    ("connection.protocol", "as in `network.protocol.name`, by its first bytes", Stage::Protocol),
    ("process.exe", "path of the executable", Stage::Owner),
    ("process.name", "its last part", Stage::Owner),
    ("process.pid", "", Stage::Owner),
    ("process.uid", "real user; -1 where unknown", Stage::Owner),
    ("process.owner", "the user's name", Stage::Owner),
    ("process.command_line", "arguments, joined by spaces", Stage::Owner),
    ("tls.server_name", "of the ClientHello (SNI)", Stage::Protocol),
    ("container.id", "64 digits", Stage::Cgroup),
    ("container.cgroup", "path of the socket's cgroup", Stage::Cgroup),
];

/// What they are fields of.
const NAMES: [&str; 4] = ["connection", "process", "tls", "container"];

/// What may be known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// This host's end.
    pub local: (IpAddr, u16),
    /// The peer's.
    pub peer: (IpAddr, u16),
    /// Which end this host is; for a connection older than tap the best guess.
    pub role: Role,
    /// The peer's name.
    pub peer_name: Option<&'a str>,
    /// Owner of the local end.
    pub process: Option<&'a Process>,
    /// Path of the socket's cgroup.
    pub cgroup: Option<&'a str>,
    /// What is spoken, outermost.
    pub protocol: Option<&'a str>,
    /// The ClientHello.
    pub hello: Option<&'a ClientHello>,
    /// Nothing more will be known.
    pub last: bool,
}

impl Facts<'_> {
    /// Whether what `stage` tells is known, or never will be.
    pub const fn has(&self, stage: Stage) -> bool {
        match stage {
            Stage::Open => true,
            Stage::Cgroup => self.last || self.cgroup.is_some(),
            Stage::Owner => self.last || self.process.is_some(),
            Stage::Protocol => self.last || self.protocol.is_some(),
        }
    }
}

/// An expression that is true or false of a connection.
#[derive(Clone)]
pub struct Condition {
    source: Box<str>,
    program: Arc<Program>,
    /// What it waits for.
    stages: Vec<Stage>,
}

/// Why an expression cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As any expression.
    #[error(transparent)]
    Expression(#[from] expression::Error),
    /// A field that there is not.
    #[error("`{0}` is no field of a connection: there are {names}", names = names())]
    Unknown(String),
    /// It does not come to true or false.
    #[error("`{0}` does not come to true or false: {1}")]
    Type(String, String),
}

fn names() -> String {
    FIELDS.map(|(name, ..)| name).join(", ")
}

impl Condition {
    /// Reads an expression.
    pub fn compile(source: &str) -> Result<Self, Error> {
        let (program, _) = expression::compile(source, &NAMES)?;
        let mut found = Vec::new();
        fields(program.expression(), &mut found);
        let mut stages = Vec::new();
        for name in found {
            let root = name.split('.').next().unwrap_or_default();
            // Else a variable of a loop, or a type.
            if !NAMES.contains(&root) {
                continue;
            }
            let inside = format!("{name}.");
            let of = |field: &str| field == name || field.starts_with(&inside);
            let mut of_table = FIELDS.iter().filter(|(field, ..)| of(field)).peekable();
            if of_table.peek().is_none() {
                return Err(Error::Unknown(name));
            }
            stages.extend(of_table.map(|(.., stage)| *stage));
        }
        stages.sort_unstable();
        stages.dedup();
        let condition = Self { source: source.into(), program: Arc::new(program), stages };
        match condition.run(variables(&EXAMPLE)) {
            Ok(Value::Bool(_)) => Ok(condition),
            Ok(other) => Err(Error::Type(source.into(), format!("it is a {}", other.type_of()))),
            Err(ExecutionError::UndeclaredReference(name)) => {
                Err(expression::Error::UnknownFunction(name.to_string()).into())
            }
            // With other values it may do: an index of a list that is empty here.
            Err(ExecutionError::IndexOutOfBounds(_)) => Ok(condition),
            Err(error) => Err(Error::Type(source.into(), error.to_string())),
        }
    }

    /// Whether it holds of these; `None` while something that it asks for is not known yet. One that
    /// fails does not hold.
    pub fn holds(&self, facts: &Facts<'_>) -> Option<bool> {
        if !self.stages.iter().all(|stage| facts.has(*stage)) {
            return None;
        }
        Some(matches!(self.run(variables(facts)), Ok(Value::Bool(true))))
    }

    /// What it waits for.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    fn run(
        &self,
        variables: [(&'static str, Value); NAMES.len()],
    ) -> Result<Value, ExecutionError> {
        let mut context = Context::with_env(expression::env().clone());
        for (name, value) in variables {
            context.add_variable_from_value(name, value);
        }
        self.program.execute(&context)
    }
}

/// The fields that an expression names, longest chains of selections only.
fn fields(of: &IdedExpr, found: &mut Vec<String>) {
    if let Some(name) = chain(of) {
        found.push(name);
        return;
    }
    match &of.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => {
            call.target.as_deref().into_iter().chain(&call.args).for_each(|it| fields(it, found));
        }
        Expr::List(list) => list.elements.iter().for_each(|it| fields(it, found)),
        Expr::Select(select) => fields(&select.operand, found),
        Expr::Map(map) => map.entries.iter().for_each(|entry| of_entry(&entry.expr, found)),
        Expr::Struct(of) => of.entries.iter().for_each(|entry| of_entry(&entry.expr, found)),
        Expr::Comprehension(it) => {
            for part in [&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result] {
                fields(part, found);
            }
        }
    }
}

fn of_entry(entry: &EntryExpr, found: &mut Vec<String>) {
    match entry {
        EntryExpr::StructField(field) => fields(&field.value, found),
        EntryExpr::MapEntry(entry) => {
            fields(&entry.key, found);
            fields(&entry.value, found);
        }
    }
}

/// `a.b.c`, where an expression is that.
fn chain(of: &IdedExpr) -> Option<String> {
    match &of.expr {
        Expr::Ident(name) => Some(name.to_string()),
        Expr::Select(select) => Some(format!("{}.{}", chain(&select.operand)?, select.field)),
        _ => None,
    }
}

/// Nothing is known.
const EXAMPLE: Facts<'static> = Facts {
    local: (IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
    peer: (IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
    role: Role::Client,
    peer_name: None,
    process: None,
    cgroup: None,
    protocol: None,
    hello: None,
    last: true,
};

type Map = HashMap<&'static str, Value>;

fn variables(facts: &Facts<'_>) -> [(&'static str, Value); 4] {
    let text = |of: Option<&str>| Value::from(of.unwrap_or_default());
    let end = |(address, port): (IpAddr, u16)| {
        let address = address.to_canonical().to_string();
        Map::from([("address", address.into()), ("port", Value::Int(port.into()))])
    };
    let (client, server) = match facts.role {
        Role::Client => (facts.local, facts.peer),
        Role::Server => (facts.peer, facts.local),
    };
    let direction = match facts.role {
        Role::Client => "egress",
        Role::Server => "ingress",
    };
    let mut peer = end(facts.peer);
    peer.insert("name", text(facts.peer_name));
    let connection = Map::from([
        ("direction", direction.into()),
        ("local", end(facts.local).into()),
        ("peer", peer.into()),
        ("client", end(client).into()),
        ("server", end(server).into()),
        ("protocol", text(facts.protocol)),
    ]);
    let process = facts.process;
    let process = Map::from([
        ("exe", text(process.map(|it| &*it.executable))),
        ("name", text(process.map(|it| &*it.name))),
        ("pid", Value::Int(process.map_or(0, |it| it.pid.into()))),
        ("uid", Value::Int(process.and_then(|it| it.uid).map_or(-1, i64::from))),
        ("owner", text(process.map(|it| &*it.owner))),
        ("command_line", process.map_or_else(String::new, |it| it.args.join(" ")).into()),
    ]);
    let tls = Map::from([(
        "server_name",
        text(facts.hello.and_then(|hello| hello.server_name.as_deref())),
    )]);
    let id = facts.cgroup.and_then(super::admission::container_id);
    let container = Map::from([("id", text(id)), ("cgroup", text(facts.cgroup))]);
    [
        ("connection", connection.into()),
        ("process", process.into()),
        ("tls", tls.into()),
        ("container", container.into()),
    ]
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

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_once_what_they_ask_for_is_known() {
        let curl = Process {
            executable: "/usr/bin/curl".into(),
            name: "curl".into(),
            args: Box::from(["curl".into(), "-s".into()]),
            uid: Some(7),
            ..Process::default()
        };
        let open = Facts {
            local: ("10.0.0.1".parse().unwrap(), 40_000),
            peer: ("10.0.0.2".parse().unwrap(), 443),
            last: false,
            ..EXAMPLE
        };
        let owned = Facts { process: Some(&curl), ..open };
        let hello = ClientHello { server_name: Some("a.example".into()), ..ClientHello::default() };
        let said = Facts { protocol: Some("tls"), hello: Some(&hello), ..owned };
        let docker = format!("/system.slice/docker-{}.scope", "ab".repeat(32));
        let contained = Facts { cgroup: Some(&docker), ..open };
        let last = Facts { last: true, ..open };
        for (source, facts, holds) in [
            (
                "connection.server.port == 443 && connection.direction == 'egress'",
                &open,
                Some(true),
            ),
            ("connection.client.address == '10.0.0.2'", &open, Some(false)),
            ("process.name == 'curl'", &open, None),
            ("process.name == 'curl'", &last, Some(false)),
            ("process.name == 'curl' && process.uid == 7", &owned, Some(true)),
            ("process.command_line.contains('-s')", &owned, Some(true)),
            ("tls.server_name.endsWith('.example')", &owned, None),
            ("tls.server_name.endsWith('.example')", &said, Some(true)),
            ("connection.protocol in ['tls', 'http']", &said, Some(true)),
            ("container.id.startsWith('abab')", &contained, Some(true)),
            ("container.id == ''", &open, None),
            ("container.id == ''", &last, Some(true)),
            ("['curl', 'wget'].exists(it, it == process.name)", &owned, Some(true)),
            ("connection.peer.name.matches('^a.*')", &said, Some(false)),
        ] {
            assert_eq!(Condition::compile(source).unwrap().holds(facts), holds, "{source}");
        }
    }

    #[test]
    fn what_cannot_hold_is_refused_when_it_is_read() {
        for (source, told) in [
            ("process.exee == 'x'", "`process.exee` is no field"),
            ("request.method == 'GET'", "`request` is no variable here"),
            ("process.name", "it is a string"),
            ("process.pid == 'x' || process.pid < 'y'", "does not come to"),
            ("nothing(process.pid)", "no function"),
            ("process.name ==", "no CEL expression"),
            ("[1].exists(a, [1].exists(b, a == b))", "within another"),
        ] {
            let error = Condition::compile(source).unwrap_err().to_string();
            assert!(error.contains(told), "{source}: {error}");
        }
        assert!(Condition::compile(&"(".repeat(1000)).is_err());
        assert!(Condition::compile(&"x".repeat(2000)).is_err());
    }
}
