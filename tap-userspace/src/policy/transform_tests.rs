//! Statements on real items; results are those that OTTL's own end-to-end cases publish, where an expression is
//! also CEL.

use super::*;
use crate::{
    config::processors::{Processors, transform::Transform as Settings},
    policy::data::{Attributes, Event, Value},
};

fn settings(yaml: &str) -> Settings {
    serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"))
}

/// JSON as attributes have it.
fn value(json: &serde_json::Value) -> Value {
    serde_yaml::from_str(&json.to_string()).unwrap()
}

fn map(json: &serde_json::Value) -> Attributes {
    match value(json) {
        Value::Map(map) => map,
        other => panic!("{other:?}"),
    }
}

/// One statement on one log record.
fn on_record(statement: &str, record: &LogRecord) -> LogRecord {
    let yaml = serde_json::json!({ "log_statements": [statement] }).to_string();
    let settings = settings(&yaml);
    let mut batch = vec![record.clone()];
    let mut transform = Transform::new(&settings.log_statements);
    Processor::process(&mut transform, &mut batch, Instant::now(), &mut Tally::default());
    batch.remove(0)
}

#[test]
fn editors_do_as_ottls() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ottl/e2e_log_attributes.json");
    let cases: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let before = LogRecord { attributes: map(&cases["attributes_before"]), ..LogRecord::default() };
    let mut seen = 0;
    for case in cases["cases"].as_array().unwrap() {
        let statement = case["statement"].as_str().unwrap();
        // What CEL has no function of that name for: converters begin with a capital.
        let converter = statement
            .split(|it: char| !(it.is_alphanumeric() || it == '"'))
            .any(|word| word.starts_with(|first: char| first.is_ascii_uppercase()));
        if converter {
            continue;
        }
        seen += 1;
        let after = on_record(statement, &before);
        let (after, expected) = (Value::Map(after.attributes), value(&case["attributes_after"]));
        assert_eq!(after.as_text(), expected.as_text(), "{statement}");
    }
    assert_eq!(seen, 21);
}

#[test]
fn every_place_of_a_record_can_be_changed() {
    let mut record = LogRecord { body: "GET /a".into(), severity: 9, ..LogRecord::default() };
    record.attributes.set("n", 5i64);
    let list = Value::Array(vec!["a".into()]);
    record.attributes.set("list", list);
    let text = |record: LogRecord, key: &str| {
        record.attributes.get(key).map(|value| value.as_text().into_owned())
    };
    assert_eq!(on_record("set(log.body, \"x\")", &record).body, "x".into());
    assert_eq!(on_record("set(body, {\"a\": 1})", &record).body.as_text(), r#"{"a":1}"#);
    assert_eq!(on_record("set(severity_number, SEVERITY_NUMBER_ERROR)", &record).severity, 17);
    assert_eq!(
        &*on_record("set(severity_text, 'E') where severity_number < 10", &record).severity_text,
        "E"
    );
    assert_eq!(
        on_record("replace_pattern(body, \"/(.*)$\", \"[$1]\")", &record).body,
        "GET [a]".into()
    );
    assert_eq!(
        text(on_record("set(attributes['b'], body + '!')", &record), "b"),
        Some("GET /a!".into())
    );
    assert_eq!(
        text(on_record("set(attributes['n'], attributes['n'] * 2)", &record), "n"),
        Some("10".into())
    );
    assert_eq!(
        text(on_record("set(attributes['list'][0], 'b')", &record), "list"),
        Some("[\"b\"]".into())
    );
    assert_eq!(
        text(on_record("set(attributes['m']['k']['l'], 1)", &record), "m"),
        Some(r#"{"k":{"l":1}}"#.into())
    );
    assert_eq!(text(on_record("stringify_all(attributes)", &record), "n"), Some("5".into()));
    assert_eq!(
        on_record(
            "truncate_all(attributes, 4, truncation_marker = \"~\")",
            &LogRecord {
                attributes: map(&serde_json::json!({ "a": "ééé", "b": "four" })),
                ..LogRecord::default()
            }
        )
        .attributes,
        map(&serde_json::json!({ "a": "é~", "b": "four" }))
    );
    // What fails changes nothing: no number, no such place, no map, a condition that cannot be told.
    for statement in [
        "set(severity_number, attributes['list'])",
        "set(attributes['list'][7], 'b')",
        "set(attributes['n']['k'], 'b')",
        "delete_key(attributes['absent'], 'b')",
        "set(attributes['x'], 1) where attributes['absent'] > 5",
        "merge_maps(attributes, attributes['n'], 'upsert')",
    ] {
        assert_eq!(on_record(statement, &record), record, "{statement}");
    }
}

fn span() -> Span {
    let mut span = Span { name: "GET".into(), kind: 2, ..Span::default() };
    span.attributes.set("http.route", "/user/{id}");
    let event = |name: &'static str| Event { name: name.into(), ..Event::default() };
    span.events = vec![event("OpenEvent"), event("CloseEvent")];
    Arc::make_mut(&mut span.source.resource).attributes.set("service.name", "tap");
    span
}

fn on_spans(yaml: &str, mut batch: Vec<Span>) -> Vec<Span> {
    let mut transform = Transform::new(&settings(yaml).trace_statements);
    Processor::process(&mut transform, &mut batch, Instant::now(), &mut Tally::default());
    batch
}

#[test]
fn contexts_are_said_or_found() {
    for yaml in [
        "trace_statements: [\
           'set(span.name, span.name + \" \" + span.attributes[\"http.route\"])', \
           'set(span.status.code, STATUS_CODE_ERROR) where span.kind == SPAN_KIND_SERVER and not (span.name == nil)', \
           'set(spanevent.attributes[\"of\"], span.name) where spanevent.name == \"CloseEvent\"', \
           'set(resource.attributes[\"zone\"], \"z\")', \
           'set(scope.version, resource.attributes[\"zone\"])']",
        "trace_statements:\n\
         - context: span\n  conditions: ['name == \"nope\"', 'name == \"GET\"']\n  statements: \
           ['set(name, name + \" \" + attributes[\"http.route\"])', 'set(status.code, 2)']\n\
         - { context: spanevent, statements: ['set(attributes[\"of\"], span.name) where name == \"CloseEvent\"'] }\n\
         - { context: span, conditions: ['name == \"nope\"'], statements: ['set(name, \"never\")'] }\n\
         - { context: resource, statements: ['set(attributes[\"zone\"], \"z\")'] }\n\
         - { context: scope, statements: ['set(instrumentation_scope.version, resource.attributes[\"zone\"])'] }",
    ] {
        let first = span();
        let after = on_spans(yaml, vec![first.clone(), first.clone()]);
        for span in &after {
            assert_eq!(&*span.name, "GET /user/{id}");
            assert_eq!(span.status, 2);
            assert!(span.events[0].attributes.is_empty());
            assert_eq!(span.events[1].attributes.get("of"), Some(&"GET /user/{id}".into()));
            assert_eq!(span.source.resource.attributes.get("zone"), Some(&"z".into()));
            assert_eq!(&*span.source.scope.version, "z");
            assert!(span.source.is(&after[0].source), "{yaml}");
        }
        assert_eq!(first.source.resource.attributes.get("zone"), None);
    }
}

#[test]
fn resources_that_single_spans_change_are_shared_where_they_are_equal() {
    let batch = (0..4i64)
        .map(|number| {
            let mut one = span();
            one.attributes.set("n", number % 2);
            one.source = Source::default();
            one
        })
        .collect();
    let yaml = "trace_statements: ['set(resource.attributes[\"n\"], span.attributes[\"n\"])']";
    let after = on_spans(yaml, batch);
    let same = |one: usize, other: usize| {
        Arc::ptr_eq(&after[one].source.resource, &after[other].source.resource)
    };
    assert!(same(0, 2) && same(1, 3) && !same(0, 1));
    assert_eq!(after[1].source.resource.attributes.get("n"), Some(&Value::Int(1)));
}

#[test]
fn what_a_statement_makes_is_bounded() {
    let mut record = LogRecord::default();
    record.attributes.set("a", "x".repeat(10_000));
    let doubling: Vec<_> = (0..60).map(|_| "set(log.attributes[\"a\"], log.attributes)").collect();
    let growing: Vec<_> =
        (0..10).map(|_| "replace_all_patterns(log.attributes, \"value\", \"\", \"yy\")").collect();
    for statements in [doubling, growing] {
        let yaml = serde_json::json!({ "log_statements": statements }).to_string();
        let mut batch = vec![record.clone()];
        let mut transform = Transform::new(&settings(&yaml).log_statements);
        Processor::process(&mut transform, &mut batch, Instant::now(), &mut Tally::default());
        assert!(batch[0].attributes.weight() < 8 << 20);
    }
}

#[test]
fn statements_that_cannot_be_are_refused_where_they_stand() {
    for (statement, told) in [
        ("set(name)", "`set` also needs `value`"),
        ("set(name, 'a', 'b')", "`set` takes (target, value)"),
        ("sett(name, 'a')", "`sett` is no function of a statement; did you mean `set`?"),
        ("append(attributes['a'], 'b')", "there are set, delete_key"),
        ("set(nam, 'a')", "`nam` cannot be changed here; there are attributes, name"),
        ("set(trace_id, 'a')", "`trace_id` cannot be changed here"),
        ("set(name, 5)", "`name` takes a text"),
        ("set(attributes, 5)", "`attributes` takes a map"),
        ("set(status.code, 'BAD')", "`status.code` takes one of UNSET, OK, ERROR"),
        ("set(status.code, 7)", "`status.code` takes one of"),
        ("set(name['a'], 'b')", "`name` has nothing inside"),
        ("set(attributes[0], 'b')", "`attributes` is a map: its keys are texts"),
        ("set(attributes[name], 'b')", "is to be a text or an integer"),
        ("delete_key(name, 'b')", "`name` is no map"),
        ("delete_key(attributes, name)", "`key` is to be a constant"),
        ("delete_matching_keys(attributes, '(')", "is no regular expression"),
        ("keep_keys(attributes, 'a')", "`keys` is to be a list of texts"),
        ("limit(attributes, 1, ['a', 'b'])", "`limit` 1 is less than"),
        ("limit(attributes, -1, [])", "an integer from 0 on"),
        ("truncate_all(attributes, 1, false)", "leave `utf8_safe` out"),
        ("truncate_all(attributes, 1, truncation_marker = 'xx')", "longer than `limit`"),
        ("replace_pattern(name, 'a', 'b', SHA256)", "tap has no functions on replacements"),
        ("replace_pattern(name, 'a', 5)", "`replacement` is to be a text"),
        ("replace_all_patterns(attributes, 'keys', 'a', 'b')", "`mode` is \"key\" or \"value\""),
        ("merge_maps(attributes, {}, 'replace')", "`strategy` is"),
        ("flatten(attributes, resolveConflicts = true)", "tap has no `resolveConflicts`"),
        ("set(name, Concat([name, 'a'], ''))", "`Concat` is no function of CEL"),
        ("set(name, body)", "`body` is no variable here"),
        ("set(name, 'a') where name", "can never hold"),
        ("set(name, 'a') wher name == 'b'", "`where`, or nothing, is due at character 16"),
    ] {
        let list = serde_json::json!(["delete_key(attributes, 'a')", statement]);
        let yaml = format!("transform:\n  trace_statements: {list}\n");
        let error = serde_yaml::from_str::<Processors>(&yaml).unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("line 2"), "{statement}: {error}");
    }
    for (yaml, told) in [
        ("{ trace_statements: [{ context: log, statements: [] }] }", "contexts of spans are"),
        ("{ log_statements: [{ context: span, statements: [] }] }", "contexts of log records are"),
        ("{ metric_statements: [{ context: span, statements: [] }] }", "contexts of metrics are"),
        ("{ trace_statements: [{ context: spans, statements: [] }] }", "unknown variant `spans`"),
        ("{ error_mode: propagate }", "`ignore` or `silent`"),
        ("{ profile_statements: [] }", "tap has no profiles"),
        ("{ flatten_data: true }", "leave `flatten_data` out"),
        ("{ trace_statements: [5] }", "a statement, or a map"),
        (
            "{ metric_statements: ['set(metric.name, \"a\")', 'set(datapoint.value, 1)'] }",
            "`value` cannot",
        ),
    ] {
        let error = serde_yaml::from_str::<Processors>(&format!("transform: {yaml}")).unwrap_err();
        assert!(error.to_string().contains(told), "{yaml}: {error}");
    }
}
