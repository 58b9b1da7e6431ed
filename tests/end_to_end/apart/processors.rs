//! Pipelines with processors in a running daemon: what nginx has logged is what is kept or told to be
//! left out.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    programs::nginx::Nginx,
    stage::apart,
    tap::Launch,
    wait::{PATIENCE, until_true},
};

/// Each item of a file of OTLP's JSON lines: its scope's name and itself.
fn items(path: &Path, [of_resource, of_scope, of_item]: [&str; 3]) -> Result<Vec<(String, Value)>> {
    let each = |json: &Value, name: &str| json[name].as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let json: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        for scope in each(&json, of_resource).iter().flat_map(|it| each(it, of_scope)) {
            let name = scope["scope"]["name"].as_str().unwrap_or_default().to_owned();
            found.extend(each(&scope, of_item).into_iter().map(|item| (name.clone(), item)));
        }
    }
    Ok(found)
}

/// The value of an attribute, whatever its type.
fn attribute<'a>(item: &'a Value, key: &str) -> Option<&'a Value> {
    let of = |pair: &&Value| pair["key"] == key;
    let pair = item["attributes"].as_array()?.iter().find(of)?;
    pair["value"].as_object()?.values().next()
}

/// A request of a connection of its own, with an address of a mailbox in a header field.
fn get(url: &str) -> Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--output", "/dev/null", "--max-time", "10", "--user-agent"]);
    ensure!(curl.args(["ada@example.org", url]).status()?.success(), "curl {url}");
    Ok(())
}

#[test]
fn a_tail_sampler_a_filter_and_a_redaction_leave_what_they_should() {
    apart(|| {
        let nginx = Nginx::start()?;
        fs::write(nginx.root().join("small"), "small")?;
        fs::write(nginx.root().join("healthz"), "fine")?;
        let home = tempfile::tempdir()?;
        let file = home.path().join("out.jsonl");
        let port = nginx.http.port();
        let config = format!(
            r#"capture: {{ include: [{{ port: {port} }}] }}
http: {{ spans: true }}
processors:
  memory_limiter: {{ check_interval: 1s, limit_mib: 2000 }}
  filter/health: {{ logs: {{ log_record: ['attributes["url.path"] == "/healthz"'] }} }}
  redaction: {{ allow_all_keys: true, detect: [email], summary: info }}
  tail_sampling:
    decision_wait: 1s
    policies:
      - {{ name: failed, type: numeric_attribute, numeric_attribute: {{ key: http.response.status_code, min_value: 400, max_value: 599 }} }}
  attributes/site: {{ actions: [{{ key: site, value: a, action: insert }}] }}
exporters:
  file: {{ path: {path}, flush_interval: 100ms }}
service:
  pipelines:
    traces: {{ processors: [memory_limiter, tail_sampling, redaction, attributes/site], exporters: [file] }}
    logs: {{ processors: [memory_limiter, filter/health, tail_sampling, redaction], exporters: [file] }}
"#,
            path = file.display()
        );
        let tap = Launch::new().config(&config).start()?;
        let url = |path: &str| format!("http://{}/{path}", nginx.http);
        for _ in 0..20 {
            get(&url("small"))?;
        }
        for _ in 0..5 {
            get(&url("healthz"))?;
        }
        for _ in 0..4 {
            get(&url("none"))?;
        }
        let logged = nginx.told(nginx.http, 29)?;
        let failed = logged.iter().filter(|line| line.contains(" 404 ")).count() as u64;
        ensure!((logged.len(), failed) == (29, 4), "{logged:?}");
        // The decisions are made a second after, and the records of a trace wait for them.
        until_true("what is kept", Duration::from_secs(10).max(PATIENCE), || {
            let spans = items(&file, ["resourceSpans", "scopeSpans", "spans"]);
            let records = items(&file, ["resourceLogs", "scopeLogs", "logRecords"]);
            spans.is_ok_and(|it| it.len() >= 16) && records.is_ok_and(|it| it.len() >= 8)
        })?;
        let accounting = tap.stop()?.check()?;
        let book = |name: &str| {
            let book = &accounting.items[name];
            ["produced", "exported", "filtered", "sampled"].map(|term| book[term])
        };
        // Of each connection both ends, and of each end the exchange within.
        let spans = items(&file, ["resourceSpans", "scopeSpans", "spans"])?;
        let writes = spans.iter().filter(|(scope, _)| scope == "tap.eventstore").count() as u64;
        let [produced, exported, filtered, sampled] = book("traces/file");
        assert_eq!([produced - writes, exported - writes, filtered, sampled], [116, 16, 0, 100]);
        assert_eq!(book("logs/file"), [58, 8, 10, 40]);
        let spans: Vec<_> = spans.iter().filter(|(scope, _)| scope != "tap.eventstore").collect();
        assert_eq!(spans.len(), 16);
        let failed_ones = spans.iter().filter(|(scope, span)| {
            scope == "tap.http"
                && attribute(span, "http.response.status_code") == Some(&"404".into())
        });
        assert_eq!(failed_ones.count() as u64, 2 * failed);
        for (_, span) in &spans {
            assert_eq!(attribute(span, "site"), Some(&"a".into()), "{span}");
        }
        let records = items(&file, ["resourceLogs", "scopeLogs", "logRecords"])?;
        assert_eq!(records.len() as u64, 2 * failed);
        let text = fs::read_to_string(&file)?;
        assert!(!text.contains("ada@example.org"), "an address has left");
        assert!(text.contains("redaction.masked.count"));
        Ok(())
    });
}

#[test]
fn above_its_limit_memory_is_saved_and_what_is_refused_is_counted() {
    apart(|| {
        let nginx = Nginx::start()?;
        fs::write(nginx.root().join("small"), "small")?;
        let home = tempfile::tempdir()?;
        let port = nginx.http.port();
        // The daemon alone has more than this.
        let config = format!(
            "capture: {{ include: [{{ port: {port} }}] }}\n\
             processors: {{ memory_limiter: {{ check_interval: 100ms, limit_mib: 2, spike_limit_mib: 1 }} }}\n\
             exporters: {{ file: {{ path: {}/out.jsonl }} }}\n\
             service: {{ pipelines: {{ traces: {{ processors: [memory_limiter], exporters: [file] }}, \
             logs: {{ processors: [memory_limiter], exporters: [file] }} }} }}\n",
            home.path().display()
        );
        let tap = Launch::new().config(&config).start()?;
        let limited =
            || tap.metrics().is_ok_and(|it| it.sum("tap_policy_memory_limited", &[]) > 0.0);
        let url = format!("http://{}/small", nginx.http);
        until_true("the limiter to look", PATIENCE, || get(&url).is_ok() && limited())?;
        for _ in 0..10 {
            get(&url)?;
        }
        until_true("payload not to be looked at", PATIENCE, || {
            let shed = ["event=\"payload_shed\""];
            tap.metrics().is_ok_and(|it| it.count("tap_connection_events_total", &shed) > 0)
        })?;
        let accounting = tap.stop()?.check()?;
        assert!(accounting.items["traces/file"]["refused"] >= 20, "{accounting:?}");
        Ok(())
    });
}
