//! The Collector's published cases: `internal/coreinternal/attraction`, `processor/attributesprocessor`,
//! `processor/resourceprocessor` of opentelemetry-collector-contrib.

use std::sync::Arc;

use super::*;
use crate::{
    config::{environment::Signal, processors::Processors},
    policy::{
        chain,
        data::{Attributes, LogRecord, Scope, Span, Value},
    },
};

/// Attributes as YAML has them.
fn attributes(yaml: &str) -> Attributes {
    match serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}")) {
        Value::Map(map) => map,
        other => panic!("{other:?}"),
    }
}

/// The same whatever the order.
fn sorted(mut attributes: Attributes) -> Attributes {
    attributes.0.sort_by(|one, other| one.0.cmp(&other.0));
    attributes
}

fn actions(yaml: &str) -> actions::Attributes {
    let yaml = format!("actions: [{yaml}]");
    serde_yaml::from_str(&yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"))
}

#[test]
fn actions_do_as_the_collectors() {
    let extract = r#"{key: user_key, pattern: "^\\/api\\/v1\\/document\\/(?P<new_user_key>.*)\\/update\\/(?P<version>.*)$", action: extract}"#;
    let path = "/api/v1/document/12345678/update/v1";
    let extracts = |before: &str, after: &str| {
        (
            extract,
            format!("{{user_key: {path}, {before}}}"),
            format!("{{user_key: {path}, {after}}}"),
        )
    };
    let insert = "{key: attribute1, action: insert, value: 123}";
    let copy = "{key: string key, action: insert, from_attribute: anotherkey}";
    let update = "{key: db.secret, action: update, value: redacted}";
    let from = "{key: boo, action: update, from_attribute: foo}";
    let upsert = "{key: region, action: upsert, value: planet-earth}";
    let upsert_from = "{key: new_user_key, action: upsert, from_attribute: user_key}";
    let delete = "{key: duplicate_key, pattern: '^duplicate_key_.', action: delete}";
    let delete_by = "{pattern: 'duplicate.*', action: delete}";
    let hash = "{key: updateme, pattern: '^updatemeby.*', action: hash}";
    let same = "{key: boo, action: insert, from_attribute: boo}, {key: boo, action: update, \
                from_attribute: boo}, {key: boo, action: upsert, from_attribute: boo}";
    let ordered = "{key: operation, action: insert, value: default}, {key: svc.operation, action: \
                   upsert, from_attribute: operation}, {key: operation, action: delete}";
    let hashes = "{key: user.email, action: hash}, {key: user.id, action: hash}, {key: user.balance, \
                  action: hash}, {key: user.authenticated, action: HASH}";
    let convert = "{key: to.int, action: convert, converted_type: int}, {key: to.double, action: \
                   convert, converted_type: double}, {key: to.string, action: convert, \
                   converted_type: string}";
    let default =
        "{key: region, from_attribute: cloud.region, default_value: us-east-1, action: insert}";
    let only_default = "{key: a, default_value: 1, action: upsert}";
    let case = |actions: &'static str, before: &str, after: &str| {
        (actions, before.to_owned(), after.to_owned())
    };
    for (done, before, after) in [
        case(insert, "{}", "{attribute1: 123}"),
        case(insert, "{anotherkey: bob}", "{anotherkey: bob, attribute1: 123}"),
        case(insert, "{attribute1: bob}", "{attribute1: bob}"),
        case(copy, "{}", "{}"),
        case(copy, "{bob: 1}", "{bob: 1}"),
        case(copy, "{anotherkey: 8892342}", "{anotherkey: 8892342, string key: 8892342}"),
        case(copy, "{anotherkey: 1, string key: here}", "{anotherkey: 1, string key: here}"),
        case(update, "{boo: foo}", "{boo: foo}"),
        case(update, "{db.secret: password1234}", "{db.secret: redacted}"),
        case(from, "{boo: bob}", "{boo: bob}"),
        case(from, "{foo: over there}", "{foo: over there}"),
        case(from, "{foo: a party, boo: not here}", "{foo: a party, boo: a party}"),
        case(upsert, "{}", "{region: planet-earth}"),
        case(upsert, "{mission: to mars}", "{mission: to mars, region: planet-earth}"),
        case(upsert, "{region: solar system}", "{region: planet-earth}"),
        case(upsert_from, "{}", "{}"),
        case(upsert_from, "{user_key: 2245}", "{user_key: 2245, new_user_key: 2245}"),
        case(upsert_from, "{user_key: 2, new_user_key: 5}", "{user_key: 2, new_user_key: 2}"),
        case(extract, "{}", "{}"),
        case(extract, "{boo: ghosts}", "{boo: ghosts}"),
        case(extract, "{user_key: 1234}", "{user_key: 1234}"),
        case(extract, "{user_key: does not match}", "{user_key: does not match}"),
        case(
            extract,
            "{user_key: /api/v1/document/1/update}",
            "{user_key: /api/v1/document/1/update}",
        ),
        extracts("foo: casper", "new_user_key: '12345678', version: v1, foo: casper"),
        extracts("new_user_key: '2321', version: na", "new_user_key: '12345678', version: v1"),
        extracts("new_user_key: '2321'", "new_user_key: '12345678', version: v1"),
        case(delete, "{}", "{}"),
        case(delete, "{duplicate_key: 3245.6, original_key: 3245.6}", "{original_key: 3245.6}"),
        case(
            delete,
            "{duplicate_key_a: 1, duplicate_key_b: 2, original_key: 3, not_duplicate_key: 4}",
            "{original_key: 3, not_duplicate_key: 4}",
        ),
        case(delete_by, "{duplicate_key: 3245.6, original_key: 3245.6}", "{original_key: 3245.6}"),
        case(hash, "{boo: foo}", "{boo: foo}"),
        case(
            hash,
            "{updateme: foo}",
            "{updateme: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae}",
        ),
        // As 0.158 does it; the hash of no text.
        case(
            hash,
            "{updateme: ''}",
            "{updateme: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}",
        ),
        case(
            hash,
            "{updatemebyregexp: false, donotupdatemebyregexp: false}",
            "{updatemebyregexp: 6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d, \
             donotupdatemebyregexp: false}",
        ),
        case(
            hashes,
            "{user.email: john.doe@example.com, user.id: 10, user.balance: 99.1, \
             user.authenticated: true}",
            "{user.email: 836f82db99121b3481011f16b49dfa5fbc714a0d1b1b9f784a1ebbbf5b39577f, \
             user.id: a111f275cc2e7588000001d300a31e76336d15b9d314cd1a1d8f3d3556975eed, \
             user.balance: 05fabd78b01be9692863cb0985f600c99da82979af18db5c55173c2a30adb924, \
             user.authenticated: 4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a}",
        ),
        case(same, "{boo: ghosts are scary}", "{boo: ghosts are scary}"),
        case(ordered, "{foo: casper}", "{foo: casper, svc.operation: default}"),
        case(ordered, "{operation: arithmetic}", "{svc.operation: arithmetic}"),
        case(ordered, "{svc.operation: some value}", "{svc.operation: default}"),
        case(ordered, "{operation: arithmetic, svc.operation: add}", "{svc.operation: arithmetic}"),
        case(convert, "{to.int: '123'}", "{to.int: 123}"),
        case(convert, "{to.int: int-10}", "{to.int: int-10}"),
        case(convert, "{to.int: 7.9}", "{to.int: 7}"),
        case(convert, "{to.int: true, to.double: false}", "{to.int: 1, to.double: 0.0}"),
        case(convert, "{to.int: [1]}", "{to.int: [1]}"),
        case(
            convert,
            "{to.double: 3.141e2, to.string: 99.1}",
            "{to.double: 314.1, to.string: '99.1'}",
        ),
        case(convert, "{to.double: '3.141e2'}", "{to.double: 314.1}"),
        case(convert, "{to.double: '1e999'}", "{to.double: '1e999'}"),
        case(convert, "{to.double: 5}", "{to.double: 5.0}"),
        case(convert, "{to.string: true}", "{to.string: 'true'}"),
        case(default, "{}", "{region: us-east-1}"),
        case(default, "{cloud.region: eu}", "{cloud.region: eu, region: eu}"),
        case(default, "{region: x}", "{region: x}"),
        case(only_default, "{a: 2}", "{a: 1}"),
    ] {
        let mut found = attributes(&before);
        apply(&actions(done).actions, &mut found);
        assert_eq!(sorted(found), sorted(attributes(&after)), "{done} {before}");
    }
}

#[test]
fn actions_that_cannot_be_are_refused_where_they_stand() {
    for (action, told) in [
        ("{key: '', value: 123, action: upsert}", "the action `upsert` needs a `key`"),
        ("{action: delete}", "the action `delete` needs a `key` or a `pattern`"),
        ("{key: a, action: upsrt, value: 1}", "`upsrt` is no action: did you mean `upsert`?"),
        ("{key: a, action: invalid}", "`invalid` is no action: there are insert, update"),
        ("{key: a}", "missing field `action`"),
        ("{key: a, action: insert}", "needs a `value`, a `from_attribute` or a `default_value`"),
        ("{key: a, value: 1, from_attribute: b, action: upsert}", "has both `value` and"),
        ("{key: a, pattern: b, value: 1, action: insert}", "does not use `pattern`"),
        ("{key: a, action: extract}", "the action `extract` needs a `pattern`"),
        ("{key: a, pattern: '(?P<b>.*?)$', value: v, action: extract}", "does not use `value`"),
        (
            "{key: a, pattern: '(?P<b>.*?)$', from_attribute: v, action: extract}",
            "`from_attribute`",
        ),
        ("{key: a, pattern: '.*$', action: extract}", "has no group with a name"),
        ("{key: a, pattern: '^(?P<b>.*)/(.*)$', action: extract}", "has a group without a name"),
        ("{key: a, pattern: '(', action: delete}", "`(` is no regular expression"),
        ("{key: a, action: convert}", "needs a `converted_type`: int, double or string"),
        ("{key: a, action: convert, converted_type: bool}", "`bool` is no `converted_type`"),
        ("{key: a, action: insert, from_context: metadata.origin}", "nobody sends to it"),
        ("{key: a, action: insert, valu: 1}", "unknown field `valu`"),
    ] {
        let yaml =
            format!("attributes:\n  actions:\n  - {{key: a, action: delete}}\n  - {action}\n");
        let error = serde_yaml::from_str::<Processors>(&yaml).unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("line 4"), "{action}: {error}");
    }
    for (yaml, told) in [
        ("attributes:", "`attributes` needs settings"),
        ("attributes: { actions: [] }", "it needs an action"),
        ("resource: {}", "missing field `attributes`"),
        ("resource: { attributes: [] }", "it needs an action"),
        (
            "attributes: { include: { services: [a] }, actions: [{key: a, action: delete}] }",
            "match_type",
        ),
        (
            "attributes: { include: { match_type: strict, span_kinds: [SERVER] }, actions: [{key: a, \
             action: delete}] }",
            "`SERVER` is no kind of span",
        ),
        (
            "attributes: { include: { match_type: regexp, attributes: [{key: a, value: 1}] }, \
             actions: [{key: a, action: delete}] }",
            "`a` is matched by a pattern",
        ),
    ] {
        let error = serde_yaml::from_str::<Processors>(yaml).unwrap_err().to_string();
        assert!(error.contains(told), "{yaml}: {error}");
    }
}

fn span(service: &str, name: &str, own: &str) -> Span {
    let mut span = Span { name: name.into(), kind: 2, ..Span::default() };
    span.attributes = attributes(own);
    let source = &mut span.source;
    if !service.is_empty() {
        Arc::make_mut(&mut source.resource).attributes.set("service.name", service);
    }
    let scope = Scope { name: "lib".into(), version: "1.2".into(), ..Scope::default() };
    source.scope = Arc::new(scope);
    span
}

#[test]
fn spans_are_included_and_excluded_as_by_the_collector() {
    for (blocks, service, name, own, taken) in [
        ("include: {match_type: strict, services: [a, b]}", "b", "x", "{}", true),
        ("include: {match_type: strict, services: [a, b]}", "c", "x", "{}", false),
        (
            "include: {match_type: regexp, services: ['auth.*', 'login.*']}",
            "my-login",
            "x",
            "{}",
            true,
        ),
        ("include: {match_type: strict, services: [<nil-service-name>]}", "", "x", "{}", true),
        ("exclude: {match_type: regexp, span_names: ['login.*']}", "auth", "login", "{}", false),
        ("include: {match_type: strict, span_kinds: [SPAN_KIND_SERVER]}", "a", "x", "{}", true),
        ("include: {match_type: strict, span_kinds: [SPAN_KIND_CLIENT]}", "a", "x", "{}", false),
        ("include: {match_type: regexp, span_kinds: [SERVER]}", "a", "x", "{}", true),
        (
            "exclude: {match_type: strict, services: [a], attributes: [{key: env, value: dev}, {key: t}]}",
            "a",
            "x",
            "{env: dev, t: 123}",
            false,
        ),
        (
            "exclude: {match_type: strict, services: [a], attributes: [{key: env, value: dev}, {key: t}]}",
            "a",
            "x",
            "{env: 1, t: dev}",
            true,
        ),
        (
            "include: {match_type: strict, attributes: [{key: r, value: false}]}",
            "a",
            "x",
            "{r: 'false'}",
            false,
        ),
        (
            "include: {match_type: regexp, attributes: [{key: r, value: '^1'}]}",
            "a",
            "x",
            "{r: 1.5}",
            true,
        ),
        (
            "include: {match_type: regexp, attributes: [{key: r, value: '.*'}]}",
            "a",
            "x",
            "{r: [1]}",
            false,
        ),
        (
            "include: {match_type: strict, attributes: [{key: r, value: [1, x]}]}",
            "a",
            "x",
            "{r: [1, x]}",
            true,
        ),
        ("include: {match_type: strict, libraries: [{name: lib}]}", "a", "x", "{}", true),
        (
            "include: {match_type: strict, libraries: [{name: lib, version: ''}]}",
            "a",
            "x",
            "{}",
            false,
        ),
        (
            "include: {match_type: strict, libraries: [{name: lib, version: '1.2'}]}",
            "a",
            "x",
            "{}",
            true,
        ),
        (
            "include: {match_type: strict, resources: [{key: service.name, value: a}]}",
            "a",
            "x",
            "{}",
            true,
        ),
        ("include: {match_type: strict, resources: [{key: host.type}]}", "a", "x", "{}", false),
        (
            "include: {match_type: strict, services: [a]}, exclude: {match_type: strict, attributes: \
             [{key: keep, value: false}]}",
            "a",
            "x",
            "{keep: false}",
            false,
        ),
    ] {
        let yaml = format!("{{ {blocks}, actions: [{{key: done, value: 1, action: insert}}] }}");
        let settings: actions::Attributes =
            serde_yaml::from_str(&yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
        assert_eq!(settings.refuses(Signal::Traces), None, "{yaml}");
        let mut batch = vec![span(service, name, own)];
        OnAttributes(settings).process(&mut batch, Instant::now(), &mut Tally::default());
        assert_eq!(batch[0].attributes.get("done").is_some(), taken, "{yaml} {service} {own}");
    }
}

#[test]
fn log_records_are_included_by_what_they_say() {
    let record = |body: Value, severity, text: &'static str| LogRecord {
        body,
        severity,
        severity_text: text.into(),
        ..LogRecord::default()
    };
    for (block, record, taken) in [
        ("log_bodies: ['AUTH.*']", record("AUTH x".into(), 0, ""), true),
        ("log_bodies: ['^1$']", record(1i64.into(), 0, ""), true),
        ("log_severity_texts: ['debug.*']", record("".into(), 0, "debug2"), true),
        ("log_severity_texts: ['debug.*']", record("".into(), 0, "info"), false),
        ("log_severity_number: {min: 13}", record("".into(), 13, ""), true),
        ("log_severity_number: {min: 13}", record("".into(), 9, ""), false),
        ("log_severity_number: {min: 13}", record("".into(), 0, ""), false),
        ("log_severity_number: {min: 13, match_undefined: true}", record("".into(), 0, ""), true),
    ] {
        let yaml = format!(
            "{{ include: {{match_type: regexp, {block}}}, actions: [{{key: done, value: 1, action: insert}}] }}"
        );
        let settings: actions::Attributes = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(settings.refuses(Signal::Logs), None, "{yaml}");
        assert!(settings.refuses(Signal::Traces).unwrap().contains("of spans it matches"));
        let mut batch = vec![record];
        OnAttributes(settings).process(&mut batch, Instant::now(), &mut Tally::default());
        assert_eq!(batch[0].attributes.get("done").is_some(), taken, "{yaml}");
    }
}

#[test]
fn a_signal_refuses_what_cannot_be_asked_of_it() {
    for (block, signal, told) in [
        ("span_names: [a]", Signal::Logs, "of log records it matches"),
        ("services: [a]", Signal::Metrics, "of metrics it matches"),
        ("attributes: [{key: a}]", Signal::Metrics, "of metrics it matches"),
        ("metric_names: [a]", Signal::Traces, "of spans it matches"),
        ("regexp: {cacheenabled: true, cachemaxnumentries: 10}", Signal::Traces, "it needs one of"),
        ("services: []", Signal::Logs, "it needs one of"),
        ("services: []", Signal::Metrics, "it needs `metric_names`"),
    ] {
        let yaml = format!(
            "{{ include: {{match_type: regexp, {block}}}, actions: [{{key: a, action: delete}}] }}"
        );
        let settings: actions::Attributes = serde_yaml::from_str(&yaml).unwrap();
        let why = settings.refuses(signal).unwrap_or_default();
        assert!(why.contains(told), "{yaml}: {why}");
    }
}

#[test]
fn a_resource_is_changed_once_and_stays_shared() {
    let yaml = "resource: { attributes: [{key: cloud.availability_zone, value: zone-1, action: upsert}, \
                {key: k8s.cluster.name, from_attribute: k8s-cluster, action: insert}, \
                {key: redundant-attribute, action: delete}] }";
    let processors: Processors = serde_yaml::from_str(yaml).unwrap();
    let named: Vec<_> = processors.iter().map(|(name, of)| (name.clone(), of.clone())).collect();
    let mut chain = chain::of_spans("traces", &named, &chain::Shared::default());
    let of = attributes("{k8s-cluster: c, redundant-attribute: x}");
    let before = Resource { attributes: of, ..Resource::default() };
    let source = Source { resource: Arc::new(before), ..Source::default() };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut batch = vec![Span { source: source.clone(), ..Span::default() }; 3];
        chain[0].process(&mut batch, Instant::now(), &mut Tally::default());
        seen.extend(batch);
    }
    let expected = "{k8s-cluster: c, cloud.availability_zone: zone-1, k8s.cluster.name: c}";
    assert_eq!(seen[0].source.resource.attributes, attributes(expected));
    assert!(seen.iter().all(|span| span.source.is(&seen[0].source)));
}
