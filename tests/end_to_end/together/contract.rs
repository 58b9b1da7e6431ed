//! What leaves tap, held against OpenTelemetry's semantic conventions and SPEC §3.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
};

use anyhow::{Context, Result};
use serde_json::Value as Json;
use tests::{
    programs::{curl, scripts::slow_https_server, tls::NAME},
    span::{Attributes, Span, Status, Value},
    stage::together,
    workload::Connected,
};

/// Names that are the seed contract's own, of spans and of their events.
const OWN: [&str; 3] = ["duration_from_open_ns", "protocol", "bytes"];

/// Names and types that the conventions have.
fn conventions() -> Result<BTreeMap<String, String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/semconv/attributes.json");
    let file: Json = serde_json::from_str(&fs::read_to_string(path)?)?;
    let attributes = file["attributes"].as_object().context("no attributes")?;
    let of = |it: &Json| it["type"].as_str().unwrap_or_default().to_owned();
    Ok(attributes.iter().map(|(name, it)| (name.clone(), of(it))).collect())
}

fn fits(value: &Value, kind: &str) -> bool {
    match value {
        Value::Str(_) => kind == "string" || kind == "enum<string>",
        Value::Int(_) => kind == "int",
        Value::Bool(_) => kind == "boolean",
        Value::Double(_) => kind == "double",
        Value::Array(_) => kind == "string[]",
        Value::Map(_) | Value::Bytes(_) | Value::Empty => false,
    }
}

/// What is wrong with the names and types of `attributes`.
fn faults(attributes: &Attributes, conventions: &BTreeMap<String, String>) -> Vec<String> {
    attributes
        .0
        .iter()
        .filter_map(|(name, value)| match conventions.get(name) {
            Some(kind) => (!fits(value, kind)).then(|| format!("{name} is no {kind}: {value:?}")),
            None => {
                let own = name.starts_with("tap.") || name.starts_with("connection.");
                (!own && !OWN.contains(&name.as_str()))
                    .then(|| format!("{name} is neither a convention nor tap's own"))
            }
        })
        .collect()
}

#[test]
fn every_name_is_a_convention_or_taps_own_and_has_its_type() {
    together(|on| {
        // A rich span and a failed one are among them, whatever the other tests have made.
        let server = slow_https_server(0)?;
        let mut curl = curl::curl(&["--insecure"])?;
        curl.arg(format!("https://127.0.0.1:{}/", server.port));
        let transfer = curl::fetch(curl)?;
        let port = transfer.local_port();
        on.receiver.wait_for("curl's spans", 2, tests::wait::PATIENCE, |it| it.has_port(port))?;
        let conventions = conventions()?;
        let mut wrong = BTreeSet::new();
        for span in on.receiver.spans().into_iter().chain(on.receiver.writes()) {
            wrong.extend(faults(&span.attributes, &conventions));
            wrong.extend(faults(&span.resource, &conventions));
            for event in &span.events {
                wrong.extend(faults(&event.attributes, &conventions));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        Ok(())
    });
}

#[test]
fn the_resource_says_who_and_where() {
    together(|on| {
        let span = on.receiver.client(Connected::new()?.close()?)?;
        let resource = &span.resource;
        assert_eq!(resource.str("service.name"), Some("tap"));
        for name in ["service.version", "service.instance.id", "host.name", "os.type"] {
            assert!(resource.str(name).is_some_and(|it| !it.is_empty()), "{name}: {resource:?}");
        }
        assert_eq!(resource.str("os.type"), Some("linux"));
        Ok(())
    });
}

#[test]
fn a_good_connection_has_no_status_and_no_error() {
    together(|on| {
        let mut connected = Connected::new()?;
        connected.send(10)?;
        connected.answer(10)?;
        let both = on.receiver.both(connected.close()?)?;
        for span in [&both.client, &both.server] {
            assert_eq!(span.status, Status::Unset);
            assert!(span.attributes.value("error.type").is_none());
            assert_eq!(span.int("tap.connection.segment"), 0);
            assert!(span.int("tap.tcp.rtt_us") > 0, "{span:#?}");
            assert_eq!(span.int("tap.tcp.retransmits"), 0);
        }
        Ok(())
    });
}

#[test]
fn connection_ids_are_all_different() {
    together(|on| {
        on.receiver.both(Connected::new()?.close()?)?;
        let spans = on.receiver.spans();
        let ids: BTreeSet<_> = spans.iter().map(|span| span.str("connection.id")).collect();
        // Segments of one connection share its id; none here is old enough to have two.
        assert_eq!(ids.len(), spans.len());
        let ids: BTreeSet<_> = spans.iter().map(|span| span.span_id.as_str()).collect();
        assert_eq!(ids.len(), spans.len());
        Ok(())
    });
}

#[test]
fn taps_own_connections_are_not_traced() {
    together(|on| {
        // Its export runs all the time, and this asks its admin server.
        let mut connected = Connected::new()?;
        connected.client.write_all(b"x")?;
        connected.server.read_exact(&mut [0])?;
        on.tap.get("/metrics")?;
        on.receiver.both(connected.close()?)?;
        let own = i64::from(on.tap.pid());
        let of_tap: Vec<_> =
            on.receiver.spans().into_iter().filter(|span| span.pid() == Some(own)).collect();
        assert!(of_tap.is_empty(), "{of_tap:#?}");
        Ok(())
    });
}

#[test]
fn an_https_request_tells_its_life_in_order() {
    together(|on| {
        let server = slow_https_server(300)?;
        let port = server.port;
        let mut curl = curl::curl(&["--insecure", "--http1.1"])?;
        curl.arg("--resolve").arg(format!("{NAME}:{port}:127.0.0.1"));
        curl.arg(format!("https://{NAME}:{port}/slow"));
        let transfer = curl::fetch(curl)?;
        assert_eq!(transfer.status(), 200);
        let [client, server_end] =
            [transfer.local_port(), port].map(|port| ([127, 0, 0, 1], port).into());
        let both = on.receiver.both(tests::workload::Ends { client, server: server_end })?;
        both.assert_tied();
        both.assert_whole();
        assert_eq!(both.client.bytes().0, both.server.bytes().1);
        assert_eq!(both.client.bytes().1, both.server.bytes().0);
        for span in [&both.client, &both.server] {
            assert_tls(span);
            assert_pause(span);
        }
        assert_eq!(both.client.str("process.executable.path"), curl::executable()?);
        let pid = server.process.pid();
        assert_eq!(both.server.pid(), Some(i64::from(pid)));
        let executable = tests::programs::executable(pid)?;
        assert_eq!(both.server.str("process.executable.path"), executable);
        Ok(())
    });
}

#[track_caller]
fn assert_tls(span: &Span) {
    let names = span.event_names();
    let place = |name: &str| names.iter().position(|it| *it == name);
    let hello = place("TLSClientHelloEvent");
    let last_data = names.iter().rposition(|it| *it == "DataEvent");
    assert!(hello.is_some() && hello < last_data, "{names:?}");
    assert!(place("ProtocolEvent") < last_data, "{names:?}");
    let event = span.event("TLSClientHelloEvent").expect("it has a place");
    assert!(event.attributes.int("duration_from_open_ns").is_some_and(|it| it >= 0));
    assert_eq!(event.attributes.str("server.address"), Some(NAME));
    let protocol = span.event("ProtocolEvent").and_then(|it| it.attributes.str("protocol"));
    assert_eq!(protocol, Some("tls"));
    assert_eq!(span.str("server.address"), NAME);
    assert_eq!(span.str("network.protocol.name"), "tls");
    assert_eq!(span.str("tls.protocol.version"), "1.3");
    assert_eq!(span.attributes.bool("tls.established"), Some(true));
    assert_eq!(span.attributes.strings("tap.tls.client.alpn"), ["http/1.1"]);
}

/// The server's 300 ms lie between two neighbouring turns: not always of different directions,
/// since TLS session tickets may come before the answer.
#[track_caller]
fn assert_pause(span: &Span) {
    let turns = span.turns();
    let paused = turns.windows(2).any(|pair| pair[1].time_ns - pair[0].time_ns >= 295_000_000);
    assert!(paused, "{turns:#?}");
}
