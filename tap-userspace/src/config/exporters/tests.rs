//! What the block `exporters` and the block `service` take, and where they say no.

use std::{path::Path, time::Duration};

use super::*;
use crate::config::{
    environment::{Compression, Protocol},
    exporters::otlp::{Encoding, TlsVersion},
    file::Config,
};

fn parse(text: &str) -> Result<Exporters, serde_yaml::Error> {
    serde_yaml::from_str(text)
}

fn otlp(text: &str) -> Otlp {
    parse(text).unwrap().environments().unwrap().clone()
}

#[test]
fn defaults_are_the_collectors() {
    let all = "otlp: { sending_queue: { enabled: true, num_consumers: 10, queue_size: 1000, \
               block_on_overflow: false, sizer: requests, storage: null, storage_limit: 1GiB, \
               batch: null }, tls: { insecure: false }, retry_on_failure: { enabled: true, \
               initial_interval: 5s, randomization_factor: 0.5, multiplier: 1.5, max_interval: 30s } }";
    let mut all = otlp(all);
    let queue = all.sending_queue.as_mut().unwrap();
    assert_eq!(queue.num_consumers.take(), Some(10));
    assert_eq!(all, otlp("otlp: { sending_queue: {}, tls: , retry_on_failure: {} }"));
    for nothing in ["{}", "~"] {
        assert_eq!(parse(nothing).unwrap(), Exporters::default(), "{nothing}");
    }
    for plain in ["otlp:\n", "otlp: {}"] {
        assert_eq!(otlp(plain), Otlp::default(), "{plain}");
    }
}

/// The lines of the annotated file from `from` to `to`, without their comment signs.
fn annotated(from: &str, to: &str) -> String {
    let file = include_str!("../../../../config/tap.yaml");
    let (_, block) = file.split_once(from).unwrap();
    let (block, _) = block.split_once(to).unwrap();
    let lines = block.lines().filter_map(|line| line.strip_prefix("  # "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_annotated_file_says_the_defaults() {
    let said = annotated("\n  # otlp:", "\n  # console:");
    let said: Otlp = serde_yaml::from_str(&said).unwrap();
    let mut plain = otlp("otlp: { sending_queue: { batch: {} }, retry_on_failure: {} }");
    plain.sending_queue.as_mut().unwrap().num_consumers = Some(10);
    plain.retry_on_failure.as_mut().unwrap().max_elapsed_time = Some(Duration::from_secs(300));
    plain.protocol = Some(Protocol::HttpProtobuf);
    plain.encoding = Some(Encoding::Proto);
    plain.compression = Some(Compression::None);
    plain.timeout = Some(Duration::from_secs(10));
    plain.headers = Some(Default::default());
    plain.tls.min_version = Some(TlsVersion::V12);
    assert_eq!(said, plain);
    let said: File = serde_yaml::from_str(&annotated("\n  # file/archive:", "\n\n")).unwrap();
    let path = "/var/lib/tap/telemetry.jsonl".into();
    assert_eq!(said, File { path, rotation: Some(Default::default()), ..File::default() });
    let whole = include_str!("../../../../config/tap.yaml");
    let (_, block) = whole.split_once("\n# service:").unwrap();
    let service: Vec<_> = block.lines().filter_map(|line| line.strip_prefix("#")).collect();
    let yaml = format!(
        "exporters: {{ otlp: , console: , file/archive: {{ path: /x }} }}\n\
         processors: {{ batch: , filter/noise: }}\nservice:\n{}",
        service.join("\n")
    );
    assert!(Config::parse(&yaml).unwrap().service.pipelines.is_some(), "{yaml}");
}

#[test]
fn a_block_of_the_contract_is_read() {
    let text = "otlp:\n  sending_queue: { queue_size: 10000, storage: /var/lib/tap/queue }\n  \
                retry_on_failure: { max_elapsed_time: 5m }\n";
    let otlp = otlp(text);
    let (queue, retry) = (otlp.sending_queue.unwrap(), otlp.retry_on_failure.unwrap());
    assert_eq!((queue.queue_size, queue.storage), (10_000, Some("/var/lib/tap/queue".into())));
    assert_eq!(retry.max_elapsed_time, Some(Duration::from_secs(300)));
    let contract = "exporters:\n  otlp: {}\n  otlp/tempo: { endpoint: http://tempo:4317, tls: { \
                    insecure: true }, sending_queue: { queue_size: 10000, storage: \
                    /var/lib/tap/queue }, retry_on_failure: { max_elapsed_time: 5m } }\nservice:\n  \
                    pipelines:\n    traces: { exporters: [otlp, otlp/tempo] }\n    metrics: { \
                    exporters: [otlp] }\n";
    let config = Config::parse(contract).unwrap();
    let names: Vec<_> = config.exporters.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["otlp", "otlp/tempo"]);
}

#[test]
fn every_key_is_read() {
    let text = "
otlp/all:
  protocol: http/json
  encoding: json
  endpoint: https://a:1
  traces_endpoint: https://a:2/t
  logs_endpoint: https://a:3/l
  metrics_endpoint: https://a:4/m
  headers: { authorization: Bearer x, x-tenant: 7 }
  compression: zstd
  timeout: 1m30s
  tls:
    insecure: true
    ca_file: /ca
    cert_pem: cert
    key_pem: key
    server_name_override: b.example
    min_version: 1.2
    max_version: '1.3'
  sending_queue:
    batch: { flush_timeout: 2s, min_size: 100, max_size: 200, sizer: items }
console:
debug/2: {}
file:
  path: /a/b.jsonl
  rotation: { max_megabytes: 1, max_days: 2, max_backups: 3, localtime: false }
  format: json
  compression: zstd
  append: true
  flush_interval: 5s
  create_directory: true
";
    let exporters = parse(text).unwrap();
    assert!(exporters.check().is_ok());
    let Some((_, Exporter::Otlp(otlp))) = exporters.find("otlp/all") else {
        panic!("{exporters:?}")
    };
    assert_eq!(
        (otlp.protocol(), otlp.compression),
        (Some(Protocol::HttpJson), Some(Compression::Zstd))
    );
    assert_eq!(otlp.timeout, Some(Duration::from_secs(90)));
    let flush_timeout = Duration::from_secs(2);
    let batch = Batch { flush_timeout, min_size: 100, max_size: 200, ..Batch::default() };
    assert_eq!(otlp.sending_queue.as_ref().unwrap().batch, Some(batch));
    assert_eq!(otlp.tls.server_name_override.as_deref(), Some("b.example"));
    assert_eq!(
        (otlp.tls.min_version, otlp.tls.max_version),
        (Some(TlsVersion::V12), Some(TlsVersion::V13))
    );
    let shown = format!("{otlp:?}");
    for secret in ["Bearer", "\"key\""] {
        assert!(!shown.contains(secret), "{shown}");
    }
    for console in ["console", "debug/2"] {
        assert_eq!(exporters.find(console).map(|(_, it)| it), Some(&Exporter::Console));
    }
    let Some((_, Exporter::File(file))) = exporters.find("file") else { panic!("{exporters:?}") };
    let rotation = file.rotation.unwrap();
    assert_eq!(
        (rotation.most_bytes(), rotation.most_age()),
        (1 << 20, Some(Duration::from_secs(172_800)))
    );
    assert_eq!(
        (file.path.as_path(), file.flush_interval),
        (Path::new("/a/b.jsonl"), Duration::from_secs(5))
    );
    assert!(file.compression.is_some() && file.create_directory);
}

/// Each with line and column of the mistake, and words of what is said.
#[test]
fn mistakes_are_told_with_their_place() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("tap.yaml");
    let mut wrong = Vec::new();
    for (text, place, words) in [
        // Of one key.
        ("exporters:\n  otlp:\n    sending_queue: { num_consumers: 0 }\n", "3:37", "no count"),
        ("exporters: { otlp: { sending_queue: { num_consumers: 5000 } } }", "1:54", "no count"),
        ("exporters: { otlp: { sending_queue: { queue_size: -1 } } }", "1:51", "no size"),
        ("exporters: { otlp: { sending_queue: { sizer: spans } } }", "1:46", "spans"),
        ("exporters: { otlp: { sending_queue: { storage: file_storage } } }", "1:48", "absolute"),
        ("exporters: { otlp: { sending_queue: { storage_limit: 1KiB } } }", "1:54", "1MiB"),
        (
            "exporters: { otlp: { sending_queue: { batch: { max_size: 1 } } } }",
            "1:58",
            "less than `min_size`",
        ),
        (
            "exporters: { otlp: { sending_queue: { batch: { sizer: bytes } } } }",
            "1:55",
            "write `items`",
        ),
        (
            "exporters: { otlp: { sending_queue: { wait_for_result: true } } }",
            "1:39",
            "nobody waits",
        ),
        (
            "exporters: { otlp: { retry_on_failure: { initial_interval: 5 } } }",
            "1:60",
            "no duration",
        ),
        (
            "exporters: { otlp: { retry_on_failure: { initial_interval: -5s } } }",
            "1:60",
            "no duration",
        ),
        (
            "exporters: { otlp: { retry_on_failure: { randomization_factor: 2 } } }",
            "1:64",
            "from 0 to 1",
        ),
        ("exporters: { otlp: { retry_on_failure: { multiplier: -1 } } }", "1:54", "negative"),
        ("exporters: { otlp: { retry_on_failure: { multiplier: .nan } } }", "1:54", "negative"),
        (
            "exporters: { otlp: { retry_on_failure: { max_elapsed_time: 1s } } }",
            "1:60",
            "`initial_interval`",
        ),
        (
            "exporters: { otlp: { retry_on_failure: { max_elapsed_time: 10s } } }",
            "1:60",
            "`max_interval`",
        ),
        ("exporters:\n  otlp:\n    endpoint: ftp://x\n", "3:15", "neither http nor https"),
        ("exporters: { otlp: { endpoint: 'http://u:secret@x' } }", "1:32", "(hidden)"),
        ("exporters: { otlp: { endpoint: 'http://x:99999' } }", "1:32", "no number"),
        ("exporters: { otlp: { endpoint: '' } }", "1:32", "no endpoint"),
        ("exporters: { otlp: { protocol: thrift } }", "1:32", "expected one of `grpc`"),
        ("exporters: { otlp: { compression: snappy } }", "1:35", "expected one of `none`"),
        ("exporters: { otlp: { timeout: 10 } }", "1:31", "no duration"),
        ("exporters: { otlp: { headers: { 'a b': c } } }", "1:33", "no name of a header"),
        ("exporters: { otlp: { headers: { a: \"b\\nc\" } } }", "1:36", "cannot be the value"),
        ("exporters: { otlp: { headers: [a] } }", "1:31", "a map of headers"),
        ("exporters: { otlp: { tls: { min_version: 1.1 } } }", "1:42", "\"1.2\" or \"1.3\""),
        (
            "exporters: { otlp: { tls: { server_name_override: 'a b' } } }",
            "1:51",
            "no name of a server",
        ),
        ("exporters: { file: { path: /x, format: proto } }", "1:40", "use `json`"),
        ("exporters: { file: { path: /x, format: xml } }", "1:40", "write json"),
        ("exporters: { file: { path: /x, compression: gzip } }", "1:45", "zstd or none"),
        ("exporters: { file: { path: /x, rotation: { localtime: true } } }", "1:55", "UTC"),
        (
            "exporters: { file: { path: /x, rotation: { max_days: -1 } } }",
            "1:54",
            "expected a whole number",
        ),
        (
            "http_capture: { retry_on_failure: { max_elapsed_time: 1s } }",
            "1:55",
            "`initial_interval`",
        ),
        // Keys that the Collector has, and keys that nobody has.
        ("exporters:\n  otlp:\n    balancer_name: round_robin\n", "3:5", "put a load balancer"),
        ("exporters: { otlp: { keepalive: { time: 1s } } }", "1:22", "pings"),
        ("exporters: { otlp: { auth: {} } }", "1:22", "`headers`"),
        ("exporters: { otlphttp/x: { proxy_url: 'http://p' } }", "1:28", "name the proxy"),
        ("exporters: { otlp/a.b: { tls: { insecure_skip_verify: true } } }", "1:33", "`ca_file`"),
        ("exporters: { otlp: { tls: { reload_interval: 1h } } }", "1:29", "each new connection"),
        ("exporters: { debug: { verbosity: detailed } }", "1:23", "as a line of JSON"),
        ("exporters: { file: { group_by: {} } }", "1:22", "one file"),
        ("exporters: { otlp: { endpont: x } }", "1:22", "did you mean `endpoint`?"),
        ("exporters: { otlp: { tls: { cafile: x } } }", "1:29", "did you mean `ca_file`?"),
        (
            "exporters: { otlp: { sending_queue: { qeue_size: 1 } } }",
            "1:39",
            "did you mean `queue_size`?",
        ),
        ("exporters: { otlp: { qqq: 1 } }", "1:22", "unknown field `qqq`"),
        ("receivers: {}\n", "1:1", "tap is the receiver"),
        ("processors: { batch: { size: 1 } }\n", "1:24", "unknown field `size`"),
        ("processors: { batches: {} }\n", "1:15", "did you mean `batch`?"),
        ("processors: { batch: {}, batch: {} }\n", "1:26", "there twice"),
        ("processors: { span: {} }\n", "1:15", "use `transform`"),
        ("processors: { filter: { error_mode: propagate } }\n", "1:37", "`ignore` or `silent`"),
        (
            "processors: { filter: { traces: { span: ['nam == 1'] } } }\n",
            "1:42",
            "`nam` is no variable",
        ),
        (
            "processors: { filter: { logs: { log_record: ['true', 'body =='] } } }\n",
            "1:54",
            "is no CEL expression",
        ),
        ("service: { telemetry: {} }\n", "1:12", "--log-level"),
        ("exporter: {}\n", "1:1", "did you mean `exporters`?"),
        // Names.
        (
            "exporters:\n  otlp: {}\n  zipkin: {}\n",
            "3:3",
            "no exporter of type `zipkin`: send to a Collector",
        ),
        ("exporters: { prometheusremotewrite: {} }", "1:14", "send to a Collector"),
        ("exporters: { prometheus/x: {} }", "1:14", "/metrics"),
        ("exporters: { oltp: {} }", "1:14", "did you mean `otlp`?"),
        ("exporters: { nothing: {} }", "1:14", "there are otlp, otlp_grpc"),
        ("exporters: { otlp/: {} }", "1:14", "no name"),
        ("exporters: { 'otlp/a b': {} }", "1:14", "no name"),
        ("exporters:\n  otlp: {}\n  otlp: {}\n", "3:3", "there twice"),
        ("exporters: [otlp]\n", "1:12", "a map of exporters"),
        // Of keys together.
        ("exporters:\n  otlp/x: { compression: gzip }\n", "2:11", "needs an `endpoint`"),
        ("exporters:\n  otlphttp:\n", "2:12", "needs an `endpoint`"),
        ("exporters: { otlphttp: { endpoint: 'x:4318' } }", "1:36", "no scheme"),
        ("exporters: { otlp: { endpoint: 'x:4318' } }", "1:32", "no scheme"),
        (
            "exporters: { otlphttp: { endpoint: 'http://x', protocol: grpc } }",
            "1:58",
            "speaks HTTP",
        ),
        ("exporters: { otlp_grpc: { endpoint: x, protocol: http/json } }", "1:50", "speaks grpc"),
        (
            "exporters: { otlp: { endpoint: x, encoding: json, protocol: grpc } }",
            "1:45",
            "one encoding",
        ),
        (
            "exporters: { otlp: { protocol: http/json, encoding: proto } }",
            "1:53",
            "another encoding",
        ),
        ("exporters: { otlp_grpc: { traces_endpoint: x } }", "1:44", "its own paths"),
        ("exporters: { otlp: { tls: { ca_file: a, ca_pem: b } } }", "1:49", "give one of them"),
        ("exporters: { otlp: { tls: { cert_file: a } } }", "1:40", "not without a `key_file`"),
        ("exporters: { otlp: { tls: { key_pem: a } } }", "1:38", "not without a `cert_file`"),
        ("exporters: { otlp: { tls: { min_version: 1.3, max_version: 1.2 } } }", "1:42", "higher"),
        ("exporters:\n  file:\n    compression: zstd\n", "3:5", "needs a `path`"),
        (
            "exporters: { file: { path: /x, append: false, rotation: {} } }",
            "1:40",
            "what is there stays",
        ),
        ("exporters: { file: { path: /x }, file/y: { path: /x } }", "1:50", "writes to /x already"),
        // Pipelines.
        (
            "service:\n  pipelines:\n    traces:\n      exporters: [otlp]\n",
            "4:19",
            "there are none",
        ),
        (
            "exporters: { otlp: {} }\nservice: { pipelines: { logs: { exporters: [otlp, oltp] } } }",
            "2:51",
            "did you mean `otlp`?",
        ),
        (
            "exporters: { otlp: {} }\nservice: { pipelines: { logs: { exporters: [otlp, otlp] } } }",
            "2:51",
            "in this pipeline already",
        ),
        (
            "exporters: { otlp: {} }\nservice: { pipelines: { logs: { exporters: [] } } }",
            "2:44",
            "needs an exporter",
        ),
        (
            "exporters: { otlp: {} }\nservice: { pipelines: { logs: {} } }",
            "2:31",
            "needs an exporter",
        ),
        (
            "exporters: { otlp: {} }\nservice:\n  pipelines:\n    metrics:\n",
            "4:13",
            "needs an exporter",
        ),
        (
            "exporters: { otlp: {} }\nservice: { pipelines: { logs: { exporters: [otlp], processors: [batch] } } }",
            "2:65",
            "`batch` is not among the `processors` of this file: there are none",
        ),
        (
            "exporters: { otlp: {} }\nprocessors: { groupbyattrs: {} }\nservice: { pipelines: { \
             metrics: { exporters: [otlp], processors: [groupbyattrs] } } }",
            "3:68",
            "`groupbyattrs` cannot be here",
        ),
        (
            "exporters: { otlp: {} }\nprocessors: { batch: {} }\nservice: { pipelines: { logs: { \
             exporters: [otlp], processors: [batch, batch] } } }",
            "3:72",
            "in this pipeline already",
        ),
        ("service: { pipelines: { traces/: { exporters: [otlp] } } }", "1:23", "traces/other"),
        ("service: { pipelines: { profiles: {} } }", "1:23", "there are traces, logs, metrics"),
        ("service: { pipelines: { traces: { receivers: [otlp] } } }", "1:35", "leave it out"),
        ("service: { pipelines: { trace: {} } }", "1:23", "did you mean `traces`?"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Config::load(&path).map(drop).unwrap_err().to_string();
        let told = error.strip_prefix(&format!("{}:", path.display())).unwrap_or(&error);
        if !(told.starts_with(&format!("{place}: ")) && told.contains(words)) {
            wrong.push(format!("{text} {place} {words}\n  {error}"));
        }
        assert!(!error.contains("secret"), "{error}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn processors_that_are_none_are_no_mistake() {
    let text = "exporters: { otlp: {} }\nservice: { pipelines: { traces: { processors: [], exporters: [otlp] } } }";
    assert!(Config::parse(text).is_ok());
    assert!(Config::parse("service:\n").unwrap().service.pipelines.is_none());
}
