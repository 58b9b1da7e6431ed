//! Aggregation against tables of exchanges and connections.

use super::*;
use crate::{
    config::{file::Config, pipelines::Pipelines},
    connection::{identity::Xid, model::ResetBy},
    enrich::process::Process,
    protocol::{
        Protocol,
        exchange::{Headers, Side, Trouble},
    },
    telemetry::metric::{Kind, Label, Read, Value, histogram::Buckets},
};

const SECOND: u64 = 1_000_000_000;

fn identity() -> Identity {
    Identity { trace_id: [7; 16], span_id: [8; 8], peer_span_id: None }
}

fn about(role: Role) -> Arc<About> {
    let process = Process { name: "curl".into(), ..Process::default() };
    Arc::new(About {
        id: Xid([0; 12]),
        identity: identity(),
        role,
        local: ("10.0.0.1".parse().unwrap(), 1000),
        peer: ("10.0.0.2".parse().unwrap(), 2000),
        process: Some(Arc::new(process)),
    })
}

fn exchange(role: Role, message: Message) -> Transaction {
    let exchange =
        Exchange { began_ns: SECOND, ended_ns: 3 * SECOND, bytes: [0; 2], message, gap: false };
    Transaction { about: about(role), number: 0, exchange, object: None }
}

fn http(method: &str, status: Option<u16>, error: Option<Trouble>) -> Http {
    Http {
        version: "1.1",
        method: method.into(),
        authority: Some("example.org:2000".into()),
        target: "/pkg.Service/Call".into(),
        status,
        body: [3, 1000],
        error,
        ..Http::default()
    }
}

/// A call on a connection that is older than tap, whose path HPACK does not repeat.
fn nameless() -> Http {
    Http { target: String::new(), ..call("0") }
}

fn call(status: &str) -> Http {
    let mut request = Headers::default();
    request.push(b"content-type", b"application/grpc");
    let mut trailers = Headers::default();
    trailers.push(b"grpc-status", status.as_bytes());
    Http { version: "2", request, trailers, ..http("POST", Some(200), None) }
}

fn connection(role: Role, state: State, error_type: Option<&'static str>) -> Connection {
    let About { id, identity, local, peer, process, .. } = Arc::unwrap_or_clone(about(role));
    Connection {
        id,
        cookie: 1,
        identity,
        role,
        state,
        reset_by: error_type.map(|_| ResetBy::Peer),
        error_type,
        quality: Quality::default(),
        local,
        peer,
        opened_ns: SECOND,
        start_ns: 2 * SECOND,
        end_ns: 4 * SECOND,
        bytes: [10, 20],
        segment: 0,
        rtt_us: 250,
        retransmits: 3,
        protocol: Some(Protocol::Http1),
        protocol_version: None,
        client_hello: None,
        server_hello: None,
        tls_established: false,
        tls_resumed: None,
        tls_handshake_ns: Some(SECOND / 2),
        host: None,
        peer_name: None,
        process,
        events: Vec::new(),
        dropped_events: 0,
    }
}

const SCRAPED: Terms = Terms { scrape: true, push: None, exemplars: None, exchanges: false };

fn started(terms: &Terms) -> (Arc<Traffic>, Registry) {
    let registry = Registry::default();
    (Traffic::start(terms, &registry), registry)
}

/// What was read, a line a series: name, labels, value.
fn told(read: &[Read]) -> Vec<String> {
    let mut lines = Vec::new();
    for Read { family, samples } in read {
        for sample in samples {
            let labels = sample.labels.iter().map(|(key, value)| match value {
                Label::Text(text) => format!("{key}={text}"),
                other => format!("{key}:{other}"),
            });
            let value = match &sample.value {
                Value::Number(number) => number.to_string(),
                Value::Histogram(it) => format!("{} of {}", it.sum, it.count),
            };
            let labels: Vec<_> = labels.collect();
            lines.push(format!("{} {} {value}", family.name, labels.join(" ")));
        }
    }
    lines
}

#[test]
fn exchanges_have_the_attributes_of_the_conventions() {
    let query = Query {
        system: "postgresql",
        operation: "SELECT".into(),
        target: Some("users".into()),
        namespace: Some("shop".into()),
        ..Query::default()
    };
    let failed = Query { error: Some("42P01".into()), ..query.clone() };
    let kafka = Query {
        system: "kafka",
        operation: "Produce".into(),
        target: Some("t".into()),
        ..Query::default()
    };
    let of = |it: Http| Message::Http(Box::new(it));
    let db = |it: &Query| Message::Query(Box::new(it.clone()));
    let (client, server) = (Role::Client, Role::Server);
    let ends = "network.protocol.name=http network.protocol.version=1.1 url.scheme=http";
    let from = "server.address=example.org server.port:2000 process.executable.name=curl 2 of 1";
    let at = "server.port:1000 process.executable.name=curl 2 of 1";
    let peer = "server.address=10.0.0.2 server.port:2000 process.executable.name=curl 2 of 1";
    let duration = |side: &str, what: &str, rest: &str| {
        format!("http.{side}.request.duration http.request.method={what} {ends} {rest}")
    };
    let rpc = |side: &str, what: &str, rest: &str| {
        format!("rpc.{side}.call.duration rpc.system.name=grpc rpc.method={what} {rest}")
    };
    let status = "http.response.status_code";
    for (role, message, expected) in [
        (
            client,
            of(http("GET", Some(200), None)),
            duration("client", &format!("GET {status}:200"), from),
        ),
        (
            server,
            of(http("GET", Some(200), None)),
            duration("server", &format!("GET {status}:200"), at),
        ),
        (
            client,
            of(http("GET", Some(404), None)),
            duration("client", &format!("GET {status}:404 error.type=404"), from),
        ),
        (
            server,
            of(http("GET", Some(404), None)),
            duration("server", &format!("GET {status}:404"), at),
        ),
        (
            server,
            of(http("BREW", Some(503), None)),
            duration("server", &format!("_OTHER {status}:503 error.type=503"), at),
        ),
        (
            server,
            of(http("GET", None, Some(Trouble::NoResponse))),
            duration("server", "GET error.type=no_response", at),
        ),
        (
            client,
            of(http("GET", Some(200), Some(Trouble::Reset(Side::Server, 2)))),
            duration("client", &format!("GET {status}:200 error.type=reset"), from),
        ),
        (client, of(call("0")), rpc("client", "pkg.Service/Call rpc.status_code=OK", from)),
        (
            client,
            of(nameless()),
            format!("rpc.client.call.duration rpc.system.name=grpc rpc.status_code=OK {from}"),
        ),
        (
            client,
            of(call("5")),
            rpc("client", "pkg.Service/Call rpc.status_code=NOT_FOUND error.type=NOT_FOUND", from),
        ),
        (server, of(call("5")), rpc("server", "pkg.Service/Call rpc.status_code=NOT_FOUND", at)),
        (
            server,
            of(call("12")),
            rpc("server", "_OTHER rpc.status_code=UNIMPLEMENTED error.type=UNIMPLEMENTED", at),
        ),
        (server, of(call("99")), rpc("server", "pkg.Service/Call rpc.status_code=_OTHER", at)),
        (
            client,
            db(&query),
            format!(
                "db.client.operation.duration db.system.name=postgresql db.namespace=shop \
                 db.collection.name=users db.operation.name=SELECT {peer}"
            ),
        ),
        (
            server,
            db(&failed),
            format!(
                "tap.db.server.operation.duration db.system.name=postgresql db.namespace=shop \
                 db.collection.name=users db.operation.name=SELECT db.response.status_code=42P01 \
                 error.type=42P01 {at}"
            ),
        ),
        (
            client,
            db(&kafka),
            format!(
                "tap.messaging.client.operation.duration messaging.system=kafka \
                 messaging.destination.name=t messaging.operation.name=Produce {peer}"
            ),
        ),
    ] {
        let (traffic, registry) = started(&SCRAPED);
        traffic.transactions(&[exchange(role, message)]);
        let lines = told(&registry.read(Reader::Scrape));
        assert!(lines.contains(&expected), "{expected}\nis not among\n{}", lines.join("\n"));
    }
}

#[test]
fn sizes_of_bodies_are_told_for_both_directions() {
    let (traffic, registry) = started(&SCRAPED);
    let message = Message::Http(Box::new(http("GET", Some(200), None)));
    traffic
        .transactions(&[exchange(Role::Server, message.clone()), exchange(Role::Server, message)]);
    let lines = told(&registry.read(Reader::Scrape));
    for (name, sum) in [("request", "6 of 2"), ("response", "2000 of 2")] {
        let name = format!("http.server.{name}.body.size ");
        assert!(lines.iter().any(|it| it.starts_with(&name) && it.ends_with(sum)), "{lines:?}");
    }
}

#[test]
fn connections_are_told_when_they_end_and_their_bytes_by_segment() {
    let of = |direction: &str| {
        format!(
            "connection.direction={direction} network.protocol.name=http process.executable.name=curl"
        )
    };
    let (egress, ingress) = (of("egress"), of("ingress"));
    let end = |state: &str| egress.replacen(' ', &format!(" connection.state={state} "), 1);
    let open = connection(Role::Client, State::Open, None);
    let closed = connection(Role::Client, State::Closed, None);
    let accepted = connection(Role::Server, State::Closed, None);
    let refused = connection(Role::Client, State::Refused, Some("refused"));
    for (connections, expected) in [
        (
            vec![open.clone(), closed],
            vec![
                format!("tap.connection.io {egress} network.io.direction=receive 20"),
                format!("tap.connection.io {egress} network.io.direction=transmit 40"),
                format!("tap.tcp.retransmits {egress} 3"),
                format!("tap.tcp.rtt {egress} 0.00025 of 1"),
                format!("tap.tls.handshake.duration {egress} 0.5 of 1"),
                format!("tap.connection.duration {egress} 3 of 1"),
                format!("tap.connection.closed {} 1", end("closed")),
            ],
        ),
        (
            vec![open],
            vec![
                format!("tap.connection.io {egress} network.io.direction=receive 10"),
                format!("tap.connection.io {egress} network.io.direction=transmit 20"),
            ],
        ),
        (
            vec![accepted],
            vec![
                format!("tap.connection.io {ingress} network.io.direction=receive 10"),
                format!("tap.connection.io {ingress} network.io.direction=transmit 20"),
                format!("tap.tcp.retransmits {ingress} 3"),
                format!("tap.tcp.rtt {ingress} 0.00025 of 1"),
                format!("tap.tls.handshake.duration {ingress} 0.5 of 1"),
                format!("tap.connection.duration {ingress} 3 of 1"),
                format!(
                    "tap.connection.closed connection.direction=ingress connection.state=closed \
                     network.protocol.name=http process.executable.name=curl 1"
                ),
            ],
        ),
    ] {
        let (traffic, registry) = started(&SCRAPED);
        traffic.connections(&connections);
        assert_eq!(told(&registry.read(Reader::Scrape)), expected);
    }
    let mut older = connection(Role::Client, State::Closed, None);
    older.quality.add(Quality::PREEXISTING);
    let (traffic, registry) = started(&SCRAPED);
    traffic.connections(&[refused, older]);
    let lines = told(&registry.read(Reader::Scrape));
    let failed = end("refused error.type=refused");
    assert!(lines.contains(&format!("tap.connection.closed {failed} 1")), "{lines:?}");
    // When one that is older than tap was opened is not known.
    assert!(lines.contains(&format!("tap.connection.duration {egress} 3 of 1")), "{lines:?}");
}

#[test]
fn every_reader_has_its_form() {
    let explicit = (Aggregation::Explicit, Temporality::Cumulative);
    let exponential = (Aggregation::Exponential, Temporality::Delta);
    let is_exponential = |read: &[Read]| {
        let histograms = read.iter().filter(|it| it.family.kind == Kind::Histogram);
        let mut values = histograms.flat_map(|it| &it.samples).map(|it| &it.value);
        values.any(|it| match it {
            Value::Histogram(it) => matches!(it.buckets, Buckets::Exponential(_)),
            Value::Number(_) => false,
        })
    };
    for (scrape, push, views) in [
        (false, None, 0),
        (true, None, 1),
        (false, Some(explicit), 1),
        (true, Some(explicit), 1),
        (true, Some(exponential), 2),
        (false, Some(exponential), 1),
    ] {
        let (traffic, registry) = started(&Terms { scrape, push, ..SCRAPED });
        assert_eq!(traffic.views.len(), views);
        for _ in 0..2 {
            traffic.connections(&[connection(Role::Client, State::Closed, None)]);
            let scraped = registry.read(Reader::Scrape);
            assert_eq!((!scraped.is_empty(), is_exponential(&scraped)), (scrape, false));
            let pushed = registry.read(Reader::Push);
            let delta = push == Some(exponential);
            assert_eq!((!pushed.is_empty(), is_exponential(&pushed)), (push.is_some(), delta));
            for Read { samples, .. } in &pushed {
                assert!(samples.iter().all(|sample| sample.delta_since.is_some() == delta));
            }
        }
        let closed = |reader| {
            let lines = told(&registry.read(reader));
            let line = lines.into_iter().find(|line| line.starts_with("tap.connection.closed"));
            line.map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
        };
        assert_eq!(closed(Reader::Scrape).as_deref(), scrape.then_some("2"));
        let cumulative = push == Some(explicit);
        assert_eq!(closed(Reader::Push).as_deref(), cumulative.then_some("2"));
    }
}

#[test]
fn off_means_off() {
    for (value, scrape, push, exchanges) in [
        ("", false, false, false),
        ("none", false, false, false),
        ("prometheus", false, false, false),
        ("", true, false, false),
        ("prometheus", true, false, true),
        ("otlp", false, true, true),
        ("console", true, true, true),
    ] {
        let environment = Environment::read([("OTEL_METRICS_EXPORTER", value)]).unwrap();
        let pipelines = Pipelines::resolve(&Config::default(), &environment).unwrap();
        let terms = Terms::new(&environment, &pipelines, scrape);
        let told = (terms.scrape, terms.push.is_some(), terms.exchanges);
        assert_eq!(told, (scrape, push, exchanges), "{value} {scrape}");
        let (traffic, registry) = started(&terms);
        traffic.connections(&[connection(Role::Client, State::Closed, None)]);
        assert_eq!(traffic.views.is_empty(), !scrape && !push);
        assert_eq!(registry.read(Reader::Push).is_empty(), !push);
    }
}

#[test]
fn exemplars_are_of_traces_that_are_kept() {
    let environment = |variables: &[(&str, &str)]| {
        let environment = Environment::read(variables.iter().copied()).unwrap();
        let pipelines = Pipelines::resolve(&Config::default(), &environment).unwrap();
        Terms::new(&environment, &pipelines, true)
    };
    let traces = ("OTEL_TRACES_EXPORTER", "otlp");
    let filter = "OTEL_METRICS_EXEMPLAR_FILTER";
    for (variables, expected) in [
        (&[][..], false),
        (&[traces], true),
        (&[traces, ("OTEL_TRACES_SAMPLER", "always_off")], false),
        (&[traces, (filter, "always_off")], false),
        (&[(filter, "always_on")], true),
    ] {
        let (traffic, registry) = started(&environment(variables));
        traffic.connections(&[connection(Role::Client, State::Closed, None)]);
        let read = registry.read(Reader::Scrape);
        let values = read.iter().flat_map(|it| &it.samples).map(|it| &it.value);
        let exemplars: Vec<_> = values
            .filter_map(|it| match it {
                Value::Histogram(it) => it.exemplars().next().copied(),
                Value::Number(_) => None,
            })
            .collect();
        assert_eq!(!exemplars.is_empty(), expected, "{variables:?}");
        assert!(exemplars.iter().all(|it| it.trace_id == [7; 16] && it.time_ns == 4 * SECOND));
    }
}

#[test]
fn names_units_and_attributes_are_those_of_the_conventions_or_taps_own() {
    let text = include_str!("../../../tests/fixtures/semconv/attributes.json");
    let conventions: serde_json::Value = serde_json::from_str(text).unwrap();
    for instrument in group::ALL.iter().flat_map(|group| group.instruments) {
        let family = &instrument.family;
        let Some(known) = conventions["metrics"].get(family.name) else {
            assert!(family.name.starts_with("tap."), "{}", family.name);
            continue;
        };
        assert_eq!(known["unit"], family.unit, "{}", family.name);
        assert_eq!(known["instrument"], "histogram", "{}", family.name);
        assert_eq!(family.kind, Kind::Histogram, "{}", family.name);
    }
}
