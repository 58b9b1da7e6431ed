//! OTLP/JSON, read by its specification and strictly: names in lowerCamelCase, ids in hex, 64-bit
//! integers as decimal strings, enums as numbers.

use std::{str::FromStr, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value as Json;

use crate::span::{Attributes, Event, Link, Span, Status, Value};

/// Every span of a request.
pub fn spans(request: &Json) -> Result<Vec<Span>> {
    known(request, &["resourceSpans"])?;
    let mut out = Vec::new();
    for of_resource in list(request, "resourceSpans")? {
        known(of_resource, &["resource", "scopeSpans", "schemaUrl"])?;
        let resource = Arc::new(attributes(&of_resource["resource"])?);
        for of_scope in list(of_resource, "scopeSpans")? {
            known(of_scope, &["scope", "spans", "schemaUrl"])?;
            let scope = text(&of_scope["scope"], "name");
            for it in list(of_scope, "spans")? {
                out.push(span(it, &scope, &resource).with_context(|| format!("span {it}"))?);
            }
        }
    }
    Ok(out)
}

fn span(it: &Json, scope: &str, resource: &Arc<Attributes>) -> Result<Span> {
    known(it, SPAN)?;
    Ok(Span {
        trace_id: id(it, "traceId", 32)?,
        span_id: id(it, "spanId", 16)?,
        parent_span_id: if text(it, "parentSpanId").is_empty() {
            String::new()
        } else {
            id(it, "parentSpanId", 16)?
        },
        name: text(it, "name"),
        kind: it["kind"].as_i64().context("kind is not a number")?,
        start_ns: long(&it["startTimeUnixNano"])?,
        end_ns: long(&it["endTimeUnixNano"])?,
        attributes: attributes(it)?,
        events: list(it, "events")?.iter().map(event).collect::<Result<_>>()?,
        dropped_events: u32::try_from(it["droppedEventsCount"].as_u64().unwrap_or(0))?,
        links: list(it, "links")?.iter().map(link).collect::<Result<_>>()?,
        status: status(&it["status"])?,
        scope: scope.to_owned(),
        resource: Arc::clone(resource),
    })
}

const SPAN: &[&str] = &[
    "traceId",
    "spanId",
    "traceState",
    "parentSpanId",
    "flags",
    "name",
    "kind",
    "startTimeUnixNano",
    "endTimeUnixNano",
    "attributes",
    "droppedAttributesCount",
    "events",
    "droppedEventsCount",
    "links",
    "droppedLinksCount",
    "status",
];

fn event(it: &Json) -> Result<Event> {
    known(it, &["timeUnixNano", "name", "attributes", "droppedAttributesCount"])?;
    Ok(Event {
        time_ns: long(&it["timeUnixNano"])?,
        name: text(it, "name"),
        attributes: attributes(it)?,
    })
}

fn link(it: &Json) -> Result<Link> {
    known(
        it,
        &["traceId", "spanId", "traceState", "attributes", "droppedAttributesCount", "flags"],
    )?;
    Ok(Link {
        trace_id: id(it, "traceId", 32)?,
        span_id: id(it, "spanId", 16)?,
        trace_state: text(it, "traceState"),
        flags: u32::try_from(it["flags"].as_u64().unwrap_or(0))?,
    })
}

fn status(it: &Json) -> Result<Status> {
    match &it["code"] {
        Json::Null => Ok(Status::Unset),
        code => Ok(Status::from_wire(code.as_i64().context("the status code is not a number")?)),
    }
}

fn attributes(holder: &Json) -> Result<Attributes> {
    let pairs = list(holder, "attributes")?.iter().map(|pair| {
        known(pair, &["key", "value"])?;
        Ok((text(pair, "key"), value(&pair["value"])?))
    });
    Ok(Attributes(pairs.collect::<Result<_>>()?))
}

fn value(it: &Json) -> Result<Value> {
    let Some((kind, inner)) = it.as_object().and_then(|fields| fields.iter().next()) else {
        return Ok(Value::Empty);
    };
    Ok(match kind.as_str() {
        "stringValue" => Value::Str(inner.as_str().context("no string")?.to_owned()),
        "boolValue" => Value::Bool(inner.as_bool().context("no boolean")?),
        "intValue" => Value::Int(long(inner)?),
        "doubleValue" => Value::Double(inner.as_f64().context("no number")?),
        "arrayValue" => {
            Value::Array(list(inner, "values")?.iter().map(value).collect::<Result<_>>()?)
        }
        "kvlistValue" => {
            Value::Map(attributes(&serde_json::json!({"attributes": inner["values"]}))?)
        }
        "bytesValue" => Value::Bytes(inner.as_str().context("no base64")?.as_bytes().to_vec()),
        other => bail!("value of unknown kind {other:?}"),
    })
}

/// An unknown name is no error of the protocol, but here it is a misspelt one.
fn known(it: &Json, names: &[&str]) -> Result<()> {
    let fields = it.as_object().with_context(|| format!("not an object: {it}"))?;
    for name in fields.keys() {
        ensure!(names.contains(&name.as_str()), "field {name:?} is none of {names:?}");
    }
    Ok(())
}

fn list<'a>(holder: &'a Json, name: &str) -> Result<&'a [Json]> {
    match &holder[name] {
        Json::Null => Ok(&[]),
        Json::Array(items) => Ok(items),
        other => bail!("{name} is no list: {other}"),
    }
}

fn text(holder: &Json, name: &str) -> String {
    holder[name].as_str().unwrap_or_default().to_owned()
}

fn id(holder: &Json, name: &str, digits: usize) -> Result<String> {
    let id = text(holder, name);
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    ensure!(
        id.len() == digits && id.bytes().all(lower_hex),
        "{name} {id:?} is not {digits} hex digits"
    );
    Ok(id)
}

/// The mapping writes 64-bit integers as strings; a reader must take numbers as well, but only up
/// to 2^53 are they exact, so a test wants the string.
fn long<T: FromStr>(it: &Json) -> Result<T> {
    let text = it.as_str().with_context(|| format!("{it} is not a decimal string"))?;
    text.parse().ok().with_context(|| format!("{text:?} is out of range"))
}
