//! `transform`: statements that change items. Groups and keys are the Collector's; statements have OTTL's form and
//! editors, and what they compute is CEL.
//!
//! A statement without a context is for what it names first: `spanevent.`, `span.`, `log.`, `datapoint.`, `metric.`; if it
//! names resource or scope alone, for these; else for spans, log records, data points.

use std::{fmt, marker::PhantomData};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, value::MapAccessDeserializer},
};

use super::{filter::ErrorMode, made_of};
use crate::{
    config::environment::Signal,
    policy::{
        data::{Event, LogRecord, Resource, Scope, Span},
        expression::{self, EventOf, Expression, MetricOf, PointOf, ScopeOf, Subject},
        metrics::{Metric, Point},
        transform::{place::Places, statement::Statement, words},
    },
};

/// Most statements of a processor.
const STATEMENTS_MAX: usize = 256;

/// Settings of a `transform` processor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(with = "Written")]
pub struct Transform {
    /// For spans and their events.
    pub trace_statements: Vec<Group>,
    /// For log records.
    pub log_statements: Vec<Group>,
    /// For metrics.
    pub metric_statements: Vec<Group>,
}

/// Statements of one context.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// What they change.
    pub context: Context,
    /// What is done of a failure.
    pub error_mode: ErrorMode,
    /// One of them is to hold, if there are any.
    pub conditions: Vec<Expression>,
    /// They.
    pub statements: Vec<Statement>,
}

/// `context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Context {
    /// Resources.
    Resource,
    /// Instrumentation scopes.
    Scope,
    /// Spans.
    Span,
    /// Events of spans.
    SpanEvent,
    /// Log records.
    Log,
    /// Metrics.
    Metric,
    /// Data points.
    DataPoint,
}

/// The settings as they are written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Written {
    error_mode: ErrorMode,
    #[schemars(with = "Vec<Form>")]
    trace_statements: Vec<Element<OfTraces>>,
    #[schemars(with = "Vec<Form>")]
    log_statements: Vec<Element<OfLogs>>,
    #[schemars(with = "Vec<Form>")]
    metric_statements: Vec<Element<OfMetrics>>,
    #[serde(deserialize_with = "profiles")]
    #[schemars(skip)]
    profile_statements: (),
    #[serde(deserialize_with = "flatten_data")]
    #[schemars(skip)]
    flatten_data: (),
}

fn profiles<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    de::IgnoredAny::deserialize(from)?;
    Err(de::Error::custom("tap has no profiles: leave `profile_statements` out"))
}

fn flatten_data<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    if Option::<bool>::deserialize(from)? == Some(true) {
        return Err(de::Error::custom(
            "tap brings records together by their resource in any case: leave `flatten_data` out",
        ));
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Transform {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        made_of(from, Self::of)
    }
}

impl Transform {
    fn of(of: Written) -> Result<Self, String> {
        let all = |groups: Vec<(Group, Option<ErrorMode>)>| {
            let with = |(group, mode): (Group, Option<ErrorMode>)| Group {
                error_mode: mode.unwrap_or(of.error_mode),
                ..group
            };
            groups.into_iter().map(with).collect::<Vec<_>>()
        };
        let found = Self {
            trace_statements: all(of.trace_statements.into_iter().map(|it| it.0).collect()),
            log_statements: all(of.log_statements.into_iter().map(|it| it.0).collect()),
            metric_statements: all(of.metric_statements.into_iter().map(|it| it.0).collect()),
        };
        let lists = [&found.trace_statements, &found.log_statements, &found.metric_statements];
        let count: usize =
            lists.into_iter().flatten().map(|group| group.statements.len().max(1)).sum();
        if count > STATEMENTS_MAX {
            return Err(format!("a transform has at most {STATEMENTS_MAX} statements"));
        }
        Ok(found)
    }
}

/// Of one signal.
trait Of {
    const SIGNAL: Signal;
}

#[derive(Debug)]
struct OfTraces;
#[derive(Debug)]
struct OfLogs;
#[derive(Debug)]
struct OfMetrics;

impl Of for OfTraces {
    const SIGNAL: Signal = Signal::Traces;
}

impl Of for OfLogs {
    const SIGNAL: Signal = Signal::Logs;
}

impl Of for OfMetrics {
    const SIGNAL: Signal = Signal::Metrics;
}

/// An element of a list: a statement, or a group of them. Read where it stands, so that a mistake has its place.
#[derive(Debug)]
struct Element<S>((Group, Option<ErrorMode>), PhantomData<S>);

/// The forms of an element, for the schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum Form {
    Text(String),
    Group(WrittenGroup),
}

/// A group as it is written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "Statements")]
#[serde(default, deny_unknown_fields)]
struct WrittenGroup {
    context: Option<Context>,
    error_mode: Option<ErrorMode>,
    conditions: Vec<String>,
    statements: Vec<String>,
}

impl<'de, S: Of> Deserialize<'de> for Element<S> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor<S>(PhantomData<S>);
        impl<'de, S: Of> de::Visitor<'de> for Visitor<S> {
            type Value = Element<S>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a statement, or a map of `context`, `conditions` and `statements`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Element<S>, E> {
                let group =
                    WrittenGroup { statements: vec![text.to_owned()], ..Default::default() };
                let group = group.group(S::SIGNAL).map_err(E::custom)?;
                Ok(Element((group, None), PhantomData))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element<S>, A::Error> {
                let group = WrittenGroup::deserialize(MapAccessDeserializer::new(map))?;
                let mode = group.error_mode;
                let group = group.group(S::SIGNAL).map_err(de::Error::custom)?;
                Ok(Element((group, mode), PhantomData))
            }
        }
        from.deserialize_any(Visitor(PhantomData))
    }
}

impl WrittenGroup {
    fn group(self, signal: Signal) -> Result<Group, String> {
        if self.statements.len() > STATEMENTS_MAX || self.conditions.len() > STATEMENTS_MAX {
            return Err(format!("a transform has at most {STATEMENTS_MAX} statements"));
        }
        let context = match self.context {
            Some(context) => context,
            None => self.inferred(signal),
        };
        match (signal, context) {
            (_, Context::Resource) => self.compile::<Resource, Resource>(context, &[]),
            (_, Context::Scope) => self.compile::<ScopeOf<'_>, Scope>(context, &[]),
            (Signal::Traces, Context::Span) => self.compile::<Span, Span>(context, &["span"]),
            (Signal::Traces, Context::SpanEvent) => {
                self.compile::<EventOf<'_>, Event>(context, &["spanevent"])
            }
            (Signal::Logs, Context::Log) => self.compile::<LogRecord, LogRecord>(context, &["log"]),
            (Signal::Metrics, Context::Metric) => {
                self.compile::<MetricOf<'_>, Metric>(context, &["metric"])
            }
            (Signal::Metrics, Context::DataPoint) => {
                self.compile::<PointOf<'_>, Point>(context, &["datapoint", "metric"])
            }
            (Signal::Traces, _) => {
                Err("contexts of spans are `span`, `spanevent`, `scope` and `resource`".to_owned())
            }
            (Signal::Logs, _) => {
                Err("contexts of log records are `log`, `scope` and `resource`".to_owned())
            }
            (Signal::Metrics, _) => {
                Err("contexts of metrics are `metric`, `datapoint`, `scope` and `resource`"
                    .to_owned())
            }
        }
    }

    /// What the statements are for, by what they name.
    fn inferred(&self, signal: Signal) -> Context {
        let named: Vec<&str> = self
            .conditions
            .iter()
            .chain(&self.statements)
            .flat_map(|source| words::roots(source))
            .collect();
        let only =
            |names: &[&str]| !named.is_empty() && named.iter().all(|name| names.contains(name));
        match signal {
            _ if only(&["resource"]) => Context::Resource,
            _ if only(&["resource", "scope", "instrumentation_scope"]) => Context::Scope,
            Signal::Traces if named.contains(&"spanevent") => Context::SpanEvent,
            Signal::Traces => Context::Span,
            Signal::Logs => Context::Log,
            Signal::Metrics if only(&["metric", "resource", "scope", "instrumentation_scope"]) => {
                Context::Metric
            }
            Signal::Metrics => Context::DataPoint,
        }
    }

    fn compile<S: Subject, P: Places>(
        self,
        context: Context,
        own: &[&str],
    ) -> Result<Group, String> {
        let condition = |source: &String| {
            Expression::condition::<S>(&words::in_cel(source, own))
                .map_err(|error: expression::Error| error.to_string())
        };
        let statement = |source: &String| {
            Statement::compile::<S, P>(source, own).map_err(|error| error.to_string())
        };
        Ok(Group {
            context,
            error_mode: ErrorMode::default(),
            conditions: self.conditions.iter().map(condition).collect::<Result<_, _>>()?,
            statements: self.statements.iter().map(statement).collect::<Result<_, _>>()?,
        })
    }
}
