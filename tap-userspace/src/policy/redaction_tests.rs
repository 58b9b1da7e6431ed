//! The Collector's published cases (`processor/redactionprocessor` of opentelemetry-collector-contrib), and tap's own.

use std::sync::Arc;

use super::*;
use crate::config::processors::Processors;

fn settings(yaml: &str) -> Settings {
    serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"))
}

fn map(yaml: &str) -> Attributes {
    match serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}")) {
        Value::Map(map) => map,
        other => panic!("{other:?}"),
    }
}

/// As JSON, so that the order does not matter.
fn shown(of: &Attributes) -> String {
    Value::Map(of.clone()).as_text().into_owned()
}

const VISA: &str = "blocked_values: ['4[0-9]{12}(?:[0-9]{3})?'], ";

#[test]
fn attributes_are_redacted_as_by_the_collector() {
    let visa = |more: &str| format!("{{ {VISA} {more} }}");
    for (rules, before, after) in [
        (
            "{ allowed_keys: [group, id, name] }".to_owned(),
            "{group: temporary, id: 5, name: placeholder, safe_attribute: '4111111111111112', \
             credit_card: '4111111111111111'}",
            "{group: temporary, id: 5, name: placeholder}",
        ),
        ("{}".to_owned(), "{a: 1}", "{}"),
        (
            "{ allowed_keys: [group], allow_all_keys: true }".to_owned(),
            "{group: temporary, id: 5}",
            "{group: temporary, id: 5}",
        ),
        (
            visa("allow_all_keys: true"),
            "{id: 5, credit_card: placeholder 4111111111111111}",
            "{id: 5, credit_card: placeholder ****}",
        ),
        (
            visa("allowed_keys: [id, group, name, group.id, member (id)], ignored_keys: [safe_attribute], \
                  summary: debug"),
            "{id: 5, group.id: some.valid.id, member (id): some other valid id, name: placeholder \
             4111111111111111, safe_attribute: harmless 4111111111111112, credit_card: '4111111111111111'}",
            "{id: 5, group.id: some.valid.id, member (id): some other valid id, name: placeholder \
             ****, safe_attribute: harmless 4111111111111112, redaction.redacted.keys: credit_card, \
             redaction.redacted.count: 1, redaction.masked.keys: name, redaction.masked.count: 1, \
             redaction.ignored.count: 1}",
        ),
        (
            visa("allowed_keys: [id, name, group], ignored_keys: [safe_attribute], summary: info"),
            "{id: 5, name: placeholder 4111111111111111, safe_attribute: 4111111111111141 x, \
             credit_card: '4111111111111111'}",
            "{id: 5, name: placeholder ****, safe_attribute: 4111111111111141 x, \
             redaction.redacted.count: 1, redaction.masked.count: 1, redaction.ignored.count: 1}",
        ),
        (
            visa("allowed_keys: [id, name, group], summary: silent"),
            "{id: 5, name: placeholder 4111111111111111, credit_card: '4111111111111111'}",
            "{id: 5, name: placeholder ****}",
        ),
        (
            "{ allowed_keys: [id, name, mystery], blocked_values: ['4[0-9]{12}(?:[0-9]{3})?', \
             '(5[1-5][0-9]{3})'], summary: debug }"
                .to_owned(),
            "{id: 5, name: placeholder 4111111111111111 52000, mystery: mystery 52000, credit_card: x}",
            "{id: 5, name: placeholder **** ****, mystery: mystery ****, redaction.redacted.keys: \
             credit_card, redaction.redacted.count: 1, redaction.masked.keys: 'mystery,name', \
             redaction.masked.count: 2}",
        ),
        // Applied twice: what is told is added to.
        (
            visa("allowed_keys: [id, credit_card, mystery], summary: debug"),
            "{id: 5, redundant: 1.2, mystery: mystery ****, credit_card: '4111111111111111', \
             redaction.redacted.keys: 'dropped_attr1,dropped_attr2', redaction.redacted.count: 2, \
             redaction.masked.keys: mystery, redaction.masked.count: 1}",
            "{id: 5, mystery: mystery ****, credit_card: '****', redaction.redacted.keys: \
             'dropped_attr1,dropped_attr2,redundant', redaction.redacted.count: 3, \
             redaction.masked.keys: 'credit_card,mystery', redaction.masked.count: 2}",
        ),
        (visa("allow_all_keys: true"), "{n: 4111111111111111}", "{n: 4111111111111111}"),
        (
            visa("allow_all_keys: true, redact_all_types: true"),
            "{n: 4111111111111111, m: {a: 4111111111111111}, id: 5}",
            "{n: '****', m: '{\"a\":****}', id: 5}",
        ),
        (
            "{ allow_all_keys: true, blocked_key_patterns: ['.*token.*', '.*api_key.*'], summary: debug }"
                .to_owned(),
            "{some_token: secret, my_api_key: \"a\\nb\", token_n: 5, other: x, empty_token: ''}",
            "{some_token: '****', my_api_key: \"****\\n****\", token_n: '****', other: x, \
             empty_token: '****', redaction.masked.keys: 'empty_token,my_api_key,some_token,token_n', \
             redaction.masked.count: 4}",
        ),
        (
            "{ allow_all_keys: true, blocked_values: ['.+@company.com'], allowed_values: \
             ['.+@mycompany.com'], summary: debug }"
                .to_owned(),
            "{a: x@mycompany.com, b: x@company.com}",
            "{a: x@mycompany.com, b: '****', redaction.masked.keys: b, redaction.masked.count: 1, \
             redaction.allowed.keys: a, redaction.allowed.count: 1}",
        ),
        (
            visa("allow_all_keys: true, ignored_key_patterns: ['^safe_'], summary: debug"),
            "{safe_a: '4111111111111111', b: '4111111111111111'}",
            "{safe_a: '4111111111111111', b: '****', redaction.masked.keys: b, \
             redaction.masked.count: 1, redaction.ignored.count: 1}",
        ),
    ] {
        let mut found = map(before);
        Rules::new(&settings(&rules)).attributes(&mut found);
        assert_eq!(shown(&found), shown(&map(after)), "{rules} {before}");
    }
}

#[test]
fn what_is_masked_can_be_hashed() {
    let key = "k".repeat(64);
    for (function, hashed) in [
        ("md5", "34819d7beeabb9260a5c854bc85b3e44"),
        ("sha1", ""),
        ("sha3", ""),
        ("hmac-sha256", ""),
        ("hmac-sha512", ""),
    ] {
        let rules = settings(&format!(
            "{{ allow_all_keys: true, blocked_values: ['mypassword'], hash_function: {function}, hmac_key: {key} }}"
        ));
        let mut found = map("{a: 'x mypassword y'}");
        Rules::new(&rules).attributes(&mut found);
        let text = found.get("a").unwrap().as_text().into_owned();
        let hash = text.strip_prefix("x ").and_then(|rest| rest.strip_suffix(" y")).unwrap();
        if function == "md5" {
            assert_eq!(hash, hashed);
        }
        let len = match function {
            "md5" => 32,
            "sha1" => 40,
            "hmac-sha512" => 128,
            _ => 64,
        };
        assert!(hash.len() == len && hash.bytes().all(|it| it.is_ascii_hexdigit()), "{text}");
    }
}

#[test]
fn bodies_are_looked_through_as_by_the_collector() {
    let rules = settings(
        "{ allowed_keys: [id, group, name, nested, list, token], blocked_values: ['4[0-9]{12}(?:[0-9]{3})?'], \
         blocked_key_patterns: [token], allowed_values: [harmless], ignored_keys: [safe], summary: debug }",
    );
    for (body, after, told) in [
        (
            "{id: 5, credit: x, name: 'a 4111111111111111', n: 1, nested: {name: '4111111111111111', \
             out: 1, safe: 4111111111111111}, list: ['4111111111111111', {name: ok}], token: [1]}",
            "{id: 5, name: a ****, nested: {name: '****', safe: 4111111111111111}, list: ['****', \
             {name: ok}], token: '****'}",
            "{redaction.body.redacted.keys: 'credit,n,nested.out', redaction.body.redacted.count: 3, \
             redaction.body.masked.keys: 'list.[0],name,nested.name,token', \
             redaction.body.masked.count: 4, redaction.body.ignored.count: 1}",
        ),
        (
            "'card 4111111111111111'",
            "'card ****'",
            "{redaction.body.masked.keys: body, redaction.body.masked.count: 1}",
        ),
        ("'harmless 4111111111111111'", "'harmless 4111111111111111'", "{}"),
        (
            "[4111111111111111]",
            "['****']",
            "{redaction.body.masked.keys: '[0]', redaction.body.masked.count: 1}",
        ),
        ("5", "5", "{}"),
        ("null", "null", "{}"),
    ] {
        let value = |yaml: &str| serde_yaml::from_str::<Value>(yaml).unwrap();
        let (mut found, mut attributes) = (value(body), Attributes::default());
        Rules::new(&rules).body(&mut found, &mut attributes);
        assert_eq!(found.as_text(), value(after).as_text(), "{body}");
        assert_eq!(shown(&attributes), shown(&map(told)), "{body}");
    }
}

#[test]
fn taps_own_keys_find_what_no_pattern_names() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9";
    let rules = "{ allow_all_keys: true, detect: [card_number, email, jwt], header_keys: [x-tenant], \
                 query_keys: [pin], summary: debug }";
    let mut found = map(&format!(
        "{{url.full: 'http://h/p?pin=7&a=1&token=x', http.request.header.authorization: [Bearer x], \
         http.request.header.x_tenant: t, http.response.header.etag: e, text: 'to a@example.org: {jwt}', \
         event: {{summary.request_query: 'pin=7&b=2', summary.status: 200, cards: ['4111 1111 1111 1111']}}}}"
    ));
    Rules::new(&settings(rules)).attributes(&mut found);
    let expected = map(
        "{url.full: 'http://h/p?pin=REDACTED&a=1&token=REDACTED', http.request.header.authorization: \
         '****', http.request.header.x_tenant: '****', http.response.header.etag: e, text: 'to ****: ****', \
         event: {summary.request_query: 'pin=REDACTED&b=2', summary.status: 200, cards: ['****']}, \
         redaction.masked.keys: 'event.cards.[0],event.summary.request_query,\
http.request.header.authorization,http.request.header.x_tenant,text,url.full', redaction.masked.count: 6}",
    );
    assert_eq!(shown(&found), shown(&expected));
}

#[test]
fn everything_that_has_attributes_is_looked_through() {
    let mut span = Span::default();
    let secret = || map("{pan: '4111111111111111'}");
    span.attributes = secret();
    span.events = vec![crate::policy::data::Event { attributes: secret(), ..Default::default() }];
    Arc::make_mut(&mut span.source.resource).attributes = secret();
    Arc::make_mut(&mut span.source.scope).attributes = secret();
    let mut processor =
        Redaction::new(&settings("{ allow_all_keys: true, detect: [card_number] }"));
    let mut batch = vec![span.clone(), span];
    processor.process(&mut batch, Instant::now(), &mut Tally::default());
    let masked = map("{pan: '****'}");
    for span in &batch {
        assert_eq!(span.attributes, masked);
        assert_eq!(span.events[0].attributes, masked);
        assert_eq!(span.source.resource.attributes, masked);
        assert_eq!(span.source.scope.attributes, masked);
    }
    assert!(batch[0].source.is(&batch[1].source));
}

#[test]
fn what_would_grow_without_end_is_masked_whole() {
    let rules = settings(
        "{ allow_all_keys: true, blocked_values: ['x*'], hash_function: hmac-sha512, hmac_key: \
         0123456789012345678901234567890123456789012345678901234567890123 }",
    );
    let mut found = Attributes::default();
    found.set("a", "b".repeat(64 << 10));
    Rules::new(&rules).attributes(&mut found);
    assert_eq!(found.get("a").unwrap().as_text().len(), 128);
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    for (rules, told) in [
        ("{ blocked_values: ['('] }", "`(` is no regular expression"),
        ("{ hash_function: crc }", "unknown variant `crc`"),
        ("{ hash_function: hmac-sha256, hmac_key: short }", "at least 32 bytes; it has 5"),
        ("{ hash_function: hmac-sha512 }", "at least 64 bytes; it has 0"),
        ("{ summary: all }", "unknown variant `all`"),
        ("{ detect: [iban] }", "unknown variant `iban`"),
        ("{ url_sanitizer: { enabled: true } }", "use `replace_pattern` of a `transform`"),
        ("{ url_sanitization: {} }", "use `replace_pattern` of a `transform`"),
        ("{ db_sanitizer: {} }", "capture.payload.db"),
        ("{ allow_keys: [] }", "unknown field `allow_keys`"),
    ] {
        let yaml = format!("redaction: {rules}");
        let error = serde_yaml::from_str::<Processors>(&yaml).unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("line 1"), "{rules}: {error}");
    }
}
