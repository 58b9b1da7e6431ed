//! The files of `config/` against the types and against a JSON Schema validator that is not ours, and
//! `tap config` as a user has it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tap_userspace::config::{
    file::Config,
    processors::{Batch, Filter, Processor},
    schema, show,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|error| panic!("{error}"))
}

fn examples() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join("examples")).unwrap();
    let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(paths.len() >= 5, "{paths:?}");
    paths
}

/// The annotated file with what its comments offer (exporters, processors, service) as if written.
fn uncommented() -> String {
    let text = read(folder().join("tap.yaml"));
    let mut lines = Vec::new();
    let (mut block, mut service) = (false, false);
    for line in text.lines() {
        service |= line == "# service:";
        let empty = ["exporters: {}", "processors: {}"].contains(&line);
        block = empty || block && line.starts_with("  #");
        lines.push(match line.strip_prefix("  # ") {
            _ if empty => line.trim_end_matches(" {}").to_owned(),
            Some(rest) if block => format!("  {rest}"),
            _ if service => line.trim_start_matches("# ").to_owned(),
            _ => line.to_owned(),
        });
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_schema_that_is_kept_is_that_of_the_types() {
    let path = folder().join("tap.schema.json");
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == schema::json(),
        "{} is not current: `tap config schema > config/tap.schema.json`",
        path.display()
    );
}

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&schema::json()).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn told(validator: &jsonschema::Validator, yaml: &str) -> Vec<String> {
    let value: Value = serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let value = if value.is_null() { serde_json::json!({}) } else { value };
    let errors = validator.iter_errors(&value);
    errors.map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn files_hold_to_the_schema() {
    let validator = validator();
    let shown = show::yaml(&Config::default()).unwrap();
    let files = [read(folder().join("tap.yaml")), uncommented(), shown];
    for text in files.into_iter().chain(examples().iter().map(read)) {
        assert_eq!(told(&validator, &text), [""; 0], "{text}");
    }
}

/// What the reader refuses of one key, the schema refuses as well.
#[test]
fn the_schema_knows_what_is_wrong() {
    let validator = validator();
    for wrong in [
        "captur: {}",
        "capture: { direction: both }",
        "capture: { include: [{ port: 70000 }] }",
        "capture: { include: [{ port: a }] }",
        "connection: { max_age: 10 }",
        "connection: { max_age: 10 days }",
        "connection: { logs: 1 }",
        "rings: { life: 1TiB }",
        "exporters: { zipkin: {} }",
        "exporters: { otlp: { endpont: x } }",
        "exporters: { otlp: { compression: snappy } }",
        "exporters: { otlp: { retry_on_failure: { multiplier: -1 } } }",
        "exporters: { file: { path: /x, flush_interval: 5 } }",
        "processors: { filter: { traces: { spans: [] } } }",
        "processors: { batch: { timeout: soon } }",
        "service: { pipelines: { trace: {} } }",
        "http_capture: { level: all }",
        "http_capture: { store: { type: ftp } }",
        "resource: { detectors: [vax] }",
    ] {
        assert!(!told(&validator, wrong).is_empty(), "{wrong}");
        assert!(Config::parse(wrong).is_err(), "{wrong}");
    }
}

/// Names of keys below a schema, its references followed.
fn names(schema: &Value, all: &Value, seen: &mut BTreeSet<String>, found: &mut BTreeSet<String>) {
    let Some(object) = schema.as_object() else { return };
    if let Some(reference) = object.get("$ref").and_then(Value::as_str)
        && seen.insert(reference.to_owned())
    {
        let pointer = reference.trim_start_matches('#');
        names(all.pointer(pointer).unwrap(), all, seen, found);
    }
    if let Some(properties) = object.get("properties").and_then(Value::as_object) {
        for (name, below) in properties {
            found.insert(name.clone());
            names(below, all, seen, found);
        }
    }
    for key in ["patternProperties", "additionalProperties", "items"] {
        match object.get(key) {
            Some(Value::Object(below)) if key == "patternProperties" => {
                below.values().for_each(|below| names(below, all, seen, found));
            }
            Some(below) => names(below, all, seen, found),
            None => {}
        }
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(Value::Array(list)) = object.get(key) {
            list.iter().for_each(|below| names(below, all, seen, found));
        }
    }
}

/// Keys of a document, however deep.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found.insert(key.clone());
                keys(value, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_annotated_file_has_every_key_at_its_default() {
    let text = uncommented();
    let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for (_, processor) in config.processors.iter() {
        match processor {
            Processor::Batch(batch) => assert_eq!(*batch, Batch::default()),
            Processor::Filter(filter) => assert_eq!(**filter, Filter::default()),
            // These do nothing unless they are told what: theirs are examples.
            _ => {}
        }
    }
    let schema: Value = serde_json::from_str(&schema::json()).unwrap();
    let mut wanted = BTreeSet::new();
    names(&schema, &schema, &mut BTreeSet::new(), &mut wanted);
    assert!(wanted.len() > 80, "{wanted:?}");
    let mut there = BTreeSet::new();
    keys(&serde_yaml::from_str(&text).unwrap(), &mut there);
    // Of rules and stores, and of the same as text, comments tell.
    let comments = text.lines().filter_map(|line| line.split_once('#')).map(|(_, it)| it);
    let word = |c: char| !c.is_alphanumeric() && c != '_';
    let told: BTreeSet<&str> = comments.flat_map(|comment| comment.split(word)).collect();
    let missing: Vec<_> = wanted
        .iter()
        .filter(|name| !there.contains(*name) && !told.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "config/tap.yaml lacks {missing:?}");
}

#[test]
fn examples_can_be_used() {
    for path in examples() {
        let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(config, Config::default(), "{}", path.display());
        let output = tap(&["config", "validate", path.to_str().unwrap()], &[]);
        assert!(output.status.success(), "{}", text(&output));
    }
}

/// Runs tap with nothing in its environment but `variables`.
fn tap(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tap"));
    command.args(arguments).env_clear().envs(variables.iter().copied());
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{}\n{out}\n{err}", output.status)
}

#[test]
fn validate_tells_every_mistake_with_its_place() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("tap.yaml");
    fs::write(
        &path,
        "capture:\n  direction: both\n  include: [{ port: 0 }, { port: 1 }, { cidr: x }]\n\
         connection: { max_age: '${env:AGE}', logs: 2 }\nexporter: {}\n\
         exporters: { otlp: { timeout: 7, headers: { authorization: [\"${env:TOKEN}\"] } } }\n",
    )
    .unwrap();
    let file = path.to_str().unwrap();
    let variables = [("AGE", "hush-1"), ("TOKEN", "hush-2")];
    let output = tap(&["config", "validate", file], &variables);
    let all = text(&output);
    assert_eq!(output.status.code(), Some(2), "{all}");
    let out = String::from_utf8(output.stdout).unwrap();
    let places: Vec<&str> = out
        .lines()
        .map(|line| line.strip_prefix(file).unwrap().split(':').nth(1).unwrap())
        .collect();
    assert_eq!(places, ["2", "3", "3", "4", "4", "5", "6", "6"], "{all}");
    for words in [
        ":2:14: capture.direction: `both` is not known here, expected one of `all`, `ingress`, `egress`",
        ":3:21: capture.include[0].port: `0` is no port",
        ":4:24: connection.max_age: `${env:AGE}` is no duration",
        ":4:44: connection.logs: this is `2`, expected a boolean",
        ":5:1: unknown field `exporter`; did you mean `exporters`?",
    ] {
        assert!(out.contains(words), "{words}: {all}");
    }
    assert!(!all.contains("hush"), "{all}");
    // The same by another way, with the first mistake.
    let output = tap(&["--config", file, "run"], &variables);
    let all = text(&output);
    assert_eq!(output.status.code(), Some(2), "{all}");
    assert!(all.contains(":2:14: capture.direction") && all.contains("7 more"), "{all}");
}

#[test]
fn validate_says_what_would_be_done_and_what_will_hardly_be_meant() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("tap.yaml");
    fs::write(
        &path,
        "capture: { direction: egress, loopback: '${env:LOOPBACK}' }\n\
         http_capture: { level: full }\nprocessors: { filter/a: }\n\
         exporters: { otlp: {}, console: , file/b: { path: /x } }\nservice:\n  pipelines:\n    \
         traces: { exporters: [otlp] }\n    logs: { exporters: [console] }\n",
    )
    .unwrap();
    let file = path.to_str().unwrap();
    let output = tap(&["config", "validate", file], &[("OTEL_LOGS_EXPORTER", "none")]);
    let all = text(&output);
    assert!(output.status.success(), "{all}");
    for words in [
        ":1:41: capture.loopback: the variable LOOPBACK is not set",
        "warning: exporters.file/b: no pipeline leads to it",
        "warning: service.pipelines.logs: no exporter serves it, as OTEL_LOGS_EXPORTER",
        "warning: processors.filter/a: it is in no pipeline",
        "warning: http_capture: there is no `store`",
        ": valid\n",
        "traces   otlp (http/protobuf http://localhost:4318/v1/traces)",
        "logs     off",
    ] {
        assert!(all.contains(words), "{words}: {all}");
    }
    let output = tap(&["config", "validate"], &[]);
    assert!(text(&output).contains("traces   printed"), "{}", text(&output));
}

#[test]
fn what_is_shown_is_what_is_in_force_without_secrets() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("tap.yaml");
    fs::write(home.path().join("token"), "hush-1").unwrap();
    let token = home.path().join("token");
    let yaml = format!(
        "rings: {{ life: 1MiB }}\ntrace: {{ key: '${{env:KEY}}' }}\nexporters:\n  otlp/x:\n    \
         endpoint: http://${{env:HOST}}:4317\n    headers: {{ authorization: 'Bearer ${{file:{}}}' }}\n",
        token.display()
    );
    fs::write(&path, yaml).unwrap();
    let file = path.to_str().unwrap();
    let variables = [("KEY", "0123hush-2"), ("HOST", "gateway")];
    let output = tap(&["config", "show", file], &variables);
    let all = text(&output);
    assert!(output.status.success() && !all.contains("hush"), "{all}");
    let shown = String::from_utf8(output.stdout).unwrap();
    for words in [
        "life: 1MiB",
        "data: 16MiB",
        "key: (secret)",
        "authorization: (secret)",
        "http://gateway:4317",
    ] {
        assert!(shown.contains(words), "{words}: {all}");
    }
    fs::write(&path, &shown).unwrap();
    let again = tap(&["config", "show", file], &[]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), shown);
    let schema = tap(&["config", "schema"], &[]);
    assert_eq!(String::from_utf8(schema.stdout).unwrap(), schema::json());
}
