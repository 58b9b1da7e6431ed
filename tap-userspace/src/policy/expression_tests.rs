use super::*;

fn span() -> Span {
    let mut span = Span {
        name: "GET".into(),
        kind: 2,
        status: 2,
        trace_id: [0xab; 16],
        start_ns: 1_000_000,
        end_ns: 3_500_000,
        ..Span::default()
    };
    for (key, value) in [
        ("url.path", Value::from("/healthz")),
        ("http.response.status_code", Value::Int(503)),
        ("tls.resumed", Value::Bool(true)),
        ("quality", Value::Array(vec!["gap".into(), "no_owner".into()])),
        ("event", Value::Map(Attributes(vec![("summary".into(), "s".into())]))),
    ] {
        span.attributes.set(key, value);
    }
    let mut resource = Resource::default();
    resource.attributes.set("service.name", "tap");
    span.source.resource = Arc::new(resource);
    span.source.scope = Arc::new(Scope { name: "tap.http".into(), ..Scope::default() });
    span.events = vec![Event { name: "ErrorEvent".into(), time_ns: 2_000_000, ..Event::default() }];
    span
}

#[test]
fn conditions_of_spans() {
    let span = span();
    for (source, holds) in [
        (r#"attributes["url.path"] == "/healthz""#, true),
        (r#"attributes["url.path"].startsWith("/health")"#, true),
        (r#"attributes["url.path"].matches("^/h.*z$")"#, true),
        (r#"attributes["http.response.status_code"] >= 500"#, true),
        (r#"attributes["tls.resumed"]"#, true),
        (r#"attributes["absent"] == "x""#, false),
        (r#"attributes["absent"]"#, false),
        (r#"attributes["absent"] == null"#, true),
        (r#""absent" in attributes"#, false),
        (r#""url.path" in attributes"#, true),
        (r#"attributes["absent"] == "x" || name == "GET""#, true),
        (r#""gap" in attributes["quality"]"#, true),
        (r#"attributes["quality"].exists(it, it == "no_owner")"#, true),
        (r#"attributes.exists(key, key.startsWith("http."))"#, true),
        (r#"attributes["event"]["summary"] == "s""#, true),
        (r#"size(attributes) == 5"#, true),
        (r#"resource.attributes["service.name"] == "tap""#, true),
        (r#"scope.name == "tap.http""#, true),
        (r#"kind == "SERVER" && status.code == "ERROR""#, true),
        (r#"duration_ms > 2.0 && duration_ms < 3.0"#, true),
        (r#"end_ns - start_ns == 2500000"#, true),
        (r#"trace_id == "abababababababababababababababab""#, true),
        (r#"span_id == "" && parent_span_id == """#, true),
        (r#"events.exists(event, event.name == "ErrorEvent")"#, true),
    ] {
        let condition = Expression::condition::<Span>(source).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(condition.holds(&span).unwrap(), holds, "{source}");
    }
    for source in [r#"attributes["absent"] > 5"#, r#"attributes["url.path"] > 5"#, "attributes"] {
        let condition = Expression::compile::<Span>(source).unwrap();
        assert!(condition.holds(&span).is_err(), "{source}");
    }
}

#[test]
fn conditions_of_events_and_records() {
    let span = span();
    let event = EventOf(&span.events[0], &span);
    let of = r#"name == "ErrorEvent" && span.name == "GET" && span.attributes["tls.resumed"]"#;
    assert!(Expression::condition::<EventOf>(of).unwrap().holds(&event).unwrap());
    let record = LogRecord {
        body: "GET /".into(),
        severity: 17,
        severity_text: "ERROR".into(),
        ..LogRecord::default()
    };
    let of = r#"body.contains("GET") && severity_number >= 17 && severity_text == "ERROR""#;
    assert!(Expression::condition::<LogRecord>(of).unwrap().holds(&record).unwrap());
}

#[test]
fn what_cannot_be_used_is_refused() {
    for (source, part) in [
        ("", "is no CEL expression"),
        ("name ==", "is no CEL expression"),
        ("nam == 'x'", "`nam` is no variable here: there are attributes, resource"),
        ("body == 'x'", "`body` is no variable"),
        ("nope(name)", "`nope` is no function"),
        ("name", "can never hold: it is neither true nor false"),
        ("name > 5", "can never hold"),
        ("name.startsWith(5)", "can never hold"),
        ("[1].exists(a, [2].exists(b, a == b))", "within another"),
        (&"(".repeat(900), "is no CEL expression"),
        (&"x".repeat(2000), "at most 1024 bytes"),
        (&format!("{}1{} == []", "[".repeat(60), "]".repeat(60)), "within one another"),
    ] {
        let error = Expression::condition::<Span>(source).unwrap_err().to_string();
        assert!(error.contains(part), "{source}: {error}");
    }
}
