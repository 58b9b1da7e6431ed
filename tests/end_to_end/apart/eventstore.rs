//! What tap tells of connections and of its own requests besides spans: log records of a connection
//! that opens, goes on and closes, with its span's ids.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use serde_json::Value;
use tests::{
    programs::otlp::{Mode, Site},
    receiver::Protocol,
    stage::apart,
    tap::Launch,
    wait::{PATIENCE, until_true},
    workload::{Connected, Ends},
};

fn launch(site: &Site, config: &str) -> Launch {
    let protocol = Protocol::HttpProtobuf;
    Launch::new()
        .config(config)
        .env("OTEL_TRACES_EXPORTER", "otlp")
        .env("OTEL_LOGS_EXPORTER", "otlp")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &site.endpoint(protocol))
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .env("OTEL_BLRP_SCHEDULE_DELAY", "50")
}

/// What was told of a connection's ends, by direction: each record's word, and the record.
fn told(site: &Site, ends: Ends) -> BTreeMap<String, Vec<(String, Value)>> {
    let mut told: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for record in site.items("logs") {
        let said = &record["attributes"];
        let ports = [&said["client.port"], &said["server.port"]].map(Value::as_u64);
        let of_it = [ends.client, ends.server].map(|end| Some(end.port().into()));
        if record["scope"] == "tap.connection" && ports == of_it {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let word = text(&said["event"]["summary.connection_event"]);
            told.entry(text(&said["connection.direction"])).or_default().push((word, record));
        }
    }
    told
}

fn words(site: &Site, ends: Ends) -> BTreeMap<String, Vec<String>> {
    let words = |records: Vec<(String, Value)>| records.into_iter().map(|it| it.0).collect();
    told(site, ends).into_iter().map(|(end, records)| (end, words(records))).collect()
}

fn both(each: &[&str]) -> BTreeMap<String, Vec<String>> {
    let each: Vec<String> = each.iter().map(|&it| it.to_owned()).collect();
    ["egress", "ingress"].map(|end| (end.to_owned(), each.clone())).into()
}

#[test]
fn both_ends_of_a_connection_tell_that_it_opens_while_it_is_open_and_that_it_closes() {
    apart(|| {
        let site = Site::new()?;
        let _receiver = site.start(Mode::Ok)?;
        let tap = launch(&site, "connection: { logs: true }\n").start()?;
        let mut connected = Connected::new()?;
        connected.send(7)?;
        let ends = connected.ends;
        until_true("both ends to be told open", PATIENCE, || {
            words(&site, ends) == both(&["opened"])
        })
        .with_context(|| format!("{:?}", words(&site, ends)))?;
        connected.answer(5)?;
        connected.close()?;
        until_true("both ends to be told closed", PATIENCE, || {
            words(&site, ends) == both(&["opened", "closed"])
        })
        .with_context(|| format!("{:?}", words(&site, ends)))?;
        site.wait_for_all(&[ends], 0)?;
        let accounting = tap.stop()?.check()?;
        assert_eq!(accounting.items["logs/otlp"]["exported"], site.items("logs").len() as u64);
        let spans = site.items("traces");
        for (end, records) in told(&site, ends) {
            for (word, record) in records {
                let said = &record["attributes"];
                let id = &said["connection.id"];
                let of_it = |span: &&Value| span["attributes"]["connection.id"] == *id;
                let span = spans.iter().find(of_it).with_context(|| format!("no span of {id}"))?;
                assert_eq!(
                    (&record["id"], &said["event.type"]),
                    (&span["id"], &"connection".into())
                );
                assert_eq!(said["event"]["summary.connection_id"], *id);
                // Who accepted it is known from its first use on.
                if word == "closed" || end == "egress" {
                    assert_eq!(said["process.pid"], std::process::id());
                }
                let at = record["times"][0].as_u64();
                let expected = if word == "opened" { &span["times"][0] } else { &span["times"][1] };
                assert_eq!(at, expected.as_u64(), "{end} {word}");
                let state = if word == "opened" { "open" } else { "closed" };
                assert_eq!(said["connection.state"], state);
                let (sent, received) = if end == "egress" { (7, 5) } else { (5, 7) };
                if word == "closed" {
                    assert_eq!(said["event"]["summary.bytes_sent"], sent);
                    assert_eq!(said["event"]["summary.bytes_received"], received);
                }
                let line = format!("Connection {word} {} -> {}", ends.client, ends.server);
                assert_eq!(record["name"], line.as_str());
            }
        }
        Ok(())
    });
}

#[test]
fn a_connection_that_goes_on_is_told_of_with_each_segment() {
    apart(|| {
        let site = Site::new()?;
        let _receiver = site.start(Mode::Ok)?;
        let tap = launch(&site, "connection: { logs: true, max_age: 1s }\n").start()?;
        let mut connected = Connected::new()?;
        connected.send(1)?;
        let ends = connected.ends;
        until_true("an update of both ends", Duration::from_secs(60), || {
            let words = words(&site, ends);
            words.len() == 2 && words.values().all(|it| it.len() >= 2)
        })
        .with_context(|| format!("{:?}", words(&site, ends)))?;
        connected.close()?;
        until_true("both ends to be told closed", PATIENCE, || {
            let words = words(&site, ends);
            words.values().all(|it| it.last().is_some_and(|it| it == "closed"))
        })?;
        tap.stop()?.check()?;
        for (end, words) in words(&site, ends) {
            assert_eq!((&*words[0], &*words[words.len() - 1]), ("opened", "closed"), "{end}");
            assert!(words[1..words.len() - 1].iter().all(|it| it == "updated"), "{words:?}");
        }
        Ok(())
    });
}

#[test]
fn nothing_is_told_of_connections_or_requests_where_that_is_switched_off() {
    apart(|| {
        let site = Site::new()?;
        let _receiver = site.start(Mode::Ok)?;
        let tap = launch(&site, "eventstore: { spans: false }\n").start()?;
        let ends = [Connected::new()?.close()?, Connected::new()?.close()?];
        site.wait_for_all(&ends, 0)?;
        // Longer than these spans would be waited for.
        tests::workload::silence(Duration::from_millis(1500));
        let more = [Connected::new()?.close()?];
        site.wait_for_all(&more, 0)?;
        let accounting = tap.stop()?.check()?;
        let of_connection = |record: &Value| record["scope"] == "tap.connection";
        assert!(!site.items("logs").iter().any(of_connection));
        let spans = site.items("traces");
        assert!(spans.iter().all(|span| span["scope"] == "tap.connection"), "{spans:?}");
        assert_eq!(accounting.spans("exported"), spans.len() as u64);
        Ok(())
    });
}
