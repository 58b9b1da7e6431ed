//! The judge against made-up guests: one where all is well, and one for each thing that can go
//! wrong.

use serde_json::json;

use super::*;

const TRACING: &str = r#"log {"level":"INFO","message":"Tracing."}"#;

fn end(i: u16, client: bool) -> End {
    let (a, b) = (format!("127.0.0.1:{}", 40_000 + i), "127.0.0.1:7000".to_owned());
    let (local, peer) = if client { (a, b) } else { (b, a) };
    let (sent, received) = if client { (10, 20) } else { (20, 10) };
    End { client, local: local.parse().unwrap(), peer: peer.parse().unwrap(), sent, received }
}

fn span(end: &End) -> Value {
    json!({
        "connection.direction": if end.client { "egress" } else { "ingress" },
        "network.local.address": end.local.ip().to_string(),
        "network.local.port": end.local.port(),
        "network.peer.address": end.peer.ip().to_string(),
        "network.peer.port": end.peer.port(),
        "tap.bytes.sent": end.sent,
        "tap.bytes.received": end.received,
    })
}

fn accounting(seen: u64, delivered: u64, dropped: u64) -> String {
    let open = json!({ "seen": seen, "delivered": delivered, "dropped": { "ring_full": dropped } });
    format!("log {}", json!({ "accounting": { "records": { "open": open } } }))
}

/// A guest's lines; `change` may spoil the spans.
fn results(accounting: &str, change: impl Fn(&mut Vec<Value>)) -> String {
    let ends: Vec<End> = (0..20).flat_map(|i| [end(i, true), end(i, false)]).collect();
    let mut spans: Vec<Value> = ends.iter().map(span).collect();
    change(&mut spans);
    let mut lines = vec!["phase loopback".to_owned()];
    lines.extend(ends.iter().map(|end| format!("ledger {}", serde_json::to_string(end).unwrap())));
    lines.push("exit 0".into());
    lines.extend(spans.iter().map(|span| format!("span {span}")));
    lines.extend([TRACING.to_owned(), accounting.to_owned(), "end 5.0".into()]);
    lines.join("\n")
}

fn judged(results: &str) -> Verdict {
    one("6.1", Phase::Loopback, &account(results, Phase::Loopback))
}

#[test]
fn a_good_run_is_good() {
    let verdict = judged(&results(&accounting(40, 40, 0), |_| ()));
    assert!(verdict.is_good(), "{:?}", verdict.problems);
    assert_eq!((verdict.spans, verdict.bytes), (40, 40));
}

#[test]
fn a_wrong_byte_count_is_found() {
    let spoilt = results(&accounting(40, 40, 0), |spans| spans[3]["tap.bytes.sent"] = json!(21));
    let verdict = judged(&spoilt);
    assert!(!verdict.is_good());
    assert_eq!((verdict.spans, verdict.bytes), (40, 39));
}

#[test]
fn a_missing_a_second_and_a_foreign_span_are_found() {
    let missing = judged(&results(&accounting(40, 40, 0), |spans| drop(spans.pop())));
    assert_eq!((missing.is_good(), missing.spans), (false, 39));
    let double = judged(&results(&accounting(40, 40, 0), |spans| spans.push(spans[0].clone())));
    assert_eq!((double.is_good(), double.spans), (false, 39));
    let foreign = |spans: &mut Vec<Value>| spans.push(span(&end(99, true)));
    let foreign = judged(&results(&accounting(40, 40, 0), foreign));
    assert_eq!((foreign.is_good(), foreign.spans), (false, 40));
}

#[test]
fn a_lost_record_is_found() {
    for accounting in [accounting(41, 40, 0), accounting(41, 40, 1), "log {}".to_owned()] {
        let verdict = judged(&results(&accounting, |_| ()));
        assert!(!verdict.is_good() && !verdict.accounted, "{accounting}");
    }
}

#[test]
fn a_daemon_that_does_not_start_says_why() {
    let verdict = judged("phase loopback\nlog the kernel refused program tap_x\nexit 3\n");
    assert!(!verdict.loaded && !verdict.attached);
    assert!(verdict.problems[0].contains("refused program tap_x"));
    let verdict = judged("phase loopback\nlog cannot attach tap_x\n");
    assert!(verdict.loaded && !verdict.attached);
}

#[test]
fn a_program_that_is_not_in_use_is_a_problem_unless_the_kernel_is_too_old_for_it() {
    let line = r#"{"fields":{"message":"A program is not in use.","program":"tap_state"}}"#;
    assert_eq!(program_not_in_use(line).as_deref(), Some("tap_state"));
    assert_eq!(program_not_in_use("plain"), None);
    assert!(misses("5.10.0-46-amd64", "tap_state") && !misses("5.10.0-46-amd64", "tap_exec"));
    assert!(!misses("6.1.0-56-amd64", "tap_state"));
    let without = format!("{}\nlog {line}\n", results(&accounting(40, 40, 0), |_| ()));
    assert!(judged(&results(&accounting(40, 40, 0), |_| ())).is_good());
    assert!(!judged(&without).is_good(), "{without}");
}

#[test]
fn only_the_lines_of_the_phase_count() {
    let both = format!("{}\nphase netem\nexit 1\n", results(&accounting(1, 1, 0), |_| ()));
    assert!(judged(&both).is_good());
}
