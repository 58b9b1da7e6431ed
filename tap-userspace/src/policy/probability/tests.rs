use std::{sync::Arc, time::Instant};

use serde_json::Value as Json;

use super::{Randomness, Threshold, fnv32, sampler::Sampler, tracestate::TraceState};
use crate::{
    config::processors::probabilistic_sampler::{AttributeSource, Mode, ProbabilisticSampler},
    policy::{
        chain::{Place, Shared},
        data::{LogRecord, Span, Value},
        processor::{Processor, Tally},
    },
};

/// The Collector's own cases.
fn fixture() -> Json {
    serde_json::from_str(include_str!(
        "../../../tests/fixtures/sampling/consistent_probability.json"
    ))
    .unwrap()
}

fn id(hex: &str) -> [u8; 16] {
    u128::from_str_radix(hex, 16).unwrap().to_be_bytes()
}

fn sampler(settings: ProbabilisticSampler) -> Sampler {
    let (shared, name) = (Shared::default(), Arc::from("probabilistic_sampler"));
    Sampler::new(settings, &Place { pipeline: "traces", processor: &name, shared: &shared })
}

/// What is left of an item.
fn through<R: crate::policy::data::Record>(settings: &ProbabilisticSampler, item: R) -> Option<R>
where
    Sampler: Processor<R>,
{
    let (mut batch, mut tally) = (vec![item], Tally::default());
    sampler(settings.clone()).process(&mut batch, Instant::now(), &mut tally);
    assert_eq!(tally, Tally { sampled: 1 - batch.len() as u64, ..Tally::default() });
    batch.pop()
}

#[test]
fn hashes_are_the_collector_s() {
    let fixture = fixture();
    for case in fixture["hash"]["low14"].as_array().unwrap() {
        let hex = case["bytes_hex"].as_str().unwrap();
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let seed = case["seed"].as_u64().unwrap() as u32;
        let hash = fnv32([&seed.to_le_bytes(), &bytes]);
        assert_eq!(u64::from(hash & 0x3fff), case["value"].as_u64().unwrap(), "{case}");
    }
}

#[test]
fn thresholds_are_rounded_to_their_precision() {
    let fixture = fixture();
    for case in fixture["probability_precision"].as_array().unwrap() {
        let (share, precision) = (case[0].as_str().unwrap(), case[1].as_u64().unwrap() as usize);
        let (above, below) = share.split_once('/').unwrap();
        let share = above.parse::<f64>().unwrap() / below.parse::<f64>().unwrap();
        let threshold = Threshold::of_probability(share, precision).unwrap();
        assert_eq!(threshold.text(), case[2].as_str().unwrap(), "{case}");
    }
    for case in fixture["probability_to_tvalue"].as_array().unwrap() {
        let number = case["one_minus_num"].as_str().unwrap();
        let number = u64::from_str_radix(&number[2..], 16).unwrap() as f64;
        let share = 1.0 - number * 2f64.powi(case["one_minus_exp2"].as_i64().unwrap() as i32);
        let whole = Threshold::of_probability(share, 14).unwrap();
        assert_eq!(whole.text(), case["tvalue"].as_str().unwrap(), "{case}");
        assert_eq!(whole.probability(), share);
        for rounded in case["rounded"].as_array().unwrap() {
            let rounded = rounded.as_str().unwrap();
            let leading = rounded.bytes().take_while(|&byte| byte == b'0').count();
            let precision = (rounded.len() - leading).max(1);
            let threshold = Threshold::of_probability(share, precision).unwrap();
            let wanted = rounded.trim_end_matches('0');
            let wanted = if wanted.is_empty() { "0" } else { wanted };
            assert_eq!(threshold.text(), wanted, "{case} {rounded} {precision}");
        }
    }
    let third = Threshold::of_probability(1.0 / 3.0, 14).unwrap();
    assert_eq!(third.text(), fixture["one_third_full_precision"].as_str().unwrap());
    let quarter = Threshold::read("c").unwrap();
    assert_eq!(quarter.probability(), fixture["tvalue_c_probability"].as_f64().unwrap());
    for case in fixture["should_sample"].as_array().unwrap() {
        let randomness = match case["rvalue"].as_str() {
            Some(text) => Randomness::read(text).unwrap(),
            None => Randomness::of_trace(&id(case["trace_id"].as_str().unwrap())),
        };
        let threshold = Threshold::read(case["tvalue"].as_str().unwrap()).unwrap();
        assert_eq!(threshold.samples(randomness), case["sampled"].as_bool().unwrap(), "{case}");
    }
    for share in [0.0, -1.0, 1.1, super::SMALLEST / 2.0, f64::NAN] {
        assert_eq!(Threshold::of_probability(share, 4), None, "{share}");
    }
    assert_eq!(Threshold::NEVER.text(), "");
    assert!(!Threshold::NEVER.samples(Randomness::HIGHEST));
}

#[test]
fn hash_seed_says_its_threshold() {
    let fixture = fixture();
    let table = &fixture["hash"]["hash_seed_mode_tvalue_precision4"];
    for (percent, tvalue) in table.as_object().unwrap() {
        let settings = ProbabilisticSampler {
            sampling_percentage: percent.parse().unwrap(),
            ..ProbabilisticSampler::default()
        };
        let kept = (1..200u128).find_map(|number| {
            let trace_id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let span = Span { trace_id: trace_id.to_be_bytes(), ..Span::default() };
            through(&settings, span)
        });
        let state = kept.unwrap().trace_state;
        let said = state.strip_prefix("ot=rv:").and_then(|text| text.split_once(";th:")).unwrap();
        assert_eq!(said.1, tvalue.as_str().unwrap(), "{percent}");
        assert_eq!(said.0.len(), 14);
    }
}

fn mode(case: &Json) -> Mode {
    match case["mode"].as_str() {
        Some("equalizing") => Mode::Equalizing,
        Some("proportional") => Mode::Proportional,
        _ => Mode::HashSeed,
    }
}

#[test]
fn spans_are_sampled_and_marked_as_by_the_collector() {
    for case in fixture()["tracestate"].as_array().unwrap() {
        let settings = ProbabilisticSampler {
            sampling_percentage: case["sampling_percentage"].as_f64().unwrap() as f32,
            sampling_precision: case["sampling_precision"].as_u64().unwrap() as usize,
            mode: mode(case),
            // The cases were written without the default.
            fail_closed: case["fail_closed"].as_bool().unwrap_or(false),
            ..ProbabilisticSampler::default()
        };
        let mut span = Span {
            trace_id: id(case["trace_id"].as_str().unwrap()),
            trace_state: case["tracestate_in"].as_str().unwrap().into(),
            ..Span::default()
        };
        if let Some(priority) = case["sampling.priority"].as_i64() {
            span.attributes.set("sampling.priority", priority);
        }
        let left = through(&settings, span).map(|span| span.trace_state.to_string());
        assert_eq!(left.is_some(), case["sampled"].as_bool().unwrap(), "{case}");
        assert_eq!(left.as_deref(), case["tracestate_out"].as_str(), "{case}");
        if let Some(text) = left {
            let threshold = TraceState::read(&text).0.threshold().unwrap();
            let count = case["adjusted_count"].as_f64().unwrap();
            let told = 1.0 / threshold.probability();
            // The table rounds what a precision makes of it.
            assert!((told - count).abs() <= count * 0.01, "{case} {told}");
        }
    }
}

#[test]
fn what_cannot_be_decided_goes_by_fail_closed() {
    let fixture = fixture();
    for case in fixture["errors"].as_array().unwrap() {
        for mode in [Mode::Equalizing, Mode::Proportional] {
            for fail_closed in [true, false] {
                let settings = ProbabilisticSampler {
                    sampling_percentage: 100.0,
                    mode,
                    fail_closed,
                    ..ProbabilisticSampler::default()
                };
                let span = Span {
                    trace_id: id(case["trace_id"].as_str().unwrap()),
                    trace_state: case["tracestate_in"].as_str().unwrap().into(),
                    ..Span::default()
                };
                assert_eq!(through(&settings, span).is_some(), !fail_closed, "{case} {mode:?}");
            }
        }
    }
    for case in fixture["empty_trace_id"].as_array().unwrap() {
        for mode in [Mode::HashSeed, Mode::Equalizing, Mode::Proportional] {
            let settings = ProbabilisticSampler {
                sampling_percentage: case["pct"].as_f64().unwrap() as f32,
                fail_closed: case["fail_closed"].as_bool().unwrap(),
                mode,
                ..ProbabilisticSampler::default()
            };
            let left = through(&settings, Span::default());
            assert_eq!(left.is_some(), case["sampled"].as_bool().unwrap(), "{case} {mode:?}");
        }
    }
    // A span that has been sampled by others is left alone by the hash.
    let settings = ProbabilisticSampler {
        sampling_percentage: 100.0,
        fail_closed: false,
        ..ProbabilisticSampler::default()
    };
    for state in ["ot=th:8", "ot=rv:abababababab00", "no state"] {
        let span = Span { trace_id: [1; 16], trace_state: state.into(), ..Span::default() };
        assert_eq!(through(&settings, span).unwrap().trace_state, state);
    }
}

#[test]
fn priorities_of_spans_are_numbers_or_their_texts() {
    let settings = |percent| ProbabilisticSampler {
        sampling_percentage: percent,
        ..ProbabilisticSampler::default()
    };
    for (priority, forced) in [
        (Value::Int(1), Some(true)),
        (Value::Int(0), Some(false)),
        (Value::Int(-1), None),
        (Value::Double(0.5), Some(true)),
        (Value::Double(0.0), Some(false)),
        (Value::from("2"), Some(true)),
        (Value::from("0.0"), Some(false)),
        (Value::from("no"), None),
        (Value::Bool(true), None),
    ] {
        for (percent, otherwise) in [(0.0, false), (100.0, true)] {
            let mut span = Span { trace_id: [7; 16], ..Span::default() };
            span.attributes.set("sampling.priority", priority.clone());
            let left = through(&settings(percent), span).is_some();
            assert_eq!(left, forced.unwrap_or(otherwise), "{priority:?} {percent}");
        }
    }
}

/// The Collector's `TestLogsSampling`: how many of its hundred records are left.
#[test]
fn log_records_are_sampled_as_by_the_collector() {
    let record = |number: u8| {
        let mut trace_id = [0; 16];
        trace_id[8..].fill(number);
        let mut record = LogRecord { trace_id, ..LogRecord::default() };
        let random = i64::from(fnv32([&123u32.to_le_bytes(), &trace_id]));
        record.attributes.set("rando", random);
        if number.is_multiple_of(2) {
            record.attributes.set("foo", Value::Bytes(trace_id.to_vec().into()));
            let hex: String = trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
            // The Collector's text of no trace id is empty.
            record.attributes.set("bar", if number == 0 { String::new() } else { hex });
        }
        if number.is_multiple_of(4) {
            record.attributes.set("priority", 100.0);
        }
        record
    };
    let (by_id, by_record) = (AttributeSource::TraceId, AttributeSource::Record);
    for (percent, source, from, priority, fail_closed, expected) in [
        (100.0, by_id, "", "", false, 100),
        (0.0, by_id, "", "", true, 0),
        (50.0, by_id, "", "", true, 45),
        (0.0, by_record, "foo", "", false, 0),
        (100.0, by_record, "foo", "", false, 100),
        (50.0, by_record, "foo", "", true, 23),
        (50.0, by_record, "bar", "", true, 29),
        (0.0, by_record, "rando", "priority", false, 25),
        (50.0, by_record, "rando", "priority", false, 64),
        (100.0, by_record, "rando", "priority", false, 100),
        (0.0, by_id, "", "priority", false, 25),
        (100.0, by_id, "", "priority", false, 100),
        (0.0, by_record, "foo", "priority", false, 25),
    ] {
        let settings = ProbabilisticSampler {
            sampling_percentage: percent,
            attribute_source: source,
            from_attribute: from.to_owned(),
            sampling_priority: priority.to_owned(),
            fail_closed,
            ..ProbabilisticSampler::default()
        };
        let left = (0..100).filter(|&number| through(&settings, record(number)).is_some()).count();
        assert_eq!(left, expected, "{settings:?}");
    }
}

/// Randomness and threshold that log records say and are given.
#[test]
fn log_records_say_what_they_stand_for() {
    let settings = |percent, mode| ProbabilisticSampler {
        sampling_percentage: percent,
        mode,
        ..ProbabilisticSampler::default()
    };
    let trace_id = id("fefefefefefefefefe80000000000000");
    for (settings, randomness, threshold, expected) in [
        (settings(50.0, Mode::Proportional), "", "", Some("8")),
        (settings(49.0, Mode::Proportional), "", "", None),
        (settings(50.0, Mode::Equalizing), "c0000000000000", "8", Some("8")),
        (settings(50.0, Mode::Proportional), "c0000000000000", "8", Some("c")),
        (settings(50.0, Mode::Proportional), "a0000000000000", "8", None),
        // It should not be here.
        (settings(100.0, Mode::Proportional), "70000000000000", "8", None),
        (settings(100.0, Mode::Equalizing), "7", "", None),
    ] {
        let mut record = LogRecord { trace_id, ..LogRecord::default() };
        for (key, value) in [("sampling.randomness", randomness), ("sampling.threshold", threshold)]
        {
            if !value.is_empty() {
                record.attributes.set(key, value);
            }
        }
        let left = through(&settings, record);
        let said = left.as_ref().and_then(|it| it.attributes.get("sampling.threshold")?.text());
        assert_eq!(said, expected, "{settings:?} {randomness} {threshold}");
    }
    let record = LogRecord { trace_id, ..LogRecord::default() };
    let left = through(&settings(100.0, Mode::HashSeed), record).unwrap();
    assert_eq!(left.attributes.get("sampling.threshold"), Some(&"0".into()));
    assert_eq!(left.attributes.get("sampling.randomness").unwrap().text().unwrap().len(), 14);
}

#[test]
fn trace_states_are_read_whole_or_said_to_be_none() {
    let many = |count: usize| vec!["a=b"; count].join(",");
    for (text, sound, written) in [
        ("", true, ""),
        ("a=b", true, "a=b"),
        (" a=b , ,\tot=th:8;x:y ,c@d=e", true, "ot=th:8;x:y,a=b,c@d=e"),
        ("ot=th:8;rv:01020304050607", true, "ot=rv:01020304050607;th:8"),
        ("ot=rv:1;th:8,a=b", false, "ot=th:8,a=b"),
        ("ot=", false, ""),
        ("ot=a", false, ""),
        ("ot=th:8;", false, ""),
        ("ot=TH:8,a=b", false, "a=b"),
        ("A=b", false, ""),
        ("a", false, ""),
        ("a=", false, ""),
        ("1@2=c", false, ""),
        ("1@a=c", true, "1@a=c"),
        ("a=b=c", false, ""),
        ("a=\u{e9}", false, ""),
        (&many(31), true, &many(31)),
        (&format!("a={}", "b".repeat(256)), true, &format!("a={}", "b".repeat(256))),
        (&format!("a={}", "b".repeat(257)), false, ""),
        (&format!("a@{}=b", "c".repeat(15)), false, ""),
        (&"a=b,".repeat(300), false, ""),
    ] {
        let (state, read) = TraceState::read(text);
        assert_eq!(read.is_ok(), sound, "{text}: {read:?}");
        assert_eq!(state.text(), written, "{text}");
    }
    assert!(TraceState::read(&many(32)).1.is_err());
    for (text, key, value) in [
        ("a=1,b=2", "b", Some("2")),
        ("a=1,b=2", "c", None),
        ("a=1,a=2", "a", None),
        ("a=1,B=2", "a", None),
        ("", "a", None),
    ] {
        assert_eq!(TraceState::member(text, key), value, "{text} {key}");
    }
}
